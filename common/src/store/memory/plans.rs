//! Plans are owed, stored, kept: `put_plan`, `keep_plan`, and what the planner is asked to decide on.

use super::run::Run;
use super::steps::patience;
use crate::clock::millis;
use crate::event::EventType;
use crate::id::{Slot, StepNumber};
use crate::message::ReplanPolicy;
use crate::patch::Revision;
use crate::plan::{OnFailedDependency, Step};
use crate::quote::Quote;
use crate::run::{Outcome, RunStatus, StepState};
use crate::store::{Account, ApprovalRule, Held, Owed, PlanNote, Put, StoredPlan};

impl Run {
    /// The plan is to be made, or looked at again after a step ended.
    pub(super) fn open_plan(&mut self, after: Option<StepNumber>) {
        self.renewed(Slot::Plan, StepState::Dispatched);
        self.flight.put(self.now + patience(0), &Slot::Plan.to_string());
        self.open.insert(Slot::Plan);
        if let Some(after) = after {
            self.event(EventType::ReplanOwed, serde_json::json!({"after": after}));
        }
    }

    pub(super) fn close_plan(&mut self, state: StepState) {
        self.enter(Slot::Plan, state);
        self.flight.remove(&Slot::Plan.to_string());
        self.open.remove(&Slot::Plan);
    }

    pub(super) fn plan_is_open(&self) -> bool {
        self.state(Slot::Plan).is_some_and(|state| state.outcome().is_none())
    }

    /// The status of a run whose plan may run.
    pub(super) fn started(&self) -> RunStatus {
        if self.paused_by.is_some() { RunStatus::Paused } else { RunStatus::Running }
    }

    /// Whether the planner is to decide when a step has ended like this.
    pub(super) fn asks_planner(&self, succeeded: bool) -> bool {
        if self.halt.is_some() || self.replans >= self.new.rules.max_replans {
            return false;
        }
        match self.new.rules.replan {
            ReplanPolicy::Never => false,
            ReplanPolicy::OnFailure => !succeeded,
            ReplanPolicy::AfterEachStep => !succeeded || !self.open.is_empty(),
        }
    }

    fn succeeded(&self, step: StepNumber) -> bool {
        self.state(Slot::Step(step)) == Some(StepState::Succeeded)
    }

    /// The planner has decided on `handled`, and on nothing that has ended since. Closes the plan, and opens it again for what came
    /// in meanwhile. Whether something became ready, and whether the plan is owed again.
    fn decided(&mut self, handled: &[StepNumber]) -> (bool, bool) {
        let mut newly_ready = false;
        self.close_plan(StepState::Succeeded);
        self.backlog = false;
        for step in handled {
            self.news.remove(step);
            let ended = self.state(Slot::Step(*step)).is_some_and(|state| state.outcome().is_some());
            if ended && !self.succeeded(*step) {
                newly_ready |= self.settle(*step);
            }
        }
        let again = self.news.iter().any(|step| self.asks_planner(self.succeeded(*step)));
        if again {
            self.open_plan(self.news.first().copied());
            return (newly_ready, true);
        }
        for step in std::mem::take(&mut self.news) {
            if !self.succeeded(step) {
                newly_ready |= self.settle(step);
            }
        }
        (newly_ready, false)
    }

    pub(super) fn put_plan(
        &mut self,
        epoch: u64,
        current: u32,
        revision: &Revision,
        note: &PlanNote,
        handled: &[StepNumber],
        account: &Account,
    ) -> Put {
        let stored = self.plan.revision;
        let Some(attempt) = self.fenced(Slot::Plan, epoch).filter(|_| stored == current) else {
            return if self.has_put(epoch, current + 1) { Put::Stored(self.still_owed()) } else { Put::Lost };
        };
        if self.has_moved(revision) {
            return Put::Moved;
        }
        if self.halt.is_some() {
            // The run is ending: nothing new starts.
            self.account(Slot::Plan, attempt, epoch, account);
            self.decided(handled);
            return Put::Stored(self.owed(false, false));
        }
        self.plan = StoredPlan { revision: current + 1, note: note.clone(), plan: revision.plan.clone() };
        self.account(Slot::Plan, attempt, epoch, account);
        for step in &revision.retired {
            self.retire(*step);
        }
        for step in &revision.put {
            self.place(step);
        }
        let mut dependents = revision.plan.dependents();
        for step in &revision.plan.steps {
            self.slot(Slot::Step(step.step_number)).next = dependents.remove(&step.step_number).unwrap_or_default();
        }
        let put: Vec<StepNumber> = revision.put.iter().map(|step| step.step_number).collect();
        self.start(&put);
        match self.status {
            RunStatus::Planning => self.adopt(note),
            RunStatus::AwaitingApproval
            | RunStatus::Running
            | RunStatus::Paused
            | RunStatus::Summarizing
            | RunStatus::Succeeded
            | RunStatus::Partial
            | RunStatus::Failed
            | RunStatus::Cancelled => self.replans += 1,
        }
        let (_, again) = self.decided(handled);
        Put::Stored(self.owed(self.any_ready(), again))
    }

    /// Whether the holder of `epoch` has put this revision before, so that the reply to its very call was lost.
    fn has_put(&self, epoch: u64, revision: u32) -> bool {
        let Some(plan) = self.slots.get(&Slot::Plan) else { return false };
        let stored = self.plan.revision == revision && plan.state != Some(StepState::Running);
        let ending = self.halt.is_some() && plan.state == Some(StepState::Succeeded);
        plan.epoch == epoch && (stored || ending)
    }

    /// Whether a step that is put has started, or one that is retired has succeeded.
    fn has_moved(&self, revision: &Revision) -> bool {
        let started = |step: &Step| match self.state(Slot::Step(step.step_number)) {
            None | Some(StepState::Waiting | StepState::Ready) => false,
            Some(StepState::Dispatched | StepState::Running)
            | Some(StepState::Succeeded | StepState::Failed | StepState::Skipped | StepState::Cancelled) => true,
        };
        revision.put.iter().any(started) || revision.retired.iter().any(|step| self.succeeded(*step))
    }

    /// A step is not in the plan any more.
    fn retire(&mut self, step: StepNumber) {
        let slot = Slot::Step(step);
        if self.state(slot).is_none_or(|state| state.outcome().is_none()) {
            self.unreserve(slot, true);
            self.close(step, Outcome::Cancelled, format!("revision {} of the plan dropped it", self.plan.revision));
        }
        let standing = self.slot(slot);
        standing.settled = true;
        standing.retired = true;
        self.news.remove(&step);
    }

    /// A step is new in the plan, or stands there with another text or other dependencies.
    fn place(&mut self, step: &Step) {
        let slot = Slot::Step(step.step_number);
        self.specs.insert(step.step_number, step.clone());
        self.ready.remove(&step.step_number.to_string());
        self.open.insert(slot);
        self.renewed(slot, StepState::Waiting);
        let standing = self.slot(slot);
        standing.depends_on.clone_from(&step.depends_on);
        standing.anyway = step.on_failed_dependency == OnFailedDependency::RunAnyway;
        standing.settled = false;
    }

    /// Makes waiting steps ready that wait for nothing, and skips those that wait in vain. All are counted before any is told: what is
    /// told counts down.
    pub(super) fn start(&mut self, steps: &[StepNumber]) {
        let mut doomed_by = Vec::with_capacity(steps.len());
        for step in steps {
            let gone = |dependency: &StepNumber| {
                let standing = self.slots.get(&Slot::Step(*dependency));
                standing.is_some_and(|s| s.settled && s.state.is_some_and(|state| state.outcome().is_some()))
            };
            let depends_on = self.slots.get(&Slot::Step(*step)).map_or(&[][..], |standing| &standing.depends_on);
            let missing: Vec<StepNumber> = depends_on.iter().filter(|n| !self.succeeded(**n)).copied().collect();
            let (vain, awaited): (Vec<StepNumber>, Vec<StepNumber>) = missing.into_iter().partition(gone);
            let standing = self.slot(Slot::Step(*step));
            standing.waiting = awaited.len();
            doomed_by.push(vain.first().copied().filter(|_| !standing.anyway));
        }
        for (step, doomed_by) in steps.iter().zip(doomed_by) {
            let standing = self.slot(Slot::Step(*step));
            if standing.state != Some(StepState::Waiting) {
                // Told already, with a step before it.
            } else if let Some(because) = doomed_by {
                self.skip(*step, because);
                self.settle(*step);
            } else if standing.waiting == 0 {
                self.make_ready(*step, self.now);
            }
        }
    }

    /// The first plan, or the one in place of another that was sent back: it runs, or waits for approval unless a person wrote it.
    fn adopt(&mut self, note: &PlanNote) {
        match self.new.rules.approval.filter(|_| self.edited.is_none()) {
            Some(rule) => self.await_approval(rule, note.quote.as_ref()),
            None => self.status = self.started(),
        }
        self.feedback = None;
        self.edited = None;
    }

    /// The plan waits for somebody to decide on it.
    pub(super) fn await_approval(&mut self, rule: ApprovalRule, quote: Option<&Quote>) {
        let until = self.now + millis(rule.timeout);
        self.status = RunStatus::AwaitingApproval;
        self.approval_until_ms = Some(until);
        self.approval_decision = None;
        let data = serde_json::json!({
            "revision": self.plan.revision, "until_ms": until, "otherwise": rule.otherwise.as_str(), "quote": quote,
        });
        self.event(EventType::ApprovalAwaited, data);
    }

    pub(super) fn keep_plan(&mut self, epoch: u64, handled: &[StepNumber], counts: bool, account: &Account) -> (Held, Owed) {
        let Some(attempt) = self.fenced(Slot::Plan, epoch) else {
            let repeated = [StepState::Succeeded, StepState::Dispatched].iter().any(|s| self.left_at(Slot::Plan, *s, epoch));
            return if repeated { (Held::Kept, self.still_owed()) } else { (Held::Lost, Owed::Nothing) };
        };
        self.account(Slot::Plan, attempt, epoch, account);
        self.replans += u32::from(counts);
        let (newly_ready, again) = self.decided(handled);
        (Held::Kept, self.owed(newly_ready || self.any_ready(), again))
    }
}
