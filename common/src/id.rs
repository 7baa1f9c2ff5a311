//! Names of things: runs, steps, and the slots of a run that one process at a time may work on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::RUN_ID_BYTES_MAX;

/// The name of a run, chosen by its submitter or stamped by the planner.
///
/// 1 to 128 characters of `[A-Za-z0-9._:-]`: nothing that could break out of the Redis hash tag `{id}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct RunId(#[schemars(regex(pattern = r"^[A-Za-z0-9._:-]{1,128}$"))] String);

/// Why a text is not a run id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("run_id must be 1 to {RUN_ID_BYTES_MAX} characters of A-Z a-z 0-9 . _ : -, got {got:?}")]
pub struct BadRunId {
    got: String,
}

impl RunId {
    /// Checks `text` and takes it as a run id.
    pub fn parse(text: &str) -> Result<Self, BadRunId> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._:-".contains(&c);
        if text.is_empty() || text.len() > RUN_ID_BYTES_MAX || !text.bytes().all(allowed) {
            return Err(BadRunId { got: text.chars().take(40).collect() });
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The number of a step in its plan: positive, unique within the run over all revisions of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct StepNumber(pub u32);

impl fmt::Display for StepNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A part of a run that at most one process works on at a time, under a lease and a fencing epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// Making the plan; held by a planner.
    Plan,
    /// Running one step; held by an executor.
    Step(StepNumber),
    /// Writing the answer; held by a summarizer.
    Summary,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Plan => f.write_str("plan"),
            Slot::Step(number) => write!(f, "{number}"),
            Slot::Summary => f.write_str("summary"),
        }
    }
}

impl Slot {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "plan" => Some(Slot::Plan),
            "summary" => Some(Slot::Summary),
            number => number.parse().ok().map(|n| Slot::Step(StepNumber(n))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_cannot_break_keys() {
        let long = "x".repeat(129);
        for bad in ["", "a b", "a{b", "a}b", "a*", "../x", "a\n", "a\0", "ü", &long] {
            assert!(RunId::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "A.b_c:d-9", &"x".repeat(128)] {
            assert!(RunId::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn slots_read_back() {
        for slot in [Slot::Plan, Slot::Summary, Slot::Step(StepNumber(7))] {
            assert_eq!(Slot::parse(&slot.to_string()), Some(slot));
        }
    }
}
