//! The texts that models read. The templates are files in `prompts/`; what comes from outside stands between tags. Pure.

use std::fmt::Write;

use serde_json::Value;

use super::text::cut;
use super::{AnswerTask, PlanTask, StepInput, StepTask};
use crate::limits::{PROMPT_RESULT_BYTES_MAX, PROMPT_RESULTS_BYTES_MAX};
use crate::run::Outcome;
use crate::tool::ToolSpec;

pub(super) const PLAN_SYSTEM: &str = include_str!("prompts/plan_system.md");
pub(super) const ACT_SYSTEM: &str = include_str!("prompts/act_system.md");
pub(super) const ACT_DONE: &str = include_str!("prompts/act_done.md");
pub(super) const ACT_LAST: &str = include_str!("prompts/act_last.md");
pub(super) const ANSWER_SYSTEM: &str = include_str!("prompts/answer_system.md");
pub(super) const ANSWER_CONTINUE: &str = include_str!("prompts/answer_continue.md");
const PLAN_USER: &str = include_str!("prompts/plan_user.md");
const PLAN_CONTEXT: &str = include_str!("prompts/plan_context.md");
const PLAN_REFUSED: &str = include_str!("prompts/plan_refused.md");
const ACT_USER: &str = include_str!("prompts/act_user.md");
const ACT_NATIVE: &str = include_str!("prompts/act_native.md");
const ACT_ARGUMENTS: &str = include_str!("prompts/act_arguments.md");
const ACT_ACTION: &str = include_str!("prompts/act_action.md");
const ANSWER_USER: &str = include_str!("prompts/answer_user.md");

/// How much of the whole task stands in the prompt of a step, in bytes.
const ORIENTATION_BYTES_MAX: usize = 2 << 10;

/// Tags that mark data; text from outside must not close or open one.
const TAGS: [&str; 4] = ["result", "output", "context", "task"];

/// `template` with each `{name}` replaced by its value. One pass: what is put in is never read again, and braces that hold no
/// known name (JSON examples) stay.
pub(super) fn render(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let inside = &rest[open + 1..];
        let known = inside.find('}').and_then(|close| {
            let (_, value) = values.iter().find(|(name, _)| *name == &inside[..close])?;
            Some((value, close))
        });
        match known {
            Some((value, close)) => {
                out.push_str(value);
                rest = &inside[close + 1..];
            }
            None => {
                out.push('{');
                rest = inside;
            }
        }
    }
    out.push_str(rest);
    out
}

/// `text` with our tags in it defused: `</result>` becomes `<\/result>`, `<result` becomes `<\result`.
fn defused(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('<') {
        out.push_str(&rest[..=open]);
        rest = &rest[open + 1..];
        let name = rest.strip_prefix('/').unwrap_or(rest);
        let ours = |tag: &str| name.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
        if TAGS.iter().any(|tag| ours(tag)) {
            out.push('\\');
        }
    }
    out.push_str(rest);
    out
}

/// The system prompt of the planner.
pub(super) fn plan_system(task: &PlanTask<'_>) -> String {
    let steps_max = task.steps_max.to_string();
    render(PLAN_SYSTEM.trim_end(), &[("tools", &tool_list(task.tools, false)), ("steps_max", &steps_max)])
}

/// The objective and its context.
pub(super) fn plan_user(task: &PlanTask<'_>) -> String {
    let context = task.context.filter(|context| !context.trim().is_empty()).map_or_else(String::new, |context| {
        render(PLAN_CONTEXT, &[("context", &defused(&cut(context, PROMPT_RESULTS_BYTES_MAX)))])
    });
    context + &render(PLAN_USER.trim_end(), &[("objective", &defused(task.objective))])
}

/// The complaints about a plan, each as it is.
pub(super) fn plan_refused(complaints: &[String]) -> String {
    let lines: Vec<String> = complaints.iter().map(|complaint| format!("- {complaint}")).collect();
    render(PLAN_REFUSED.trim_end(), &[("complaints", &lines.join("\n"))])
}

/// The step and what it builds on.
pub(super) fn act_user(task: &StepTask<'_>) -> String {
    render(ACT_USER, &[("inputs", &results(task.inputs)), ("description", &defused(task.description))])
}

/// The request to do the step with native calls.
pub(super) fn act_native(task: &StepTask<'_>) -> String {
    let objective = defused(&cut(task.objective, ORIENTATION_BYTES_MAX));
    let hint = task.tool_hint.map(|tool| format!(" Use the tool {tool}.")).unwrap_or_default();
    render(ACT_NATIVE.trim_end(), &[("objective", &objective), ("hint", &hint)])
}

/// The request for one tool's arguments.
pub(super) fn act_arguments(tool: &ToolSpec) -> String {
    let about = format!("{}\nIts arguments:\n{}", tool.description, properties(&tool.parameters));
    render(ACT_ARGUMENTS.trim_end(), &[("tool", tool.name), ("about", &about)])
}

/// The request for an action object.
pub(super) fn act_action(tools: &[ToolSpec]) -> String {
    render(ACT_ACTION.trim_end(), &[("tools", &tool_list(tools, true))])
}

/// The objective and every result.
pub(super) fn answer_user(task: &AnswerTask<'_>) -> String {
    let values = [("objective", &*defused(task.objective)), ("results", &*results(task.steps))];
    render(ANSWER_USER.trim_end(), &values)
}

/// What a tool gave, between tags.
pub(super) fn output(tool: &str, output: &Result<Value, String>, bytes_max: usize) -> String {
    let (mark, text) = match output {
        Ok(value) => ("", plain(value)),
        Err(why) => (" failed", why.clone()),
    };
    format!("<output tool=\"{tool}\"{mark}>\n{}\n</output>", defused(&cut(&text, bytes_max)))
}

/// A result as text: strings as they are, anything else as JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "(nothing)".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// What earlier steps produced, each between tags, within the limits of one and of all.
fn results(steps: &[StepInput]) -> String {
    let mut out = String::new();
    for (index, step) in steps.iter().enumerate() {
        let left = PROMPT_RESULTS_BYTES_MAX.saturating_sub(out.len());
        if left < 200 {
            let _ = writeln!(out, "[{} more results cut]\n", steps.len() - index);
            break;
        }
        let why = step.error.as_deref().unwrap_or("no reason was given");
        let (mark, text) = match step.outcome {
            Outcome::Succeeded => ("", plain(&step.result)),
            Outcome::Failed => (" failed", why.to_owned()),
            Outcome::Skipped => (" skipped", why.to_owned()),
            Outcome::Cancelled => (" cancelled", why.to_owned()),
        };
        let description = cut(&step.description, PROMPT_RESULT_BYTES_MAX.min(left) / 4);
        let text = cut(&text, PROMPT_RESULT_BYTES_MAX.min(left));
        let number = step.step_number;
        let _ = writeln!(out, "<result step=\"{number}\"{mark}>\n{}\n=> {}\n</result>\n", defused(&description), defused(&text));
    }
    out
}

/// The tools, one a line, with their arguments if `with_arguments`.
fn tool_list(tools: &[ToolSpec], with_arguments: bool) -> String {
    if tools.is_empty() {
        return "(none)".to_owned();
    }
    let line = |tool: &ToolSpec| {
        let arguments = if with_arguments { format!("\n{}", properties(&tool.parameters)) } else { String::new() };
        format!("- {}: {}{arguments}", tool.name, tool.description)
    };
    tools.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The properties of a tool's schema, one a line.
fn properties(schema: &Value) -> String {
    let Some(properties) = schema["properties"].as_object() else { return schema.to_string() };
    let line = |(name, property): (&String, &Value)| {
        format!("  - {name}: {}", property["description"].as_str().map_or_else(|| property.to_string(), str::to_owned))
    };
    properties.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
