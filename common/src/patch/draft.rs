//! The shape of a patch as a model writes it. What its steps say is read by [`super::fit`].

use serde_json::Value;

use super::Decision;
use crate::id::StepNumber;
use crate::limits::PATCH_REASON_CHARS_MAX;
use crate::plan::read::{number, step_number};
use crate::plan::{Rules, cut, short};

/// What a patch says about one step.
pub(super) struct Entry<'a> {
    /// Its place in `steps`, from 1.
    pub(super) position: usize,
    pub(super) number: StepNumber,
    pub(super) replaces: Option<StepNumber>,
    pub(super) fields: &'a Value,
}

/// What a patch wants changed.
pub(super) struct Changes<'a> {
    pub(super) entries: Vec<Entry<'a>>,
    pub(super) drop: Vec<StepNumber>,
}

/// Reads the decision. Without one, a patch that changes something is a revision.
pub(super) fn decision(draft: &Value) -> Result<Decision, String> {
    if !draft.is_object() {
        return Err(format!("the patch must be a JSON object with a \"decision\", got {}", short(draft)));
    }
    let value = draft.get("decision").unwrap_or(&Value::Null);
    match value.as_str().map(|word| word.trim().to_ascii_lowercase()).as_deref() {
        Some("revise") => Ok(Decision::Revise),
        Some("keep") => Ok(Decision::Keep),
        Some("reached") => Ok(Decision::Reached),
        Some("unreachable") => Ok(Decision::Unreachable),
        None | Some("") if value.is_null() || value.is_string() => {
            let says_something = |field: &str| draft.get(field).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
            if says_something("steps") || says_something("drop") {
                return Ok(Decision::Revise);
            }
            Err("the patch needs a decision: revise, keep, reached or unreachable".into())
        }
        None | Some(_) => Err(format!("decision must be revise, keep, reached or unreachable, got {}", short(value))),
    }
}

/// Reads the reason; a default one stands in for a missing one.
pub(super) fn reason(draft: &Value, decision: Decision) -> String {
    match draft.get("reason").and_then(Value::as_str).map(str::trim) {
        Some(reason) if !reason.is_empty() => cut(reason, PATCH_REASON_CHARS_MAX),
        None | Some(_) => match decision {
            Decision::Revise => "The plan was revised; no reason was given.",
            Decision::Keep => "The plan was kept; no reason was given.",
            Decision::Reached => "The objective counts as reached; no reason was given.",
            Decision::Unreachable => "The objective counts as unreachable; no reason was given.",
        }
        .to_owned(),
    }
}

/// Reads `steps` and `drop`.
pub(super) fn changes<'a>(draft: &'a Value, rules: &Rules) -> Result<Changes<'a>, Vec<String>> {
    let mut complaints = Vec::new();
    let steps = list(draft, "steps", rules, &mut complaints);
    let mut entries = Vec::with_capacity(steps.len());
    for (index, fields) in steps.iter().enumerate() {
        match entry(index + 1, fields) {
            Ok(entry) => entries.push(entry),
            Err(complaint) => complaints.push(complaint),
        }
    }
    let mut drop = Vec::new();
    for value in list(draft, "drop", rules, &mut complaints) {
        match step_number(value) {
            Some(number) => drop.push(number),
            None => complaints.push(format!("drop must hold the numbers of steps, got {}", short(value))),
        }
    }
    if complaints.is_empty() { Ok(Changes { entries, drop }) } else { Err(complaints) }
}

/// A field that is an array, null or absent, and no longer than a plan.
fn list<'a>(draft: &'a Value, field: &str, rules: &Rules, complaints: &mut Vec<String>) -> &'a [Value] {
    match draft.get(field) {
        None | Some(Value::Null) => &[],
        Some(Value::Array(entries)) if entries.len() <= rules.steps_max => entries,
        Some(Value::Array(entries)) => {
            complaints.push(format!("{field} has {} entries, at most {} are allowed", entries.len(), rules.steps_max));
            &[]
        }
        Some(other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_))) => {
            complaints.push(format!("{field} must be an array, got {}", short(other)));
            &[]
        }
    }
}

fn entry(position: usize, fields: &Value) -> Result<Entry<'_>, String> {
    if !fields.is_object() {
        return Err(format!("entry {position} of steps is not an object"));
    }
    let number = number(fields, position)?;
    let replaces = match fields.get("replaces") {
        None | Some(Value::Null) => None,
        Some(value) => Some(step_number(value).ok_or_else(|| {
            format!("step {number}: replaces must be the number of one step of the plan, or null, got {}", short(value))
        })?),
    };
    Ok(Entry { position, number, replaces, fields })
}
