//! Plans become dispatched steps, and wake-ups repair: `put_plan`, `take_ready`, `advance`, `take_back`.

use std::time::Duration;

use super::run::{Run, SlotState, patience};
use crate::clock::millis;
use crate::event::EventType;
use crate::id::Slot;
use crate::limits::{CLAIMS_MAX, WAKEUP_INTERVAL_MAX};
use crate::plan::Plan;
use crate::run::{RunStatus, StepState};
use crate::store::{Account, Advance, Dispatch, Held, TakenBack};

impl Run {
    pub(super) fn put_plan(&mut self, epoch: u64, current: u32, plan: &Plan, account: &Account, now: u64) -> Held {
        let stored = self.revision;
        let attempt = self.fenced(Slot::Plan, epoch).map(|slot| slot.attempt);
        let Some(attempt) = attempt.filter(|_| stored == current) else {
            let slot = self.slots.get(&Slot::Plan);
            let repeated = slot.is_some_and(|s| s.state == StepState::Succeeded && s.epoch == epoch);
            return if repeated && stored == current + 1 { Held::Kept } else { Held::Lost };
        };
        self.status = RunStatus::Running;
        self.revision = current + 1;
        self.backlog = false;
        self.plan = plan.clone();
        self.account(Slot::Plan, attempt, epoch, account, now);
        let mut dependents = plan.dependents();
        for step in &plan.steps {
            let number = step.step_number;
            let free = step.depends_on.is_empty();
            let mut state = SlotState::new(if free { StepState::Ready } else { StepState::Waiting });
            state.waiting = step.depends_on.len();
            state.depends_on = step.depends_on.clone();
            state.next = dependents.remove(&number).unwrap_or_default();
            self.slots.insert(Slot::Step(number), state);
            self.specs.insert(number, step.clone());
            self.open.insert(number);
            if free {
                self.ready.put(now, &number.to_string());
            }
        }
        if let Some(slot) = self.slots.get_mut(&Slot::Plan) {
            slot.state = StepState::Succeeded;
        }
        self.flight.remove(&Slot::Plan.to_string());
        Held::Kept
    }

    pub(super) fn take_ready(&mut self, token: &str, now: u64) -> Vec<Dispatch> {
        if self.status != RunStatus::Running {
            return Vec::new();
        }
        let mut mine = self.tokens.get(token).cloned().unwrap_or_default();
        let mut taken = Vec::new();
        for slot in mine.clone() {
            let unclaimed = self.slots.get(&slot).is_some_and(|s| s.state == StepState::Dispatched && s.token == token);
            if unclaimed {
                taken.extend(self.dispatch(slot));
            }
        }
        let free = self.window.saturating_sub(self.flight.len());
        let free: Vec<String> = self.ready.due(now).take(free).cloned().collect();
        for name in free {
            let Some(slot) = Slot::parse(&name) else { continue };
            let Some(state) = self.slots.get_mut(&slot) else { continue };
            state.state = StepState::Dispatched;
            state.token = token.to_owned();
            state.sent += 1;
            let (attempt, sent) = (state.attempt, state.sent);
            self.ready.remove(&name);
            self.flight.put(now + patience(sent - 1), &name);
            self.event(now, EventType::StepDispatched, Some((slot, Some(attempt), None)), serde_json::json!({}));
            taken.extend(self.dispatch(slot));
            mine.push(slot);
        }
        self.tokens.insert(token.to_owned(), mine);
        self.backlog = self.ready.due(now).next().is_some();
        taken
    }

    fn dispatch(&self, slot: Slot) -> Option<Dispatch> {
        let Slot::Step(number) = slot else { return None };
        let step = self.specs.get(&number)?.clone();
        Some(Dispatch { revision: self.revision, attempt: self.slots.get(&slot)?.attempt, step })
    }

    pub(super) fn advance(&mut self, now: u64) -> Advance {
        if self.status.is_final() {
            return Advance::Gone;
        }
        let (mut plan, mut summary) = (false, false);
        let over: Vec<String> = self.flight.due(now).take(1000).cloned().collect();
        for name in over {
            let Some(slot) = Slot::parse(&name) else { continue };
            let Some(state) = self.slots.get_mut(&slot) else { continue };
            let (attempt, sent, was) = (state.attempt, state.sent, state.state);
            state.state = if matches!(slot, Slot::Step(_)) { StepState::Ready } else { StepState::Dispatched };
            if was != StepState::Ready {
                let why = if was == StepState::Running { "lease expired" } else { "not claimed in time" };
                self.event(now, EventType::TakenBack, Some((slot, Some(attempt), None)), serde_json::json!({"why": why}));
            }
            match slot {
                Slot::Step(_) => {
                    self.flight.remove(&name);
                    self.ready.put(now, &name);
                }
                Slot::Plan | Slot::Summary => {
                    plan |= slot == Slot::Plan;
                    summary |= slot == Slot::Summary;
                    if let Some(state) = self.slots.get_mut(&slot) {
                        state.sent += 1;
                    }
                    self.flight.put(now + patience(sent), &name);
                }
            }
        }
        let mut next_ms = now + millis(WAKEUP_INTERVAL_MAX);
        for queue in [&self.flight, &self.ready] {
            next_ms = next_ms.min(queue.next_after(now).unwrap_or(next_ms));
        }
        let ready = self.ready.due(now).next().is_some();
        let dispatch = ready && self.flight.len() < self.window;
        self.backlog |= ready && !dispatch;
        Advance::Live { next_look: Duration::from_millis(next_ms - now), plan, dispatch, summary }
    }

    pub(super) fn take_back(&mut self, slot: Slot, message_id: &str, why: &str, now: u64) -> TakenBack {
        if self.status.is_final() {
            return TakenBack::Gone;
        }
        let name = slot.to_string();
        let deadline = self.flight.time_of(&name).unwrap_or(0);
        let Some(state) = self.slots.get_mut(&slot) else { return TakenBack::Kept };
        let idle = state.state.outcome().is_some() || matches!(state.state, StepState::Waiting | StepState::Ready);
        if idle || (state.state == StepState::Running && state.message_id != message_id && deadline > now) {
            return TakenBack::Kept;
        }
        let attempt = state.attempt;
        state.claims += 1;
        let poisoned = state.claims > CLAIMS_MAX;
        let again = matches!(slot, Slot::Step(_)) && !poisoned;
        state.state = if again { StepState::Ready } else { StepState::Dispatched };
        self.event(now, EventType::TakenBack, Some((slot, Some(attempt), None)), serde_json::json!({"why": why}));
        if again {
            self.flight.remove(&name);
            self.ready.put(now, &name);
            return TakenBack::Dispatch;
        }
        self.flight.put(now + patience(0), &name);
        match slot {
            Slot::Plan if !poisoned => TakenBack::Plan,
            Slot::Summary if !poisoned => TakenBack::Summary,
            Slot::Plan | Slot::Summary | Slot::Step(_) => TakenBack::Poisoned,
        }
    }
}
