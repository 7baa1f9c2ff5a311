//! A slot's way: renewed, ready, closed, and what the failure of a step means for those that wait for it.

use super::run::Run;
use crate::clock::millis;
use crate::event::EventType;
use crate::id::{Slot, StepNumber};
use crate::limits::DISPATCH_TIMEOUT;
use crate::run::{Outcome, StepRecord, StepState};

/// How long a message may wait for its claim before it is sent again: doubled with every dispatch that came to nothing.
pub(super) fn patience(sent: u32) -> u64 {
    millis(DISPATCH_TIMEOUT) * 2u64.pow(sent.min(6))
}

/// Where a step stands that has ended with `outcome`.
pub(super) fn state_of(outcome: Outcome) -> StepState {
    match outcome {
        Outcome::Succeeded => StepState::Succeeded,
        Outcome::Failed => StepState::Failed,
        Outcome::Skipped => StepState::Skipped,
        Outcome::Cancelled => StepState::Cancelled,
    }
}

impl Run {
    /// A slot that is to be worked on from the beginning, by whoever claims it. Its epochs go on.
    pub(super) fn renewed(&mut self, slot: Slot, state: StepState) {
        self.enter(slot, state);
        let standing = self.slot(slot);
        standing.journal.clear();
        standing.attempt = 1;
        standing.claims = 0;
        standing.parks = 0;
        standing.parked = false;
        standing.sent = 0;
        standing.token.clear();
    }

    /// A step that will not run (on) for `why`: skipped or cancelled.
    pub(super) fn close(&mut self, step: StepNumber, outcome: Outcome, why: String) {
        self.enter(Slot::Step(step), state_of(outcome));
        self.open.remove(&Slot::Step(step));
        self.ready.remove(&step.to_string());
        self.flight.remove(&step.to_string());
        self.results.insert(step, StepRecord::without_result(outcome, why));
    }

    /// Closes a step that waits for `because`.
    pub(super) fn skip(&mut self, step: StepNumber, because: StepNumber) {
        self.close(step, Outcome::Skipped, format!("step {because} did not succeed"));
        self.event_of(EventType::StepSkipped, Slot::Step(step), None, None, serde_json::json!({"because": because}));
    }

    /// A step that may be dispatched from `at` on, unless its run is ending.
    pub(super) fn make_ready(&mut self, step: StepNumber, at: u64) {
        if let Some(halt) = &self.halt {
            return self.close(step, Outcome::Cancelled, halt.reason.clone());
        }
        self.enter(Slot::Step(step), StepState::Ready);
        self.flight.remove(&step.to_string());
        self.ready.put(at, &step.to_string());
    }

    /// One more of the dependencies of `step` is out of the way. Whether it became ready by that.
    pub(super) fn unblock(&mut self, step: StepNumber) -> bool {
        let standing = self.slot(Slot::Step(step));
        standing.waiting = standing.waiting.saturating_sub(1);
        let free = standing.waiting == 0 && standing.state == Some(StepState::Waiting);
        if free {
            self.make_ready(step, self.now);
        }
        free
    }

    /// A step did not succeed, and no plan will change that: what waits for it is skipped, and what waits for that, or runs anyway.
    /// Whether something became ready.
    pub(super) fn settle(&mut self, step: StepNumber) -> bool {
        let mut newly_ready = false;
        let mut failed = vec![step];
        while let Some(because) = failed.pop() {
            let standing = self.slot(Slot::Step(because));
            if std::mem::replace(&mut standing.settled, true) {
                continue;
            }
            for dependent in standing.next.clone() {
                let standing = self.slot(Slot::Step(dependent));
                if standing.state != Some(StepState::Waiting) {
                    continue;
                }
                if standing.anyway {
                    newly_ready |= self.unblock(dependent);
                } else {
                    self.skip(dependent, because);
                    failed.push(dependent);
                }
            }
        }
        newly_ready
    }
}
