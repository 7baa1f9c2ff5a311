//! What must hold for every run after every verb, seen from outside: through the audit trail and the snapshot that readers get.
//!
//! The names of the invariants are those of the project's reliability notes: one plan (I2), one result a step (I3), one answer (I4), exact join
//! (I5), order of dependencies (I6), fencing (I7), bounded attempts (I9), a monotone audit trail (I13).

use std::collections::BTreeMap;

use common::event::{Event, EventType};
use common::id::{RunId, StepNumber};
use common::limits::{CLAIMS_MAX, STEP_ATTEMPTS_MAX};
use common::plan::{OnFailedDependency, Plan};
use common::run::{Outcome, RunStatus, StepRecord, StepState, StepView};
use common::store::Snapshot;

/// What has been seen of the runs so far.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    runs: BTreeMap<RunId, Seen>,
    /// Claims in a row of one slot. Where processes are also stopped, and lose their connections, some claims count for nothing.
    claims_max: u32,
}

#[derive(Debug, Default)]
struct Seen {
    /// The id of the last entry of the audit trail.
    last: String,
    position: (u64, u64),
    /// The epoch under which each slot was claimed last.
    epochs: BTreeMap<String, u64>,
    /// Claims of each slot since something of its was recorded.
    claims: BTreeMap<String, u32>,
    plans: BTreeMap<u32, Plan>,
    records: BTreeMap<StepNumber, StepRecord>,
    document: Option<String>,
    ended: bool,
    /// Its owner has retried it: what had not succeeded begins again.
    reopened: bool,
}

impl Checker {
    /// Has seen nothing. `only_crashes`: nothing else goes wrong, so that every claim counts.
    pub(crate) fn new(only_crashes: bool) -> Self {
        Self { runs: BTreeMap::new(), claims_max: if only_crashes { CLAIMS_MAX + 1 } else { CLAIMS_MAX * 8 } }
    }

    /// The id of the last entry of the run's audit trail that was looked at.
    pub(crate) fn last(&self, run: &RunId) -> &str {
        self.runs.get(run).map_or("", |seen| &seen.last)
    }

    /// Whether the run was ever retried by its owner.
    pub(crate) fn was_reopened(&self, run: &RunId) -> bool {
        self.runs.get(run).is_some_and(|seen| seen.reopened)
    }

    /// The store has gone back in time: what was seen counts no longer.
    pub(crate) fn forget(&mut self) {
        for seen in self.runs.values_mut() {
            *seen = Seen { reopened: seen.reopened, ..Seen::default() };
        }
    }

    /// Looks at a run after a verb. `events` are those after [`Checker::last`].
    pub(crate) fn observe(
        &mut self,
        run: &RunId,
        now: &Snapshot,
        events: &[Event],
        document: Option<String>,
    ) -> Result<(), String> {
        let seen = self.runs.entry(run.clone()).or_default();
        let first_look = seen.last.is_empty();
        for event in events {
            seen.event(now, event, first_look, self.claims_max).map_err(|why| format!("run {run}: {why}: {event:?}"))?;
        }
        seen.steps(now).and_then(|()| seen.run(now, document)).map_err(|why| format!("run {run}: {why}"))
    }
}

impl Seen {
    fn event(&mut self, now: &Snapshot, event: &Event, first_look: bool, claims_max: u32) -> Result<(), String> {
        let position = position(&event.id);
        ensure(self.last.is_empty() || position > self.position, "I13: the audit trail goes backwards")?;
        (self.last, self.position) = (event.id.clone(), position);
        let command = || event.data["command"].as_str().unwrap_or_default().to_owned();
        let accepted = event.kind == EventType::Controlled && event.data["answer"] == "accepted";
        if accepted && command() == "retry" {
            (self.ended, self.reopened, self.document) = (false, true, None);
            self.records.retain(|_, record| record.outcome == Outcome::Succeeded);
            self.claims.clear();
        }
        ensure(!self.ended || event.kind == EventType::Controlled, "I13: something happens after the end")?;
        if [EventType::PlanStored, EventType::PlanKept, EventType::ReplanOwed].contains(&event.kind) {
            self.claims.remove("plan");
        }
        let Some(slot) = event.slot.as_deref() else {
            self.ended |= event.kind == EventType::RunFinished;
            return Ok(());
        };
        if event.kind == EventType::Claimed {
            return self.claimed(now, slot, event, first_look, claims_max);
        }
        if [EventType::StepRetried, EventType::Parked].contains(&event.kind) {
            self.claims.insert(slot.to_owned(), 0);
        }
        let fenced = event.epoch.is_none() || event.epoch == self.epochs.get(slot).copied();
        ensure(fenced, "I7: something recorded under an epoch that is not the last one")
    }

    fn claimed(&mut self, now: &Snapshot, slot: &str, event: &Event, first_look: bool, claims_max: u32) -> Result<(), String> {
        let epoch = event.epoch.unwrap_or(0);
        let before = self.epochs.insert(slot.to_owned(), epoch);
        ensure(before.is_none_or(|before| epoch > before), "I7: an epoch that is not higher than the one before")?;
        let claims = self.claims.entry(slot.to_owned()).or_insert(0);
        *claims += 1;
        ensure(*claims <= claims_max, "I9: claimed without end")?;
        if first_look {
            return Ok(());
        }
        if slot == "summary" {
            let open = now.view.steps.iter().find(|step| step.state.outcome().is_none());
            return ensure(open.is_none(), "I5: the summary is claimed while a step is open");
        }
        let Ok(number) = slot.parse().map(StepNumber) else { return Ok(()) };
        ensure(!self.records.contains_key(&number), "I3: a step that has ended is claimed")?;
        let step = find(now, number).ok_or("a step that is not planned is claimed")?;
        step.step.depends_on.iter().try_for_each(|dependency| {
            let state = find(now, *dependency).map(|dependency| dependency.state);
            let anyway = step.step.on_failed_dependency == OnFailedDependency::RunAnyway;
            let free = state == Some(StepState::Succeeded) || anyway && state.is_some_and(|s| s.outcome().is_some());
            ensure(free, "I6: a step is claimed before what it depends on")
        })
    }

    fn steps(&mut self, now: &Snapshot) -> Result<(), String> {
        for step in now.view.steps.iter().chain(&now.view.superseded) {
            let number = step.step.step_number;
            ensure(step.attempt <= STEP_ATTEMPTS_MAX, &format!("I9: step {number} is at attempt {}", step.attempt))?;
            let Some(outcome) = step.state.outcome() else {
                ensure(!self.records.contains_key(&number), &format!("I3: step {number} had ended and is open again"))?;
                continue;
            };
            let Some(record) = &step.record else { return Err(format!("I3: step {number} has ended without a record")) };
            ensure(record.outcome == outcome, &format!("I3: step {number} is {outcome:?} and recorded as {:?}", record.outcome))?;
            let first = self.records.entry(number).or_insert_with(|| record.clone());
            ensure(first == record, &format!("I3: the record of step {number} has changed from {first:?} to {record:?}"))?;
        }
        Ok(())
    }

    fn run(&mut self, now: &Snapshot, document: Option<String>) -> Result<(), String> {
        let view = &now.view;
        // A plan that waits for approval may be sent back or edited: the number stays until one is approved.
        if view.revision > 0 && !matches!(view.status, RunStatus::Planning | RunStatus::AwaitingApproval) {
            let first = self.plans.entry(view.revision).or_insert_with(|| now.plan.clone());
            ensure(*first == now.plan, &format!("I2: revision {} of the plan has changed", view.revision))?;
        }
        let open = view.steps.iter().filter(|step| step.state.outcome().is_none()).count();
        if view.status == RunStatus::Summarizing || view.status.is_final() {
            ensure(open == 0, &format!("I5: the run is {} with {open} open steps", view.status.as_str()))?;
        }
        ensure(view.status.is_final() == document.is_some(), "I4: an end without a document, or a document without an end")?;
        ensure(!self.ended || view.status.is_final(), "I1: a run that had ended is live again")?;
        if let Some(before) = &self.document {
            ensure(document.as_ref() == Some(before), "I4: the answer has changed")?;
        }
        self.document = document;
        Ok(())
    }
}

fn find(now: &Snapshot, number: StepNumber) -> Option<&StepView> {
    now.view.steps.iter().chain(&now.view.superseded).find(|step| step.step.step_number == number)
}

fn position(id: &str) -> (u64, u64) {
    let (ms, sequence) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or(0), sequence.parse().unwrap_or(0))
}

/// `Err(what)` unless `holds`.
pub(crate) fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}
