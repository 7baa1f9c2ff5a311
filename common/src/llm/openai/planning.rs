//! Plans and their patches, as objects.

use serde_json::{Value, json};

use super::ladder::{Asker, Kind, Shape, Structured};
use super::message;
use crate::limits::PROMPT_RESULTS_BYTES_MAX;
use crate::llm::text::cut;
use crate::llm::{LlmError, PlanDraft, PlanTask, RefusedPlan, ReplanTask, prompt};
use crate::run::{StepState, StepView};
use crate::tool::ToolSpec;

/// Numbers that a patch's schema offers for new steps.
const NEW_NUMBERS: u32 = 20;
/// Most numbers that a schema lists; endpoints bound their schemas.
const ENUM_MAX: usize = 100;

impl Asker<'_> {
    /// Asks for a plan: a first one, or one in place of another that a person or the validator sent back.
    pub(super) async fn plan(&mut self, task: &PlanTask<'_>) -> Result<PlanDraft, LlmError> {
        let mut messages = vec![message("system", &prompt::plan_system(task)), message("user", &prompt::plan_user(task))];
        if let Some(feedback) = &task.feedback {
            let plan = serde_json::to_string(feedback.plan).unwrap_or_default();
            messages.push(message("assistant", &cut(&plan, PROMPT_RESULTS_BYTES_MAX)));
            messages.push(message("user", &prompt::plan_feedback(feedback.text)));
        }
        messages.extend(refused(task.refused.as_ref(), prompt::plan_refused));
        let shape = Shape { kind: Kind::Plan, name: "plan", schema: plan_schema(task.tools), strict: true, wanted: &["steps"] };
        let mut found = self.structured(&shape, &messages).await?;
        // A bare list of steps is as clear as a plan.
        found.value = found.value.map(|value| if value.is_array() { json!({"steps": value}) } else { value });
        Ok(draft(found))
    }

    /// Asks what is to become of a plan.
    pub(super) async fn replan(&mut self, task: &ReplanTask<'_>) -> Result<PlanDraft, LlmError> {
        let system = prompt::replan_system(task);
        let mut messages = vec![message("system", &system), message("user", &prompt::replan_user(task))];
        messages.extend(refused(task.refused.as_ref(), prompt::replan_refused));
        let schema = patch_schema(task);
        let shape = Shape { kind: Kind::Patch, name: "patch", schema, strict: true, wanted: &["decision"] };
        Ok(draft(self.structured(&shape, &messages).await?))
    }
}

/// The reply that was refused last, and why.
fn refused(refused: Option<&RefusedPlan<'_>>, complaints: fn(&[String]) -> String) -> Vec<Value> {
    let Some(refused) = refused else { return Vec::new() };
    let reply = cut(refused.reply, PROMPT_RESULTS_BYTES_MAX);
    let reply = if reply.trim().is_empty() { "(nothing)" } else { &reply };
    vec![message("assistant", reply), message("user", &complaints(refused.complaints))]
}

/// A draft in which what is said to be empty is absent.
fn draft(found: Structured) -> PlanDraft {
    let mut plan = found.value;
    if let Ok(value) = &mut plan {
        for step in value.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
            let blank = |value: &Value| value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty());
            if let Some(fields) = step.as_object_mut() {
                fields.retain(|name, value| name != "done_when" || !blank(value));
            }
        }
    }
    PlanDraft { reply: cut(&found.reply, PROMPT_RESULTS_BYTES_MAX), plan }
}

/// An object with exactly these properties.
fn object(properties: &Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn step_properties(tools: &[ToolSpec]) -> Value {
    let tools: Vec<&str> = tools.iter().map(|tool| tool.name).chain(["none"]).collect();
    json!({
        "step_number": {"type": "integer"},
        "description": {"type": "string"},
        "tool_hint": {"type": "string", "enum": tools},
        "depends_on": {"type": "array", "items": {"type": "integer"}},
    })
}

fn plan_schema(tools: &[ToolSpec]) -> Value {
    let mut properties = step_properties(tools);
    properties["done_when"] = json!({"type": "string"});
    let step = object(&properties);
    object(&json!({"steps": {"type": "array", "items": step}}))
}

/// Without `done_when`: small models write the value there that they expect, and then judge the step by it. Where the schema is enforced,
/// steps that succeeded cannot be touched, and new ones cannot have the number of another.
fn patch_schema(task: &ReplanTask<'_>) -> Value {
    let steps = || task.run.steps.iter();
    let number = |view: &StepView| view.step.step_number.0;
    let open: Vec<u32> = steps().filter(|view| view.state != StepState::Succeeded).map(number).collect();
    let unstarted = [StepState::Waiting, StepState::Ready, StepState::Dispatched];
    let waiting = steps().filter(|view| unstarted.contains(&view.state)).map(number);
    let new = (0..NEW_NUMBERS).map(|more| task.next_number.0.saturating_add(more));
    let mut step = step_properties(task.tools);
    step["step_number"] = one_of(&waiting.chain(new).collect::<Vec<u32>>(), false);
    step["replaces"] = one_of(&open, true);
    object(&json!({
        "decision": {"type": "string", "enum": ["revise", "keep", "reached", "unreachable"]},
        "drop": {"type": "array", "items": one_of(&open, false)},
        "reason": {"type": "string"},
        "steps": {"type": "array", "items": object(&step)},
    }))
}

/// One of these numbers; any number where they are none or too many for a schema.
fn one_of(numbers: &[u32], or_null: bool) -> Value {
    let kind = if or_null { json!(["integer", "null"]) } else { json!("integer") };
    if numbers.is_empty() || numbers.len() > ENUM_MAX {
        return json!({"type": kind});
    }
    let null = or_null.then_some(Value::Null);
    json!({"type": kind, "enum": numbers.iter().map(|number| json!(number)).chain(null).collect::<Vec<_>>()})
}
