//! Taking, keeping and giving back slots: `claim`, `renew`, `release`, `journal`, `retry`.

use std::time::Duration;

use super::run::Run;
use super::steps::patience;
use crate::clock::millis;
use crate::event::EventType;
use crate::id::Slot;
use crate::limits::CLAIMS_MAX;
use crate::run::{RunStatus, StepInput, StepState};
use crate::store::{Account, Again, Claim, ClaimRequest, Claimed, Held, Owed, next_epoch};

fn stale(why: impl Into<String>) -> Claimed {
    Claimed::Stale { why: why.into() }
}

impl Run {
    pub(super) fn claim(&mut self, request: &ClaimRequest<'_>) -> Claimed {
        if self.status.is_final() {
            return Claimed::Finished(self.status);
        }
        let slot = request.slot;
        let Some(state) = self.state(slot) else { return stale("there is no such step") };
        if state.outcome().is_some() {
            return Claimed::Done { owed: self.still_owed(), state };
        }
        if state == StepState::Waiting {
            return stale("its dependencies have not succeeded");
        }
        if self.status == RunStatus::AwaitingApproval {
            return stale("its plan waits for approval");
        }
        let attempt = self.slot(slot).attempt;
        if request.attempt.is_some_and(|wanted| wanted != attempt) {
            return stale(format!("it is at attempt {attempt}"));
        }
        let repeated = state == StepState::Running && self.slot(slot).nonce == request.nonce;
        if !repeated && let Some(refused) = self.take(request, state) {
            return refused;
        }
        self.in_hand(slot)
    }

    /// Makes the claimant the slot's holder, or says why not.
    fn take(&mut self, request: &ClaimRequest<'_>, state: StepState) -> Option<Claimed> {
        let (slot, now) = (request.slot, self.now);
        let name = slot.to_string();
        let waits_in_ready = state == StepState::Ready && matches!(slot, Slot::Step(_));
        let deadline = if waits_in_ready { &self.ready } else { &self.flight }.time_of(&name).unwrap_or(0);
        let standing = self.slot(slot);
        let takes_over = standing.message_id == request.message_id && request.redelivered;
        if state == StepState::Running && !takes_over && deadline > now {
            return Some(Claimed::Duplicate { worker: standing.worker.clone() });
        }
        if state == StepState::Ready && deadline > now {
            return Some(stale("it waits for a later time"));
        }
        let leased = state == StepState::Running && deadline > now;
        let from_itself = leased && self.slot(slot).worker == request.worker;
        if state == StepState::Running {
            self.unreserve(slot, true);
        }
        if self.status == RunStatus::Paused {
            self.put_off(slot);
            return Some(stale("the run is paused"));
        }
        self.enter(slot, StepState::Running);
        let standing = self.slot(slot);
        if state != StepState::Running {
            standing.taken.clear();
        }
        if leased && !from_itself {
            standing.taken.push(standing.epoch);
        }
        standing.epoch = next_epoch(standing.epoch, request.nonce);
        // Who takes over from itself has not died, only its connection has: perhaps several times, while the store was away.
        standing.claims += u32::from(!from_itself);
        standing.message_id = request.message_id.to_owned();
        standing.nonce = request.nonce.to_owned();
        standing.worker = request.worker.to_owned();
        standing.sent = 0;
        standing.reservation = None;
        let (attempt, epoch) = (standing.attempt, standing.epoch);
        self.ready.remove(&name);
        self.flight.put(now + millis(request.lease), &name);
        let data = serde_json::json!({"worker": request.worker});
        self.event_of(EventType::Claimed, slot, Some(attempt), Some(epoch), data);
        None
    }

    /// Nothing new starts in a paused run. A step waits where it will be dispatched from; the plan is asked for again by whoever
    /// resumes the run.
    fn put_off(&mut self, slot: Slot) {
        match slot {
            Slot::Step(step) => {
                self.make_ready(step, self.now);
                self.drained();
            }
            Slot::Plan | Slot::Summary => self.enter(slot, StepState::Dispatched),
        }
    }

    fn in_hand(&self, slot: Slot) -> Claimed {
        let Some(standing) = self.slots.get(&slot) else { return stale("there is no such step") };
        let (text, step) = match slot {
            Slot::Plan => (&self.new.request, None),
            Slot::Summary => (&self.new.objective, None),
            Slot::Step(number) => (&self.new.objective, self.specs.get(&number).cloned()),
        };
        let inputs = standing.depends_on.iter().filter_map(|dependency| {
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
            epoch: standing.epoch,
            attempt: standing.attempt,
            parks: standing.parks,
            text: text.clone(),
            budget: self.new.rules.budget,
            step,
            journal: standing.journal.clone(),
            inputs: inputs.collect(),
        });
        if standing.claims > CLAIMS_MAX { Claimed::Poisoned(claim) } else { Claimed::Execute(claim) }
    }

    /// Asked often; the lease starts anew only when less than two thirds of it are left.
    pub(super) fn renew(&mut self, slot: Slot, epoch: u64, lease: Duration) -> Held {
        if self.status.is_final() {
            return Held::Ended;
        }
        if self.fenced(slot, epoch).is_none() {
            return Held::Lost;
        }
        let (name, lease) = (slot.to_string(), millis(lease));
        let left = self.flight.time_of(&name).unwrap_or(0).saturating_sub(self.now);
        if left * 3 < lease * 2 {
            self.flight.put(self.now + lease, &name);
        }
        Held::Kept
    }

    pub(super) fn release(&mut self, slot: Slot, epoch: u64) -> Held {
        if self.status.is_final() {
            return Held::Ended;
        }
        if self.fenced(slot, epoch).is_none() {
            // Taken over from within its lease, and its holder lives: nobody has died.
            let running = self.state(slot) == Some(StepState::Running);
            let standing = self.slot(slot);
            if let Some(at) = standing.taken.iter().position(|taken| *taken == epoch).filter(|_| running) {
                standing.claims -= 1;
                standing.taken.remove(at);
            }
            return Held::Lost;
        }
        self.unreserve(slot, true);
        self.slot(slot).claims -= 1;
        self.enter(slot, StepState::Dispatched);
        self.flight.put(self.now + patience(0), &slot.to_string());
        Held::Kept
    }

    pub(super) fn journal(&mut self, slot: Slot, epoch: u64, index: usize, entry: &str, account: &Account) -> Held {
        if self.status.is_final() {
            return Held::Ended;
        }
        let Some(attempt) = self.fenced(slot, epoch) else { return Held::Lost };
        let journal = &mut self.slot(slot).journal;
        if index < journal.len() {
            return Held::Kept;
        }
        journal.push(entry.to_owned());
        self.account(slot, attempt, epoch, account);
        Held::Kept
    }

    pub(super) fn retry(&mut self, slot: Slot, epoch: u64, again: Again, after: Duration, account: &Account) -> (Held, Owed) {
        if self.status.is_final() {
            return (Held::Lost, Owed::Nothing);
        }
        let Some(attempt) = self.fenced(slot, epoch) else {
            let closed = self.left_at(slot, StepState::Cancelled, epoch) && self.slot(slot).claims == 0;
            let repeated = closed || self.left_at(slot, StepState::Ready, epoch);
            return if repeated { (Held::Kept, self.still_owed()) } else { (Held::Lost, Owed::Nothing) };
        };
        self.account(slot, attempt, epoch, account);
        if slot == Slot::Plan && self.halt.is_some() && self.status != RunStatus::Planning {
            // The run is ending: nobody needs another plan.
            self.close_plan(StepState::Cancelled);
            self.slot(slot).claims = 0;
            self.news.clear();
            return (Held::Kept, self.owed(false, false));
        }
        self.enter(slot, StepState::Ready);
        let standing = self.slot(slot);
        standing.claims = 0;
        standing.sent = 0;
        standing.parked = again == Again::Park;
        match again {
            Again::Retry => standing.attempt += 1,
            Again::Park => standing.parks += 1,
            Again::Anew(entry) => {
                standing.attempt += 1;
                standing.journal = vec![entry];
            }
        }
        let at = self.now + millis(after);
        match slot {
            Slot::Plan | Slot::Summary => {
                self.flight.put(at, &slot.to_string());
                (Held::Kept, Owed::Nothing)
            }
            Slot::Step(step) => {
                self.make_ready(step, at);
                (Held::Kept, self.owed(false, false))
            }
        }
    }
}
