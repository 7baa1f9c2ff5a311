//! The deterministic stand-in: rules instead of a model, no key, no network. It knows nothing; it splits, calls and lists.

use std::time::Duration;

use serde_json::{Value, json};

use super::{AnswerTask, Judged, ModelCall, Move, PlanDraft, PlanTask, ReplanTask, Reply, StepTask, Turn};
use crate::limits::{DESCRIPTION_BYTES_MAX, PROMPT_RESULTS_BYTES_MAX};
use crate::meter::Need;
use crate::run::{Outcome, StepInput, Usage};

mod arguments;
mod expression;
mod readable;
mod split;
mod tokens;
mod words;

/// The name under which its answers are labelled.
pub const NAME: &str = "offline";

/// What one question takes of a budget: it counts as a request and costs nothing.
pub(super) const NEED: Need = Need { model_calls: 1, tool_calls: 0, tokens: 0, cost_nanos: 0 };

/// Steps that "the results" can mean; the latest ones.
const REFERENCES_MAX: usize = 100;
/// Lines of an answer before the rest is only counted.
const ANSWER_STEPS_MAX: usize = 200;

/// A plan that passes the validator, for any text at all.
pub(super) fn plan(task: &PlanTask<'_>) -> Reply<PlanDraft> {
    let offered: Vec<&str> = task.tools.iter().map(|tool| tool.name).collect();
    let clauses = bounded(arguments::split_sums(split::clauses(task.objective), &offered), task.steps_max);
    let mut steps: Vec<Value> = Vec::with_capacity(clauses.len());
    for (index, clause) in clauses.iter().enumerate() {
        let tool = arguments::tool_for(&clause.text, index > 0, &offered);
        steps.push(json!({
            "step_number": index + 1,
            "description": super::text::cut(&clause.text, DESCRIPTION_BYTES_MAX),
            "tool_hint": tool,
            "depends_on": depends_on(clause, index, tool),
        }));
    }
    if steps.is_empty() {
        let text: String = task.objective.chars().filter(|c| !c.is_control()).take(200).collect();
        let description = if text.trim().is_empty() { "Answer an empty objective" } else { text.trim() };
        steps.push(json!({"step_number": 1, "description": description, "tool_hint": null, "depends_on": []}));
    }
    let plan = json!({"steps": steps});
    reply(PlanDraft { reply: plan.to_string(), plan: Ok(plan) })
}

/// At most `steps_max` clauses: what is over goes into the last one.
fn bounded(mut clauses: Vec<split::Clause>, steps_max: usize) -> Vec<split::Clause> {
    let keep = steps_max.max(1);
    if clauses.len() > keep {
        let rest: Vec<String> = clauses.drain(keep - 1..).take(ANSWER_STEPS_MAX).map(|clause| clause.text).collect();
        clauses.push(split::Clause { text: rest.join("; "), after: false });
    }
    clauses
}

/// The plan stands: rules cannot think of another way.
pub(super) fn replan(task: &ReplanTask<'_>) -> Reply<PlanDraft> {
    let _nothing_to_go_by = task;
    let patch = json!({"decision": "keep", "reason": "the offline model knows no other way"});
    reply(PlanDraft { reply: patch.to_string(), plan: Ok(patch) })
}

/// The steps whose results the clause at `index` speaks of.
fn depends_on(clause: &split::Clause, index: usize, tool: Option<&str>) -> Vec<usize> {
    let found = words::references(&clause.text);
    let mut steps: Vec<usize> = found.numbered.iter().filter_map(|n| usize::try_from(*n).ok()).collect();
    if found.all || arguments::gathers(&clause.text, clause.after) {
        steps.extend(index.saturating_sub(REFERENCES_MAX) + 1..=index);
    }
    if found.previous || clause.after || (tool == Some("analyze") && arguments::lacks_text(&clause.text)) {
        steps.push(index);
    }
    steps.retain(|step| (1..=index).contains(step));
    steps.sort_unstable();
    steps.dedup();
    steps
}

/// Calls the tool that the plan names, then answers with what it gave.
///
/// A step that no rule fits, or whose tool fails, fails: whoever reads the outcome should not take it for done. Rules cannot
/// tell whether `done_when` holds, and take a tool that gave something at its word.
pub(super) fn act(task: &StepTask<'_>) -> Reply<Move> {
    let outputs: Vec<&Result<Value, String>> = task
        .turns
        .iter()
        .filter_map(|turn| match turn {
            Turn::Returned { output, .. } => Some(output),
            Turn::Moved(_) => None,
        })
        .collect();
    let tool = task.tools.iter().find(|tool| Some(tool.name) == task.tool_hint);
    let judged = match (tool, outputs.as_slice()) {
        (Some(tool), []) if !task.last => {
            return reply(Move::Call(vec![arguments::call(tool.name, task.description, task.inputs)]));
        }
        (_, []) => without_tool(task),
        (_, outputs) => {
            let tool = task.tool_hint.unwrap_or("the tool");
            let texts = outputs.iter().map(|output| match output {
                Ok(value) => Ok(readable::output(value, task.description)),
                Err(why) => Err(format!("{tool}: {why}")),
            });
            texts.collect::<Result<Vec<String>, String>>().map(|texts| texts.join("\n"))
        }
    };
    // Rules can do a step, but not tell whether it is what somebody meant by done.
    let judged = match task.done_when {
        Some(when) => {
            judged.and_then(|_| Err(format!("it takes a language model to judge whether this is done: {}", readable::line(when))))
        }
        None => judged,
    };
    reply(Move::Conclude(judged.map_or_else(Judged::failed, Judged::succeeded)))
}

/// What can be said about a step without a tool: what the steps before gave, or what it states itself.
fn without_tool(task: &StepTask<'_>) -> Result<String, String> {
    let results: Vec<String> = task
        .inputs
        .iter()
        .filter(|input| input.outcome == Outcome::Succeeded)
        .map(|input| readable::line(&readable::text(&input.result)))
        .collect();
    if !results.is_empty() {
        Ok(super::text::cut(&results.join("; "), PROMPT_RESULTS_BYTES_MAX))
    } else if split::asks(task.description) {
        let what = readable::line(task.description);
        Err(format!("this needs a language model (set OPENAI_API_KEY or OPENAI_BASE_URL): {what}"))
    } else {
        Ok(readable::line(task.description))
    }
}

/// The only step's result, or a list of all.
pub(super) fn answer(task: &AnswerTask<'_>) -> Reply<String> {
    let text = match task.steps {
        [] => "There were no steps, so there is nothing to report.".to_owned(),
        [only] => ended(only),
        steps => {
            let mut lines: Vec<String> = steps
                .iter()
                .take(ANSWER_STEPS_MAX)
                .enumerate()
                .map(|(index, step)| readable::entry(index + 1, &step.description, &ended(step)))
                .collect();
            if steps.len() > ANSWER_STEPS_MAX {
                lines.push(format!("… and {} more steps", steps.len() - ANSWER_STEPS_MAX));
            }
            lines.join("\n")
        }
    };
    reply(if text.trim().is_empty() { "The result is empty.".to_owned() } else { text })
}

/// How a step ended, in words.
fn ended(step: &StepInput) -> String {
    let why = step.error.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    match step.outcome {
        Outcome::Succeeded => readable::output(&step.result, &step.description),
        Outcome::Failed => format!("failed{why}"),
        Outcome::Skipped => format!("skipped{why}"),
        Outcome::Cancelled => format!("cancelled{why}"),
    }
}

fn reply<T>(value: T) -> Reply<T> {
    let usage = Usage { model_calls: 1, ..Usage::default() };
    Reply { value, calls: vec![ModelCall { model: NAME.into(), rung: "rules", usage, duration: Duration::ZERO }] }
}

#[cfg(test)]
mod tests;
