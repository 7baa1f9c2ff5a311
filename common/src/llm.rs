//! The seam to language models: three things that the services ask for, and who answers them.
//!
//! A service describes the task; the variant turns it into a prompt (the texts in `llm/prompts/`) or a rule. Whatever comes
//! back is untrusted: this module bounds it and reads it leniently, the caller validates it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{LlmConfig, ModelChoice};
use crate::id::StepNumber;
use crate::limits::BUDGET_BUSY_WAIT;
use crate::meter::{Denied, Meter, Need};
use crate::plan::Plan;
use crate::run::{RunView, StepInput, Usage, Verdict};
use crate::seam::Answering;
use crate::tool::{ToolCall, ToolSpec};

/// The endpoint that is meant when none is configured.
pub const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";

/// Who answers.
#[derive(Debug, Clone)]
pub enum Llm {
    /// Any OpenAI-compatible endpoint.
    OpenAi(openai::OpenAi),
    /// The deterministic, rule-based stand-in that needs no key and no network.
    Offline,
    /// A test's own.
    Scripted(Arc<dyn Model>),
}

/// A model that a test makes up: the four methods of [`Llm`]. Each call is metered as one request.
pub trait Model: fmt::Debug + Send + Sync {
    /// The name under which its answers are labelled.
    fn name(&self) -> &str;
    /// As [`Llm::plan`].
    fn plan<'a>(&'a self, task: &'a PlanTask<'a>) -> Answering<'a, Result<Reply<PlanDraft>, Failed>>;
    /// As [`Llm::replan`].
    fn replan<'a>(&'a self, task: &'a ReplanTask<'a>) -> Answering<'a, Result<Reply<PlanDraft>, Failed>>;
    /// As [`Llm::act`].
    fn act<'a>(&'a self, task: &'a StepTask<'a>) -> Answering<'a, Result<Reply<Move>, Failed>>;
    /// As [`Llm::answer`].
    fn answer<'a>(&'a self, task: &'a AnswerTask<'a>) -> Answering<'a, Result<Reply<String>, Failed>>;
}

/// Asks for a plan.
#[derive(Debug, Clone)]
pub struct PlanTask<'a> {
    /// What is to be done.
    pub objective: &'a str,
    /// Background from the submitter.
    pub context: Option<&'a str>,
    /// The tools that steps may name.
    pub tools: &'a [ToolSpec],
    /// Most steps.
    pub steps_max: usize,
    /// The plan that was refused last, and why.
    pub refused: Option<RefusedPlan<'a>>,
    /// The plan that a person sent back, and what they said.
    pub feedback: Option<Feedback<'a>>,
    /// What the call may cost.
    pub meter: &'a Meter,
}

/// A plan that a person did not approve.
#[derive(Debug, Clone)]
pub struct Feedback<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What another one should do better.
    pub text: &'a str,
}

/// Asks what is to become of a plan, now that some of its steps have ended. The reply is a patch as [`crate::patch`] reads it:
/// `{"decision", "reason", "steps", "drop"}`.
#[derive(Debug, Clone)]
pub struct ReplanTask<'a> {
    /// What is to be done.
    pub objective: &'a str,
    /// Background from the submitter.
    pub context: Option<&'a str>,
    /// The tools that steps may name.
    pub tools: &'a [ToolSpec],
    /// The run with its plan, where every step stands, and what it gave.
    pub run: &'a RunView,
    /// The steps whose end asks for a decision: failed ones, or (after each step) any.
    pub after: &'a [StepNumber],
    /// The first number that a new step may have.
    pub next_number: StepNumber,
    /// Most steps.
    pub steps_max: usize,
    /// The patch that was refused last, and why.
    pub refused: Option<RefusedPlan<'a>>,
    /// What the call may cost.
    pub meter: &'a Meter,
}

/// A plan that did not pass the validator.
#[derive(Debug, Clone)]
pub struct RefusedPlan<'a> {
    /// The model's own words.
    pub reply: &'a str,
    /// The validator's complaints.
    pub complaints: &'a [String],
}

/// A plan as a model wrote it, unchecked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanDraft {
    /// The model's own words.
    pub reply: String,
    /// The JSON in them, or why there is none.
    pub plan: Result<Value, String>,
}

/// Asks for the next move within a step.
#[derive(Debug, Clone)]
pub struct StepTask<'a> {
    /// What the whole run is for.
    pub objective: &'a str,
    /// What this step is to do.
    pub description: &'a str,
    /// The tool that the plan suggests.
    pub tool_hint: Option<&'a str>,
    /// The tools that exist.
    pub tools: &'a [ToolSpec],
    /// What the steps it depends on produced.
    pub inputs: &'a [StepInput],
    /// What "done" means for it.
    pub done_when: Option<&'a str>,
    /// Why earlier attempts failed, and what they learned; oldest first.
    pub lessons: &'a [String],
    /// What the call may cost.
    pub meter: &'a Meter,
    /// What has happened in this step so far.
    pub turns: &'a [Turn],
    /// Whether this is the last turn: no tool may be called any more.
    pub last: bool,
}

/// One turn of a step's tool loop, as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// The model's move.
    Moved(Move),
    /// What the call at `index` of that move gave: the output, or why it failed.
    Returned {
        /// Which call of the move, from 0.
        index: usize,
        /// The tool's output or error.
        output: Result<Value, String>,
    },
}

/// What a model wants to do next in a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Move {
    /// Call tools, then decide again.
    Call(Vec<ToolCall>),
    /// The step has come to its end; this is how.
    Conclude(Judged),
    /// Nothing that can be used, and why: it goes back to the model as a complaint.
    Unusable {
        /// The model's own words, cut.
        reply: String,
        /// What is wrong with them.
        complaint: String,
    },
}

/// How a step ended, as the model that did it judges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Whether what was to be done is done.
    pub verdict: Verdict,
    /// Of a failed step: whether another attempt may succeed.
    pub retryable: bool,
    /// The step's result; of a step that did not succeed, why.
    pub result: String,
    /// What was learned that may matter to the rest of the plan.
    pub learned: Option<String>,
}

impl Judged {
    /// Done, with this result.
    pub fn succeeded(result: String) -> Self {
        Self { verdict: Verdict::Succeeded, retryable: false, result, learned: None }
    }

    /// Not done, and another attempt would end the same.
    pub fn failed(why: String) -> Self {
        Self { verdict: Verdict::Failed, retryable: false, result: why, learned: None }
    }
}

/// Asks for the final answer.
#[derive(Debug, Clone)]
pub struct AnswerTask<'a> {
    /// What was asked.
    pub objective: &'a str,
    /// Every step with what it produced.
    pub steps: &'a [StepInput],
    /// Why the run ended before all of its plan was done, if it did: the answer says so.
    pub halted: Option<&'a str>,
    /// What the call may cost.
    pub meter: &'a Meter,
}

/// An answered request: the value and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply<T> {
    /// What was asked for.
    pub value: T,
    /// The requests it took.
    pub calls: Vec<ModelCall>,
}

/// One request to a model that was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCall {
    /// The model that answered; `offline` for the stand-in.
    pub model: String,
    /// How the reply was asked for: `json_schema`, `tool_call`, `json_object`, `prompt`, `text`, or `rules` (offline).
    pub rung: &'static str,
    /// Tokens, and what they cost where a price is known; `model_calls` is 1.
    pub usage: Usage,
    /// How long it took.
    pub duration: Duration,
}

/// A question without an answer, and the requests that a model answered on the way: they were paid for all the same.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// Why there is no answer.
    pub error: LlmError,
    /// The requests.
    pub calls: Vec<ModelCall>,
}

impl From<LlmError> for Failed {
    fn from(error: LlmError) -> Self {
        Self { error, calls: Vec::new() }
    }
}

/// Why a model gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LlmError {
    /// Worth another try: connection errors, time-outs, 5xx.
    #[error("{0}")]
    Transient(String),
    /// The endpoint asks for patience (429); costs no attempt.
    #[error("{why}")]
    RateLimited {
        /// What the endpoint said.
        why: String,
        /// How long to wait, bounded by `RETRY_AFTER_MAX`.
        after: Duration,
    },
    /// The run's budget does not allow the call; it was not made.
    #[error("{0}")]
    Exhausted(String),
    /// Another try would end the same: 400, 401, 403, 404, quota exhausted, a body over the cap.
    #[error("{0}")]
    Permanent(String),
}

impl LlmError {
    /// Which kind it is, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            LlmError::Transient(_) => "transient",
            LlmError::RateLimited { .. } => "rate_limited",
            LlmError::Exhausted(_) => "exhausted",
            LlmError::Permanent(_) => "permanent",
        }
    }
}

impl Llm {
    /// Who answers, by configuration. `auto` is the endpoint if a key or another base URL than OpenAI's own is configured, else
    /// offline. Connects to nothing yet. The error names the setting that cannot be used.
    pub fn from_config(config: &LlmConfig) -> Result<Self, String> {
        let key = config.api_key.as_ref().is_some_and(|key| !key.expose_secret().trim().is_empty());
        let own_url = config.base_url.trim().trim_end_matches('/') != DEFAULT_BASE_URL;
        let endpoint = match config.choice {
            ModelChoice::Auto => key || own_url,
            ModelChoice::OpenAi => true,
            ModelChoice::Offline => false,
        };
        Ok(if endpoint { Llm::OpenAi(openai::OpenAi::new(config)?) } else { Llm::Offline })
    }

    /// The name under which answers are labelled when no request tells better: the configured model, or `offline`.
    pub fn name(&self) -> &str {
        match self {
            Llm::OpenAi(endpoint) => endpoint.model(),
            Llm::Offline => offline::NAME,
            Llm::Scripted(model) => model.name(),
        }
    }

    /// Whether the price of every request is known; the error names a model without one. The stand-in costs nothing.
    pub fn has_prices(&self) -> Result<(), String> {
        match self {
            Llm::OpenAi(endpoint) => endpoint.has_prices(),
            Llm::Offline | Llm::Scripted(_) => Ok(()),
        }
    }

    /// Asks for a plan. The draft is unchecked.
    pub async fn plan(&self, task: &PlanTask<'_>) -> Result<Reply<PlanDraft>, Failed> {
        match self {
            Llm::OpenAi(endpoint) => endpoint.plan(task).await,
            Llm::Offline => {
                reserve(task.meter, &offline::NEED).await?;
                Ok(offline::plan(task))
            }
            Llm::Scripted(model) => {
                reserve(task.meter, &offline::NEED).await?;
                model.plan(task).await
            }
        }
    }

    /// Asks what is to become of a plan. The patch is unchecked.
    pub async fn replan(&self, task: &ReplanTask<'_>) -> Result<Reply<PlanDraft>, Failed> {
        match self {
            Llm::OpenAi(endpoint) => endpoint.replan(task).await,
            Llm::Offline => {
                reserve(task.meter, &offline::NEED).await?;
                Ok(offline::replan(task))
            }
            Llm::Scripted(model) => {
                reserve(task.meter, &offline::NEED).await?;
                model.replan(task).await
            }
        }
    }

    /// Asks for the next move within a step. The move is unchecked.
    pub async fn act(&self, task: &StepTask<'_>) -> Result<Reply<Move>, Failed> {
        match self {
            Llm::OpenAi(endpoint) => endpoint.act(task).await,
            Llm::Offline => {
                reserve(task.meter, &offline::NEED).await?;
                Ok(offline::act(task))
            }
            Llm::Scripted(model) => {
                reserve(task.meter, &offline::NEED).await?;
                model.act(task).await
            }
        }
    }

    /// Asks for the final answer: never empty, without reasoning marks.
    pub async fn answer(&self, task: &AnswerTask<'_>) -> Result<Reply<String>, Failed> {
        match self {
            Llm::OpenAi(endpoint) => endpoint.answer(task).await,
            Llm::Offline => {
                reserve(task.meter, &offline::NEED).await?;
                Ok(offline::answer(task))
            }
            Llm::Scripted(model) => {
                reserve(task.meter, &offline::NEED).await?;
                model.answer(task).await
            }
        }
    }
}

/// The answer without any model: every step with its result, or why it has none.
pub fn listing(task: &AnswerTask<'_>) -> String {
    offline::answer(task).value
}

/// Reserves what one request needs.
async fn reserve(meter: &Meter, need: &Need) -> Result<(), LlmError> {
    meter.reserve(need).await.map_err(|denied| match denied {
        Denied::Busy(_) => LlmError::RateLimited { why: denied.to_string(), after: BUDGET_BUSY_WAIT },
        Denied::Exhausted(what) => LlmError::Exhausted(what),
        Denied::Lost | Denied::Store(_) => LlmError::Permanent(denied.to_string()),
    })
}

pub mod extract;
pub mod offline;
pub mod openai;
mod prompt;
mod text;

impl ModelCall {
    /// The call as an entry of the audit trail.
    pub fn event(&self, purpose: &str) -> crate::event::EventDraft {
        let data = serde_json::json!({
            "purpose": purpose,
            "model": self.model,
            "rung": self.rung,
            "duration_ms": crate::clock::millis(self.duration),
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "estimated": self.usage.estimated,
            "cost_nanos": self.usage.cost_nanos,
        });
        crate::event::EventDraft::new(crate::event::EventType::ModelCalled, data)
    }
}
