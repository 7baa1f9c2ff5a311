//! A step's turns as a conversation: with native calls, or in words. Pure.

use serde_json::{Value, json};

use crate::limits::{PROMPT_RESULT_BYTES_MAX, PROMPT_RESULTS_BYTES_MAX};
use crate::llm::prompt::Judging;
use crate::llm::text::cut;
use crate::llm::{Move, StepTask, Turn, prompt};
use crate::tool::ToolCall;

/// How many bytes of each output may stand in the prompt: the latest outputs come first.
fn output_budgets(turns: &[Turn]) -> Vec<usize> {
    let mut left = PROMPT_RESULTS_BYTES_MAX;
    let mut budgets = vec![0; turns.len()];
    for (turn, budget) in turns.iter().zip(&mut budgets).rev() {
        if let Turn::Returned { output, .. } = turn {
            let bytes = output.as_ref().map_or_else(String::len, |value| prompt::plain(value).len());
            *budget = bytes.min(PROMPT_RESULT_BYTES_MAX).min(left).max(80);
            left = left.saturating_sub(*budget);
        }
    }
    budgets
}

/// The conversation as plain text, ending with the request `ask`.
pub(super) fn action_messages(task: &StepTask<'_>, ask: &str) -> Vec<Value> {
    let mut messages = vec![said("system", prompt::ACT_SYSTEM.trim_end().to_owned())];
    let mut pending = prompt::act_user(task).trim_end().to_owned();
    let mut made: &[ToolCall] = &[];
    for (turn, budget) in task.turns.iter().zip(output_budgets(task.turns)) {
        let reply = match turn {
            Turn::Returned { index, output } => {
                let tool = made.get(*index).map_or("?", |call| &call.tool);
                pending = format!("{pending}\n\n{}", prompt::output(tool, output, budget)).trim_start().to_owned();
                continue;
            }
            Turn::Moved(Move::Call(calls)) => {
                made = calls;
                let line = |call: &ToolCall| json!({"tool": call.tool, "arguments": call.arguments}).to_string();
                (calls.iter().map(line).collect::<Vec<_>>().join("\n"), String::new())
            }
            Turn::Moved(Move::Conclude(judged)) => (judged.result.clone(), String::new()),
            Turn::Moved(Move::Unusable { reply, complaint }) => (reply.clone(), format!("That cannot be used: {complaint}.")),
        };
        messages.push(said("user", std::mem::take(&mut pending)));
        messages.push(said(
            "assistant",
            if reply.0.is_empty() { "(nothing)".to_owned() } else { cut(&reply.0, PROMPT_RESULT_BYTES_MAX) },
        ));
        pending = reply.1;
    }
    messages.push(said("user", format!("{pending}\n\n{ask}").trim_start().to_owned()));
    messages
}

/// The step with its calls and their outputs as one message that asks for a verdict, and what was wrong with the last reply.
pub(super) fn verdict_messages(task: &StepTask<'_>, judging: Judging<'_>) -> Vec<Value> {
    let mut made: &[ToolCall] = &[];
    let mut calls = Vec::new();
    for (turn, budget) in task.turns.iter().zip(output_budgets(task.turns)) {
        match turn {
            Turn::Moved(Move::Call(latest)) => made = latest,
            Turn::Moved(Move::Conclude(_) | Move::Unusable { .. }) => {}
            Turn::Returned { index, output } => {
                calls.extend(made.get(*index).map(|call| (call, prompt::output(&call.tool, output, budget))));
            }
        }
    }
    let system = said("system", prompt::ACT_SYSTEM.trim_end().to_owned());
    let mut messages = vec![system, said("user", prompt::act_verdict(task, &calls, judging))];
    if let Some(Turn::Moved(Move::Unusable { reply, complaint })) = task.turns.last() {
        messages.push(said("assistant", if reply.is_empty() { "(nothing)".to_owned() } else { reply.clone() }));
        messages.push(said("user", format!("That cannot be used: {complaint}.")));
    }
    messages
}

/// The conversation with native calls.
pub(super) fn native_messages(task: &StepTask<'_>) -> Vec<Value> {
    let ask = format!("{}\n\n{}", prompt::act_user(task).trim_end(), prompt::act_native(task.tool_hint));
    let mut messages = vec![said("system", prompt::ACT_SYSTEM.trim_end().to_owned()), said("user", ask)];
    // Every call needs an answer, or the API refuses the conversation: those of the last move that nobody ran get one too.
    let mut open: Vec<(String, bool)> = Vec::new();
    let mut made: &[ToolCall] = &[];
    for (at, (turn, budget)) in task.turns.iter().zip(output_budgets(task.turns)).enumerate() {
        match turn {
            Turn::Returned { index, output } => {
                if let Some((id, answered)) = open.get_mut(*index).filter(|(_, answered)| !answered) {
                    let tool = made.get(*index).map_or("?", |call| &call.tool);
                    messages.push(json!({"role": "tool", "tool_call_id": id, "content": prompt::output(tool, output, budget)}));
                    *answered = true;
                }
            }
            Turn::Moved(made_move) => {
                close(&mut open, &mut messages);
                match made_move {
                    Move::Call(calls) => {
                        made = calls;
                        open = (0..calls.len()).map(|index| (format!("call_{at}_{index}"), false)).collect();
                        let native = |(call, (id, _)): (&ToolCall, &(String, bool))| json!({"id": id, "type": "function", "function": {"name": call.tool, "arguments": call.arguments.to_string()}});
                        let calls: Vec<Value> = calls.iter().zip(&open).map(native).collect();
                        messages.push(json!({"role": "assistant", "content": null, "tool_calls": calls}));
                    }
                    Move::Conclude(judged) => messages.push(said("assistant", judged.result.clone())),
                    Move::Unusable { reply, complaint } => {
                        messages.push(said("assistant", if reply.is_empty() { "(nothing)".to_owned() } else { reply.clone() }));
                        messages.push(said("user", format!("That cannot be used: {complaint}.")));
                    }
                }
            }
        }
    }
    close(&mut open, &mut messages);
    messages
}

fn close(open: &mut Vec<(String, bool)>, messages: &mut Vec<Value>) {
    for (id, _) in open.drain(..).filter(|(_, answered)| !answered) {
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": "(this call was not run)"}));
    }
}

fn said(role: &str, content: String) -> Value {
    json!({"role": role, "content": content})
}
