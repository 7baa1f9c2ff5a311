//! A well-behaved model: says what a script says, in the form that each request asks for.

use serde_json::{Value, json};

use super::{Behaviour, Request};

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Writing a plan.
    Plan,
    /// Deciding what becomes of a plan.
    Replan,
    /// The next move within a step, or its verdict.
    Act,
    /// Writing the final answer.
    Answer,
}

/// A move of the scripted model within a step.
#[derive(Debug, Clone, PartialEq)]
pub enum ScriptedMove {
    /// Call this tool with these arguments.
    Call(&'static str, Value),
    /// The step is done.
    Answer(String),
    /// The step is not done.
    Fail {
        /// Why.
        why: String,
        /// Whether another attempt may succeed.
        retryable: bool,
    },
    /// The step cannot be done.
    Impossible(String),
}

impl Request {
    /// What the request is for, by the first line of its system prompt.
    pub fn purpose(&self) -> Purpose {
        let system = self.body["messages"][0]["content"].as_str().unwrap_or_default();
        if system.starts_with("You write plans") {
            Purpose::Plan
        } else if system.starts_with("You revise plans") {
            Purpose::Replan
        } else if system.starts_with("You do one step") {
            Purpose::Act
        } else {
            Purpose::Answer
        }
    }

    /// Every message's text, in order.
    pub fn prompt(&self) -> String {
        let messages = self.body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        messages.iter().filter_map(|message| message["content"].as_str()).collect::<Vec<_>>().join("\n")
    }

    /// How the reply is asked for: `json_schema`, `tool_call` (one is forced), `tools` (offered), `json_object` or `text`.
    pub fn rung(&self) -> &'static str {
        match self.body["response_format"]["type"].as_str() {
            Some("json_schema") => "json_schema",
            Some("json_object") => "json_object",
            Some(_) | None if self.body["tool_choice"].is_object() => "tool_call",
            Some(_) | None if self.body["tools"].is_array() => "tools",
            Some(_) | None => "text",
        }
    }

    /// Whether a tool's output (or its error) is among the messages.
    pub fn has_tool_output(&self) -> bool {
        let messages = self.body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        messages.iter().any(|m| m["role"] == "tool" || m["content"].as_str().is_some_and(|text| text.contains("<output tool=")))
    }
}

type Rule<T> = Box<dyn Fn(&Request) -> T + Send + Sync>;

/// What the model says. Without rules: a plan of one step that is "done", plans that are kept, and "the answer".
pub struct Script {
    plan: Rule<Value>,
    replan: Rule<Value>,
    act: Rule<ScriptedMove>,
    answer: Rule<String>,
    /// Whether native tool calls and forced calls are understood; otherwise `tools` earns a 400.
    native_tools: bool,
}

impl Default for Script {
    fn default() -> Self {
        let plan = json!({"steps": [{"step_number": 1, "description": "do it", "tool_hint": null, "depends_on": []}]});
        Self {
            plan: Box::new(move |_| plan.clone()),
            replan: Box::new(|_| json!({"decision": "keep", "reason": "nothing better"})),
            act: Box::new(|_| ScriptedMove::Answer("done".into())),
            answer: Box::new(|_| "the answer".into()),
            native_tools: true,
        }
    }
}

impl Script {
    /// The plan for each request.
    #[must_use]
    pub fn plan(mut self, rule: impl Fn(&Request) -> Value + Send + Sync + 'static) -> Self {
        self.plan = Box::new(rule);
        self
    }

    /// The patch for each request.
    #[must_use]
    pub fn replan(mut self, rule: impl Fn(&Request) -> Value + Send + Sync + 'static) -> Self {
        self.replan = Box::new(rule);
        self
    }

    /// The move for each request.
    #[must_use]
    pub fn act(mut self, rule: impl Fn(&Request) -> ScriptedMove + Send + Sync + 'static) -> Self {
        self.act = Box::new(rule);
        self
    }

    /// The final answer for each request.
    #[must_use]
    pub fn answer(mut self, rule: impl Fn(&Request) -> String + Send + Sync + 'static) -> Self {
        self.answer = Box::new(rule);
        self
    }

    /// An endpoint that refuses `tools` with 400, as vLLM does without its flags.
    #[must_use]
    pub fn without_native_tools(mut self) -> Self {
        self.native_tools = false;
        self
    }

    /// The response to `request`.
    pub fn respond(&self, request: &Request) -> Behaviour {
        if !self.native_tools && request.body["tools"].is_array() {
            return Behaviour::error(400, "unsupported_parameter", "\"auto\" tool choice requires --enable-auto-tool-choice");
        }
        match request.purpose() {
            Purpose::Plan => structured(request, &(self.plan)(request)),
            Purpose::Answer => Behaviour::text(&(self.answer)(request)),
            Purpose::Replan => structured(request, &(self.replan)(request)),
            Purpose::Act => act(request, (self.act)(request)),
        }
    }
}

/// A move in the form that the request asks for.
fn act(request: &Request, made: ScriptedMove) -> Behaviour {
    let (outcome, text, retryable) = match made {
        ScriptedMove::Call(tool, arguments) if request.rung() == "tools" => {
            return Behaviour::tool_calls(&[(tool, &arguments.to_string())]);
        }
        ScriptedMove::Call(tool, arguments) => {
            // A schema or a forced call of the tool's own name wants its arguments and nothing around them.
            let schema = &request.body["response_format"]["json_schema"]["name"];
            let bare = *schema == tool || request.body["tool_choice"]["function"]["name"] == tool;
            let action = if bare { arguments } else { json!({"tool": tool, "arguments": arguments}) };
            return structured(request, &action);
        }
        ScriptedMove::Answer(text) => ("succeeded", text, false),
        ScriptedMove::Fail { why, retryable } => ("failed", why, retryable),
        ScriptedMove::Impossible(why) => ("impossible", why, false),
    };
    structured(request, &json!({"learned": "", "outcome": outcome, "result": text, "retryable": retryable}))
}

/// `value` as the request's rung wants it.
fn structured(request: &Request, value: &Value) -> Behaviour {
    match request.body["tool_choice"]["function"]["name"].as_str() {
        Some(name) => Behaviour::tool_calls(&[(name, &value.to_string())]),
        None => Behaviour::text(&value.to_string()),
    }
}
