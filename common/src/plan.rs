//! Plans: steps that depend on each other, and the validator that every plan passes, whoever wrote it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::Check;
use crate::id::StepNumber;
use crate::limits::PLAN_COMPLAINTS_MAX;

pub(crate) mod edges;
pub(crate) mod read;

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
        match read::step(entry, index + 1, rules) {
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
        complaints = edges::check(&steps, |_| false);
    }
    if complaints.is_empty() {
        return Ok(Plan { steps: steps.into_values().collect() });
    }
    // A number that is used a hundred times must not push everything else out.
    let mut said = BTreeSet::new();
    complaints.retain(|complaint| said.insert(complaint.clone()));
    complaints.truncate(PLAN_COMPLAINTS_MAX);
    Err(complaints)
}

/// A value as it may stand in a complaint: JSON, cut after 60 characters.
pub(crate) fn short(value: &Value) -> String {
    cut(&value.to_string(), 60)
}

/// `text`, cut after `chars_max` characters.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests;
