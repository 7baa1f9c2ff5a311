//! The run as its readers see it: statuses, outcomes, usage, and the result document. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{RunId, StepNumber};
use crate::plan::{Plan, Step};

/// Where a run stands. The last four are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// The plan is being made.
    Planning,
    /// Steps are waiting, queued or running.
    Running,
    /// Every step has reported; the answer is being written.
    Summarizing,
    /// Every step succeeded and there is an answer.
    Succeeded,
    /// There is an answer, from what exists.
    Partial,
    /// No usable plan, no step that succeeded, or no answer; `error` says why.
    Failed,
    /// Stopped by its owner.
    Cancelled,
}

impl RunStatus {
    /// Whether nothing about the run changes any more.
    pub fn is_final(self) -> bool {
        match self {
            RunStatus::Planning | RunStatus::Running | RunStatus::Summarizing => false,
            RunStatus::Succeeded | RunStatus::Partial | RunStatus::Failed | RunStatus::Cancelled => true,
        }
    }

    /// The status as it stands in Redis and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Planning => "planning",
            RunStatus::Running => "running",
            RunStatus::Summarizing => "summarizing",
            RunStatus::Succeeded => "succeeded",
            RunStatus::Partial => "partial",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
        }
    }

    /// Reads what [`RunStatus::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        use RunStatus::{Cancelled, Failed, Partial, Planning, Running, Succeeded, Summarizing};
        [Planning, Running, Summarizing, Succeeded, Partial, Failed, Cancelled].into_iter().find(|s| s.as_str() == text)
    }
}

/// How a step ended. The first one recorded is the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has a result.
    Succeeded,
    /// It has an error.
    Failed,
    /// It never ran because a step it depends on did not succeed.
    Skipped,
    /// Its run was stopped.
    Cancelled,
}

impl Outcome {
    /// The outcome as it stands in Redis and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
            Outcome::Cancelled => "cancelled",
        }
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// A step it depends on has not succeeded yet.
    Waiting,
    /// It may be dispatched, now or (a retry) at a set time.
    Ready,
    /// Its message is published and not yet claimed.
    Dispatched,
    /// An executor holds its lease.
    Running,
    /// See [`Outcome::Succeeded`].
    Succeeded,
    /// See [`Outcome::Failed`].
    Failed,
    /// See [`Outcome::Skipped`].
    Skipped,
    /// See [`Outcome::Cancelled`].
    Cancelled,
}

impl StepState {
    /// How the step ended, if it did.
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            StepState::Waiting | StepState::Ready | StepState::Dispatched | StepState::Running => None,
            StepState::Succeeded => Some(Outcome::Succeeded),
            StepState::Failed => Some(Outcome::Failed),
            StepState::Skipped => Some(Outcome::Skipped),
            StepState::Cancelled => Some(Outcome::Cancelled),
        }
    }

    /// The state as it stands in Redis and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            StepState::Waiting => "waiting",
            StepState::Ready => "ready",
            StepState::Dispatched => "dispatched",
            StepState::Running => "running",
            StepState::Succeeded => "succeeded",
            StepState::Failed => "failed",
            StepState::Skipped => "skipped",
            StepState::Cancelled => "cancelled",
        }
    }

    /// Reads what [`StepState::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        use StepState::{Cancelled, Dispatched, Failed, Ready, Running, Skipped, Succeeded, Waiting};
        [Waiting, Ready, Dispatched, Running, Succeeded, Failed, Skipped, Cancelled].into_iter().find(|s| s.as_str() == text)
    }
}

/// What model and tool calls were paid for. Tokens as the endpoint counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Usage {
    /// Requests that a model answered.
    pub model_calls: u64,
    /// Calls of tools.
    pub tool_calls: u64,
    /// Tokens read by the model.
    pub input_tokens: u64,
    /// Tokens written by the model.
    pub output_tokens: u64,
    /// Whether some endpoint named no usage, so that tokens are estimated from bytes.
    pub estimated: bool,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.model_calls += more.model_calls;
        self.tool_calls += more.tool_calls;
        self.input_tokens += more.input_tokens;
        self.output_tokens += more.output_tokens;
        self.estimated |= more.estimated;
    }
}

/// What an executor stores about a step that ended: the value of the field `<n>` of the `results` hash, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StepRecord {
    /// How it ended.
    pub outcome: Outcome,
    /// What it produced, when it succeeded: a tool's output as it is, or a model's text.
    #[serde(default)]
    pub result: Value,
    /// Why it failed or was skipped, in one sentence.
    #[serde(default)]
    pub error: Option<String>,
    /// The tool that produced the result, if one did.
    #[serde(default)]
    pub tool: Option<String>,
    /// What the last attempt used.
    #[serde(default)]
    pub usage: Usage,
    /// How long the last attempt took, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
    /// The executor that recorded it.
    #[serde(default)]
    pub worker: Option<String>,
}

/// What an earlier step produced.
#[derive(Debug, Clone, PartialEq)]
pub struct StepInput {
    /// The step.
    pub step_number: StepNumber,
    /// What it was to do.
    pub description: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Its result; null unless it succeeded.
    pub result: Value,
    /// Its error.
    pub error: Option<String>,
}

/// One step in the result document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StepResult {
    /// The number of the step in the plan.
    pub step_number: StepNumber,
    /// What the step was to do.
    pub description: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What it produced; null unless it succeeded.
    pub result: Value,
    /// Why it failed or was skipped.
    pub error: Option<String>,
    /// The tool that produced the result, if one did.
    pub tool: Option<String>,
    /// Attempts that were started; 0 for a step that never ran.
    pub attempts: u32,
    /// What it used.
    pub usage: Usage,
    /// How long its last attempt took, in milliseconds.
    pub duration_ms: u64,
}

/// The result document: the value of `planrelay:{<run_id>}:result`, what `-o json` prints and what `reply_to` gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunDocument {
    /// The version of this shape; 1.
    pub version: u32,
    /// The run.
    pub run_id: RunId,
    /// How it ended.
    pub status: RunStatus,
    /// What was asked.
    pub objective: String,
    /// The last revision of the plan; without steps when there never was one.
    pub plan: Plan,
    /// The number of that revision; 0 when there never was a plan.
    pub revision: u32,
    /// One entry per step, in the order of the plan.
    pub step_results: Vec<StepResult>,
    /// The answer.
    pub final_response: Option<String>,
    /// Why the run failed, in one sentence.
    pub error: Option<String>,
    /// The model that wrote the answer; `offline` for the rule-based stand-in, null when no model was asked.
    pub model: Option<String>,
    /// What the whole run used.
    pub usage: Usage,
    /// When the run was opened, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// How long it took from opening to this document, in milliseconds.
    pub duration_ms: u64,
}

/// A step of a live or finished run, with where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// The step as planned.
    #[serde(flatten)]
    pub step: Step,
    /// Where it stands.
    pub state: StepState,
    /// The attempt that runs or ran last, from 1; 0 before the first.
    pub attempt: u32,
    /// The executor that holds or held it.
    pub worker: Option<String>,
    /// What was recorded, once it ended.
    pub record: Option<StepRecord>,
}

/// A run at one moment: what `show` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// The run.
    pub run_id: RunId,
    /// Where it stands.
    pub status: RunStatus,
    /// What was asked.
    pub objective: String,
    /// The revision of the plan; 0 before the first.
    pub revision: u32,
    /// When the run was opened, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it ended, in milliseconds since 1970.
    pub finished_at_ms: Option<u64>,
    /// The steps in the order of the plan.
    pub steps: Vec<StepView>,
    /// What has been used so far.
    pub usage: Usage,
    /// Why it failed, once it did.
    pub error: Option<String>,
}
