//! Makes the result document from a run's snapshot. Pure.

use crate::id::RunId;
use crate::run::{Halt, HaltKind, Outcome, RunDocument, RunStatus, StepResult, StepView, Usage};
use crate::store::Snapshot;

/// How a run ended, beside what its snapshot says.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// The answer.
    pub final_response: Option<String>,
    /// Why there is none.
    pub error: Option<String>,
    /// Why the answer is less than it should be, if the run was not ended early before.
    pub halt: Option<Halt>,
    /// The model that wrote the answer.
    pub model: Option<String>,
    /// What was used since the snapshot.
    pub usage: Usage,
    /// Now, in milliseconds since 1970.
    pub now_ms: u64,
}

/// The status that a run with these steps and this ending has.
pub fn status(steps: &[StepView], halt: Option<&Halt>, ending: &Ending) -> RunStatus {
    if halt.is_some_and(|halt| halt.kind == HaltKind::Cancelled) {
        return RunStatus::Cancelled;
    }
    let succeeded = steps.iter().filter(|step| step.state.outcome() == Some(Outcome::Succeeded)).count();
    match (&ending.final_response, succeeded) {
        (None, _) | (_, 0) => RunStatus::Failed,
        (Some(_), all) if all == steps.len() && ending.halt.is_none() => RunStatus::Succeeded,
        (Some(_), _) => RunStatus::Partial,
    }
}

/// The document of a run that ends now.
pub fn document(run: &RunId, snapshot: &Snapshot, ending: Ending) -> RunDocument {
    let view = &snapshot.view;
    let steps = |steps: &[StepView]| steps.iter().map(step_result).collect();
    let mut usage = view.usage;
    usage += ending.usage;
    RunDocument {
        version: 1,
        run_id: run.clone(),
        status: status(&view.steps, view.halt.as_ref(), &ending),
        objective: view.objective.clone(),
        plan: snapshot.plan.clone(),
        revision: view.revision,
        step_results: steps(&view.steps),
        superseded: steps(&view.superseded),
        final_response: ending.final_response,
        error: ending.error,
        halt: view.halt.clone().or(ending.halt),
        model: ending.model,
        usage,
        created_at_ms: view.created_at_ms,
        duration_ms: ending.now_ms.saturating_sub(view.created_at_ms),
    }
}

fn step_result(view: &StepView) -> StepResult {
    let record = view.record.clone();
    // A plan that was sent back has steps that never stood anywhere.
    StepResult {
        step_number: view.step.step_number,
        description: view.step.description.clone(),
        outcome: view.state.outcome().unwrap_or(Outcome::Cancelled),
        result: record.as_ref().map_or(serde_json::Value::Null, |r| r.result.clone()),
        error: record.as_ref().and_then(|r| r.error.clone()),
        verdict: record.as_ref().and_then(|r| r.verdict),
        learned: record.as_ref().and_then(|r| r.learned.clone()),
        tool: record.as_ref().and_then(|r| r.tool.clone()),
        attempts: view.attempt,
        usage: record.as_ref().map_or_else(Usage::default, |r| r.usage),
        duration_ms: record.as_ref().map_or(0, |r| r.duration_ms),
    }
}
