//! Steps end, and so does the run: `report`, `finish`, and who must act.

use super::claims::skipped_because;
use super::run::{Run, SlotState, patience};
use crate::clock::millis;
use crate::event::EventType;
use crate::id::{Slot, StepNumber};
use crate::run::{Outcome, RunStatus, StepRecord, StepState};
use crate::store::{Account, Finish, Held, Owed, Reported};

impl Run {
    pub(super) fn report(&mut self, step: StepNumber, epoch: u64, record: &StepRecord, account: &Account, now: u64) -> Reported {
        if self.status.is_final() {
            return Reported::Finished(self.status);
        }
        let slot = Slot::Step(step);
        let succeeded = crate::store::reported_state(record) == Outcome::Succeeded;
        let Some(state) = self.fenced(slot, epoch) else {
            let repeated = self.slots.get(&slot).is_some_and(|s| s.state.outcome().is_some() && s.epoch == epoch);
            return if repeated { Reported::Recorded(self.still_owed(now)) } else { Reported::Stale };
        };
        state.state = if succeeded { StepState::Succeeded } else { StepState::Failed };
        state.journal.clear();
        let (attempt, next) = (state.attempt, state.next.clone());
        self.results.insert(step, record.clone());
        self.open.remove(&step);
        self.flight.remove(&step.to_string());
        self.account(slot, attempt, epoch, account, now);
        let newly_ready = if succeeded {
            self.unblock(&next, now)
        } else {
            self.skip(step, next, now);
            false
        };
        Reported::Recorded(self.owed(newly_ready, now))
    }

    /// One more dependency of these has succeeded. Whether one of them became ready by it.
    fn unblock(&mut self, steps: &[StepNumber], now: u64) -> bool {
        let mut newly_ready = false;
        for step in steps {
            let Some(state) = self.slots.get_mut(&Slot::Step(*step)) else { continue };
            state.waiting -= 1;
            if state.waiting == 0 && state.state == StepState::Waiting {
                state.state = StepState::Ready;
                self.ready.put(now, &step.to_string());
                newly_ready = true;
            }
        }
        newly_ready
    }

    /// Whatever waits for `failed`, directly or not, will never run.
    fn skip(&mut self, failed: StepNumber, next: Vec<StepNumber>, now: u64) {
        let mut stack = vec![(failed, next)];
        while let Some((because, dependents)) = stack.pop() {
            for step in dependents {
                let Some(state) = self.slots.get_mut(&Slot::Step(step)) else { continue };
                if state.state != StepState::Waiting {
                    continue;
                }
                state.state = StepState::Skipped;
                let further = state.next.clone();
                self.open.remove(&step);
                self.results.insert(step, skipped_because(because));
                let data = serde_json::json!({"because": because});
                self.event(now, EventType::StepSkipped, Some((Slot::Step(step), None, None)), data);
                stack.push((step, further));
            }
        }
    }

    fn drained(&mut self, now: u64) -> bool {
        if !self.open.is_empty() {
            return false;
        }
        if self.status == RunStatus::Running {
            self.status = RunStatus::Summarizing;
            self.slots.insert(Slot::Summary, SlotState::new(StepState::Dispatched));
            self.flight.put(now + patience(0), &Slot::Summary.to_string());
            self.event(now, EventType::Drained, None, serde_json::json!({}));
        }
        true
    }

    pub(super) fn owed(&mut self, newly_ready: bool, now: u64) -> Owed {
        if self.drained(now) {
            return Owed::Summary;
        }
        let told = match self.backlog {
            false => newly_ready,
            true => self.flight.len() == self.window / 2 || self.flight.len() == 0,
        };
        if told { Owed::Planner } else { Owed::Nothing }
    }

    pub(super) fn still_owed(&self, now: u64) -> Owed {
        if self.status == RunStatus::Summarizing {
            return Owed::Summary;
        }
        if self.ready.due(now).next().is_some() { Owed::Planner } else { Owed::Nothing }
    }

    pub(super) fn finish(&mut self, slot: Slot, epoch: u64, end: &Finish, account: &Account, now: u64) -> Held {
        if self.status.is_final() {
            return if self.finished_by == Some((slot, epoch)) { Held::Kept } else { Held::Lost };
        }
        let Some(state) = self.fenced(slot, epoch) else { return Held::Lost };
        state.state = if end.status == RunStatus::Failed { StepState::Failed } else { StepState::Succeeded };
        let attempt = state.attempt;
        self.status = end.status;
        self.error = end.error.clone();
        self.finished_at_ms = Some(now);
        self.finished_by = Some((slot, epoch));
        self.account(slot, attempt, epoch, account, now);
        self.result = Some(end.document.clone());
        self.ready.clear();
        self.flight.clear();
        self.open.clear();
        self.tokens.clear();
        self.expires_ms = Some(now + millis(end.retention));
        Held::Kept
    }
}
