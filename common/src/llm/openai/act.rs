//! The next move within a step: native tool calls where the model knows them, else an action object.

use serde_json::{Map, Value, json};

use super::completion::{Completion, NativeCall};
use super::conversation::{action_messages, native_messages};
use super::failure::one_line;
use super::ladder::{Asker, Kind, Shape, refused_request};
use super::verdict::{action_in_words, judged};
use crate::limits::{ARGUMENTS_BYTES_MAX, TOOL_CALLS_PER_TURN_MAX};
use crate::llm::text::cut;
use crate::llm::{LlmError, Move, StepTask, Turn, extract, prompt};
use crate::tool::{ToolCall, ToolSpec};

/// How often only arguments are asked for.
const TRIES_MAX: usize = 2;
/// How much of an unusable reply is kept, in bytes.
const UNUSABLE_BYTES_MAX: usize = 2 << 10;

/// How a model is asked for moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// With `tools`, as the API has it.
    Native,
    /// With an object `{"tool", "arguments"}` or `{"answer", "outcome"}`.
    Action,
}

impl Asker<'_> {
    /// The next move.
    pub(super) async fn act(&mut self, task: &StepTask<'_>) -> Result<Move, LlmError> {
        if task.last || task.tools.is_empty() || goes_in_circles(task.turns) {
            return self.verdict(task, None).await;
        }
        if let Some(tool) = untried(task) {
            return self.arguments(task, tool).await;
        }
        let concluded = match has_output(task) {
            true => self.conclude(task).await?,
            false => None,
        };
        if let Some(made) = concluded {
            return Ok(made);
        }
        if self.memory.get(self.model).style != Some(Style::Action)
            && let Some(made) = self.native(task).await?
        {
            return Ok(made);
        }
        self.action(task).await
    }

    /// Asks for the arguments of the tool that the plan names, and for nothing else: models that get lost among tools and
    /// rules can still do that.
    async fn arguments(&mut self, task: &StepTask<'_>, tool: &ToolSpec) -> Result<Move, LlmError> {
        let names = property_names(tool);
        let shape = Shape {
            kind: Kind::Arguments,
            name: tool.name,
            schema: tool.parameters.clone(),
            strict: is_strict(&tool.parameters),
            wanted: &names,
        };
        let found = self.structured(&shape, &action_messages(task, &prompt::act_arguments(tool))).await?;
        Ok(match found.value {
            Ok(value) => arguments_move(tool.name, value, &found.reply),
            Err(why) => unusable(&found.reply, why),
        })
    }

    /// Asks with native tools. `None`: the model does not know them, ask for an action object.
    async fn native(&mut self, task: &StepTask<'_>) -> Result<Option<Move>, LlmError> {
        let tools: Vec<Value> = task
            .tools
            .iter()
            .map(|tool| {
                let function = json!({"name": tool.name, "description": tool.description, "parameters": tool.parameters});
                json!({"type": "function", "function": function})
            })
            .collect();
        let body = json!({"messages": native_messages(task), "tools": tools});
        let completion = match self.ask(body, "tool_call").await {
            Ok(completion) => completion,
            Err(failure) if refused_request(&failure) => return Ok(None),
            Err(failure) => return Err(failure.error),
        };
        let proven = self.memory.get(self.model).style == Some(Style::Native);
        match read_native(&completion, task.tools) {
            Native::Says(result) => self.verdict(task, Some(&result)).await.map(Some),
            Native::Move(made) => {
                if matches!(made, Move::Call(_)) {
                    self.memory.update(self.model, |known| known.style = Some(Style::Native));
                }
                Ok(Some(made))
            }
            Native::CallAsText(made) => {
                self.memory.update(self.model, |known| known.style = Some(Style::Action));
                Ok(Some(made))
            }
            Native::Broken(made) if proven => Ok(Some(made)),
            Native::Broken(_) => Ok(None),
        }
    }

    /// Asks for an action object.
    async fn action(&mut self, task: &StepTask<'_>) -> Result<Move, LlmError> {
        let ask = prompt::act_action(task.tools);
        let schema = action_schema(task.tools);
        let shape = Shape { kind: Kind::Action, name: "action", schema, strict: false, wanted: &["answer", "tool", "outcome"] };
        let found = self.structured(&shape, &action_messages(task, &ask)).await?;
        let said = match found.value {
            Ok(value) => action_said(&value, &found.reply, task.tools),
            Err(_) if found.words => Said::Move(action_in_words(task, &found.reply)),
            Err(why) => Said::Move(unusable(&found.reply, why)),
        };
        let made = match said {
            Said::Move(made) => made,
            Said::Result(result) => self.verdict(task, Some(&result)).await?,
        };
        if !matches!(made, Move::Unusable { .. }) {
            self.memory.update(self.model, |known| known.style = Some(Style::Action));
        }
        Ok(made)
    }
}

/// The tool that the plan names, while it has given no output. After two failures the step may as well be given up, for
/// which a model needs more than arguments.
fn untried<'a>(task: &StepTask<'a>) -> Option<&'a ToolSpec> {
    let outputs = |good: bool| {
        task.turns.iter().filter(|turn| matches!(turn, Turn::Returned { output, .. } if output.is_ok() == good)).count()
    };
    let unusable = task.turns.iter().filter(|turn| matches!(turn, Turn::Moved(Move::Unusable { .. }))).count();
    let tool = task.tools.iter().find(|tool| Some(tool.name) == task.tool_hint)?;
    (outputs(true) == 0 && outputs(false) + unusable < TRIES_MAX).then_some(tool)
}

/// Whether the same call was made twice and gave the same both times: a third time would cost as much and tell as little.
fn goes_in_circles(turns: &[Turn]) -> bool {
    let mut made: &[ToolCall] = &[];
    let mut seen: Vec<(&ToolCall, &Result<Value, String>)> = Vec::new();
    for turn in turns {
        match turn {
            Turn::Moved(Move::Call(calls)) => made = calls,
            Turn::Moved(Move::Conclude(_) | Move::Unusable { .. }) => {}
            Turn::Returned { index, output } => seen.extend(made.get(*index).map(|call| (call, output))),
        }
    }
    (1..seen.len()).any(|at| seen[..at].contains(&seen[at]))
}

/// Whether the turn before gave something in a step whose tool the plan names. Nothing found is not something: other words
/// may find it.
fn has_output(task: &StepTask<'_>) -> bool {
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let found = matches!(task.turns.last(), Some(Turn::Returned { output: Ok(value), .. }) if !empty(value));
    found && task.tools.iter().any(|tool| Some(tool.name) == task.tool_hint)
}

/// A reply to a request with native tools.
enum Native {
    /// As it should be.
    Move(Move),
    /// A call, but written as text.
    CallAsText(Move),
    /// The result of the step, not judged yet.
    Says(String),
    /// Nothing that can be used.
    Broken(Move),
}

fn read_native(completion: &Completion, tools: &[ToolSpec]) -> Native {
    if let Some(refusal) = &completion.refusal {
        return Native::Move(unusable(refusal, format!("the model refused: {}", one_line(refusal))));
    }
    if !completion.calls.is_empty() {
        let calls: Result<Vec<ToolCall>, String> =
            completion.calls.iter().take(TOOL_CALLS_PER_TURN_MAX).map(native_call).collect();
        return match calls {
            Ok(calls) => Native::Move(Move::Call(calls)),
            Err(why) => Native::Broken(unusable(&native_text(&completion.calls), why)),
        };
    }
    let text = extract::without_reasoning(&completion.text);
    if text.is_empty() {
        let why = if completion.cut_off { "the reply was cut off at its length limit" } else { "the reply was empty" };
        return Native::Broken(unusable(&completion.text, why.into()));
    }
    if completion.cut_off {
        return Native::Move(unusable(text, "the reply was cut off at its length limit, be shorter".into()));
    }
    let starts_as_data = text.starts_with(['{', '[', '<']) || text.starts_with("```");
    match extract::object(text, &["name", "tool", "function", "answer", "outcome"]) {
        Ok(value) if starts_as_data => match action_said(&value, text, tools) {
            Said::Result(result) => Native::Says(result),
            Said::Move(made @ Move::Conclude(_)) => Native::Move(made),
            Said::Move(made @ Move::Call(_)) => Native::CallAsText(made),
            // JSON that is no action: the step may have asked for JSON.
            Said::Move(Move::Unusable { .. }) if call_name(&value).is_none() => Native::Says(text.to_owned()),
            Said::Move(made @ Move::Unusable { .. }) => Native::Broken(made),
        },
        Ok(_) | Err(_) if text.contains("<tool_call>") || text.contains("<function=") => {
            Native::Broken(unusable(text, "a tool call was written as text".into()))
        }
        Ok(_) | Err(_) => Native::Says(text.to_owned()),
    }
}

fn native_call(call: &NativeCall) -> Result<ToolCall, String> {
    let arguments = match &call.arguments {
        Value::Null => Ok(json!({})),
        Value::String(text) if text.trim().is_empty() => Ok(json!({})),
        Value::String(text) => extract::object(text, &[]),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Ok(call.arguments.clone()),
    };
    let arguments = arguments.map_err(|why| format!("the arguments of {} cannot be read: {why}", call.name))?;
    checked(&call.name, arguments)
}

fn native_text(calls: &[NativeCall]) -> String {
    let text = |call: &NativeCall| format!("{}({})", call.name, prompt::plain(&call.arguments));
    calls.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// The tool that an object names, however it spells it.
fn call_name(value: &Value) -> Option<&str> {
    ["tool", "name", "function", "tool_name"]
        .iter()
        .find_map(|key| value[*key].as_str().or_else(|| value[*key]["name"].as_str()))
        .filter(|_| {
            value.get("arguments").is_some()
                || value.get("parameters").is_some()
                || value.get("tool").is_some()
                || value["function"].is_object()
        })
}

/// What an action object says.
pub(super) enum Said {
    /// A move.
    Move(Move),
    /// The result of the step, not judged.
    Result(String),
}

/// Reads an action object, however it is spelt.
pub(super) fn action_said(value: &Value, reply: &str, tools: &[ToolSpec]) -> Said {
    let value = value.get(0).unwrap_or(value);
    let name = call_name(value).map(str::trim).filter(|name| !matches!(*name, "" | "none" | "null" | "answer"));
    if let Some(name) = name {
        let given = ["arguments", "parameters", "args", "input"]
            .iter()
            .find_map(|key| value.get(*key).or_else(|| value["function"].get(*key)));
        let arguments = match given {
            Some(Value::String(text)) => extract::object(text, &[]).unwrap_or_else(|_| Value::from(text.clone())),
            Some(other) => other.clone(),
            None => json!({}),
        };
        if !tools.iter().any(|tool| tool.name == name) {
            let known: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
            let why = format!("{} is not a tool, use one of: {}", cut(&format!("{name:?}"), 100), known.join(", "));
            return Said::Move(unusable(reply, why));
        }
        return Said::Move(checked(name, arguments).map_or_else(|why| unusable(reply, why), |call| Move::Call(vec![call])));
    }
    if value.get("outcome").is_some() {
        return Said::Move(judged(value).map_or_else(|why| unusable(reply, why), Move::Conclude));
    }
    let given = ["answer", "result", "final_answer", "response"]
        .iter()
        .find_map(|key| value.get(*key))
        .filter(|answer| !answer.is_null());
    match given.map(prompt::plain) {
        Some(text) if !text.trim().is_empty() => Said::Result(text.trim().to_owned()),
        Some(_) | None => {
            let why = "reply with {\"answer\": \"...\", \"outcome\": \"...\"} or {\"tool\": \"...\", \"arguments\": {...}}";
            Said::Move(unusable(reply, why.into()))
        }
    }
}

/// A reply that should be the arguments of `tool` alone.
fn arguments_move(tool: &str, value: Value, reply: &str) -> Move {
    // Some models write the whole call all the same.
    let value = match value.get("arguments").or_else(|| value.get("parameters")) {
        Some(inner @ Value::Object(_))
            if call_name(&value).is_some() || value.as_object().is_some_and(|fields| fields.len() == 1) =>
        {
            inner.clone()
        }
        Some(_) | None => value,
    };
    checked(tool, value).map_or_else(|why| unusable(reply, why), |call| Move::Call(vec![call]))
}

fn checked(tool: &str, mut arguments: Value) -> Result<ToolCall, String> {
    let Some(fields) = arguments.as_object_mut() else { return Err(format!("the arguments of {tool} must be an object")) };
    // Strict output has every optional argument in it, as null.
    fields.retain(|_, value| !value.is_null());
    let bytes = arguments.to_string().len();
    if bytes > ARGUMENTS_BYTES_MAX {
        return Err(format!("the arguments of {tool} have {bytes} bytes, the limit is {ARGUMENTS_BYTES_MAX}"));
    }
    Ok(ToolCall { tool: tool.to_owned(), arguments })
}

pub(super) fn unusable(reply: &str, complaint: String) -> Move {
    Move::Unusable { reply: cut(reply, UNUSABLE_BYTES_MAX), complaint }
}

/// Whether OpenAI's strict mode takes the schema: it wants every property required, and no limits of texts. Telling a small
/// model to fill in what is optional makes it invent something.
fn is_strict(schema: &Value) -> bool {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    schema["additionalProperties"] == json!(false)
        && schema["properties"].as_object().is_some_and(|properties| {
            properties.iter().all(|(name, property)| {
                required.contains(&name.as_str()) && property.get("minLength").is_none() && property.get("maxLength").is_none()
            })
        })
}

fn property_names(tool: &ToolSpec) -> Vec<&str> {
    tool.parameters["properties"].as_object().map(|fields| fields.keys().map(String::as_str).collect()).unwrap_or_default()
}

fn action_schema(tools: &[ToolSpec]) -> Value {
    let object = |properties: Value| {
        let required: Vec<&String> = properties.as_object().map(Map::keys).into_iter().flatten().collect();
        json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
    };
    let outcomes = ["succeeded", "failed", "impossible"];
    let mut variants = vec![object(json!({
        "answer": {"type": "string"},
        "learned": {"type": "string"},
        "outcome": {"type": "string", "enum": outcomes},
        "retryable": {"type": "boolean"},
    }))];
    variants.extend(
        tools.iter().map(|tool| object(json!({"tool": {"type": "string", "enum": [tool.name]}, "arguments": tool.parameters}))),
    );
    json!({"anyOf": variants})
}
