//! One attempt of a step, under its lease: an exact tool call, or the tool loop with a model.

use std::time::Duration;

use common::event::{EventDraft, EventType};
use common::id::Slot;
use common::llm::{LlmError, ModelCall};
use common::message::StepMessage;
use common::reference::resolve;
use common::run::Usage;
use common::store::{Account, Claim};
use common::tool::ToolCall;
use serde_json::{Value, json};

use crate::Executor;
use crate::tool::{CallContext, Called};

/// Why an attempt has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Worth another attempt.
    Transient(String),
    /// The endpoint asks for patience; costs no attempt.
    RateLimited {
        /// What it said.
        why: String,
        /// How long to wait.
        after: Duration,
    },
    /// Another attempt would end the same.
    Permanent(String),
    /// The lease is lost; nothing is to be recorded.
    Lost,
}

impl From<LlmError> for Failure {
    fn from(error: LlmError) -> Self {
        match error {
            LlmError::Transient(why) => Failure::Transient(why),
            LlmError::RateLimited { why, after } => Failure::RateLimited { why, after },
            LlmError::Permanent(why) => Failure::Permanent(why),
        }
    }
}

/// An attempt and what it has used so far.
pub struct Attempt<'a> {
    /// What it may use.
    pub(crate) executor: &'a Executor,
    /// The message that started it.
    pub(crate) message: &'a StepMessage,
    /// The claim under which it runs.
    pub(crate) claim: &'a Claim,
    /// All that was used for the step, turns replayed from the journal included.
    pub usage: Usage,
    /// Usage and events that the store does not know yet.
    pub account: Account,
    /// The last tool that gave something.
    pub tool: Option<String>,
    /// Tool calls made, for idempotency keys.
    calls: usize,
}

impl<'a> Attempt<'a> {
    /// An attempt that has not begun.
    pub fn new(executor: &'a Executor, message: &'a StepMessage, claim: &'a Claim) -> Self {
        Self { executor, message, claim, usage: Usage::default(), account: Account::default(), tool: None, calls: 0 }
    }

    /// The slot under which everything is recorded.
    pub(crate) fn slot(&self) -> Slot {
        Slot::Step(self.message.step_number)
    }

    /// Runs to a result within the step's time.
    pub async fn run(&mut self) -> Result<Value, Failure> {
        let limit = self.executor.config.step_timeout;
        let claim = self.claim;
        let work = async {
            match claim.step.as_ref().and_then(|step| Some((step.tool_hint.as_ref()?, step.arguments.as_ref()?))) {
                Some((tool, arguments)) => self.exact(tool, arguments).await,
                None => self.turns().await,
            }
        };
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Failure::Permanent(format!("the step did not end within {limit:?}"))),
        }
    }

    /// Calls the step's tool with exactly its arguments; no model is asked. Nothing is journaled: the outcome follows at once.
    async fn exact(&mut self, tool: &str, arguments: &Value) -> Result<Value, Failure> {
        let claim = self.claim;
        let result_of = |number| claim.inputs.iter().find(|input| input.step_number == number).map(|input| &input.result);
        let arguments = resolve(arguments, &result_of).map_err(Failure::Permanent)?;
        let called = self.call(&ToolCall { tool: tool.to_owned(), arguments }).await;
        called.output.map_err(|why| Failure::Permanent(format!("{tool}: {why}")))
    }

    /// Calls a tool and takes note of it.
    pub(crate) async fn call(&mut self, call: &ToolCall) -> Called {
        let context = CallContext::new(&self.message.run_id, self.message.step_number, self.calls);
        self.calls += 1;
        let called = self.executor.tools.call(call, &context).await;
        let used = Usage { tool_calls: 1, ..Usage::default() };
        self.usage += used;
        self.account.usage += used;
        let data = json!({
            "tool": call.tool,
            "arguments_bytes": called.arguments_bytes,
            "result_bytes": called.result_bytes,
            "duration_ms": common::clock::millis(called.duration),
            "ok": called.output.is_ok(),
            "error": called.output.as_ref().err(),
        });
        self.account.events.push(EventDraft::new(EventType::ToolCalled, data));
        if called.output.is_ok() {
            self.tool = Some(call.tool.clone());
        }
        called
    }

    /// Takes note of answered model requests.
    pub(crate) fn asked(&mut self, calls: &[ModelCall]) {
        for call in calls {
            self.usage += call.usage;
            self.account.usage += call.usage;
            self.account.events.push(call.event("act"));
        }
    }

    /// Counts a tool call that was replayed from the journal, so that later calls keep their keys.
    pub(crate) fn replayed(&mut self, usage: Usage) {
        self.calls += usize::try_from(usage.tool_calls).unwrap_or(usize::MAX);
        self.usage += usage;
    }
}
