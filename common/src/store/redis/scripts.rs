//! The scripts of the verbs, and how their arguments are laid out.

use redis::Script;

use crate::clock::millis;
use crate::id::StepNumber;
use crate::limits::{DISPATCH_TIMEOUT, EVENTS_MAX, FENCE_BITS, WAKEUP_INTERVAL_MAX, WAKEUP_LOOK_MAX};
use crate::store::{Account, KEYS_VERSION, NewRun, RunRules, json};

/// The keys of a run in the order of `KEYS`, see `prelude.lua`.
pub(super) const RUN_KEYS: [&str; 13] =
    ["run", "plan", "specs", "steps", "results", "ready", "flight", "open", "journal", "events", "result", "news", "controls"];

/// A script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    OpenRun,
    Claim,
    Renew,
    Release,
    Journal,
    PutPlan,
    KeepPlan,
    Halt,
    Reserve,
    Control,
    TakeReady,
    Report,
    Retry,
    Finish,
    Advance,
    TakeBack,
    Read,
    Wake,
    Due,
    Pulse,
    Live,
}

const PRELUDE: &str = include_str!("../prelude.lua");

/// Every verb with its text; the order is that of [`Verb`].
const TEXTS: [(Verb, &str); 21] = [
    (Verb::OpenRun, include_str!("../open_run.lua")),
    (Verb::Claim, include_str!("../claim.lua")),
    (Verb::Renew, include_str!("../renew.lua")),
    (Verb::Release, include_str!("../release.lua")),
    (Verb::Journal, include_str!("../journal.lua")),
    (Verb::PutPlan, include_str!("../put_plan.lua")),
    (Verb::KeepPlan, include_str!("../keep_plan.lua")),
    (Verb::Halt, include_str!("../halt.lua")),
    (Verb::Reserve, include_str!("../reserve.lua")),
    (Verb::Control, include_str!("../control.lua")),
    (Verb::TakeReady, include_str!("../take_ready.lua")),
    (Verb::Report, include_str!("../report.lua")),
    (Verb::Retry, include_str!("../retry.lua")),
    (Verb::Finish, include_str!("../finish.lua")),
    (Verb::Advance, include_str!("../advance.lua")),
    (Verb::TakeBack, include_str!("../take_back.lua")),
    (Verb::Read, include_str!("../read.lua")),
    (Verb::Wake, include_str!("../wake.lua")),
    (Verb::Due, include_str!("../due.lua")),
    (Verb::Pulse, include_str!("../pulse.lua")),
    (Verb::Live, include_str!("../live.lua")),
];

/// The scripts as they are sent: limits, prelude (for verbs on a run), text.
pub(super) fn compile() -> Vec<Script> {
    let limits = format!(
        "local KEYS_VERSION, FENCE_BITS, EVENTS_MAX, DISPATCH_TIMEOUT_MS, WAKEUP_INTERVAL_MS, WAKEUP_LOOK_MS = {KEYS_VERSION}, {FENCE_BITS}, {EVENTS_MAX}, {}, {}, {}\n",
        millis(DISPATCH_TIMEOUT),
        millis(WAKEUP_INTERVAL_MAX),
        millis(WAKEUP_LOOK_MAX)
    );
    TEXTS
        .iter()
        .map(|(verb, text)| match verb {
            Verb::Wake | Verb::Due | Verb::Live => Script::new(&format!("{limits}{text}")),
            Verb::OpenRun
            | Verb::Claim
            | Verb::Renew
            | Verb::Release
            | Verb::Journal
            | Verb::PutPlan
            | Verb::KeepPlan
            | Verb::Halt
            | Verb::Reserve
            | Verb::Control
            | Verb::TakeReady
            | Verb::Report
            | Verb::Retry
            | Verb::Finish
            | Verb::Advance
            | Verb::TakeBack
            | Verb::Read
            | Verb::Pulse => Script::new(&format!("{limits}{PRELUDE}{text}")),
        })
        .collect()
}

/// The commands in the scripts, and some words that are none: everything in quotes and capitals.
pub(super) fn commands() -> impl Iterator<Item = String> {
    let is_command = |word: &&str| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    let texts = TEXTS.iter().map(|(_, text)| *text).chain([PRELUDE]);
    texts.flat_map(move |text| text.split('\'').filter(is_command)).map(str::to_owned)
}

/// Appends usage and events as `account` in `prelude.lua` reads them.
pub(super) fn push_account(arguments: &mut Vec<String>, account: &Account) {
    let usage = &account.usage;
    let counts = [usage.model_calls, usage.tool_calls, usage.input_tokens, usage.output_tokens, usage.cost_nanos];
    arguments.extend(counts.map(|n| n.to_string()));
    arguments.push(u8::from(usage.estimated).to_string());
    arguments.push(account.events.len().to_string());
    for event in &account.events {
        arguments.push(event.kind.as_str().to_owned());
        arguments.push(json(&event.data));
    }
}

/// Appends a count and as many steps.
pub(super) fn push_steps(arguments: &mut Vec<String>, steps: &[StepNumber]) {
    arguments.push(steps.len().to_string());
    arguments.extend(steps.iter().map(ToString::to_string));
}

/// The fields of the `run` hash that a new run begins with.
pub(super) fn new_run(new: &NewRun) -> Vec<String> {
    let text = |option: &Option<String>| option.clone().unwrap_or_default();
    let number = |option: Option<u64>| option.map_or_else(String::new, |number| number.to_string());
    let RunRules { replan, max_replans, approval, deadline: _, budget, reserve } = &new.rules;
    let fields = [
        ("objective", new.objective.clone()),
        ("request", new.request.clone()),
        ("window", new.window.to_string()),
        ("reply_to", text(&new.reply_to)),
        ("correlation_id", text(&new.correlation_id)),
        ("traceparent", text(&new.traceparent)),
        ("replan", replan.as_str().to_owned()),
        ("max_replans", max_replans.to_string()),
        ("approval_timeout", number(approval.map(|rule| millis(rule.timeout)))),
        ("approval_action", approval.map_or("", |rule| rule.otherwise.as_str()).to_owned()),
        ("limited", u8::from(budget.is_limited()).to_string()),
        ("max_model_calls", number(budget.model_calls)),
        ("max_tool_calls", number(budget.tool_calls)),
        ("max_tokens", number(budget.tokens)),
        ("max_cost_nanos", number(budget.cost_nanos)),
        ("reserve_model_calls", reserve.model_calls.to_string()),
        ("reserve_tool_calls", reserve.tool_calls.to_string()),
        ("reserve_tokens", reserve.tokens.to_string()),
        ("reserve_cost_nanos", reserve.cost_nanos.to_string()),
    ];
    fields.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
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
