//! Runs in this process: the executable specification of the verbs, for one-process mode, tests and simulation.
//!
//! Says in plain Rust what the scripts say in Lua; where the two differ, one of them is wrong. Keeps nothing on disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Account, Advance, Again, ClaimRequest, Claimed, Control, Controlled, Finish, Held, Live, NewRun, Opened, Owed, PlanNote,
    Pulse, Put, Reported, Reserved, RunLine, Snapshot, StoreError, StoreTime, Taken, TakenBack,
};
use crate::clock::millis;
use crate::event::Event;
use crate::id::{RunId, Slot, StepNumber};
use crate::limits::{DEAD_LETTERS_KEPT, WAKEUP_INTERVAL_MAX, WAKEUP_LOOK_MAX};
use crate::meter::Need;
use crate::patch::Revision;
use crate::run::{Halt, RunStatus, StepRecord, StepState};

mod budget;
mod claims;
mod control;
mod dispatch;
mod outcomes;
mod plans;
mod queue;
mod read;
mod run;
mod steps;

use run::Run;

/// Runs in memory.
#[derive(Debug)]
pub struct Memory {
    time: StoreTime,
    kept: Mutex<Kept>,
}

/// All that the store holds at one moment.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    runs: BTreeMap<RunId, Run>,
    /// When to look at each run, and whether somebody has taken it to look now.
    wakeups: BTreeMap<RunId, (u64, bool)>,
    dead: VecDeque<String>,
}

impl Memory {
    /// Holds nothing yet.
    pub fn new(time: StoreTime) -> Self {
        Self { time, kept: Mutex::default() }
    }

    /// What it holds now.
    pub fn save(&self) -> Kept {
        self.open().0.clone()
    }

    /// Goes back to what it held once, as a Redis does that loses its last writes.
    pub fn restore(&self, kept: Kept) {
        *self.open().0 = kept;
    }

    /// The id of the message under which a slot is held, if somebody holds it: what may not be acknowledged yet.
    pub fn held_by(&self, id: &RunId, slot: Slot) -> Option<String> {
        self.seen(id, None, |run| {
            let held = run.state(slot) == Some(StepState::Running);
            held.then(|| run.slot(slot).message_id.clone())
        })
    }

    /// The state and the time. A panic elsewhere cannot leave it half changed: no verb panics between its changes.
    fn open(&self) -> (MutexGuard<'_, Kept>, u64) {
        (self.kept.lock().unwrap_or_else(PoisonError::into_inner), self.time.now_ms())
    }

    /// Does something with a run that exists, has not expired, and is of a version that this release knows.
    fn with<T>(&self, id: &RunId, absent: T, verb: impl FnOnce(&mut Run) -> T) -> Result<T, StoreError> {
        self.seen(id, Ok(absent), |run| super::known(id, run.schema).map(|()| verb(run)))
    }

    /// Looks at a run that exists and has not expired, of whatever version.
    fn seen<T>(&self, id: &RunId, absent: T, look: impl FnOnce(&mut Run) -> T) -> T {
        let (mut kept, now) = self.open();
        match kept.runs.get_mut(id).filter(|run| run.expires_ms.is_none_or(|at| now < at)) {
            Some(run) => {
                run.now = now;
                look(run)
            }
            None => absent,
        }
    }

    /// Makes a run one that a release with these keys has opened. For tests.
    pub fn set_schema(&self, id: &RunId, schema: u32) {
        self.seen(id, (), |run| run.schema = schema);
    }

    pub(super) fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    pub(super) fn open_run(&self, id: &RunId, new: &NewRun) -> Result<Opened, StoreError> {
        self.wake(id, WAKEUP_INTERVAL_MAX)?;
        let (mut kept, now) = self.open();
        kept.runs.retain(|_, run| run.expires_ms.is_none_or(|at| now < at));
        if let Some(run) = kept.runs.get(id) {
            return super::known(id, run.schema).map(|()| Opened::Exists(run.status));
        }
        kept.runs.insert(id.clone(), Run::open(new, now));
        Ok(Opened::Created)
    }

    pub(super) fn claim(&self, id: &RunId, request: &ClaimRequest<'_>) -> Result<Claimed, StoreError> {
        let absent = Claimed::Stale { why: "there is no such run".to_owned() };
        self.with(id, absent, |run| run.claim(request))
    }

    pub(super) fn renew(&self, id: &RunId, slot: Slot, epoch: u64, lease: Duration) -> Result<Held, StoreError> {
        self.with(id, Held::Ended, |run| run.renew(slot, epoch, lease))
    }

    pub(super) fn release(&self, id: &RunId, slot: Slot, epoch: u64) -> Result<Held, StoreError> {
        self.with(id, Held::Lost, |run| run.release(slot, epoch))
    }

    pub(super) fn journal(
        &self,
        id: &RunId,
        slot: Slot,
        epoch: u64,
        index: usize,
        entry: &str,
        account: &Account,
    ) -> Result<Held, StoreError> {
        self.with(id, Held::Lost, |run| run.journal(slot, epoch, index, entry, account))
    }

    #[expect(clippy::too_many_arguments, reason = "one atomic operation")]
    pub(super) fn put_plan(
        &self,
        id: &RunId,
        epoch: u64,
        current: u32,
        revision: &Revision,
        note: &PlanNote,
        handled: &[StepNumber],
        account: &Account,
    ) -> Result<Put, StoreError> {
        self.with(id, Put::Lost, |run| run.put_plan(epoch, current, revision, note, handled, account))
    }

    pub(super) fn keep_plan(
        &self,
        id: &RunId,
        epoch: u64,
        handled: &[StepNumber],
        counts: bool,
        account: &Account,
    ) -> Result<(Held, Owed), StoreError> {
        self.with(id, (Held::Lost, Owed::Nothing), |run| run.keep_plan(epoch, handled, counts, account))
    }

    pub(super) fn halt(&self, id: &RunId, slot: Slot, epoch: u64, halt: &Halt, account: &Account) -> Result<Held, StoreError> {
        self.with(id, Held::Ended, |run| run.halt_by(slot, epoch, halt, account))
    }

    pub(super) fn reserve(&self, id: &RunId, slot: Slot, epoch: u64, number: u64, need: &Need) -> Result<Reserved, StoreError> {
        self.with(id, Reserved::Lost, |run| run.reserve(slot, epoch, number, need))
    }

    pub(super) fn control(&self, id: &RunId, control: &Control<'_>) -> Result<Controlled, StoreError> {
        self.with(id, Controlled::no_such_run(), |run| run.control(id, control))
    }

    pub(super) fn control_reply(&self, id: &RunId, control: &str) -> Result<Option<String>, StoreError> {
        Ok(self.seen(id, None, |run| run.controls.get(control).map(super::json)))
    }

    pub(super) fn take_ready(&self, id: &RunId, token: &str) -> Result<Taken, StoreError> {
        self.with(id, Taken::default(), |run| run.take_ready(token))
    }

    pub(super) fn report(
        &self,
        id: &RunId,
        step: StepNumber,
        epoch: u64,
        record: &StepRecord,
        account: &Account,
    ) -> Result<Reported, StoreError> {
        self.with(id, Reported::Stale, |run| run.report(step, epoch, record, account))
    }

    pub(super) fn retry(
        &self,
        id: &RunId,
        slot: Slot,
        epoch: u64,
        again: Again,
        after: Duration,
        account: &Account,
    ) -> Result<(Held, Owed), StoreError> {
        self.with(id, (Held::Lost, Owed::Nothing), |run| run.retry(slot, epoch, again, after, account))
    }

    pub(super) fn finish(&self, id: &RunId, slot: Slot, epoch: u64, end: &Finish, account: &Account) -> Result<Held, StoreError> {
        let held = self.with(id, Held::Lost, |run| run.finish(slot, epoch, end, account))?;
        if held == Held::Kept {
            self.settle(id)?;
        }
        Ok(held)
    }

    pub(super) fn advance(&self, id: &RunId) -> Result<Advance, StoreError> {
        self.with(id, Advance::Gone, Run::advance)
    }

    pub(super) fn take_back(&self, id: &RunId, slot: Slot, message_id: &str, why: &str) -> Result<TakenBack, StoreError> {
        self.with(id, TakenBack::Gone, |run| run.take_back(slot, message_id, why))
    }

    pub(super) fn wake(&self, id: &RunId, after: Duration) -> Result<(), StoreError> {
        let (mut kept, now) = self.open();
        let at = now + millis(after);
        let entry = kept.wakeups.entry(id.clone()).or_insert((at, false));
        if at < entry.0 {
            *entry = (at, false);
        }
        Ok(())
    }

    pub(super) fn looked(&self, id: &RunId, next: Duration) -> Result<(), StoreError> {
        let (mut kept, now) = self.open();
        let at = now + millis(next);
        let entry = kept.wakeups.entry(id.clone()).or_insert((at, false));
        if entry.1 || at < entry.0 {
            *entry = (at, false);
        }
        Ok(())
    }

    pub(super) fn due(&self, limit: usize) -> Result<Vec<RunId>, StoreError> {
        let (mut kept, now) = self.open();
        let mut due: Vec<(u64, RunId)> =
            kept.wakeups.iter().filter(|(_, (at, _))| *at <= now).map(|(id, (at, _))| (*at, id.clone())).collect();
        due.sort();
        due.truncate(limit);
        for (_, id) in &due {
            kept.wakeups.insert(id.clone(), (now + millis(WAKEUP_LOOK_MAX), true));
        }
        Ok(due.into_iter().map(|(_, id)| id).collect())
    }

    pub(super) fn settle(&self, id: &RunId) -> Result<(), StoreError> {
        self.open().0.wakeups.remove(id);
        Ok(())
    }

    pub(super) fn snapshot(&self, id: &RunId) -> Result<Option<Snapshot>, StoreError> {
        self.with(id, None, |run| Some(run.snapshot(id)))
    }

    pub(super) fn pulse(&self, id: &RunId) -> Result<Option<Pulse>, StoreError> {
        self.with(id, None, |run| Some(run.pulse()))
    }

    pub(super) fn live(&self, limit: usize) -> Result<Live, StoreError> {
        let (kept, now) = self.open();
        let first = kept.wakeups.values().map(|(at, _)| *at).min();
        let runs = kept.wakeups.keys().take(limit).cloned().collect();
        Ok(Live { count: kept.wakeups.len() as u64, late_ms: first.map_or(0, |at| now.saturating_sub(at)), runs })
    }

    pub(super) fn traceparent(&self, id: &RunId) -> Result<Option<String>, StoreError> {
        self.with(id, None, |run| run.new.traceparent.clone())
    }

    pub(super) fn status(&self, id: &RunId) -> Result<Option<RunStatus>, StoreError> {
        self.with(id, None, |run| Some(run.status))
    }

    pub(super) fn result(&self, id: &RunId) -> Result<Option<String>, StoreError> {
        // A run that has not ended has none, whoever wrote it.
        self.seen(id, Ok(None), |run| run.result.clone().map(|result| super::known(id, run.schema).map(|()| result)).transpose())
    }

    pub(super) fn events(&self, id: &RunId, after: &str, limit: usize) -> Result<Vec<Event>, StoreError> {
        Ok(self.seen(id, Vec::new(), |run| run.events_after(after, limit)))
    }

    pub(super) fn list(&self, offset: usize, limit: usize) -> Result<Vec<RunLine>, StoreError> {
        let (kept, now) = self.open();
        let live = kept.runs.iter().filter(|(_, run)| run.expires_ms.is_none_or(|at| now < at));
        let mut lines: Vec<RunLine> = live.map(|(id, run)| run.line(id)).collect();
        lines.sort_by(|a, b| (b.created_at_ms, &b.run_id).cmp(&(a.created_at_ms, &a.run_id)));
        Ok(lines.into_iter().skip(offset).take(limit).collect())
    }

    pub(super) fn keep_dead_letter(&self, letter: &str) -> Result<(), StoreError> {
        let (mut kept, _now) = self.open();
        kept.dead.push_front(letter.to_owned());
        kept.dead.truncate(DEAD_LETTERS_KEPT);
        Ok(())
    }

    pub(super) fn dead_letter_count(&self) -> Result<u64, StoreError> {
        Ok(self.open().0.dead.len() as u64)
    }

    pub(super) fn dead_letters(&self, limit: usize) -> Result<Vec<String>, StoreError> {
        Ok(self.open().0.dead.iter().take(limit).cloned().collect())
    }
}
