//! A run at one moment, as its readers see it. Pure.

use serde::{Deserialize, Serialize};

use super::{Halt, RunStatus, StepRecord, StepState, Usage};
use crate::id::RunId;
use crate::plan::Step;
use crate::quote::Quote;
use crate::wait::Wait;

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
    /// Why it has not ended; absent once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Wait>,
}

/// Something beside the steps that a run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunWait {
    /// What waits: `plan`, `summary`, or `run` for the run as a whole.
    pub slot: String,
    /// For what.
    #[serde(flatten)]
    pub wait: Wait,
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
    /// When no step may run any more, in milliseconds since 1970.
    #[serde(default)]
    pub deadline_at_ms: Option<u64>,
    /// The steps in the order of the plan.
    pub steps: Vec<StepView>,
    /// Steps that a re-plan took out of the plan.
    #[serde(default)]
    pub superseded: Vec<StepView>,
    /// What the run waits for beside its steps.
    #[serde(default)]
    pub waiting: Vec<RunWait>,
    /// What the current plan was estimated to take before it ran.
    #[serde(default)]
    pub quote: Option<Quote>,
    /// What has been used so far.
    pub usage: Usage,
    /// What it may use.
    #[serde(default)]
    pub budget: Budget,
    /// Why it failed, once it did.
    pub error: Option<String>,
    /// What ended it early, or is about to.
    #[serde(default)]
    pub halt: Option<Halt>,
}

/// What a run may use; `None`: as much as it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Requests to models.
    pub model_calls: Option<u64>,
    /// Calls of tools.
    pub tool_calls: Option<u64>,
    /// Tokens, read and written.
    pub tokens: Option<u64>,
    /// Billionths of the unit of the configured prices.
    pub cost_nanos: Option<u64>,
}

impl Budget {
    /// Whether anything is limited at all.
    pub fn is_limited(&self) -> bool {
        *self != Self::default()
    }
}
