//! Puts a [`Snapshot`] together from what either store holds. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::waits::{self, Moment};
use super::{ApprovalRule, ApprovalTimeout, Snapshot, StoredPlan};
use crate::id::{RunId, Slot, StepNumber};
use crate::message::ReplanPolicy;
use crate::plan::Step;
use crate::run::{Budget, Halt, HaltKind, RunStatus, RunView, StepRecord, StepState, StepView, Usage};

/// The fields of the `run` hash, as text.
#[derive(Debug, Clone)]
pub(super) struct RunFields {
    pub(super) status: RunStatus,
    pub(super) objective: String,
    pub(super) request: String,
    pub(super) revision: u32,
    pub(super) window: u64,
    pub(super) created_at_ms: u64,
    pub(super) finished_at_ms: Option<u64>,
    pub(super) deadline_at_ms: Option<u64>,
    pub(super) error: Option<String>,
    pub(super) halt: Option<Halt>,
    pub(super) paused_by: Option<String>,
    pub(super) reply_to: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) traceparent: Option<String>,
    pub(super) usage: Usage,
    pub(super) budget: Budget,
    pub(super) replan: ReplanPolicy,
    pub(super) replans_left: u32,
    pub(super) feedback: Option<String>,
    pub(super) edited: Option<String>,
    pub(super) approval: Option<ApprovalRule>,
    pub(super) approval_until_ms: Option<u64>,
}

impl RunFields {
    /// Reads the fields by name; absent and empty mean the same.
    pub(super) fn read(field: impl Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
        let small = |name: &str| number(name).and_then(|n| u32::try_from(n).ok());
        let text = |name: &str| field(name).filter(|text| !text.is_empty());
        let halt = text("halt").and_then(|kind| HaltKind::parse(&kind));
        let replan = match field("replan").as_deref() {
            Some("after_each_step") => ReplanPolicy::AfterEachStep,
            Some("never") => ReplanPolicy::Never,
            Some(_) | None => ReplanPolicy::OnFailure,
        };
        let otherwise = match field("approval_action").as_deref() {
            Some("approve") => ApprovalTimeout::Approve,
            Some(_) | None => ApprovalTimeout::Cancel,
        };
        Self {
            status: field("status").and_then(|text| RunStatus::parse(&text)).unwrap_or(RunStatus::Planning),
            objective: field("objective").unwrap_or_default(),
            request: field("request").unwrap_or_default(),
            revision: small("revision").unwrap_or(0),
            window: number("window").unwrap_or(0),
            created_at_ms: number("created_at").unwrap_or(0),
            finished_at_ms: number("finished_at"),
            deadline_at_ms: number("deadline_at"),
            error: text("error"),
            halt: halt.map(|kind| Halt { kind, reason: field("halt_reason").unwrap_or_default() }),
            paused_by: text("paused"),
            reply_to: text("reply_to"),
            correlation_id: text("correlation_id"),
            traceparent: text("traceparent"),
            usage: Usage {
                model_calls: number("model_calls").unwrap_or(0),
                tool_calls: number("tool_calls").unwrap_or(0),
                input_tokens: number("input_tokens").unwrap_or(0),
                output_tokens: number("output_tokens").unwrap_or(0),
                estimated: number("estimated") == Some(1),
                cost_nanos: number("cost_nanos").unwrap_or(0),
            },
            budget: Budget {
                model_calls: number("max_model_calls"),
                tool_calls: number("max_tool_calls"),
                tokens: number("max_tokens"),
                cost_nanos: number("max_cost_nanos"),
            },
            replan,
            replans_left: small("max_replans").unwrap_or(0).saturating_sub(small("replans").unwrap_or(0)),
            feedback: text("feedback"),
            edited: text("edited"),
            approval: number("approval_timeout").map(|ms| ApprovalRule { timeout: Duration::from_millis(ms), otherwise }),
            approval_until_ms: number("approval_until"),
        }
    }
}

/// The fields of one slot that readers see.
#[derive(Debug, Clone, Default)]
pub(super) struct SlotFields {
    pub(super) state: Option<StepState>,
    pub(super) attempt: u32,
    pub(super) epoch: u64,
    pub(super) worker: Option<String>,
    /// When it came to stand where it stands.
    pub(super) since_ms: u64,
    /// Whether it waits for a rate limit, not for another attempt.
    pub(super) parked: bool,
    /// When its lease or its wait for a claim ends, or (plan and summary) when it may be tried again.
    pub(super) flight_ms: Option<u64>,
    /// When it may be dispatched.
    pub(super) ready_ms: Option<u64>,
}

impl SlotFields {
    /// Reads the fields by name.
    pub(super) fn read(field: impl Fn(&str) -> Option<String>, flight_ms: Option<u64>, ready_ms: Option<u64>) -> Self {
        Self {
            state: field("state").and_then(|text| StepState::parse(&text)),
            attempt: field("attempt").and_then(|n| n.parse().ok()).unwrap_or(0),
            epoch: field("epoch").and_then(|n| n.parse().ok()).unwrap_or(0),
            worker: field("worker").filter(|text| !text.is_empty()),
            since_ms: field("since").and_then(|n| n.parse().ok()).unwrap_or(0),
            parked: field("again").as_deref() == Some("park"),
            flight_ms,
            ready_ms,
        }
    }
}

/// What a store holds of a run beside the fields of the `run` hash.
pub(super) struct Parts<'a> {
    pub(super) now_ms: u64,
    pub(super) plan: StoredPlan,
    /// Every step that was ever planned and is not in `plan`, by number.
    pub(super) retired: Vec<Step>,
    pub(super) news: Vec<StepNumber>,
    /// Steps in flight.
    pub(super) in_flight: u64,
    pub(super) slot: &'a dyn Fn(Slot) -> SlotFields,
    pub(super) record: &'a dyn Fn(StepNumber) -> Option<StepRecord>,
}

/// The run as readers see it.
pub(super) fn assemble(run: &RunId, fields: RunFields, parts: Parts<'_>) -> Snapshot {
    let Parts { now_ms, plan: StoredPlan { note, plan, .. }, retired, news, in_flight, slot, record } = parts;
    let moment = Moment { now_ms, fields: &fields, news: &news, in_flight, slot };
    let view = |step: &Step| {
        let standing = slot(Slot::Step(step.step_number));
        StepView {
            step: step.clone(),
            state: standing.state.unwrap_or(StepState::Waiting),
            // An attempt counts once somebody has claimed the step.
            attempt: if standing.epoch == 0 { 0 } else { standing.attempt },
            waiting: waits::of_step(&moment, step, &standing),
            worker: standing.worker,
            record: record(step.step_number),
        }
    };
    let waiting = waits::of_run(&moment);
    let view = RunView {
        run_id: run.clone(),
        status: fields.status,
        objective: fields.objective.clone(),
        revision: fields.revision,
        created_at_ms: fields.created_at_ms,
        finished_at_ms: fields.finished_at_ms,
        deadline_at_ms: fields.deadline_at_ms,
        steps: plan.steps.iter().map(view).collect(),
        superseded: retired.iter().map(view).collect(),
        waiting,
        quote: note.quote,
        usage: fields.usage,
        budget: fields.budget,
        error: fields.error.clone(),
        halt: fields.halt.clone(),
    };
    Snapshot {
        view,
        plan,
        reply_to: fields.reply_to,
        correlation_id: fields.correlation_id,
        traceparent: fields.traceparent,
        request: fields.request,
        news,
        replan: fields.replan,
        replans_left: fields.replans_left,
        retired,
        feedback: fields.feedback,
        edited: fields.edited,
        approval: fields.approval,
    }
}

/// Of all steps ever planned those that `plan` does not hold, by number.
pub(super) fn retired<'a>(all: impl Iterator<Item = &'a Step>, plan: &StoredPlan) -> Vec<Step> {
    let current: BTreeSet<StepNumber> = plan.plan.steps.iter().map(|step| step.step_number).collect();
    let mut retired: Vec<Step> = all.filter(|step| !current.contains(&step.step_number)).cloned().collect();
    retired.sort_by_key(|step| step.step_number);
    retired
}
