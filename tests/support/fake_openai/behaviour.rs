//! What the fake can do with one request.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// An HTTP response.
    Reply {
        /// The status code.
        status: u16,
        /// Headers beside `content-length`.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// These bytes, then the connection closes.
    Raw(Vec<u8>),
    /// These bytes, then the connection is reset.
    Reset(Vec<u8>),
    /// These bytes, one at a time.
    Drip(Vec<u8>),
    /// Nothing, until the client hangs up.
    Silence,
    /// The inner behaviour, after a while.
    Late(Duration, Box<Behaviour>),
    /// The inner behaviour, once a permit is added to the gate (`gate.add_permits(1)`).
    Held(Arc<Semaphore>, Box<Behaviour>),
}

impl Behaviour {
    /// A response with a text body.
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Behaviour::Reply { status, headers: Vec::new(), body: body.into().into_bytes() }
    }

    /// 200 with this JSON.
    pub fn json(body: Value) -> Self {
        Self::status(200, body.to_string())
    }

    /// An error as OpenAI writes them.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let error = json!({"error": {"message": message, "type": "fake_error", "param": null, "code": code}});
        Self::status(status, error.to_string())
    }

    /// 429, with a `Retry-After` if given.
    pub fn rate_limited(retry_after: Option<&str>) -> Self {
        let limited = Self::error(429, "rate_limit_exceeded", "slow down");
        retry_after.into_iter().fold(limited, |limited, value| limited.header("retry-after", value))
    }

    /// The same response with a header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Behaviour::Reply { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// A completion whose message is `content`.
    pub fn text(content: &str) -> Self {
        Self::message(json!({"role": "assistant", "content": content}), "stop")
    }

    /// A completion that calls tools natively: name and arguments as text.
    pub fn tool_calls(calls: &[(&str, &str)]) -> Self {
        let calls: Vec<Value> = calls
            .iter()
            .enumerate()
            .map(|(index, (name, arguments))| {
                json!({"id": format!("call_{index}"), "type": "function", "function": {"name": name, "arguments": arguments}})
            })
            .collect();
        Self::message(json!({"role": "assistant", "content": null, "tool_calls": calls}), "tool_calls")
    }

    /// A completion with this message, as the API documents it, with 11 input and 7 output tokens.
    pub fn message(message: Value, finish_reason: &str) -> Self {
        Self::json(json!({
            "id": "chatcmpl-fake", "object": "chat.completion", "created": 1_700_000_000, "model": "fake-model",
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": null}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        }))
    }
}
