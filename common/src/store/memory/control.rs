//! What somebody wants of the run: `control`. The first decision wins; later ones are told what it was.

use super::run::Run;
use crate::clock::millis;
use crate::event::EventType;
use crate::id::{RunId, Slot, StepNumber};
use crate::limits::{CONTROLS_KEPT_MAX, REJECTIONS_MAX};
use crate::message::{Answer, Command, ControlReply};
use crate::run::{Halt, HaltKind, RunStatus, StepState};
use crate::store::{Control, Controlled};

/// What became of a command, and the sentence that says so.
type Said = (Answer, String);

fn accepted(message: impl Into<String>) -> Said {
    (Answer::Accepted, message.into())
}

fn repeated(message: impl Into<String>) -> Said {
    (Answer::Repeated, message.into())
}

fn refused(message: impl Into<String>) -> Said {
    (Answer::Refused, message.into())
}

/// Who decided, and why if they said so.
fn by(control: &Control<'_>) -> String {
    match control.reason {
        "" => control.by.to_owned(),
        reason => format!("{}: {reason}", control.by),
    }
}

impl Run {
    pub(super) fn control(&mut self, id: &RunId, control: &Control<'_>) -> Controlled {
        let reply = match self.controls.get(control.id) {
            Some(reply) => reply.clone(),
            None => self.obey(id, control),
        };
        let (status, plan, summary) = (self.status, self.state(Slot::Plan), self.state(Slot::Summary));
        Controlled {
            answer: reply.answer,
            message: reply.message,
            status: reply.status,
            plan: plan == Some(StepState::Dispatched) && status != RunStatus::Paused && !status.is_final(),
            dispatch: status == RunStatus::Running && self.any_ready(),
            summary: status == RunStatus::Summarizing && summary == Some(StepState::Dispatched),
        }
    }

    fn obey(&mut self, id: &RunId, control: &Control<'_>) -> ControlReply {
        let full = self.controls.len() >= CONTROLS_KEPT_MAX && control.command != Command::Cancel;
        let (answer, message) = match (full, control.refused) {
            (true, _) => refused("the run has had too many commands, only cancel is taken"),
            (false, "") => self.done(control),
            (false, why) => refused(why),
        };
        let data = serde_json::json!({
            "id": control.id, "command": control.command, "by": control.by, "reason": control.reason,
            "feedback": control.feedback, "answer": answer, "message": message,
        });
        self.event(EventType::Controlled, data);
        let status = Some(self.status);
        let reply = ControlReply { version: 1, run_id: id.clone(), command: control.command, answer, message, status };
        if !full {
            self.controls.insert(control.id.to_owned(), reply.clone());
        }
        reply
    }

    fn done(&mut self, control: &Control<'_>) -> Said {
        match control.command {
            Command::Cancel => self.cancel(control),
            Command::Pause => self.pause(control),
            Command::Resume => self.resume(control),
            Command::Approve => self.decide(control, "approved"),
            Command::Reject => self.decide(control, "rejected"),
            Command::Edit => self.decide(control, "replaced"),
            Command::Retry => self.start_again(control),
        }
    }

    fn has_ended(&self) -> Option<Said> {
        self.status.is_final().then(|| refused(format!("the run has ended: {}", self.status.as_str())))
    }

    fn cancel(&mut self, control: &Control<'_>) -> Said {
        let cancelled = self.halt.as_ref().is_some_and(|halt| halt.kind == HaltKind::Cancelled);
        if cancelled || self.status == RunStatus::Cancelled {
            let why = self.halt.as_ref().map_or("", |halt| &halt.reason);
            return repeated(format!("the run was cancelled before: {why}"));
        }
        if let Some(ended) = self.has_ended() {
            return ended;
        }
        self.halt(Halt { kind: HaltKind::Cancelled, reason: format!("cancelled by {}", by(control)) }, true);
        accepted("the run is cancelled")
    }

    fn pause(&mut self, control: &Control<'_>) -> Said {
        if let Some(ended) = self.has_ended() {
            return ended;
        }
        if self.halt.is_some() || self.status == RunStatus::Summarizing {
            return refused("the run is about to end");
        }
        if let Some(before) = &self.paused_by {
            return repeated(format!("the run was paused before by {before}"));
        }
        self.paused_by = Some(control.by.to_owned());
        self.resumed_by = None;
        if self.status == RunStatus::Running {
            self.status = RunStatus::Paused;
        }
        accepted("the run is paused; what runs goes on, nothing new starts")
    }

    fn resume(&mut self, control: &Control<'_>) -> Said {
        if let Some(ended) = self.has_ended() {
            return ended;
        }
        if self.paused_by.take().is_none() {
            return match &self.resumed_by {
                Some(before) => repeated(format!("the run was resumed before by {before}")),
                None => refused("the run is not paused"),
            };
        }
        self.resumed_by = Some(control.by.to_owned());
        if self.status == RunStatus::Paused {
            self.status = RunStatus::Running;
        }
        self.drained();
        accepted("the run goes on")
    }

    /// `approve`, `reject` or `edit` of the plan that waits for approval; `done` says it in a word.
    fn decide(&mut self, control: &Control<'_>, done: &str) -> Said {
        if self.status != RunStatus::AwaitingApproval {
            let Some(decision) = &self.approval_decision else { return refused("the run does not wait for approval") };
            // Another feedback or another plan is another decision.
            let same = control.command == Command::Approve && decision.starts_with("the plan is approved");
            let message = format!("decided before: {decision}");
            return if same { repeated(message) } else { refused(message) };
        }
        let current = self.plan.revision;
        if let Some(seen) = control.revision.filter(|seen| *seen != current) {
            return refused(format!("revision {current} of the plan is current, not {seen}"));
        }
        let said = format!("the plan is {done} by {}", by(control));
        self.approval_decision = Some(said.clone());
        match control.command {
            Command::Approve => self.status = self.started(),
            Command::Edit => {
                self.edited = Some(control.text.to_owned()).filter(|text| !text.is_empty());
                self.plan_again();
            }
            Command::Reject if self.rejections >= REJECTIONS_MAX => {
                self.halt(Halt { kind: HaltKind::Cancelled, reason: "the plan was rejected too often".to_owned() }, true);
                return accepted("the run is cancelled: its plan was rejected too often");
            }
            Command::Reject => {
                self.rejections += 1;
                self.feedback = Some(control.text.to_owned()).filter(|text| !text.is_empty());
                self.plan_again();
            }
            Command::Cancel | Command::Pause | Command::Resume | Command::Retry => {}
        }
        let paused = control.command == Command::Approve && self.paused_by.is_some();
        accepted(if paused { said + "; the run is paused" } else { said })
    }

    /// No step of the plan has started: it makes room for another one.
    fn plan_again(&mut self) {
        for step in std::mem::take(&mut self.specs).into_keys() {
            self.open.remove(&Slot::Step(step));
            self.slots.remove(&Slot::Step(step));
        }
        self.ready.clear();
        self.status = RunStatus::Planning;
        self.open_plan(None);
    }

    /// `retry`: the run goes on from what had not succeeded.
    fn start_again(&mut self, control: &Control<'_>) -> Said {
        match self.status {
            RunStatus::Failed | RunStatus::Partial => {}
            RunStatus::Succeeded => return refused("the run has succeeded, there is nothing to retry"),
            RunStatus::Cancelled => return refused("a cancelled run stays as it is"),
            RunStatus::Planning
            | RunStatus::AwaitingApproval
            | RunStatus::Running
            | RunStatus::Paused
            | RunStatus::Summarizing => {
                return match &self.retried_by {
                    Some(before) => repeated(format!("the run goes on again since a retry by {before}")),
                    None => refused("the run has not ended"),
                };
            }
        }
        if let Some(halt) = self.halt.as_ref().filter(|halt| halt.kind == HaltKind::Budget) {
            return refused(format!("the budget of the run is used up: {}", halt.reason));
        }
        self.revive(control.by);
        if self.specs.is_empty() {
            self.status = RunStatus::Planning;
            self.open_plan(None);
            return accepted("the run is planned again");
        }
        let unseen = self.new.rules.approval.filter(|_| self.approval_decision.is_none());
        self.status = if unseen.is_some() { RunStatus::AwaitingApproval } else { RunStatus::Running };
        let unfinished = |standing: &super::run::SlotState| standing.state != Some(StepState::Succeeded) && !standing.retired;
        let steps = self.specs.keys().copied();
        let again: Vec<StepNumber> = steps.filter(|step| self.slots.get(&Slot::Step(*step)).is_none_or(unfinished)).collect();
        for step in &again {
            self.renewed(Slot::Step(*step), StepState::Waiting);
            self.slot(Slot::Step(*step)).settled = false;
            self.results.remove(step);
            self.open.insert(Slot::Step(*step));
        }
        self.start(&again);
        if let Some(rule) = unseen {
            // Nobody had approved the plan when the run ended.
            self.await_approval(rule, None);
            return accepted("the plan waits for approval again");
        }
        self.drained();
        let steps = if again.len() == 1 { "step" } else { "steps" };
        accepted(format!("the run goes on from {} {steps} that had not succeeded", again.len()))
    }

    /// The run lives again: it does not expire, and may take its time and re-plan as at its opening.
    fn revive(&mut self, by: &str) {
        self.expires_ms = None;
        self.result = None;
        self.finished_at_ms = None;
        self.finished_by = None;
        self.error = None;
        self.halt = None;
        self.paused_by = None;
        self.retried_by = Some(by.to_owned());
        self.replans = 0;
        self.backlog = false;
        self.deadline_at_ms = self.new.rules.deadline.map(|deadline| self.now + millis(deadline));
    }
}
