//! Plans: steps that depend on each other, and the validator that every plan passes, whoever wrote it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::Check;
use crate::id::StepNumber;
use crate::limits::{ARGUMENTS_BYTES_MAX, DESCRIPTION_BYTES_MAX, PLAN_COMPLAINTS_MAX};
use crate::reference::references;

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Step {
    /// Its number: positive, unique in the plan.
    pub step_number: StepNumber,
    /// What it is to do, in words.
    pub description: String,
    /// The tool that should do it; null for a step that only needs thought.
    #[serde(default)]
    pub tool_hint: Option<String>,
    /// Exact arguments for that tool; then no model is asked. May hold references `{"$result": n, "pointer": "/a"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// The steps whose results it gets; it starts when all of them have succeeded.
    #[serde(default)]
    pub depends_on: Vec<StepNumber>,
    /// What "done" means, in words: the executor's model judges the step by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_when: Option<String>,
    /// What its result must be; without it nothing is checked beyond the judgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// What becomes of it when a step it depends on does not succeed.
    #[serde(default, skip_serializing_if = "OnFailedDependency::is_default")]
    pub on_failed_dependency: OnFailedDependency,
}

/// What becomes of a step when one that it depends on does not succeed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailedDependency {
    /// It is skipped.
    #[default]
    Skip,
    /// It runs all the same, with the error in place of the result.
    RunAnyway,
}

impl OnFailedDependency {
    fn is_default(&self) -> bool {
        *self == Self::Skip
    }
}

/// A plan that passed [`check`], or none yet (no steps).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Plan {
    /// The steps, by number.
    pub steps: Vec<Step>,
}

impl Plan {
    /// For every step, the steps that wait for it.
    pub fn dependents(&self) -> BTreeMap<StepNumber, Vec<StepNumber>> {
        let mut dependents: BTreeMap<StepNumber, Vec<StepNumber>> = BTreeMap::new();
        for step in &self.steps {
            for dependency in &step.depends_on {
                dependents.entry(*dependency).or_default().push(step.step_number);
            }
        }
        dependents
    }
}

/// What a plan is checked against.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The names of the tools that exist.
    pub tools: Vec<String>,
    /// Most steps.
    pub steps_max: usize,
}

/// Checks a plan as it came from a model or a submitter: `{"steps": [{…}]}`.
///
/// Numbers unique and positive, tools known, dependencies existing and acyclic, 1 to `steps_max` steps, every reference
/// declared in `depends_on`. On refusal gives every complaint, at most [`PLAN_COMPLAINTS_MAX`], each one sentence that a
/// model can act on.
pub fn check(draft: &Value, rules: &Rules) -> Result<Plan, Vec<String>> {
    let Some(entries) = draft.get("steps").and_then(Value::as_array) else {
        return Err(vec!["the plan must be a JSON object with an array \"steps\"".into()]);
    };
    if entries.is_empty() {
        return Err(vec!["the plan has no steps, at least one is needed".into()]);
    }
    if entries.len() > rules.steps_max {
        return Err(vec![format!("the plan has {} steps, at most {} are allowed", entries.len(), rules.steps_max)]);
    }
    let mut complaints = Vec::new();
    let mut steps: BTreeMap<StepNumber, Step> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        match read_step(entry, index + 1, rules) {
            Ok(step) if steps.contains_key(&step.step_number) => {
                complaints.push(format!("step_number {} is used more than once", step.step_number));
            }
            Ok(step) => {
                steps.insert(step.step_number, step);
            }
            Err(mut found) => complaints.append(&mut found),
        }
    }
    if complaints.is_empty() {
        complaints = check_edges(&steps);
    }
    if complaints.is_empty() {
        return Ok(Plan { steps: steps.into_values().collect() });
    }
    complaints.truncate(PLAN_COMPLAINTS_MAX);
    Err(complaints)
}

/// Reads one entry of `steps`; `position` counts from 1 and names an entry that has no number.
fn read_step(entry: &Value, position: usize, rules: &Rules) -> Result<Step, Vec<String>> {
    let Some(fields) = entry.as_object() else {
        return Err(vec![format!("entry {position} of steps is not an object")]);
    };
    let number = fields.get("step_number").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    let Some(number) = number else {
        let got = fields.get("step_number").unwrap_or(&Value::Null);
        return Err(vec![format!("entry {position} of steps: step_number must be a whole number from 1, got {}", short(got))]);
    };
    let mut complaints = Vec::new();
    let description = fields.get("description").and_then(Value::as_str).unwrap_or("").trim();
    if description.is_empty() {
        complaints.push(format!("step {number}: description must be a text that says what to do"));
    }
    if description.len() > DESCRIPTION_BYTES_MAX {
        complaints
            .push(format!("step {number}: description has {} bytes, the limit is {DESCRIPTION_BYTES_MAX}", description.len()));
    }
    let tool_hint = read_tool(fields.get("tool_hint"), number, rules, &mut complaints);
    let arguments = fields.get("arguments").filter(|a| !a.is_null()).cloned();
    if let Some(arguments) = &arguments {
        if !arguments.is_object() {
            complaints.push(format!("step {number}: arguments must be an object, got {}", short(arguments)));
        } else if tool_hint.is_none() {
            complaints.push(format!("step {number}: arguments need a tool_hint that names the tool"));
        }
        let bytes = arguments.to_string().len();
        if bytes > ARGUMENTS_BYTES_MAX {
            complaints.push(format!("step {number}: arguments have {bytes} bytes, the limit is {ARGUMENTS_BYTES_MAX}"));
        }
    }
    let depends_on = read_dependencies(fields.get("depends_on"), number, &mut complaints);
    if !complaints.is_empty() {
        return Err(complaints);
    }
    Ok(Step {
        step_number: StepNumber(number),
        description: description.to_owned(),
        tool_hint,
        arguments,
        depends_on,
        done_when: None,
        check: None,
        on_failed_dependency: OnFailedDependency::default(),
    })
}

/// Reads a tool name; null, an empty text and "none" all mean that no tool is needed.
fn read_tool(value: Option<&Value>, number: u32, rules: &Rules, complaints: &mut Vec<String>) -> Option<String> {
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
fn read_dependencies(value: Option<&Value>, number: u32, complaints: &mut Vec<String>) -> Vec<StepNumber> {
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

/// Checks what lies between steps: dependencies exist, nothing waits for itself, references are declared.
fn check_edges(steps: &BTreeMap<StepNumber, Step>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, step) in steps {
        for dependency in &step.depends_on {
            if dependency == number {
                complaints.push(format!("step {number} depends on itself"));
            } else if !steps.contains_key(dependency) {
                complaints.push(format!("step {number} depends on step {dependency}, which does not exist"));
            }
        }
        match references(step.arguments.as_ref().unwrap_or(&Value::Null)) {
            Ok(found) => {
                for reference in found.iter().filter(|r| !step.depends_on.contains(&r.step)) {
                    complaints.push(format!(
                        "step {number} refers to the result of step {0}, add {0} to its depends_on",
                        reference.step
                    ));
                }
            }
            Err(bad) => complaints.push(format!("step {number}: {bad}")),
        }
    }
    if complaints.is_empty()
        && let Some(cycle) = find_cycle(steps)
    {
        let path: Vec<String> = cycle.iter().map(ToString::to_string).collect();
        complaints.push(format!("steps wait for each other in a circle: {}", path.join(" -> ")));
    }
    complaints
}

/// A cycle among the steps, if there is one: Kahn's algorithm leaves exactly the steps in or behind cycles.
fn find_cycle(steps: &BTreeMap<StepNumber, Step>) -> Option<Vec<StepNumber>> {
    let mut waiting: BTreeMap<StepNumber, usize> = steps.iter().map(|(n, s)| (*n, s.depends_on.len())).collect();
    let mut dependents: BTreeMap<StepNumber, Vec<StepNumber>> = BTreeMap::new();
    for (number, step) in steps {
        for dependency in &step.depends_on {
            dependents.entry(*dependency).or_default().push(*number);
        }
    }
    let mut free: Vec<StepNumber> = waiting.iter().filter(|(_, count)| **count == 0).map(|(n, _)| *n).collect();
    while let Some(number) = free.pop() {
        waiting.remove(&number);
        for dependent in dependents.remove(&number).unwrap_or_default() {
            if let Some(count) = waiting.get_mut(&dependent) {
                *count -= 1;
                if *count == 0 {
                    free.push(dependent);
                }
            }
        }
    }
    // Every step left waits for another one that is left: walking back must come round.
    let mut path: Vec<StepNumber> = Vec::new();
    let mut at = *waiting.keys().next()?;
    loop {
        if let Some(start) = path.iter().position(|n| *n == at) {
            path.push(at);
            return Some(path.split_off(start));
        }
        path.push(at);
        at = *steps.get(&at)?.depends_on.iter().find(|d| waiting.contains_key(d))?;
    }
}

/// A value as it may stand in a complaint: JSON, cut after 60 characters.
fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(60).chain("…".chars()).collect() }
}

#[cfg(test)]
mod tests;
