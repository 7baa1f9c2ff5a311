//! W3C trace context (<https://www.w3.org/TR/trace-context/>), as far as a run needs it. Pure.
//!
//! A run is one trace. Its record keeps the context that it hangs under: what its submission carried, else one that the planner began.
//! The id of the run's own span follows from the run's id, so that every process knows it without asking, and whoever ends the run can
//! write it.

use std::fmt;

use crate::id::RunId;

/// Which trace, and which span in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// The trace; never 0.
    pub(crate) trace: u128,
    /// The span; never 0.
    pub(crate) span: u64,
    /// Bit 0: somebody records it.
    pub(crate) flags: u8,
}

impl TraceContext {
    /// The bit of `flags` that says that somebody records the trace.
    pub(crate) const SAMPLED: u8 = 1;
    /// Bytes of a header of version 00.
    const LENGTH: usize = 55;

    /// Reads a `traceparent`; `None` when it is none, as the standard wants it treated.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let hex = |part: &str, length| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        // A later version may say more behind these four parts.
        let mut parts = header.splitn(5, '-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if !hex(version, 2) || version == "ff" || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
            return None;
        }
        if version == "00" && header.len() != Self::LENGTH {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()? & Self::SAMPLED;
        Some(Self { trace, span, flags })
    }

    /// The span of the run itself, in the trace that its record names.
    pub(crate) fn of_run(run: &RunId, stored: Self) -> Self {
        Self { span: run_span(run), ..stored }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// The id of a run's own span: FNV-1a of its id. It has to be the same in every version that works on the run.
pub(crate) fn run_span(run: &RunId) -> u64 {
    let hash = run
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash.max(1)
}

/// The id of the trace that a `traceparent` names.
pub(super) fn trace_id(traceparent: &str) -> Option<String> {
    TraceContext::parse(traceparent).map(|context| format!("{:032x}", context.trace))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_the_standard_takes_is_taken() {
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes-then";
        for (header, again) in [
            (GOOD, GOOD),
            (later, GOOD),
            (
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            (
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            ),
        ] {
            assert_eq!(TraceContext::parse(header).map(|context| context.to_string()).as_deref(), Some(again), "{header}");
        }
    }

    #[test]
    fn what_is_no_trace_context_is_left_alone() {
        for header in [
            "",
            "hello\r\nworld",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(header), None, "{header}");
        }
    }

    #[test]
    fn a_runs_span_is_its_own_and_stays() {
        let run = |id: &str| RunId::parse(id).unwrap();
        let stored = TraceContext::parse(GOOD).unwrap();
        let one = TraceContext::of_run(&run("r1"), stored);
        // A value that other processes count on: FNV-1a of "r1".
        assert_eq!(one.to_string(), "00-0af7651916cd43dd8448eb211c80319c-08dc8307b57be76c-01");
        assert_eq!(TraceContext::of_run(&run("r1"), one), one, "of its own context as of what it hangs under");
        assert_ne!(run_span(&run("r1")), run_span(&run("r2")));
    }
}
