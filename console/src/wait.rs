//! Why something does not go on, and what a plan will take, in words. Pure.

use common::id::StepNumber;
use common::quote::Quote;
use common::run::RunWait;
use common::wait::Wait;

use crate::text::{count, list, moment, one_line, rough};

/// Steps that are named; the rest are counted.
const STEPS_NAMED: usize = 8;

/// What is waited for, at `now_ms`.
pub(crate) fn waiting(wait: &Wait, now_ms: u64) -> String {
    match wait {
        Wait::Plan => "waiting for the plan, which is being made".to_owned(),
        Wait::Steps { steps: on } => format!("waiting for {}", steps(on)),
        Wait::Replan { after } if after.is_empty() => "waiting for the planner to look at the plan again".to_owned(),
        Wait::Replan { after } => format!("waiting for the planner to look at the plan again after {}", steps(after)),
        Wait::Window { in_flight, window } => {
            format!("waiting for a slot of the run's window ({in_flight} of {window} in flight)")
        }
        Wait::Dispatch { since_ms } => {
            format!("ready since {} ({}), a planner publishes it next", clock(*since_ms, now_ms), ago(*since_ms, now_ms))
        }
        Wait::Retry { attempt, at_ms } => format!("waiting for attempt {attempt} {}", at(*at_ms, now_ms)),
        Wait::RateLimit { at_ms } => format!("waiting for a rate limit to pass {}", at(*at_ms, now_ms)),
        Wait::Claim { since_ms, again_at_ms } => {
            format!("published {} ago, not yet claimed; published again {}", ago(*since_ms, now_ms), at(*again_at_ms, now_ms))
        }
        Wait::Running { worker, since_ms, lease_until_ms } => format!(
            "running on {} since {} ({}), lease until {}",
            one_line(worker),
            clock(*since_ms, now_ms),
            ago(*since_ms, now_ms),
            clock(*lease_until_ms, now_ms)
        ),
        Wait::Resume { by } => format!("waiting for somebody to resume the run, paused by {}", one_line(by)),
        Wait::Approval { otherwise, until_ms } => format!("waiting for approval until {}", limit(otherwise, *until_ms, now_ms)),
    }
}

/// The same with what it is that waits: a cell each.
pub(crate) fn waiting_of_run(wait: &RunWait, now_ms: u64) -> [String; 2] {
    let what = match wait.slot.as_str() {
        "summary" => "answer",
        slot => slot,
    };
    [what.to_owned(), waiting(&wait.wait, now_ms)]
}

/// How long approval is waited for, and what is done then: `12:00:00 UTC (in 24 h 00 min), then cancel`.
pub(crate) fn limit(otherwise: &str, until_ms: u64, now_ms: u64) -> String {
    let left = left(until_ms, now_ms);
    let then = one_line(otherwise);
    let then = if then.is_empty() { then } else { format!(", then {then}") };
    format!("{} ({left}){then}", clock(until_ms, now_ms))
}

/// What a plan will take, on one line.
pub(crate) fn quote(quote: &Quote) -> String {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let effects = if quote.tools_with_side_effects.is_empty() {
        "no side effects".to_owned()
    } else {
        format!("side effects by {}", one_line(&list(&quote.tools_with_side_effects)))
    };
    let mut path: Vec<String> = quote.critical_path.iter().take(STEPS_NAMED).map(ToString::to_string).collect();
    if quote.critical_path.len() > STEPS_NAMED {
        path.push(format!("… ({})", count(quote.critical_path.len(), "step")));
    }
    format!(
        "{}, about {}, {} and {}; {effects}; critical path {}",
        count(quote.steps, "step"),
        count(size(quote.model_calls), "model call"),
        count(size(quote.tokens), "token"),
        count(size(quote.tool_calls), "tool call"),
        path.join(" → ")
    )
}

/// `step 2`, `steps 2 and 3`.
pub(crate) fn steps(steps: &[StepNumber]) -> String {
    let mut names: Vec<String> = steps.iter().take(STEPS_NAMED).map(ToString::to_string).collect();
    if steps.len() > STEPS_NAMED {
        names.push(format!("{} more", steps.len() - STEPS_NAMED));
    }
    format!("{} {}", if steps.len() == 1 { "step" } else { "steps" }, list(&names))
}

/// A time of day, with its date unless that is today's.
fn clock(ms: u64, now_ms: u64) -> String {
    let (then, now) = (moment(ms), moment(now_ms));
    match (then.split_once(' '), now.split_once(' ')) {
        (Some((day, time)), Some((today, _))) if day == today => format!("{time} UTC"),
        _another_day => format!("{then} UTC"),
    }
}

fn ago(ms: u64, now_ms: u64) -> String {
    rough(now_ms.saturating_sub(ms))
}

fn left(ms: u64, now_ms: u64) -> String {
    if ms > now_ms { format!("in {}", rough(ms - now_ms)) } else { "due".to_owned() }
}

fn at(ms: u64, now_ms: u64) -> String {
    format!("at {} ({})", clock(ms, now_ms), left(ms, now_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-03 04:29:31 UTC.
    const NOW_MS: u64 = 1_793_680_171_000;

    fn check(wait: &Wait, text: &str) {
        assert_eq!(waiting(wait, NOW_MS), text);
    }

    fn numbers(numbers: impl IntoIterator<Item = u32>) -> Vec<StepNumber> {
        numbers.into_iter().map(StepNumber).collect()
    }

    #[test]
    fn every_wait_has_its_words() {
        check(&Wait::Plan, "waiting for the plan, which is being made");
        check(&Wait::Steps { steps: numbers([2]) }, "waiting for step 2");
        check(&Wait::Steps { steps: numbers([2, 3]) }, "waiting for steps 2 and 3");
        check(&Wait::Steps { steps: numbers(1..=10) }, "waiting for steps 1, 2, 3, 4, 5, 6, 7, 8 and 2 more");
        check(&Wait::Replan { after: numbers([2]) }, "waiting for the planner to look at the plan again after step 2");
        check(&Wait::Replan { after: numbers([]) }, "waiting for the planner to look at the plan again");
        check(&Wait::Window { in_flight: 2, window: 2 }, "waiting for a slot of the run's window (2 of 2 in flight)");
        check(&Wait::Dispatch { since_ms: NOW_MS - 2_000 }, "ready since 04:29:29 UTC (2 s), a planner publishes it next");
        check(&Wait::Retry { attempt: 2, at_ms: NOW_MS + 3_000 }, "waiting for attempt 2 at 04:29:34 UTC (in 3 s)");
        check(&Wait::Retry { attempt: 2, at_ms: NOW_MS }, "waiting for attempt 2 at 04:29:31 UTC (due)");
        check(&Wait::RateLimit { at_ms: NOW_MS + 90_000 }, "waiting for a rate limit to pass at 04:31:01 UTC (in 1 min 30 s)");
        check(
            &Wait::Claim { since_ms: NOW_MS - 3_900, again_at_ms: NOW_MS + 57_000 },
            "published 3 s ago, not yet claimed; published again at 04:30:28 UTC (in 57 s)",
        );
        check(
            &Wait::Running { worker: "executor-1\x1b[2J".into(), since_ms: NOW_MS - 12_000, lease_until_ms: NOW_MS + 20_000 },
            "running on executor-1 since 04:29:19 UTC (12 s), lease until 04:29:51 UTC",
        );
        check(&Wait::Resume { by: "alice".into() }, "waiting for somebody to resume the run, paused by alice");
        check(
            &Wait::Approval { otherwise: "cancel".into(), until_ms: NOW_MS + 86_400_000 },
            "waiting for approval until 2026-11-04 04:29:31 UTC (in 24 h 00 min), then cancel",
        );
    }

    #[test]
    fn a_quote_is_one_line() {
        let small = Quote { steps: 1, model_calls: 0, tool_calls: 1, tokens: 0, critical_path: numbers([1]), ..Quote::default() };
        assert_eq!(quote(&small), "1 step, about 0 model calls, 0 tokens and 1 tool call; no side effects; critical path 1");
        let effects = vec!["mail".to_owned(), "write".to_owned()];
        let large = Quote {
            steps: 12,
            model_calls: 25,
            tool_calls: 24,
            tokens: 25_000,
            tools_with_side_effects: effects,
            critical_path: numbers(1..=11),
        };
        assert_eq!(
            quote(&large),
            "12 steps, about 25 model calls, 25000 tokens and 24 tool calls; side effects by mail and write; \
             critical path 1 → 2 → 3 → 4 → 5 → 6 → 7 → 8 → … (11 steps)"
        );
    }
}
