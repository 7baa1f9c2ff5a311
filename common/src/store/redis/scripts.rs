//! The scripts of the verbs, and how their arguments are laid out.

use redis::Script;

use crate::clock::millis;
use crate::id::StepNumber;
use crate::limits::{DISPATCH_TIMEOUT, EVENTS_MAX, WAKEUP_INTERVAL_MAX};
use crate::store::{Account, json};

/// The keys of a run in the order of `KEYS`, see `prelude.lua`.
pub(super) const RUN_KEYS: [&str; 11] =
    ["run", "plan", "specs", "steps", "results", "ready", "flight", "open", "journal", "events", "result"];

/// A script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    OpenRun,
    Claim,
    Renew,
    Release,
    Journal,
    PutPlan,
    TakeReady,
    Report,
    Retry,
    Finish,
    Advance,
    TakeBack,
    Read,
    Wake,
    Due,
}

const PRELUDE: &str = include_str!("../prelude.lua");

/// Every verb with its text; the order is that of [`Verb`].
const TEXTS: [(Verb, &str); 15] = [
    (Verb::OpenRun, include_str!("../open_run.lua")),
    (Verb::Claim, include_str!("../claim.lua")),
    (Verb::Renew, include_str!("../renew.lua")),
    (Verb::Release, include_str!("../release.lua")),
    (Verb::Journal, include_str!("../journal.lua")),
    (Verb::PutPlan, include_str!("../put_plan.lua")),
    (Verb::TakeReady, include_str!("../take_ready.lua")),
    (Verb::Report, include_str!("../report.lua")),
    (Verb::Retry, include_str!("../retry.lua")),
    (Verb::Finish, include_str!("../finish.lua")),
    (Verb::Advance, include_str!("../advance.lua")),
    (Verb::TakeBack, include_str!("../take_back.lua")),
    (Verb::Read, include_str!("../read.lua")),
    (Verb::Wake, include_str!("../wake.lua")),
    (Verb::Due, include_str!("../due.lua")),
];

/// The scripts as they are sent: limits, prelude (for verbs on a run), text.
pub(super) fn compile() -> Vec<Script> {
    let limits = format!(
        "local EVENTS_MAX, DISPATCH_TIMEOUT_MS, WAKEUP_INTERVAL_MS = {EVENTS_MAX}, {}, {}\n",
        millis(DISPATCH_TIMEOUT),
        millis(WAKEUP_INTERVAL_MAX)
    );
    TEXTS
        .iter()
        .map(|(verb, text)| match verb {
            Verb::Wake | Verb::Due => Script::new(&format!("{limits}{text}")),
            Verb::OpenRun
            | Verb::Claim
            | Verb::Renew
            | Verb::Release
            | Verb::Journal
            | Verb::PutPlan
            | Verb::TakeReady
            | Verb::Report
            | Verb::Retry
            | Verb::Finish
            | Verb::Advance
            | Verb::TakeBack
            | Verb::Read => Script::new(&format!("{limits}{PRELUDE}{text}")),
        })
        .collect()
}

/// Appends usage and events as `account` in `prelude.lua` reads them.
pub(super) fn push_account(arguments: &mut Vec<String>, account: &Account) {
    let usage = &account.usage;
    arguments.extend([usage.model_calls, usage.tool_calls, usage.input_tokens, usage.output_tokens].map(|n| n.to_string()));
    arguments.push(u8::from(usage.estimated).to_string());
    arguments.push(account.events.len().to_string());
    for event in &account.events {
        arguments.push(event.kind.as_str().to_owned());
        arguments.push(json(&event.data));
    }
}

/// Step numbers with commas between them.
pub(super) fn numbers(steps: &[StepNumber]) -> String {
    let texts: Vec<String> = steps.iter().map(ToString::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_finds_its_own_text() {
        for (index, (verb, _)) in TEXTS.iter().enumerate() {
            assert_eq!(*verb as usize, index);
        }
    }
}
