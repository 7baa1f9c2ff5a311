//! One step as a model or a submitter writes it.

use serde_json::Value;

use super::{OnFailedDependency, Rules, Step, short};
use crate::check::Check;
use crate::id::StepNumber;
use crate::limits::{ARGUMENTS_BYTES_MAX, DESCRIPTION_BYTES_MAX};

/// Reads one entry of `steps`; `position` counts from 1 and names an entry that has no number.
pub(crate) fn step(entry: &Value, position: usize, rules: &Rules) -> Result<Step, Vec<String>> {
    let Some(fields) = entry.as_object() else {
        return Err(vec![format!("entry {position} of steps is not an object")]);
    };
    let number = number(entry, position).map_err(|complaint| vec![complaint])?;
    let mut complaints = Vec::new();
    let description = text(fields.get("description"), "description", number, &mut complaints).unwrap_or_default();
    if description.is_empty() && complaints.is_empty() {
        complaints.push(format!("step {number}: description must be a text that says what to do"));
    }
    let tool_hint = tool(fields.get("tool_hint"), number, rules, &mut complaints);
    let arguments = arguments(fields.get("arguments"), tool_hint.is_some(), number, &mut complaints);
    let step = Step {
        step_number: number,
        description,
        tool_hint,
        arguments,
        depends_on: dependencies(fields.get("depends_on"), number, &mut complaints),
        done_when: text(fields.get("done_when"), "done_when", number, &mut complaints),
        check: check(fields.get("check"), number, &mut complaints),
        on_failed_dependency: on_failed_dependency(fields.get("on_failed_dependency"), number, &mut complaints),
    };
    if complaints.is_empty() { Ok(step) } else { Err(complaints) }
}

/// The number of an entry.
pub(crate) fn number(entry: &Value, position: usize) -> Result<StepNumber, String> {
    let value = entry.get("step_number").unwrap_or(&Value::Null);
    step_number(value)
        .ok_or_else(|| format!("entry {position} of steps: step_number must be a whole number from 1, got {}", short(value)))
}

/// A value as the number of a step.
pub(crate) fn step_number(value: &Value) -> Option<StepNumber> {
    value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).map(StepNumber)
}

/// Reads a text; null and an empty one are none.
fn text(value: Option<&Value>, field: &str, number: StepNumber, complaints: &mut Vec<String>) -> Option<String> {
    let text = match value {
        None | Some(Value::Null) => return None,
        Some(Value::String(text)) => text.trim(),
        Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
            complaints.push(format!("step {number}: {field} must be a text, got {}", short(other)));
            return None;
        }
    };
    if text.len() > DESCRIPTION_BYTES_MAX {
        complaints.push(format!("step {number}: {field} has {} bytes, the limit is {DESCRIPTION_BYTES_MAX}", text.len()));
    }
    (!text.is_empty()).then(|| text.to_owned())
}

/// Reads exact arguments: null, or an object for a tool that is named.
fn arguments(value: Option<&Value>, has_tool: bool, number: StepNumber, complaints: &mut Vec<String>) -> Option<Value> {
    let arguments = value.filter(|a| !a.is_null())?;
    if !arguments.is_object() {
        complaints.push(format!("step {number}: arguments must be an object, got {}", short(arguments)));
    } else if !has_tool {
        complaints.push(format!("step {number}: arguments need a tool_hint that names the tool"));
    }
    let bytes = arguments.to_string().len();
    if bytes > ARGUMENTS_BYTES_MAX {
        complaints.push(format!("step {number}: arguments have {bytes} bytes, the limit is {ARGUMENTS_BYTES_MAX}"));
    }
    Some(arguments.clone())
}

/// Reads a tool name; null, an empty text and "none" all mean that no tool is needed.
fn tool(value: Option<&Value>, number: StepNumber, rules: &Rules, complaints: &mut Vec<String>) -> Option<String> {
    let text = match value {
        None | Some(Value::Null) => return None,
        Some(Value::String(text)) => text.trim(),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            complaints.push(format!("step {number}: tool_hint must be the name of a tool or null"));
            return None;
        }
    };
    if text.is_empty() || text == "none" || text == "null" {
        return None;
    }
    if !rules.tools.iter().any(|tool| tool == text) {
        let known = rules.tools.join(", ");
        complaints.push(format!(
            "step {number}: tool_hint {} is not a known tool, use one of: {known}, or null",
            short(&Value::from(text))
        ));
    }
    Some(text.to_owned())
}

/// Reads `depends_on`: absent, null, or an array of positive whole numbers; repeated ones count once.
fn dependencies(value: Option<&Value>, number: StepNumber, complaints: &mut Vec<String>) -> Vec<StepNumber> {
    let entries = match value {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            complaints.push(format!("step {number}: depends_on must be an array of step numbers"));
            return Vec::new();
        }
    };
    let mut numbers = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(dependency) => numbers.push(StepNumber(dependency)),
            None => complaints.push(format!("step {number}: depends_on must hold step numbers, got {}", short(entry))),
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Reads a check: exactly one of `equals` and `schema`, of which null is as good as absent beside the other one.
fn check(value: Option<&Value>, number: StepNumber, complaints: &mut Vec<String>) -> Option<Check> {
    let value = value.filter(|v| !v.is_null())?;
    let pointer = match value.get("pointer") {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(pointer)) => Some(pointer.clone()),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    let check = match (pointer, value.get("equals"), value.get("schema")) {
        (Some(_), Some(Value::Null), Some(Value::Null)) => return None,
        (Some(pointer), Some(equals), None | Some(Value::Null)) => Check::Equals { pointer, equals: equals.clone() },
        (Some(pointer), None | Some(Value::Null), Some(schema)) if !schema.is_null() => {
            Check::Schema { pointer, schema: schema.clone() }
        }
        _ => {
            complaints.push(format!(
                "step {number}: a check looks like {{\"pointer\": \"/a\", \"equals\": 36}} or {{\"pointer\": \"/a\", \"schema\": {{…}}}}, got {}",
                short(value)
            ));
            return None;
        }
    };
    if let Some(complaint) = check.complaint() {
        complaints.push(format!("step {number}: {complaint}"));
    }
    Some(check)
}

/// Reads `on_failed_dependency`; absent and null mean to skip.
fn on_failed_dependency(value: Option<&Value>, number: StepNumber, complaints: &mut Vec<String>) -> OnFailedDependency {
    match value.map(|v| (v, v.as_str().map(str::trim))) {
        None | Some((Value::Null, _) | (_, Some("skip"))) => OnFailedDependency::Skip,
        Some((_, Some("run_anyway"))) => OnFailedDependency::RunAnyway,
        Some((other, _)) => {
            complaints
                .push(format!("step {number}: on_failed_dependency must be \"skip\" or \"run_anyway\", got {}", short(other)));
            OnFailedDependency::Skip
        }
    }
}
