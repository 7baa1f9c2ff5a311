//! Puts a [`Snapshot`] together from what either store holds. Pure.

use super::Snapshot;
use crate::id::{RunId, Slot, StepNumber};
use crate::plan::Plan;
use crate::run::{RunStatus, RunView, StepRecord, StepState, StepView, Usage};

/// The fields of the `run` hash, as text.
#[derive(Debug, Clone)]
pub(super) struct RunFields {
    pub(super) status: RunStatus,
    pub(super) objective: String,
    pub(super) request: String,
    pub(super) revision: u32,
    pub(super) created_at_ms: u64,
    pub(super) finished_at_ms: Option<u64>,
    pub(super) error: Option<String>,
    pub(super) reply_to: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) usage: Usage,
}

impl RunFields {
    /// Reads the fields by name; absent and empty mean the same.
    pub(super) fn read(field: impl Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
        let text = |name: &str| field(name).filter(|text| !text.is_empty());
        Self {
            status: field("status").and_then(|text| RunStatus::parse(&text)).unwrap_or(RunStatus::Planning),
            objective: field("objective").unwrap_or_default(),
            request: field("request").unwrap_or_default(),
            revision: number("revision").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            created_at_ms: number("created_at").unwrap_or(0),
            finished_at_ms: number("finished_at"),
            error: text("error"),
            reply_to: text("reply_to"),
            correlation_id: text("correlation_id"),
            usage: Usage {
                model_calls: number("model_calls").unwrap_or(0),
                tool_calls: number("tool_calls").unwrap_or(0),
                input_tokens: number("input_tokens").unwrap_or(0),
                output_tokens: number("output_tokens").unwrap_or(0),
                estimated: number("estimated") == Some(1),
            },
        }
    }
}

/// The fields of one slot that readers see.
#[derive(Debug, Clone)]
pub(super) struct SlotFields {
    pub(super) state: StepState,
    pub(super) attempt: u32,
    pub(super) epoch: u64,
    pub(super) worker: Option<String>,
}

impl SlotFields {
    /// Reads the fields by name.
    pub(super) fn read(field: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            state: field("state").and_then(|text| StepState::parse(&text)).unwrap_or(StepState::Waiting),
            attempt: field("attempt").and_then(|n| n.parse().ok()).unwrap_or(0),
            epoch: field("epoch").and_then(|n| n.parse().ok()).unwrap_or(0),
            worker: field("worker").filter(|text| !text.is_empty()),
        }
    }
}

/// The run as readers see it. `slot` gives a slot's fields, `record` what a step recorded.
pub(super) fn assemble(
    run: &RunId,
    fields: RunFields,
    plan: Plan,
    slot: &dyn Fn(Slot) -> SlotFields,
    record: &dyn Fn(StepNumber) -> Option<StepRecord>,
) -> Snapshot {
    let steps = plan.steps.iter().map(|step| {
        let SlotFields { state, attempt, epoch, worker } = slot(Slot::Step(step.step_number));
        // An attempt counts once somebody has claimed the step.
        let attempt = if epoch == 0 { 0 } else { attempt };
        StepView { step: step.clone(), state, attempt, worker, record: record(step.step_number) }
    });
    let view = RunView {
        run_id: run.clone(),
        status: fields.status,
        objective: fields.objective,
        revision: fields.revision,
        created_at_ms: fields.created_at_ms,
        finished_at_ms: fields.finished_at_ms,
        steps: steps.collect(),
        usage: fields.usage,
        error: fields.error,
    };
    Snapshot { view, plan, reply_to: fields.reply_to, correlation_id: fields.correlation_id, request: fields.request }
}
