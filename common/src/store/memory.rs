//! Runs in this process: the executable specification of the verbs, for one-process mode, tests and simulation.
//!
//! Says in plain Rust what the scripts say in Lua; where the two differ, one of them is wrong. Keeps nothing on disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Account, Advance, Again, ClaimRequest, Claimed, Control, Controlled, Finish, Held, NewRun, Opened, Owed, PlanNote, Put,
    Reported, Reserved, RunLine, Snapshot, StoreTime, Taken, TakenBack,
};
use crate::clock::millis;
use crate::event::Event;
use crate::id::{RunId, Slot, StepNumber};
use crate::limits::{DEAD_LETTERS_KEPT, WAKEUP_INTERVAL_MAX};
use crate::meter::Need;
use crate::patch::Revision;
use crate::run::{Halt, RunStatus, StepRecord};

mod claims;
mod dispatch;
mod outcomes;
mod run;

use run::Run;

/// Runs in memory.
#[derive(Debug)]
pub struct Memory {
    time: StoreTime,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    runs: BTreeMap<RunId, Run>,
    /// When to look at a run.
    wakeups: BTreeMap<RunId, u64>,
    dead: VecDeque<String>,
}

impl Memory {
    /// Holds nothing yet.
    pub fn new(time: StoreTime) -> Self {
        Self { time, kept: Mutex::default() }
    }

    /// The state and the time. A panic elsewhere cannot leave it half changed: no verb panics between its changes.
    fn open(&self) -> (MutexGuard<'_, Kept>, u64) {
        (self.kept.lock().unwrap_or_else(PoisonError::into_inner), self.time.now_ms())
    }

    /// Does something with a run that exists and has not expired.
    fn with<T>(&self, id: &RunId, absent: T, verb: impl FnOnce(&mut Run, u64) -> T) -> T {
        let (mut kept, now) = self.open();
        match kept.runs.get_mut(id).filter(|run| run.expires_ms.is_none_or(|at| now < at)) {
            Some(run) => verb(run, now),
            None => absent,
        }
    }

    pub(super) fn open_run(&self, id: &RunId, new: &NewRun) -> Opened {
        self.wake(id, WAKEUP_INTERVAL_MAX);
        let (mut kept, now) = self.open();
        kept.runs.retain(|_, run| run.expires_ms.is_none_or(|at| now < at));
        if let Some(run) = kept.runs.get(id) {
            return Opened::Exists(run.status);
        }
        kept.runs.insert(id.clone(), Run::open(new, now));
        Opened::Created
    }

    pub(super) fn claim(&self, id: &RunId, request: &ClaimRequest<'_>) -> Claimed {
        let absent = Claimed::Stale { why: "there is no such run".to_owned() };
        self.with(id, absent, |run, now| run.claim(request, now))
    }

    pub(super) fn renew(&self, id: &RunId, slot: Slot, epoch: u64, lease: Duration) -> Held {
        self.with(id, Held::Ended, |run, now| run.renew(slot, epoch, lease, now))
    }

    pub(super) fn release(&self, id: &RunId, slot: Slot, epoch: u64) -> Held {
        self.with(id, Held::Lost, |run, now| run.release(slot, epoch, now))
    }

    pub(super) fn journal(&self, id: &RunId, slot: Slot, epoch: u64, index: usize, entry: &str, account: &Account) -> Held {
        self.with(id, Held::Lost, |run, now| run.journal(slot, epoch, index, entry, account, now))
    }

    pub(super) fn put_plan(
        &self,
        _id: &RunId,
        _epoch: u64,
        _current: u32,
        _revision: &Revision,
        _note: &PlanNote,
        _handled: &[StepNumber],
        _account: &Account,
    ) -> Put {
        unimplemented!()
    }

    pub(super) fn keep_plan(
        &self,
        _id: &RunId,
        _epoch: u64,
        _handled: &[StepNumber],
        _counts: bool,
        _account: &Account,
    ) -> (Held, Owed) {
        unimplemented!()
    }

    pub(super) fn halt(&self, _id: &RunId, _slot: Slot, _epoch: u64, _halt: &Halt, _account: &Account) -> Held {
        unimplemented!()
    }

    pub(super) fn reserve(&self, _id: &RunId, _slot: Slot, _epoch: u64, _number: u64, _need: &Need) -> Reserved {
        unimplemented!()
    }

    pub(super) fn control(&self, _id: &RunId, _control: &Control<'_>) -> Controlled {
        unimplemented!()
    }

    pub(super) fn control_reply(&self, _id: &RunId, _control: &str) -> Option<String> {
        unimplemented!()
    }

    pub(super) fn take_ready(&self, _id: &RunId, _token: &str) -> Taken {
        unimplemented!()
    }

    pub(super) fn report(&self, id: &RunId, step: StepNumber, epoch: u64, record: &StepRecord, account: &Account) -> Reported {
        self.with(id, Reported::Stale, |run, now| run.report(step, epoch, record, account, now))
    }

    pub(super) fn retry(
        &self,
        id: &RunId,
        slot: Slot,
        epoch: u64,
        again: Again,
        after: Duration,
        account: &Account,
    ) -> (Held, Owed) {
        self.with(id, (Held::Lost, Owed::Nothing), |run, now| run.retry(slot, epoch, again, after, account, now))
    }

    pub(super) fn finish(&self, id: &RunId, slot: Slot, epoch: u64, end: &Finish, account: &Account) -> Held {
        let held = self.with(id, Held::Lost, |run, now| run.finish(slot, epoch, end, account, now));
        if held == Held::Kept {
            self.settle(id);
        }
        held
    }

    pub(super) fn advance(&self, id: &RunId) -> Advance {
        self.with(id, Advance::Gone, |run, now| run.advance(now))
    }

    pub(super) fn take_back(&self, id: &RunId, slot: Slot, message_id: &str, why: &str) -> TakenBack {
        self.with(id, TakenBack::Gone, |run, now| run.take_back(slot, message_id, why, now))
    }

    pub(super) fn wake(&self, id: &RunId, after: Duration) {
        let (mut kept, now) = self.open();
        let at = now + millis(after);
        let entry = kept.wakeups.entry(id.clone()).or_insert(at);
        *entry = at.min(*entry);
    }

    pub(super) fn due(&self, limit: usize) -> Vec<RunId> {
        let (mut kept, now) = self.open();
        let mut due: Vec<(u64, RunId)> =
            kept.wakeups.iter().filter(|(_, at)| **at <= now).map(|(id, at)| (*at, id.clone())).collect();
        due.sort();
        due.truncate(limit);
        for (_, id) in &due {
            kept.wakeups.insert(id.clone(), now + millis(WAKEUP_INTERVAL_MAX));
        }
        due.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn settle(&self, id: &RunId) {
        self.open().0.wakeups.remove(id);
    }

    pub(super) fn snapshot(&self, id: &RunId) -> Option<Snapshot> {
        self.with(id, None, |run, _now| Some(run.snapshot(id)))
    }

    pub(super) fn status(&self, id: &RunId) -> Option<RunStatus> {
        self.with(id, None, |run, _now| Some(run.status))
    }

    pub(super) fn result(&self, id: &RunId) -> Option<String> {
        self.with(id, None, |run, _now| run.result.clone())
    }

    pub(super) fn events(&self, id: &RunId, after: &str, limit: usize) -> Vec<Event> {
        self.with(id, Vec::new(), |run, _now| run.events_after(after, limit))
    }

    pub(super) fn list(&self, offset: usize, limit: usize) -> Vec<RunLine> {
        let (kept, now) = self.open();
        let live = kept.runs.iter().filter(|(_, run)| run.expires_ms.is_none_or(|at| now < at));
        let mut lines: Vec<RunLine> = live.map(|(id, run)| run.line(id)).collect();
        lines.sort_by(|a, b| (b.created_at_ms, &b.run_id).cmp(&(a.created_at_ms, &a.run_id)));
        lines.into_iter().skip(offset).take(limit).collect()
    }

    pub(super) fn keep_dead_letter(&self, letter: &str) {
        let (mut kept, _now) = self.open();
        kept.dead.push_front(letter.to_owned());
        kept.dead.truncate(DEAD_LETTERS_KEPT);
    }

    pub(super) fn dead_letters(&self, limit: usize) -> Vec<String> {
        self.open().0.dead.iter().take(limit).cloned().collect()
    }
}

/// Slots or steps in the order in which Redis keeps a sorted set: by time, then by name as text.
#[derive(Debug, Default)]
struct Queue {
    order: BTreeSet<(u64, String)>,
    times: BTreeMap<String, u64>,
}

impl Queue {
    fn put(&mut self, at: u64, name: &str) {
        self.remove(name);
        self.order.insert((at, name.to_owned()));
        self.times.insert(name.to_owned(), at);
    }

    fn remove(&mut self, name: &str) {
        if let Some((name, at)) = self.times.remove_entry(name) {
            self.order.remove(&(at, name));
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// When `name` stands in the queue.
    fn time_of(&self, name: &str) -> Option<u64> {
        self.times.get(name).copied()
    }

    fn len(&self) -> usize {
        self.times.len()
    }

    /// Names whose time has come, in order.
    fn due(&self, now: u64) -> impl Iterator<Item = &String> {
        self.order.iter().take_while(move |(at, _)| *at <= now).map(|(_, name)| name)
    }

    /// The earliest time after `now`.
    fn next_after(&self, now: u64) -> Option<u64> {
        self.order.range((now + 1, String::new())..).next().map(|(at, _)| *at)
    }
}
