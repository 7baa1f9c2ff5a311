//! The loop guard: what was tried and failed is not tried again, under whatever number.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::id::StepNumber;
use crate::plan::{Step, edges};
use crate::run::{Outcome, RunView};

/// Steps by what they do: two have the same id if they do the same with the results of the same.
struct Kinds {
    ids: BTreeMap<String, usize>,
    of: BTreeMap<StepNumber, usize>,
}

/// Complains about steps of the patch (`given`, in the new plan `steps`) that repeat what failed or what succeeded, and about
/// patches that add only what was taken out before.
pub(super) fn complaints(
    steps: &BTreeMap<StepNumber, Step>,
    given: &BTreeMap<StepNumber, Step>,
    retires: impl Fn(StepNumber) -> bool,
    run: &RunView,
) -> Vec<String> {
    let mut all: BTreeMap<StepNumber, &Step> =
        run.superseded.iter().chain(&run.steps).map(|view| (view.step.step_number, &view.step)).collect();
    all.extend(steps.iter().map(|(number, step)| (*number, step)));
    let superseded: BTreeSet<StepNumber> = run.superseded.iter().map(|view| view.step.step_number).collect();
    let is_gone = |number| superseded.contains(&number) || retires(number);
    let kinds = kinds(&all, is_gone);

    let mut failed = BTreeMap::new();
    let mut succeeded = BTreeMap::new();
    let mut taken_out = BTreeSet::new();
    for (view, in_plan) in run.steps.iter().map(|v| (v, true)).chain(run.superseded.iter().map(|v| (v, false))) {
        let number = view.step.step_number;
        let Some(kind) = kinds.of.get(&number).copied() else { continue };
        match view.state.outcome() {
            Some(Outcome::Failed) => drop(failed.entry(kind).or_insert(number)),
            Some(Outcome::Succeeded) => drop(succeeded.entry(kind).or_insert(number)),
            Some(Outcome::Cancelled) if !in_plan => drop(taken_out.insert(kind)),
            Some(Outcome::Cancelled | Outcome::Skipped) | None => {}
        }
    }

    let mut complaints = Vec::new();
    let mut added = Vec::new();
    let before: BTreeMap<StepNumber, &Step> = run.steps.iter().map(|view| (view.step.step_number, &view.step)).collect();
    for number in given.keys() {
        let Some(kind) = kinds.of.get(number) else { continue };
        match before.get(number) {
            None => added.push((number, kind)),
            // Refined in something that is beside the point here.
            Some(step) if kinds.ids.get(&fingerprint(step, &kinds.of, is_gone)) == Some(kind) => continue,
            Some(_) => {}
        }
        if let Some(old) = failed.get(kind) {
            complaints.push(format!(
                "step {number} repeats step {old}, which failed: do it another way, or say that the objective cannot be reached \
                 (unreachable)"
            ));
        } else if let Some(old) = succeeded.get(kind) {
            complaints
                .push(format!("step {number} repeats step {old}, which has succeeded: leave it out and depend on step {old}"));
        }
    }
    if complaints.is_empty() && !added.is_empty() && added.iter().all(|(_, kind)| taken_out.contains(kind)) {
        let numbers: Vec<String> = added.iter().take(10).map(|(number, _)| number.to_string()).collect();
        complaints.push(format!(
            "all that is new (step {}) was in the plan before and was taken out: do it another way, or say keep or unreachable",
            numbers.join(", ")
        ));
    }
    complaints
}

/// Gives every step the id of what it does, dependencies first.
fn kinds(all: &BTreeMap<StepNumber, &Step>, is_gone: impl Fn(StepNumber) -> bool + Copy) -> Kinds {
    let mut kinds = Kinds { ids: BTreeMap::new(), of: BTreeMap::new() };
    // Steps of several revisions together may make a circle: then some dependencies go by their numbers.
    let order = edges::in_order(all).unwrap_or_else(|_| all.keys().copied().collect());
    for number in order {
        let Some(step) = all.get(&number) else { continue };
        let next = kinds.ids.len();
        let kind = *kinds.ids.entry(fingerprint(step, &kinds.of, is_gone)).or_insert(next);
        kinds.of.insert(number, kind);
    }
    kinds
}

/// What a step does, as a text: its words and tool, or, where its arguments are exact, those and its check, since then nobody reads
/// the words; and the steps whose results it gets, without those that are no longer in the plan.
fn fingerprint(step: &Step, of: &BTreeMap<StepNumber, usize>, is_gone: impl Fn(StepNumber) -> bool) -> String {
    let dependencies: BTreeSet<String> =
        step.depends_on.iter().filter(|dependency| !is_gone(**dependency)).map(|dependency| name(*dependency, of)).collect();
    let tool = step.tool_hint.as_deref();
    match &step.arguments {
        Some(arguments) => format!("{tool:?} {} {:?} {dependencies:?}", folded_arguments(arguments, of), step.check),
        None => format!("{tool:?} {:?} {dependencies:?}", folded(&step.description)),
    }
}

/// A step by what it does, as far as that is known.
fn name(number: StepNumber, of: &BTreeMap<StepNumber, usize>) -> String {
    of.get(&number).map_or_else(|| format!("step {number}"), |kind| format!("kind {kind}"))
}

/// A text without what does not change its sense: case, white space, and the punctuation of sentences. Signs that may calculate stay.
fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for character in text.chars().flat_map(char::to_lowercase) {
        let separates = character.is_whitespace() || ".,;:!?'\"`´‘’“”„«»…–—".contains(character);
        // Signs are words of their own, so that space around them does not matter.
        let is_word_part = character.is_alphanumeric();
        let continues = is_word_part && folded.ends_with(char::is_alphanumeric);
        if !continues && !folded.is_empty() && !folded.ends_with(' ') {
            folded.push(' ');
        }
        if !separates {
            folded.push(character);
        }
    }
    folded.trim_end().to_owned()
}

/// Arguments with sorted keys, white space of texts folded, and references to what a step does instead of its number.
fn folded_arguments(value: &Value, of: &BTreeMap<StepNumber, usize>) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) => Value::from(text.split_whitespace().collect::<Vec<_>>().join(" ")),
        Value::Array(items) => items.iter().map(|item| folded_arguments(item, of)).collect(),
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            let fields = sorted.into_iter().map(|(key, field)| match crate::plan::read::step_number(field) {
                Some(number) if key == "$result" => (key.clone(), Value::from(name(number, of))),
                _ => (key.clone(), folded_arguments(field, of)),
            });
            Value::Object(fields.collect())
        }
    }
}
