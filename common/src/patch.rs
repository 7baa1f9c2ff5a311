//! Patches: how a model changes a plan that runs, checked against where its steps stand, and the revision that comes of it. Pure.

use serde::{Deserialize, Serialize};

use crate::id::StepNumber;
use crate::plan::{Plan, Step};

/// What a re-plan decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Another plan.
    Revise,
    /// The plan stands; what waits for a failed step is skipped or runs anyway, as it says itself.
    Keep,
    /// What was asked for is there already; the rest of the plan is dropped.
    Reached,
    /// Nothing more can be done; the rest of the plan is cancelled.
    Unreachable,
}

/// A checked patch.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// What was decided.
    pub decision: Decision,
    /// Why, in one sentence.
    pub reason: String,
    /// The next revision of the plan, for `revise` and `reached`.
    pub revision: Option<Revision>,
}

/// The next revision of a plan, as the store takes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Revision {
    /// The whole plan. For a first plan all of it is new.
    pub plan: Plan,
    /// Its steps that are new, or stand there with another text or other dependencies: those must not have started.
    pub put: Vec<Step>,
    /// Steps of the plan before that are not in this one. Those that have not ended are cancelled; none may have succeeded.
    pub retired: Vec<StepNumber>,
}

/// What a revision changes, for people: stands in the audit trail and beside the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// New steps.
    pub added: Vec<StepNumber>,
    /// Steps that have not started and read differently now.
    pub refined: Vec<StepNumber>,
    /// Steps that are no longer in the plan.
    pub retired: Vec<StepNumber>,
}

impl Revision {
    /// A first plan, or one in place of another that never started.
    pub fn first(plan: Plan) -> Self {
        Self { put: plan.steps.clone(), plan, retired: Vec::new() }
    }
}
