//! The run as its readers see it: statuses, outcomes, usage, and the result document. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{RunId, StepNumber};
use crate::plan::Plan;

mod view;

pub use view::{Budget, RunView, RunWait, StepView};

/// Where a run stands. The last four are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// The plan is being made.
    Planning,
    /// The plan is there and waits for somebody's approval.
    AwaitingApproval,
    /// Steps are waiting, queued or running.
    Running,
    /// No step starts until somebody resumes the run; those that run go on.
    Paused,
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
    /// Every status, in the order in which a run may pass through them.
    pub const ALL: [RunStatus; 9] = [
        RunStatus::Planning,
        RunStatus::AwaitingApproval,
        RunStatus::Running,
        RunStatus::Paused,
        RunStatus::Summarizing,
        RunStatus::Succeeded,
        RunStatus::Partial,
        RunStatus::Failed,
        RunStatus::Cancelled,
    ];

    /// Whether nothing about the run changes any more.
    pub fn is_final(self) -> bool {
        match self {
            RunStatus::Planning
            | RunStatus::AwaitingApproval
            | RunStatus::Running
            | RunStatus::Paused
            | RunStatus::Summarizing => false,
            RunStatus::Succeeded | RunStatus::Partial | RunStatus::Failed | RunStatus::Cancelled => true,
        }
    }

    /// The status as it stands in Redis and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Planning => "planning",
            RunStatus::AwaitingApproval => "awaiting_approval",
            RunStatus::Running => "running",
            RunStatus::Paused => "paused",
            RunStatus::Summarizing => "summarizing",
            RunStatus::Succeeded => "succeeded",
            RunStatus::Partial => "partial",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
        }
    }

    /// Reads what [`RunStatus::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
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
    /// It was stopped, or never started: its run was, or a re-plan dropped it, or a budget or the deadline ended it.
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

/// What the executor's model made of a step, judged by its `done_when` where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is done.
    Succeeded,
    /// It is not done.
    Failed,
    /// It cannot be done, whoever tries.
    Impossible,
}

/// What ended a run before all of its plan was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HaltKind {
    /// Its owner.
    Cancelled,
    /// Its deadline.
    Deadline,
    /// A budget.
    Budget,
    /// A re-plan that found that nothing more can be done.
    Unreachable,
}

impl HaltKind {
    /// The kind as it stands in Redis and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            HaltKind::Cancelled => "cancelled",
            HaltKind::Deadline => "deadline",
            HaltKind::Budget => "budget",
            HaltKind::Unreachable => "unreachable",
        }
    }

    /// Reads what [`HaltKind::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        use HaltKind::{Budget, Cancelled, Deadline, Unreachable};
        [Cancelled, Deadline, Budget, Unreachable].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What ended a run early, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Halt {
    /// What.
    pub kind: HaltKind,
    /// Why, in one sentence.
    pub reason: String,
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
    /// Whether some of it is estimated: an endpoint named no usage, or a process died within a call that a budget had reserved.
    pub estimated: bool,
    /// What the model calls cost, in billionths of the unit of the configured prices; absent where no price is known.
    #[serde(skip_serializing_if = "is_zero")]
    pub cost_nanos: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        let sum = u64::saturating_add;
        *self = Self {
            model_calls: sum(self.model_calls, more.model_calls),
            tool_calls: sum(self.tool_calls, more.tool_calls),
            input_tokens: sum(self.input_tokens, more.input_tokens),
            output_tokens: sum(self.output_tokens, more.output_tokens),
            estimated: self.estimated || more.estimated,
            cost_nanos: sum(self.cost_nanos, more.cost_nanos),
        };
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
    /// What the model made of it; null where no model judged.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// What was learned on the way that may matter to the rest of the plan.
    #[serde(default)]
    pub learned: Option<String>,
}

impl StepRecord {
    /// A step that did not succeed for `error`, and used nothing.
    pub fn without_result(outcome: Outcome, error: String) -> Self {
        Self {
            outcome,
            result: Value::Null,
            error: Some(error),
            tool: None,
            usage: Usage::default(),
            duration_ms: 0,
            worker: None,
            verdict: None,
            learned: None,
        }
    }
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
    /// Why it failed, was skipped or was cancelled.
    pub error: Option<String>,
    /// What the model made of it; null where no model judged.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// What was learned on the way.
    #[serde(default)]
    pub learned: Option<String>,
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
    /// Steps that a re-plan took out of the plan, failed or cancelled.
    #[serde(default)]
    pub superseded: Vec<StepResult>,
    /// The answer.
    pub final_response: Option<String>,
    /// Why the run failed, in one sentence.
    pub error: Option<String>,
    /// What ended the run before all of its plan was done; null when nothing did.
    #[serde(default)]
    pub halt: Option<Halt>,
    /// The model that wrote the answer; `offline` for the rule-based stand-in, null when no model was asked.
    pub model: Option<String>,
    /// What the whole run used.
    pub usage: Usage,
    /// When the run was opened, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// How long it took from opening to this document, in milliseconds.
    pub duration_ms: u64,
}
