//! Structured output by ladder: the strictest way to ask for JSON that the endpoint understands, remembered per model.

use std::time::Duration;

use serde_json::{Value, json};

use super::completion::Completion;
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::{Known, Memory};
use crate::config::Price;
use crate::limits::REPLY_TOKENS_ESTIMATE;
use crate::llm::{Failed, LlmError, ModelCall, Reply, extract};
use crate::meter::{Meter, Need};

/// A way to ask for a JSON object, strictest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rung {
    /// `response_format: json_schema`.
    JsonSchema,
    /// A tool whose arguments are the object, and that must be called.
    ToolCall,
    /// `response_format: json_object`.
    JsonObject,
    /// Words.
    Prompt,
}

impl Rung {
    pub(super) fn name(self) -> &'static str {
        match self {
            Rung::JsonSchema => "json_schema",
            Rung::ToolCall => "tool_call",
            Rung::JsonObject => "json_object",
            Rung::Prompt => "prompt",
        }
    }

    fn below(self) -> Option<Self> {
        match self {
            Rung::JsonSchema => Some(Rung::ToolCall),
            Rung::ToolCall => Some(Rung::JsonObject),
            Rung::JsonObject => Some(Rung::Prompt),
            Rung::Prompt => None,
        }
    }
}

/// What kind of object is asked for: an endpoint may take the schema of one and refuse that of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A plan.
    Plan,
    /// The arguments of one tool.
    Arguments,
    /// A call or an answer.
    Action,
    /// How a step ended.
    Verdict,
    /// A change of a plan.
    Patch,
}

/// What is asked for.
pub(super) struct Shape<'a> {
    /// Under this its rung is remembered.
    pub(super) kind: Kind,
    /// The name of the schema.
    pub(super) name: &'a str,
    /// The schema; every object in it is closed.
    pub(super) schema: Value,
    /// Whether the schema is one that OpenAI's strict mode takes.
    pub(super) strict: bool,
    /// Keys by which the object is known among others.
    pub(super) wanted: &'a [&'a str],
}

/// A reply with what was found in it.
pub(super) struct Structured {
    /// The model's own words.
    pub(super) reply: String,
    /// The JSON, or why there is none.
    pub(super) value: Result<Value, String>,
    /// Whether there is none although the model has said something, on the lowest rung: it does not write objects.
    pub(super) words: bool,
}

/// One conversation with one model.
pub(super) struct Asker<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) memory: &'a Memory,
    pub(super) model: &'a str,
    /// Most tokens of one reply.
    pub(super) tokens_max: u32,
    /// What they cost, if that is known.
    pub(super) price: Option<Price>,
    /// Who pays.
    pub(super) meter: &'a Meter,
    /// Every request that was answered so far.
    pub(super) calls: Vec<ModelCall>,
}

impl Asker<'_> {
    /// What came of the conversation, with the requests that it took.
    pub(super) fn ended<T>(self, value: Result<T, LlmError>) -> Result<Reply<T>, Failed> {
        match value {
            Ok(value) => Ok(Reply { value, calls: self.calls }),
            Err(error) => Err(Failed { error, calls: self.calls }),
        }
    }

    /// Asks for an object of that shape, stepping down where a rung is refused or ignored.
    pub(super) async fn structured(&mut self, shape: &Shape<'_>, messages: &[Value]) -> Result<Structured, LlmError> {
        let mut rung = self.memory.get(self.model).rungs.get(&shape.kind).copied().unwrap_or(Rung::JsonSchema);
        loop {
            let mut body = json!({"messages": messages});
            constrain(&mut body, rung, shape);
            let completion = match self.ask(body, rung.name()).await {
                Ok(completion) => completion,
                Err(failure) if refused_request(&failure) => match rung.below() {
                    Some(below) => {
                        rung = below;
                        continue;
                    }
                    None => return Err(failure.error),
                },
                Err(failure) => return Err(failure.error),
            };
            let mut found = read(&completion, shape);
            if found.value.is_ok() {
                self.memory.update(self.model, |known| {
                    known.rungs.insert(shape.kind, rung);
                });
                return Ok(found);
            }
            // A reply without any JSON ignored the rung; one that is cut off or refused would be no better below.
            let ignored = !completion.cut_off && completion.refusal.is_none();
            match rung.below() {
                Some(below) if ignored => rung = below,
                Some(_) => return Ok(found),
                None => {
                    // The arguments of a call are no words, however they read.
                    found.words = ignored && !completion.text.trim().is_empty() && is_words(&found.reply);
                    return Ok(found);
                }
            }
        }
    }

    /// One request. Optional parameters that the endpoint refuses by name are left out from then on. Whatever goes over the wire is
    /// reserved before.
    pub(super) async fn ask(&mut self, mut body: Value, rung: &'static str) -> Result<Completion, Failure> {
        body["model"] = self.model.into();
        let known = self.memory.get(self.model);
        if !known.no_temperature {
            body["temperature"] = json!(0);
        }
        if !known.no_max_tokens {
            let allowed = if known.reasons { super::REASONING_TOKENS_MAX } else { self.tokens_max };
            body["max_tokens"] = json!(self.meter.reply_tokens_max(allowed.into(), self.price));
        }
        // Each turn either returns, or leaves out one of two parameters, or raises the limit for good.
        loop {
            let need = self.reserve(&body).await?;
            let answered = self.endpoint.ask(&body, rung).await;
            self.meter.came_back();
            match answered {
                Ok((completion, mut call)) => {
                    let usage = &mut call.usage;
                    usage.cost_nanos = self.price.map_or(0, |price| price.cost_nanos(usage.input_tokens, usage.output_tokens));
                    self.calls.push(call);
                    let only_reasoned = completion.cut_off
                        && completion.calls.is_empty()
                        && extract::without_reasoning(&completion.text).is_empty();
                    let limited = body.get("max_tokens").is_some();
                    if !(only_reasoned && limited) || self.memory.get(self.model).reasons {
                        return Ok(completion);
                    }
                    let allowed = self.meter.reply_tokens_max(super::REASONING_TOKENS_MAX.into(), self.price);
                    if body["max_tokens"] == json!(allowed) {
                        return Ok(completion);
                    }
                    body["max_tokens"] = json!(allowed);
                    self.memory.update(self.model, |known| known.reasons = true);
                }
                Err(failure) => {
                    self.calls.extend(self.unanswered(&failure, need, rung));
                    let names = |parameter: &str| {
                        matches!(failure.status, 400 | 422) && body.get(parameter).is_some() && failure.said.contains(parameter)
                    };
                    let refused = ["temperature", "max_tokens"].into_iter().find(|parameter| names(parameter));
                    let Some(refused) = refused else { return Err(failure) };
                    if let Some(fields) = body.as_object_mut() {
                        fields.remove(refused);
                    }
                    self.memory.update(self.model, |known: &mut Known| match refused {
                        "temperature" => known.no_temperature = true,
                        _ => known.no_max_tokens = true,
                    });
                }
            }
        }
    }
}

impl Asker<'_> {
    /// Reserves what a request can take at the most, beside what this conversation has taken so far; gives the former.
    async fn reserve(&self, body: &Value) -> Result<Need, Failure> {
        let input = body.to_string().len() as u64 / 4;
        let output = body["max_tokens"].as_u64().unwrap_or(REPLY_TOKENS_ESTIMATE);
        let cost_nanos = self.price.map_or(0, |price| price.cost_nanos(input, output));
        let need = Need { model_calls: 1, tool_calls: 0, tokens: input + output, cost_nanos };
        let mut all = need;
        for call in &self.calls {
            all += call.usage.into();
        }
        crate::llm::reserve(self.meter, &all).await.map_err(Failure::not_sent)?;
        Ok(need)
    }

    /// The request as a call, where a budget counts it although nobody answered: it was sent, and may have been worked on. A refusal is
    /// none.
    fn unanswered(&self, failure: &Failure, need: Need, rung: &'static str) -> Option<ModelCall> {
        let lost = matches!(failure.error, LlmError::Transient(_)) && self.meter.is_limited();
        // An endpoint that says that it failed has at least not written anything.
        let need = if failure.status == 0 { need } else { Need { model_calls: 1, ..Need::default() } };
        lost.then(|| ModelCall { model: self.model.to_owned(), rung, usage: need.estimated(), duration: Duration::ZERO })
    }
}

/// Whether a reply without an object still says something: words, not the ruins of an object.
fn is_words(reply: &str) -> bool {
    let text = extract::without_reasoning(reply);
    !text.is_empty() && !text.contains(['{', '[']) && !text.starts_with('<')
}

/// Whether the endpoint refused the request as such, so that asking in another way may help.
pub(super) fn refused_request(failure: &Failure) -> bool {
    let hopeless =
        ["context_length", "context length", "maximum context", "invalid_api_key", "model_not_found", "insufficient_quota"];
    let parameters = [
        "response_format",
        "json_schema",
        "json_object",
        "tool_choice",
        "tool use",
        "tools",
        "grammar",
        "schema",
        "requested parameters",
    ];
    match failure.status {
        _ if hopeless.iter().any(|words| failure.said.contains(words)) => false,
        400 | 422 => true,
        // Servers that fail where they should refuse, as llama.cpp does on a schema it cannot turn into a grammar.
        404 | 500 | 501 => parameters.iter().any(|name| failure.said.contains(name)),
        _ => false,
    }
}

fn constrain(body: &mut Value, rung: Rung, shape: &Shape<'_>) {
    match rung {
        Rung::JsonSchema => {
            let schema = json!({"name": shape.name, "schema": shape.schema, "strict": shape.strict});
            body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
        }
        Rung::ToolCall => {
            let function = json!({"name": shape.name, "description": "Takes the reply.", "parameters": shape.schema});
            body["tools"] = json!([{"type": "function", "function": function}]);
            body["tool_choice"] = json!({"type": "function", "function": {"name": shape.name}});
        }
        Rung::JsonObject => body["response_format"] = json!({"type": "json_object"}),
        Rung::Prompt => {}
    }
}

/// The object in a completion, wherever it stands: models put it into a call when asked for text, and the other way round.
fn read(completion: &Completion, shape: &Shape<'_>) -> Structured {
    if let Some(refusal) = &completion.refusal {
        let why = super::failure::one_line(refusal);
        return Structured { reply: refusal.clone(), value: Err(format!("the model refused: {why}")), words: false };
    }
    let (reply, value) = match completion.calls.first() {
        Some(call) if completion.text.trim().is_empty() => match &call.arguments {
            Value::String(text) => (text.clone(), extract::object(text, shape.wanted)),
            Value::Object(_) => (call.arguments.to_string(), Ok(call.arguments.clone())),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                (String::new(), Err("the call has no arguments".to_owned()))
            }
        },
        Some(_) | None => (completion.text.clone(), extract::object(&completion.text, shape.wanted)),
    };
    // A model asked for an action or a verdict that calls a tool natively means that call.
    let called =
        completion.calls.first().map(|call| &call.name).filter(|name| *name != shape.name && completion.text.trim().is_empty());
    let value = match (shape.kind, called) {
        (Kind::Action | Kind::Verdict, Some(name)) => value.map(|arguments| json!({"tool": name, "arguments": arguments})),
        (Kind::Action | Kind::Verdict | Kind::Plan | Kind::Patch | Kind::Arguments, _) => value,
    };
    let value = match value {
        Err(_) if completion.cut_off => Err("the reply was cut off at its length limit before the JSON was complete".to_owned()),
        Err(_) if reply.trim().is_empty() => Err("the reply was empty".to_owned()),
        other => other,
    };
    Structured { reply, value, words: false }
}
