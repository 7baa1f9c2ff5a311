//! The texts that ask what is to become of a plan. Pure.

use std::collections::BTreeMap;

use super::{PROMPT_RESULT_BYTES_MAX, PROMPT_RESULTS_BYTES_MAX, context, cut, defused, plain, render, tool_list};
use crate::id::StepNumber;
use crate::llm::ReplanTask;
use crate::run::{StepState, StepView};

const REPLAN_SYSTEM: &str = include_str!("../prompts/replan_system.md");
const REPLAN_USER: &str = include_str!("../prompts/replan_user.md");
const REPLAN_REFUSED: &str = include_str!("../prompts/replan_refused.md");

/// The least that is shown of a step, in bytes.
const STEP_BYTES_MIN: usize = 160;
/// Step numbers that a sentence names before the rest is only counted.
const NAMED_MAX: usize = 20;

/// The system prompt of the planner that revises.
pub(in crate::llm) fn replan_system(task: &ReplanTask<'_>) -> String {
    let values = [
        ("tools", &*tool_list(task.tools, false)),
        ("next_number", &task.next_number.to_string()),
        ("steps_max", &task.steps_max.to_string()),
    ];
    render(REPLAN_SYSTEM.trim_end(), &values)
}

/// The objective, the plan with where its steps stand, and what asks for a decision.
pub(in crate::llm) fn replan_user(task: &ReplanTask<'_>) -> String {
    let values = [("objective", &*defused(task.objective)), ("steps", &*steps(task)), ("after", &*after(task))];
    context(task.context) + &render(REPLAN_USER.trim_end(), &values)
}

/// The complaints about a patch, each as it is.
pub(in crate::llm) fn replan_refused(complaints: &[String]) -> String {
    let lines: Vec<String> = complaints.iter().map(|complaint| format!("- {complaint}")).collect();
    render(REPLAN_REFUSED.trim_end(), &[("complaints", &lines.join("\n"))])
}

/// Every step within the limit of all: those that ask for a decision first get theirs, the others share what is left.
fn steps(task: &ReplanTask<'_>) -> String {
    let asks = |step: &&StepView| task.after.contains(&step.step.step_number);
    let mut shown: BTreeMap<StepNumber, String> = BTreeMap::new();
    let mut left = PROMPT_RESULTS_BYTES_MAX;
    let (first, others): (Vec<&StepView>, Vec<&StepView>) = task.run.steps.iter().partition(asks);
    for steps in [first, others] {
        let share = (left / steps.len().max(1)).clamp(STEP_BYTES_MIN, PROMPT_RESULT_BYTES_MAX);
        for view in steps {
            let text = entry(view, share);
            if text.len() > left {
                break;
            }
            left -= text.len();
            shown.insert(view.step.step_number, text);
        }
    }
    let unseen = task.run.steps.len() - shown.len();
    let all: String = shown.into_values().collect();
    if unseen == 0 { all } else { format!("{all}[{unseen} more steps cut]\n\n") }
}

/// One step: what it is to do, where it stands, what it gave.
fn entry(view: &StepView, bytes_max: usize) -> String {
    let step = &view.step;
    let numbers = |numbers: &[StepNumber]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut about = cut(&step.description, bytes_max / 4);
    // Beside the step, not within: small models copy what stands in a description.
    let tool = step.tool_hint.as_deref().unwrap_or("none");
    let needs = &step.depends_on[..step.depends_on.len().min(NAMED_MAX)];
    let needs = if needs.is_empty() { String::new() } else { format!(" depends_on=\"{}\"", numbers(needs)) };
    about.extend(step.done_when.as_deref().map(|when| format!("\ndone when: {}", cut(when, bytes_max / 8))));
    if let Some(record) = &view.record {
        let why = || record.error.clone().unwrap_or_else(|| "no reason was given".to_owned());
        let text = if view.state == StepState::Succeeded { plain(&record.result) } else { why() };
        about.push_str(&format!("\n=> {}", cut(&text, bytes_max / 2)));
        about.extend(record.learned.as_deref().map(|learned| format!("\nlearned: {}", cut(learned, bytes_max / 8))));
    }
    let (number, standing) = (step.step_number, standing(view.state));
    format!("<result step=\"{number}\" {standing} tool_hint=\"{tool}\"{needs}>\n{}\n</result>\n\n", defused(&about))
}

/// Where a step stands, in the words of the rules: what has not started is waiting, whatever it waits for.
fn standing(state: StepState) -> &'static str {
    match state {
        StepState::Waiting | StepState::Ready | StepState::Dispatched => "waiting",
        StepState::Running => "running",
        StepState::Succeeded | StepState::Failed | StepState::Skipped | StepState::Cancelled => state.as_str(),
    }
}

/// Which steps ask for a decision, as a sentence.
fn after(task: &ReplanTask<'_>) -> String {
    let stands = |number: &StepNumber| {
        let step = task.run.steps.iter().find(|step| step.step.step_number == *number);
        step.map_or("ended", |step| standing(step.state))
    };
    let mut sentences: Vec<String> =
        task.after.iter().take(NAMED_MAX).map(|number| format!("Step {number} {}.", has(stands(number)))).collect();
    if task.after.len() > NAMED_MAX {
        sentences.push(format!("So did {} more.", task.after.len() - NAMED_MAX));
    }
    sentences.join(" ")
}

fn has(standing: &'static str) -> String {
    match standing {
        "waiting" | "running" => format!("is {standing}"),
        "skipped" | "cancelled" => format!("was {standing}"),
        _ => format!("has {standing}"),
    }
}

#[cfg(test)]
mod tests;
