//! Taking, keeping and giving back slots: `claim`, `renew`, `release`, `journal`, `retry`.

use std::time::Duration;

use super::run::{Run, patience};
use crate::clock::millis;
use crate::event::EventType;
use crate::id::Slot;
use crate::limits::CLAIMS_MAX;
use crate::run::{Outcome, StepInput, StepState};
use crate::store::{Account, Again, Claim, ClaimRequest, Claimed, Held, Owed};

impl Run {
    pub(super) fn claim(&mut self, request: &ClaimRequest<'_>, now: u64) -> Claimed {
        let stale = |why: &str| Claimed::Stale { why: why.to_owned() };
        if self.status.is_final() {
            return Claimed::Finished(self.status);
        }
        let slot = request.slot;
        let name = slot.to_string();
        if let Some(state) = self.slots.get(&slot).map(|slot| slot.state).filter(|state| state.outcome().is_some()) {
            return Claimed::Done { owed: self.still_owed(now), state };
        }
        let Some(state) = self.slots.get_mut(&slot) else { return stale("there is no such step") };
        if state.state == StepState::Waiting {
            return stale("its dependencies have not succeeded");
        }
        if request.attempt.is_some_and(|attempt| attempt != state.attempt) {
            return stale(&format!("it is at attempt {}", state.attempt));
        }
        let repeated = state.state == StepState::Running && state.nonce == request.nonce;
        if !repeated {
            let waits_in_ready = state.state == StepState::Ready && matches!(slot, Slot::Step(_));
            let deadline = if waits_in_ready { &self.ready } else { &self.flight }.time_of(&name).unwrap_or(0);
            let takes_over = state.message_id == request.message_id && request.redelivered;
            if state.state == StepState::Running && !takes_over && deadline > now {
                return Claimed::Duplicate { worker: state.worker.clone() };
            }
            if state.state == StepState::Ready && deadline > now {
                return stale("it waits for a later time");
            }
            state.state = StepState::Running;
            state.epoch += 1;
            state.claims += 1;
            state.message_id = request.message_id.to_owned();
            state.nonce = request.nonce.to_owned();
            state.worker = request.worker.to_owned();
            state.sent = 0;
            let (attempt, epoch) = (state.attempt, state.epoch);
            self.ready.remove(&name);
            self.flight.put(now + millis(request.lease), &name);
            let data = serde_json::json!({"worker": request.worker});
            self.event(now, EventType::Claimed, Some((slot, Some(attempt), Some(epoch))), data);
        }
        self.in_hand(slot)
    }

    fn in_hand(&self, slot: Slot) -> Claimed {
        let Some(state) = self.slots.get(&slot) else { return Claimed::Stale { why: "there is no such step".to_owned() } };
        let (text, step) = match slot {
            Slot::Plan => (&self.new.request, None),
            Slot::Summary => (&self.new.objective, None),
            Slot::Step(number) => (&self.new.objective, self.specs.get(&number).cloned()),
        };
        let inputs = state.depends_on.iter().filter_map(|dependency| {
            let record = self.results.get(dependency)?;
            Some(StepInput {
                step_number: *dependency,
                description: self.specs.get(dependency)?.description.clone(),
                outcome: record.outcome,
                result: record.result.clone(),
                error: record.error.clone(),
            })
        });
        let claim = Box::new(Claim {
            epoch: state.epoch,
            attempt: state.attempt,
            parks: state.parks,
            text: text.clone(),
            limited: self.new.rules.budget.is_limited(),
            step,
            journal: state.journal.clone(),
            inputs: inputs.collect(),
        });
        if state.claims > CLAIMS_MAX { Claimed::Poisoned(claim) } else { Claimed::Execute(claim) }
    }

    pub(super) fn renew(&mut self, slot: Slot, epoch: u64, lease: Duration, now: u64) -> Held {
        if self.status.is_final() {
            return Held::Ended;
        }
        if self.fenced(slot, epoch).is_none() {
            return Held::Lost;
        }
        self.flight.put(now + millis(lease), &slot.to_string());
        Held::Kept
    }

    pub(super) fn release(&mut self, slot: Slot, epoch: u64, now: u64) -> Held {
        if self.status.is_final() {
            return Held::Ended;
        }
        let Some(state) = self.fenced(slot, epoch) else { return Held::Lost };
        state.claims -= 1;
        state.state = StepState::Dispatched;
        self.flight.put(now + patience(0), &slot.to_string());
        Held::Kept
    }

    pub(super) fn journal(&mut self, slot: Slot, epoch: u64, index: usize, entry: &str, account: &Account, now: u64) -> Held {
        if self.status.is_final() {
            return Held::Ended;
        }
        let Some(state) = self.fenced(slot, epoch) else { return Held::Lost };
        if index < state.journal.len() {
            return Held::Kept;
        }
        state.journal.push(entry.to_owned());
        let attempt = state.attempt;
        self.account(slot, attempt, epoch, account, now);
        Held::Kept
    }

    pub(super) fn retry(
        &mut self,
        slot: Slot,
        epoch: u64,
        again: Again,
        after: Duration,
        account: &Account,
        now: u64,
    ) -> (Held, Owed) {
        let Some(state) = self.fenced(slot, epoch) else {
            let repeated = self.slots.get(&slot).is_some_and(|s| s.state == StepState::Ready && s.epoch == epoch);
            return if repeated { (Held::Kept, self.still_owed(now)) } else { (Held::Lost, Owed::Nothing) };
        };
        let attempt = state.attempt;
        state.state = StepState::Ready;
        state.claims = 0;
        state.sent = 0;
        match again {
            Again::Retry => state.attempt += 1,
            Again::Park => state.parks += 1,
            Again::Anew(lesson) => {
                state.attempt += 1;
                state.journal = vec![lesson];
            }
        }
        self.account(slot, attempt, epoch, account, now);
        let name = slot.to_string();
        match slot {
            Slot::Plan | Slot::Summary => {
                self.flight.put(now + millis(after), &name);
                (Held::Kept, Owed::Nothing)
            }
            Slot::Step(_) => {
                self.flight.remove(&name);
                self.ready.put(now + millis(after), &name);
                (Held::Kept, self.owed(false, now))
            }
        }
    }
}

/// What a skipped step records.
pub(super) fn skipped_because(step: crate::id::StepNumber) -> crate::run::StepRecord {
    crate::run::StepRecord::without_result(Outcome::Skipped, format!("step {step} did not succeed"))
}
