//! The texts that models read. The templates are files in `prompts/`; what comes from outside stands between tags. Pure.

use std::fmt::Write;

use serde_json::{Value, json};

use super::text::cut;
use super::{AnswerTask, PlanTask, StepTask};
use crate::limits::{PROMPT_RESULT_BYTES_MAX, PROMPT_RESULTS_BYTES_MAX};
use crate::run::{Outcome, StepInput};
use crate::tool::{ToolCall, ToolSpec};

pub(super) const PLAN_SYSTEM: &str = include_str!("prompts/plan_system.md");
pub(super) const ACT_SYSTEM: &str = include_str!("prompts/act_system.md");
pub(super) const ANSWER_SYSTEM: &str = include_str!("prompts/answer_system.md");
pub(super) const ANSWER_CONTINUE: &str = include_str!("prompts/answer_continue.md");
const PLAN_USER: &str = include_str!("prompts/plan_user.md");
const PLAN_CONTEXT: &str = include_str!("prompts/plan_context.md");
const PLAN_REFUSED: &str = include_str!("prompts/plan_refused.md");
const PLAN_FEEDBACK: &str = include_str!("prompts/plan_feedback.md");
const ACT_USER: &str = include_str!("prompts/act_user.md");
const ACT_NATIVE: &str = include_str!("prompts/act_native.md");
const ACT_ARGUMENTS: &str = include_str!("prompts/act_arguments.md");
const ACT_ACTION: &str = include_str!("prompts/act_action.md");
const ACT_CALL: &str = include_str!("prompts/act_call.md");
const ACT_VERDICT: &str = include_str!("prompts/act_verdict.md");
const ANSWER_USER: &str = include_str!("prompts/answer_user.md");

/// How much of a call's arguments stands beside its output, in bytes.
const CALL_BYTES_MAX: usize = 1 << 10;

/// How much of one earlier attempt's failure stands in a prompt, in bytes, and of how many.
const LESSON_BYTES_MAX: usize = 2 << 10;
const LESSONS_MAX: usize = 5;

/// When a step that tools did has failed, and what its result is.
const OUTPUT_FAILED: &str = "an output is an error or does not give what is asked for";
const REPEATED: &str = "the result in one short, complete sentence that repeats the value of the last output unchanged; \
                        if the step is not done, why";
/// The result of a step that the model does in its head.
const WRITTEN: &str = "the text itself that the step asks for, word for word as its reader gets it; if it cannot be done, why";

/// Tags that mark data; text from outside must not close or open one.
const TAGS: [&str; 6] = ["result", "output", "context", "task", "attempt", "feedback"];

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
    let (example_task, example) = plan_example(task.tools);
    let values = [
        ("tools", &*tool_list(task.tools, false)),
        ("steps_max", &task.steps_max.to_string()),
        ("example_task", &example_task),
        ("example", &example),
    ];
    render(PLAN_SYSTEM.trim_end(), &values)
}

/// A task and its plan, with the tools that exist: a name in an example is a name that models use.
fn plan_example(tools: &[ToolSpec]) -> (String, String) {
    const EXAMPLES: [(&str, &str, &str, &str); 3] = [
        ("calculate", "multiply 12 by 7 and then add 5 to the product", "Multiply 12 by 7", "a number is given"),
        ("search", "find the opening hours of the museum", "Find the opening hours of the museum", "the hours are found"),
        ("analyze", "tell the median of 4, 9 and 20", "Compute the median of 4, 9 and 20", "the median is given"),
    ];
    let mut steps: Vec<Value> = Vec::new();
    let mut orders = Vec::new();
    let mut add = |description: &str, tool: &str, after: &[usize], done_when: &str| {
        let number = steps.len() + 1;
        steps.push(json!({"step_number": number, "description": description, "tool_hint": tool, "depends_on": after, "done_when": done_when}));
        steps.len()
    };
    for (tool, order, description, done_when) in EXAMPLES.iter().filter(|(name, ..)| tools.iter().any(|spec| spec.name == *name))
    {
        orders.push(*order);
        let number = add(description, tool, &[], done_when);
        if *tool == "calculate" {
            add(&format!("Add 5 to the result of step {number}"), tool, &[number], done_when);
        }
    }
    orders.push("write a birthday wish");
    add("Write a birthday wish", "none", &[], "a wish is written");
    (orders.join("; "), json!({"steps": steps}).to_string())
}

/// The objective and its context.
pub(super) fn plan_user(task: &PlanTask<'_>) -> String {
    context(task.context) + &render(PLAN_USER.trim_end(), &[("objective", &defused(task.objective))])
}

/// What a person said about a plan, and the request for another.
pub(super) fn plan_feedback(text: &str) -> String {
    render(PLAN_FEEDBACK.trim_end(), &[("feedback", &defused(&cut(text, PROMPT_RESULT_BYTES_MAX)))])
}

fn context(context: Option<&str>) -> String {
    context.filter(|context| !context.trim().is_empty()).map_or_else(String::new, |context| {
        render(PLAN_CONTEXT, &[("context", &defused(&cut(context, PROMPT_RESULTS_BYTES_MAX)))])
    })
}

/// The complaints about a plan, each as it is.
pub(super) fn plan_refused(complaints: &[String]) -> String {
    let lines: Vec<String> = complaints.iter().map(|complaint| format!("- {complaint}")).collect();
    render(PLAN_REFUSED.trim_end(), &[("complaints", &lines.join("\n"))])
}

/// The step and what it builds on, with why earlier attempts failed.
pub(super) fn act_user(task: &StepTask<'_>) -> String {
    step(task, task.lessons)
}

fn step(task: &StepTask<'_>, lessons: &[String]) -> String {
    let done_when = task.done_when.map_or_else(String::new, |when| format!("The step is done when: {}\n", defused(when.trim())));
    let lesson = |lesson: &String| format!("<attempt>\n{}\n</attempt>\n", defused(&cut(lesson, LESSON_BYTES_MAX)));
    let lessons: String = lessons.iter().skip(lessons.len().saturating_sub(LESSONS_MAX)).map(lesson).collect();
    let about = "\nEarlier attempts at this step failed. Do it in another way:\n";
    let lessons = if lessons.is_empty() { lessons } else { format!("{about}{lessons}") };
    let values = [
        ("inputs", &*results(task.inputs)),
        ("description", &defused(task.description)),
        ("done_when", &done_when),
        ("lessons", &lessons),
    ];
    render(ACT_USER, &values).trim_end().to_owned()
}

/// The request to do the step with native calls.
pub(super) fn act_native(tool_hint: Option<&str>) -> String {
    let hint = tool_hint.map(|tool| format!(" Use the tool {tool}.")).unwrap_or_default();
    render(ACT_NATIVE.trim_end(), &[("hint", &hint)])
}

/// The request for one tool's arguments.
pub(super) fn act_arguments(tool: &ToolSpec) -> String {
    let values = [("tool", tool.name), ("about", tool.description), ("arguments", &*properties(&tool.parameters))];
    render(ACT_ARGUMENTS.trim_end(), &values)
}

/// The request for an action object.
pub(super) fn act_action(tools: &[ToolSpec]) -> String {
    render(ACT_ACTION.trim_end(), &[("tools", &tool_list(tools, true))])
}

/// How a step is to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judging<'a> {
    /// By its calls; the model may also ask for one more.
    Calls,
    /// For good: no tool can be called any more. Without any call, the model does the step in its head.
    Last,
    /// By its calls and the result that the model has given in words.
    Proposed(&'a str),
}

/// The request for a verdict: the step, every call and its output, and what to reply.
pub(super) fn act_verdict(task: &StepTask<'_>, calls: &[(&ToolCall, String)], judging: Judging<'_>) -> String {
    let line = |(call, output): &(&ToolCall, String)| {
        let arguments = defused(&cut(&call.arguments.to_string(), CALL_BYTES_MAX));
        render(ACT_CALL, &[("tool", &call.tool), ("arguments", &arguments), ("output", output)]) + "\n"
    };
    let mut given: String = calls.iter().map(line).collect();
    let in_its_head = calls.is_empty() && judging == Judging::Last;
    let (more, failed, result) = match judging {
        Judging::Calls => (", \"more\" if one more call of a tool is needed", OUTPUT_FAILED, REPEATED),
        Judging::Last if in_its_head => ("", "it is not", WRITTEN),
        Judging::Last => ("", OUTPUT_FAILED, REPEATED),
        Judging::Proposed(result) => {
            let result = defused(&cut(result, PROMPT_RESULT_BYTES_MAX));
            given.push_str(&format!("The reply to the step:\n<output>\n{result}\n</output>\n\n"));
            ("", "the reply does not give what is asked for", "\"\" if the step is done, else why it is not")
        }
    };
    let done = if task.done_when.is_some() { "the step is done as said above" } else { "what the step asks for is there" };
    let values = [
        // What failed before must not speak against what is there now.
        ("step", &*step(task, if in_its_head { task.lessons } else { &[] })),
        ("given", &given),
        ("ask", if in_its_head { "Do the step without any tool" } else { "Judge whether the step is done" }),
        ("done", done),
        ("failed", failed),
        ("more", more),
        ("result", result),
    ];
    render(ACT_VERDICT.trim_end(), &values)
}

/// The objective and every result.
pub(super) fn answer_user(task: &AnswerTask<'_>) -> String {
    let halted = task.halted.map_or_else(String::new, |why| {
        format!(
            "The work ended before all of it was done: {}. Say so, and what is missing.\n",
            defused(why.trim_end_matches('.'))
        )
    });
    let values = [("objective", &*defused(task.objective)), ("results", &*results(task.steps)), ("halted", &halted)];
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

/// The properties of a tool's schema, one a line. Small models copy examples where they should think: only those remain whose
/// form is not obvious (`2 km in miles`), with letters in place of the numbers.
fn properties(schema: &Value) -> String {
    let Some(properties) = schema["properties"].as_object() else { return schema.to_string() };
    let line = |(name, property): (&String, &Value)| match property["description"].as_str() {
        Some(text) => {
            let (about, rest) = text.split_once(", for example").unwrap_or((text, ""));
            let more = rest.split_once("; ").map(|(_, more)| format!("; {more}")).unwrap_or_default();
            let has = |text: &str, kind: fn(&char) -> bool| text.chars().any(|c| kind(&c));
            let forms: Vec<String> = rest
                .split('`')
                .skip(1)
                .step_by(2)
                .filter(|form| has(form, char::is_ascii_digit) && has(form, char::is_ascii_alphabetic))
                .map(|form| format!("`{}`", without_numbers(form)))
                .collect();
            let forms = if forms.is_empty() { String::new() } else { format!("; special forms are {}", forms.join(" and ")) };
            format!("  - {name}: {}{more}{forms}", about.trim_end_matches('.'))
        }
        None => format!("  - {name}: {property}"),
    };
    properties.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `example` with a letter in place of every number.
fn without_numbers(example: &str) -> String {
    let mut letters = ('a'..='z').filter(|c| *c != 'e').cycle();
    let mut out = String::new();
    let mut rest = example;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..start]);
        out.extend(letters.next());
        let number = &rest[start..];
        let end = number.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ',')).unwrap_or(number.len());
        rest = &number[end..];
    }
    out + rest
}

mod replan;

pub(super) use replan::{replan_refused, replan_system, replan_user};

#[cfg(test)]
mod tests;
