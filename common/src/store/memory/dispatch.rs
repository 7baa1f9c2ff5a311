//! Ready steps are dispatched, and wake-ups repair: `take_ready`, `advance`, `take_back`.

use std::time::Duration;

use super::run::Run;
use super::steps::patience;
use crate::clock::millis;
use crate::event::EventType;
use crate::id::{Slot, StepNumber};
use crate::limits::{CLAIMS_MAX, WAKEUP_INTERVAL_MAX};
use crate::message::ReplanPolicy;
use crate::run::{Halt, HaltKind, RunStatus, StepState};
use crate::store::{Advance, ApprovalTimeout, Dispatch, Owed, Taken, TakenBack};

/// Slots that one look takes back.
const TAKEN_BACK_MAX: usize = 1000;

impl Run {
    pub(super) fn take_ready(&mut self, token: &str) -> Taken {
        let mut taken = Taken::default();
        if self.status != RunStatus::Running || self.halt.is_some() {
            return taken;
        }
        taken.plan = self.plan_is_asked_for(token);
        let mut mine = self.tokens.get(token).cloned().unwrap_or_default();
        let unclaimed = |step: &&StepNumber| {
            let standing = self.slots.get(&Slot::Step(**step));
            standing.is_some_and(|s| s.state == Some(StepState::Dispatched) && s.token == token)
        };
        taken.steps.extend(mine.iter().filter(unclaimed).filter_map(|step| self.message(*step)));
        let free = if self.is_observed() { 0 } else { self.window().saturating_sub(self.in_flight()) };
        let free: Vec<StepNumber> = self.ready.due(self.now).take(free).filter_map(|n| n.parse().ok().map(StepNumber)).collect();
        for step in free {
            self.dispatch(step, token);
            taken.steps.extend(self.message(step));
            mine.push(step);
        }
        self.tokens.insert(token.to_owned(), mine);
        self.backlog = self.any_ready();
        taken
    }

    /// Whether the plan is owed and nobody but this token's message has asked for it.
    fn plan_is_asked_for(&mut self, token: &str) -> bool {
        let plan = self.slot(Slot::Plan);
        let asks = plan.state == Some(StepState::Dispatched) && (plan.token.is_empty() || plan.token == token);
        if asks {
            plan.token = token.to_owned();
        }
        asks
    }

    /// Whether nothing starts before the planner has looked at what ended.
    fn is_observed(&self) -> bool {
        self.new.rules.replan == ReplanPolicy::AfterEachStep && self.plan_is_open()
    }

    fn dispatch(&mut self, step: StepNumber, token: &str) {
        let slot = Slot::Step(step);
        self.enter(slot, StepState::Dispatched);
        let standing = self.slot(slot);
        let (attempt, sent) = (standing.attempt, standing.sent);
        standing.token = token.to_owned();
        standing.sent += 1;
        self.ready.remove(&step.to_string());
        self.flight.put(self.now + patience(sent), &step.to_string());
        self.event_of(EventType::StepDispatched, slot, Some(attempt), None, serde_json::json!({}));
    }

    fn message(&self, number: StepNumber) -> Option<Dispatch> {
        let step = self.specs.get(&number)?.clone();
        let attempt = self.slots.get(&Slot::Step(number))?.attempt;
        Some(Dispatch { revision: self.plan.revision, attempt, step })
    }

    pub(super) fn advance(&mut self) -> Advance {
        if self.status.is_final() {
            return Advance::Gone;
        }
        let mut summary = self.end_in_time();
        let mut plan = false;
        let over: Vec<Slot> = self.flight.due(self.now).take(TAKEN_BACK_MAX).filter_map(|name| Slot::parse(name)).collect();
        for slot in over {
            self.give_up_on(slot);
            match slot {
                Slot::Plan => plan |= self.status != RunStatus::Paused,
                Slot::Summary => summary = true,
                Slot::Step(step) => {
                    self.make_ready(step, self.now);
                    summary |= self.drained();
                }
            }
        }
        let ready = self.status == RunStatus::Running && !self.is_observed() && self.any_ready();
        let dispatch = ready && self.in_flight() < self.window();
        // A retry that came due while the window was full waits for it like any other: the next step that ends must tell.
        self.backlog |= ready && !dispatch;
        Advance::Live { next_look: self.next_look(), plan, dispatch, summary }
    }

    /// Ends a run whose deadline has come, and decides on a plan that nobody has decided on in time. Whether the answer is owed.
    fn end_in_time(&mut self) -> bool {
        if self.deadline_at_ms.is_some_and(|at| self.now >= at) && self.status != RunStatus::Summarizing {
            self.halt(Halt { kind: HaltKind::Deadline, reason: "the deadline has come".to_owned() }, true);
            return true;
        }
        let over = self.approval_until_ms.is_some_and(|until| self.now >= until);
        if self.status != RunStatus::AwaitingApproval || !over {
            return false;
        }
        let action = self.new.rules.approval.map(|rule| rule.otherwise).unwrap_or_default();
        let message = match action {
            ApprovalTimeout::Approve => "the plan is approved: nobody has decided in time",
            ApprovalTimeout::Cancel => "the run is cancelled: nobody has approved its plan in time",
        };
        let data = serde_json::json!({
            "id": "", "command": action.as_str(), "by": "time-out", "reason": "", "feedback": "", "answer": "accepted", "message": message,
        });
        self.event(EventType::Controlled, data);
        self.approval_decision = Some(message.to_owned());
        match action {
            ApprovalTimeout::Approve => {
                self.status = self.started();
                false
            }
            ApprovalTimeout::Cancel => {
                let reason = "nobody has approved the plan in time".to_owned();
                self.halt(Halt { kind: HaltKind::Cancelled, reason }, true);
                true
            }
        }
    }

    /// The time of a slot in flight is over; what becomes of a step is the caller's.
    fn give_up_on(&mut self, slot: Slot) {
        let state = self.state(slot);
        let attempt = self.slot(slot).attempt;
        if state != Some(StepState::Ready) {
            let why = if state == Some(StepState::Running) { "lease expired" } else { "not claimed in time" };
            self.event_of(EventType::TakenBack, slot, Some(attempt), None, serde_json::json!({"why": why}));
        }
        if state == Some(StepState::Running) {
            self.unreserve(slot, true);
        }
        match slot {
            Slot::Step(_) => {}
            Slot::Plan | Slot::Summary => {
                self.enter(slot, StepState::Dispatched);
                let standing = self.slot(slot);
                let sent = standing.sent;
                standing.sent += 1;
                self.flight.put(self.now + patience(sent), &slot.to_string());
            }
        }
    }

    fn next_look(&self) -> Duration {
        let now = self.now;
        let awaited = self.approval_until_ms.filter(|_| self.status == RunStatus::AwaitingApproval);
        let times = [
            self.flight.next_after(now),
            self.ready.next_after(now),
            self.deadline_at_ms.filter(|at| *at > now),
            awaited,
            Some(now + millis(WAKEUP_INTERVAL_MAX)),
        ];
        let next = times.into_iter().flatten().min().unwrap_or(now);
        Duration::from_millis(next.saturating_sub(now))
    }

    pub(super) fn take_back(&mut self, slot: Slot, message_id: &str, why: &str) -> TakenBack {
        if self.status.is_final() {
            return TakenBack::Gone;
        }
        let leased = self.flight.time_of(&slot.to_string()).is_some_and(|until| until > self.now);
        let owed = self.still_owed();
        let standing = self.slot(slot);
        match standing.state {
            Some(StepState::Dispatched) => {}
            Some(StepState::Running) if standing.message_id == message_id || !leased => {}
            // What its last holder may not have published.
            Some(StepState::Succeeded | StepState::Failed | StepState::Skipped | StepState::Cancelled) => {
                return match owed {
                    Owed::Summary => TakenBack::Summary,
                    Owed::Planner => TakenBack::Dispatch,
                    Owed::Nothing => TakenBack::Kept,
                };
            }
            Some(StepState::Running | StepState::Waiting | StepState::Ready) | None => return TakenBack::Kept,
        }
        standing.claims += 1;
        let (attempt, poisoned) = (standing.attempt, standing.claims > CLAIMS_MAX);
        self.event_of(EventType::TakenBack, slot, Some(attempt), None, serde_json::json!({"why": why}));
        self.unreserve(slot, true);
        match slot {
            Slot::Step(step) if !poisoned => {
                self.make_ready(step, self.now);
                return if self.drained() { TakenBack::Summary } else { TakenBack::Dispatch };
            }
            Slot::Plan | Slot::Step(_) | Slot::Summary => {
                self.enter(slot, StepState::Dispatched);
                self.flight.put(self.now + patience(0), &slot.to_string());
            }
        }
        match slot {
            Slot::Plan if !poisoned => TakenBack::Plan,
            Slot::Summary if !poisoned => TakenBack::Summary,
            Slot::Plan | Slot::Summary | Slot::Step(_) => TakenBack::Poisoned,
        }
    }
}
