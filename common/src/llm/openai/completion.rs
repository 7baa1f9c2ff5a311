//! A reply of the chat completions API, read leniently: nothing but the parts that are needed, and every one may be missing.

use serde_json::Value;

use crate::limits::TOKENS_BELIEVED_MAX;
use crate::llm::text::cut;
use crate::run::Usage;

/// Longest model name that is believed, in bytes.
const MODEL_NAME_BYTES_MAX: usize = 200;

/// What a completion says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// The message's text; empty when there is none.
    pub text: String,
    /// The tool calls.
    pub calls: Vec<NativeCall>,
    /// Why the model would not answer, if it said so.
    pub refusal: Option<String>,
    /// Whether the text ends because of a length limit.
    pub cut_off: bool,
    /// The model that answered, if named.
    pub model: Option<String>,
    /// Tokens read, if the endpoint says so.
    pub input_tokens: Option<u64>,
    /// Tokens written, if the endpoint says so.
    pub output_tokens: Option<u64>,
}

/// A tool call as the endpoint gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct NativeCall {
    /// The tool's name, without OpenAI's `functions.` before it.
    pub name: String,
    /// Text that should be JSON, or JSON already.
    pub arguments: Value,
}

impl Completion {
    /// Reads a body; `None` when it has no choice.
    pub fn read(body: &Value) -> Option<Self> {
        let choice = body.get("choices")?.get(0)?;
        let message = &choice["message"];
        let text = match &message["content"] {
            Value::Null => choice["text"].as_str().unwrap_or_default().to_owned(),
            Value::String(_) | Value::Array(_) | Value::Object(_) | Value::Bool(_) | Value::Number(_) => {
                content_text(&message["content"])
            }
        };
        let mut calls: Vec<NativeCall> =
            message["tool_calls"].as_array().into_iter().flatten().filter_map(|call| native_call(&call["function"])).collect();
        calls.extend(native_call(&message["function_call"]));
        let finish = choice["finish_reason"].as_str().unwrap_or_default();
        let said = message["refusal"].as_str().filter(|refusal| !refusal.trim().is_empty()).map(str::to_owned);
        let filtered = (finish == "content_filter" && text.trim().is_empty()).then(|| "a content filter stopped it".to_owned());
        // A count beyond reason would overflow the run's own.
        let count = |name: &&str| body["usage"][*name].as_u64().filter(|tokens| *tokens <= TOKENS_BELIEVED_MAX);
        let tokens = |names: [&str; 2]| names.iter().find_map(count);
        Some(Self {
            text,
            calls,
            refusal: said.or(filtered),
            cut_off: matches!(finish, "length" | "max_tokens" | "MAX_TOKENS"),
            model: body["model"].as_str().filter(|name| !name.is_empty()).map(|name| cut(name, MODEL_NAME_BYTES_MAX)),
            input_tokens: tokens(["prompt_tokens", "input_tokens"]),
            output_tokens: tokens(["completion_tokens", "output_tokens"]),
        })
    }

    /// What the request cost; what the endpoint does not say is estimated at four bytes a token, never zero.
    pub fn usage(&self, request_bytes: usize) -> Usage {
        let guess = |bytes: usize| u64::try_from(bytes / 4).unwrap_or(u64::MAX).max(1);
        let calls: usize = self.calls.iter().map(|call| call.name.len() + call.arguments.to_string().len()).sum();
        let named = |tokens: Option<u64>, whole: bool| tokens.filter(|tokens| *tokens > 0 || !whole);
        let input = named(self.input_tokens, true);
        // Nothing written is possible, but only where something was read.
        let output = named(self.output_tokens, self.text.len() + calls > 0);
        Usage {
            model_calls: 1,
            tool_calls: 0,
            input_tokens: input.unwrap_or_else(|| guess(request_bytes)),
            output_tokens: output.unwrap_or_else(|| guess(self.text.len() + calls)),
            estimated: input.is_none() || output.is_none(),
            cost_nanos: 0,
        }
    }
}

/// A text, or the texts of an array of parts.
fn content_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part.as_str().or_else(|| part["text"].as_str())).collect::<Vec<_>>().concat()
        }
        // A server that parses JSON replies itself.
        Value::Object(_) => content.to_string(),
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

fn native_call(function: &Value) -> Option<NativeCall> {
    let name = function["name"].as_str()?.trim();
    let name = name.strip_prefix("functions.").unwrap_or(name);
    Some(NativeCall { name: cut(name, MODEL_NAME_BYTES_MAX), arguments: function["arguments"].clone() })
}
