//! What must come out of a run, computed from what was submitted and from nothing that the services do.

use std::collections::BTreeMap;

use common::run::{HaltKind, Outcome, RunDocument, RunStatus};
use serde_json::Value;

use super::dice::hash;
use super::load::{Fate, Load, Step, Work, totals};

/// What a step must have come to: its value as [`plain`] writes it, if it has one.
type Expected = (Outcome, Option<String>);

/// A result in short: a text or a number as it is, of statistics what was counted.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) if fields.contains_key("sum") => format!("{} in {}", fields["sum"], fields["count"]),
        Value::Object(fields) if fields.contains_key("words") => format!("{} words", fields["words"]),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// What the model answers to whatever it was given: both sides compute it, and only equal inputs give equal texts.
pub(super) fn fingerprint(about: &str, given: &BTreeMap<u32, String>) -> String {
    let given: String = given.iter().map(|(number, value)| format!("{number}={value};")).collect();
    format!("seen {:016x}", hash(&format!("{about}|{given}")))
}

/// What a step that did not succeed looks like to those after it.
pub(super) fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
        Outcome::Cancelled => "cancelled",
    }
}

/// The plan as it must be in the end.
fn final_plan(load: &Load) -> Vec<Step> {
    let (Fate::Revised { failed }, Some(new)) = (load.fate, &load.replacement) else { return load.steps.clone() };
    let mut steps: Vec<Step> = load.steps.iter().filter(|step| step.number != failed).cloned().collect();
    for after in steps.iter_mut().flat_map(|step| &mut step.after) {
        if *after == failed {
            *after = new.number;
        }
    }
    steps.push(new.clone());
    steps
}

/// Every step's outcome and value, where `given` are known to have ended otherwise: cancelled by what ended the run, or poison.
fn expected(load: &Load, steps: &[Step], given: &BTreeMap<u32, Outcome>) -> BTreeMap<u32, Expected> {
    let mut all: BTreeMap<u32, Expected> = BTreeMap::new();
    // A replacement has the highest number but comes before what waits for it.
    while all.len() < steps.len() {
        let before = all.len();
        for step in steps {
            if !all.contains_key(&step.number) && step.after.iter().all(|dependency| all.contains_key(dependency)) {
                let outcome = one(load, step, given, &all);
                all.insert(step.number, outcome);
            }
        }
        assert!(all.len() > before, "the load has a circle: {load:?}");
    }
    all
}

fn one(load: &Load, step: &Step, given: &BTreeMap<u32, Outcome>, before: &BTreeMap<u32, Expected>) -> Expected {
    if let Some(outcome) = given.get(&step.number) {
        return (*outcome, None);
    }
    let lacking = step.after.iter().any(|dependency| before[dependency].0 != Outcome::Succeeded);
    if lacking && !step.anyway {
        return (Outcome::Skipped, None);
    }
    let value = match &step.work {
        Work::Product { a, b, c, .. } => (a * b + c).to_string(),
        Work::Total { .. } => {
            let (count, sum) = totals(&load.steps)[step.number as usize - 1];
            format!("{sum} in {count}")
        }
        Work::Digest { .. } => {
            let seen = |dependency: &u32| {
                let (outcome, value) = &before[dependency];
                (*dependency, value.clone().unwrap_or_else(|| mark(*outcome).to_owned()))
            };
            fingerprint(&load.description(step), &step.after.iter().map(seen).collect())
        }
        // One word, whatever it is.
        Work::Obituary { .. } => "1 words".to_owned(),
        Work::Failing(_) => return (Outcome::Failed, None),
    };
    (Outcome::Succeeded, Some(value))
}

/// What is wrong with the document of a run, in sentences. `poisoned`: steps that may have been given up, since they ended too many
/// executors.
pub(super) fn judge(load: &Load, document: &RunDocument, poisoned: &[u32]) -> Vec<String> {
    let mut wrong = Vec::new();
    let steps = final_plan(load);
    let observed: BTreeMap<u32, &common::run::StepResult> =
        document.step_results.iter().map(|step| (step.step_number.0, step)).collect();
    let halted = document.halt.as_ref().map(|halt| halt.kind);
    if document.step_results.is_empty() && load.fate.may_halt() && halted.is_some() {
        // It ended before there was a plan.
        return status(load, document, 0, 0);
    }
    let numbers: Vec<u32> = steps.iter().map(|step| step.number).collect();
    let seen: Vec<u32> = document.step_results.iter().map(|step| step.step_number.0).collect();
    if numbers.iter().any(|n| !seen.contains(n)) || seen.len() != numbers.len() {
        return vec![format!("its steps are {seen:?}, not {numbers:?}")];
    }
    let given: BTreeMap<u32, Outcome> = observed
        .iter()
        .filter(|(number, step)| match step.outcome {
            Outcome::Cancelled => halted.is_some(),
            Outcome::Failed => poisoned.contains(number),
            Outcome::Succeeded | Outcome::Skipped => false,
        })
        .map(|(number, step)| (*number, step.outcome))
        .collect();
    for (number, (outcome, value)) in expected(load, &steps, &given) {
        let step = observed[&number];
        if step.outcome != outcome {
            wrong.push(format!("step {number} is {:?}, not {outcome:?}: {:?}", step.outcome, step.error));
        } else if value.is_some() && value != Some(plain(&step.result)) {
            wrong.push(format!("step {number} gave {}, not {value:?}", step.result));
        }
    }
    let succeeded = document.step_results.iter().filter(|step| step.outcome == Outcome::Succeeded).count();
    wrong.extend(status(load, document, succeeded, steps.len()));
    wrong.extend(answer(load, document));
    wrong.extend(bounds(load, document));
    wrong
}

/// The status that follows from how the steps ended.
fn status(load: &Load, document: &RunDocument, succeeded: usize, all: usize) -> Vec<String> {
    let halted = document.halt.as_ref().map(|halt| halt.kind);
    let status = match (halted, succeeded) {
        (Some(HaltKind::Cancelled), _) => RunStatus::Cancelled,
        (_, 0) => RunStatus::Failed,
        (_, succeeded) if succeeded == all => RunStatus::Succeeded,
        (_, _) => RunStatus::Partial,
    };
    let mut wrong = Vec::new();
    if document.status != status {
        wrong.push(format!("it is {:?}, not {status:?}: {:?}", document.status, document.error));
    }
    let legal = match load.fate {
        Fate::Cancelled => Some(HaltKind::Cancelled),
        Fate::Deadline { .. } => Some(HaltKind::Deadline),
        Fate::Budget { .. } => Some(HaltKind::Budget),
        Fate::Plain | Fate::Failing { .. } | Fate::Revised { .. } | Fate::Planned | Fate::Approved | Fate::Paused => None,
    };
    if halted.is_some() && halted != legal {
        wrong.push(format!("it was ended early: {:?}", document.halt));
    }
    wrong
}

/// The answer: the model's fingerprint of every result, or the list of those there are.
fn answer(load: &Load, document: &RunDocument) -> Vec<String> {
    let succeeded = || document.step_results.iter().filter(|step| step.outcome == Outcome::Succeeded);
    if matches!(document.status, RunStatus::Failed | RunStatus::Cancelled) {
        let answered = document.final_response.is_some() || document.error.is_none();
        return answered.then(|| "it has an answer, or no error".to_owned()).into_iter().collect();
    }
    let (wanted, given) = if load.answered {
        let seen = |step: &common::run::StepResult| match step.outcome {
            Outcome::Succeeded => plain(&step.result),
            Outcome::Failed | Outcome::Skipped | Outcome::Cancelled => mark(step.outcome).to_owned(),
        };
        let all = document.step_results.iter().map(|step| (step.step_number.0, seen(step))).collect();
        (Value::from(fingerprint(&load.run, &all)), document.final_response.clone().map(Value::from))
    } else {
        let listed = succeeded().map(|step| (step.step_number.to_string(), step.result.clone())).collect();
        (Value::Object(listed), document.final_response.as_ref().and_then(|text| serde_json::from_str(text).ok()))
    };
    if given.as_ref() == Some(&wanted) { vec![] } else { vec![format!("its answer is {given:?}, not {wanted}")] }
}

/// Revisions and budgets.
fn bounds(load: &Load, document: &RunDocument) -> Vec<String> {
    let mut wrong = Vec::new();
    let superseded: Vec<u32> = document.superseded.iter().map(|step| step.step_number.0).collect();
    let failed = if let Fate::Revised { failed } = load.fate { vec![failed] } else { vec![] };
    if (document.revision as usize, &superseded) != (1 + failed.len(), &failed) {
        wrong.push(format!("it has revision {} and superseded {superseded:?}", document.revision));
    }
    if let Fate::Budget { calls } = load.fate
        && document.usage.tool_calls > u64::from(calls)
    {
        wrong.push(format!("it has called tools {} times, not {calls}", document.usage.tool_calls));
    }
    wrong
}
