//! Why the parts of a run do not go on, from where they stand. Pure.

use super::assemble::{RunFields, SlotFields};
use crate::id::{Slot, StepNumber};
use crate::message::ReplanPolicy;
use crate::plan::Step;
use crate::run::{RunStatus, RunWait, StepState};
use crate::wait::Wait;

/// A run at one moment, as far as waits depend on it.
pub(super) struct Moment<'a> {
    pub(super) now_ms: u64,
    pub(super) fields: &'a RunFields,
    pub(super) news: &'a [StepNumber],
    pub(super) in_flight: u64,
    pub(super) slot: &'a dyn Fn(Slot) -> SlotFields,
}

impl Moment<'_> {
    fn plan_is_owed(&self) -> bool {
        (self.slot)(Slot::Plan).state.is_some_and(|state| state.outcome().is_none())
    }

    fn approval(&self) -> Option<Wait> {
        let (rule, until_ms) = (self.fields.approval?, self.fields.approval_until_ms?);
        let awaited = self.fields.status == RunStatus::AwaitingApproval;
        awaited.then(|| Wait::Approval { otherwise: rule.otherwise.as_str().to_owned(), until_ms })
    }

    /// A run that is paused while it is planned, or that ends while it is paused, does not wait for its resumption.
    fn paused(&self) -> Option<Wait> {
        let by = self.fields.paused_by.clone()?;
        (self.fields.status == RunStatus::Paused).then_some(Wait::Resume { by })
    }
}

/// Why `step` has not ended; `None` once it has, or its run has.
pub(super) fn of_step(moment: &Moment<'_>, step: &Step, standing: &SlotFields) -> Option<Wait> {
    if moment.fields.status.is_final() {
        return None;
    }
    // A step of a plan that was sent back stands nowhere until there is another plan.
    let Some(state) = standing.state else { return Some(Wait::Plan) };
    match state {
        StepState::Waiting => Some(dependencies(moment, step)),
        StepState::Ready => Some(ready(moment, standing)),
        StepState::Dispatched => Some(published(standing)),
        StepState::Running => Some(running(standing)),
        StepState::Succeeded | StepState::Failed | StepState::Skipped | StepState::Cancelled => None,
    }
}

fn dependencies(moment: &Moment<'_>, step: &Step) -> Wait {
    let state = |number: &StepNumber| (moment.slot)(Slot::Step(*number)).state;
    let open = |number: &&StepNumber| state(number).is_none_or(|state| state.outcome().is_none());
    let steps: Vec<StepNumber> = step.depends_on.iter().filter(open).copied().collect();
    if !steps.is_empty() {
        return Wait::Steps { steps };
    }
    Wait::Replan { after: moment.news.iter().filter(|number| step.depends_on.contains(number)).copied().collect() }
}

fn ready(moment: &Moment<'_>, standing: &SlotFields) -> Wait {
    if let Some(at_ms) = standing.ready_ms.filter(|at| *at > moment.now_ms) {
        return again(standing, at_ms);
    }
    let observed = moment.fields.replan == ReplanPolicy::AfterEachStep && moment.plan_is_owed();
    let held_up =
        moment.approval().or_else(|| moment.paused()).or_else(|| observed.then(|| Wait::Replan { after: moment.news.to_vec() }));
    held_up.unwrap_or(match moment.in_flight >= moment.fields.window {
        true => Wait::Window { in_flight: moment.in_flight, window: moment.fields.window },
        false => Wait::Dispatch { since_ms: standing.ready_ms.unwrap_or(standing.since_ms) },
    })
}

fn again(standing: &SlotFields, at_ms: u64) -> Wait {
    match standing.parked {
        true => Wait::RateLimit { at_ms },
        false => Wait::Retry { attempt: standing.attempt, at_ms },
    }
}

fn published(standing: &SlotFields) -> Wait {
    Wait::Claim { since_ms: standing.since_ms, again_at_ms: standing.flight_ms.unwrap_or(standing.since_ms) }
}

fn running(standing: &SlotFields) -> Wait {
    Wait::Running {
        worker: standing.worker.clone().unwrap_or_default(),
        since_ms: standing.since_ms,
        lease_until_ms: standing.flight_ms.unwrap_or(standing.since_ms),
    }
}

/// What the run waits for beside its steps.
pub(super) fn of_run(moment: &Moment<'_>) -> Vec<RunWait> {
    if moment.fields.status.is_final() {
        return Vec::new();
    }
    let slots = [Slot::Plan, Slot::Summary].into_iter().filter_map(|slot| {
        let standing = (moment.slot)(slot);
        let wait = match standing.state? {
            StepState::Waiting | StepState::Succeeded | StepState::Failed | StepState::Skipped | StepState::Cancelled => {
                return None;
            }
            StepState::Ready => again(&standing, standing.flight_ms.unwrap_or(standing.since_ms)),
            StepState::Dispatched => moment.paused().unwrap_or_else(|| published(&standing)),
            StepState::Running => running(&standing),
        };
        Some(RunWait { slot: slot.to_string(), wait })
    });
    let whole = [moment.approval(), moment.paused()].into_iter().flatten();
    slots.chain(whole.map(|wait| RunWait { slot: "run".to_owned(), wait })).collect()
}
