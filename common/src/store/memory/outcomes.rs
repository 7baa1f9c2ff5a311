//! Steps end, and so does the run: `report`, `halt`, `finish`, and who must act.

use super::run::Run;
use super::steps::{patience, state_of};
use crate::clock::millis;
use crate::event::EventType;
use crate::id::{Slot, StepNumber};
use crate::run::{Halt, Outcome, RunStatus, StepRecord, StepState};
use crate::store::{Account, Finish, Held, Owed, Reported, reported_state};

impl Run {
    pub(super) fn report(&mut self, step: StepNumber, epoch: u64, record: &StepRecord, account: &Account) -> Reported {
        if self.status.is_final() {
            return Reported::Finished(self.status);
        }
        let (slot, outcome) = (Slot::Step(step), reported_state(record));
        let Some(attempt) = self.fenced(slot, epoch) else {
            let repeated = self.left_at(slot, state_of(outcome), epoch);
            return if repeated { Reported::Recorded(self.still_owed()) } else { Reported::Stale };
        };
        self.results.insert(step, record.clone());
        self.flight.remove(&step.to_string());
        self.open.remove(&slot);
        self.enter(slot, state_of(outcome));
        self.account(slot, attempt, epoch, account);
        self.slot(slot).journal.clear();

        let succeeded = outcome == Outcome::Succeeded;
        let asks = self.asks_planner(succeeded);
        let mut newly_ready = false;
        if succeeded {
            for dependent in self.slot(slot).next.clone() {
                newly_ready |= self.unblock(dependent);
            }
        } else if !asks {
            newly_ready = self.settle(step);
        }
        let plan = asks && self.tell_planner(step);
        Reported::Recorded(self.owed(newly_ready, plan))
    }

    /// The planner is to decide on a step that ended. Whether that is new to it.
    fn tell_planner(&mut self, step: StepNumber) -> bool {
        self.news.insert(step);
        let new = !self.plan_is_open();
        if new {
            self.open_plan(Some(step));
        }
        new
    }

    fn summary_owed(&mut self) {
        self.renewed(Slot::Summary, StepState::Dispatched);
        self.flight.put(self.now + patience(0), &Slot::Summary.to_string());
    }

    /// Whether the answer is owed: every step has ended, or the run is to end and nothing runs any more.
    pub(super) fn drained(&mut self) -> bool {
        if !self.open.is_empty() {
            return false;
        }
        let ready = match self.status {
            RunStatus::Summarizing => return true,
            RunStatus::Running => true,
            RunStatus::Planning | RunStatus::AwaitingApproval | RunStatus::Paused => self.halt.is_some(),
            RunStatus::Succeeded | RunStatus::Partial | RunStatus::Failed | RunStatus::Cancelled => false,
        };
        if ready {
            self.status = RunStatus::Summarizing;
            self.summary_owed();
            self.event(EventType::Drained, serde_json::json!({}));
        }
        ready
    }

    /// Who must act. While ready steps wait for the window, the planner is told only when the flight has fallen to half of it.
    pub(super) fn owed(&mut self, newly_ready: bool, plan: bool) -> Owed {
        if self.drained() {
            return Owed::Summary;
        }
        let flight = self.in_flight();
        let dispatch = if self.backlog { flight == self.window() / 2 || flight == 0 } else { newly_ready };
        if plan || dispatch { Owed::Planner } else { Owed::Nothing }
    }

    /// The same for a redelivery, which cannot know what its first delivery still published: rather once too often.
    pub(super) fn still_owed(&self) -> Owed {
        if self.status == RunStatus::Summarizing {
            return Owed::Summary;
        }
        let plan = self.state(Slot::Plan) == Some(StepState::Dispatched);
        if plan || self.any_ready() { Owed::Planner } else { Owed::Nothing }
    }

    /// The run ends early: nothing more is started, and with `abort` what runs is no longer wanted. The answer is owed as soon as
    /// nothing runs any more.
    pub(super) fn halt(&mut self, halt: Halt, abort: bool) {
        self.halt = Some(halt.clone());
        // A pause is over with it: what runs has to come to its end.
        self.paused_by = None;
        if self.status == RunStatus::Paused {
            self.status = RunStatus::Running;
        }
        let mut cancelled = 0;
        for slot in self.open.clone() {
            if self.state(slot) == Some(StepState::Running) && !abort {
                continue;
            }
            self.unreserve(slot, true);
            match slot {
                Slot::Step(step) => {
                    self.close(step, Outcome::Cancelled, halt.reason.clone());
                    cancelled += 1;
                }
                Slot::Plan | Slot::Summary => self.close_plan(StepState::Cancelled),
            }
        }
        self.news.clear();
        let data = serde_json::json!({"kind": halt.kind.as_str(), "reason": halt.reason, "cancelled": cancelled});
        self.event(EventType::Halted, data);
        if self.status == RunStatus::Summarizing && abort {
            self.unreserve(Slot::Summary, true);
            self.summary_owed();
        }
        self.drained();
    }

    /// The holder of a slot ends the run early.
    pub(super) fn halt_by(&mut self, slot: Slot, epoch: u64, halt: &Halt, account: &Account) -> Held {
        if self.status.is_final() {
            return Held::Ended;
        }
        let Some(attempt) = self.fenced(slot, epoch) else {
            let same = self.halt.as_ref().is_some_and(|before| before.kind == halt.kind);
            return if same && self.slot(slot).epoch == epoch { Held::Kept } else { Held::Lost };
        };
        self.account(slot, attempt, epoch, account);
        self.halt(halt.clone(), true);
        Held::Kept
    }

    pub(super) fn finish(&mut self, slot: Slot, epoch: u64, end: &Finish, account: &Account) -> Held {
        if self.status.is_final() {
            return if self.finished_by == Some((slot, epoch)) { Held::Kept } else { Held::Lost };
        }
        let Some(attempt) = self.fenced(slot, epoch) else { return Held::Lost };
        self.status = end.status;
        self.error = end.error.clone().filter(|error| !error.is_empty());
        self.finished_at_ms = Some(self.now);
        self.finished_by = Some((slot, epoch));
        self.enter(slot, if end.status == RunStatus::Failed { StepState::Failed } else { StepState::Succeeded });
        self.account(slot, attempt, epoch, account);
        self.result = Some(end.document.clone());
        self.ready.clear();
        self.flight.clear();
        self.open.clear();
        self.news.clear();
        self.tokens.clear();
        for standing in self.slots.values_mut() {
            standing.journal.clear();
        }
        self.expires_ms = Some(self.now + millis(end.retention));
        Held::Kept
    }
}
