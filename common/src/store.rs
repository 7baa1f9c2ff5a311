//! The seam to the store: a run's state, changed by few verbs, each atomic and safe to repeat.
//!
//! The verbs and their rules stand in `store/*.lua` (Redis) and `store/memory/` (the same in plain Rust: the executable
//! specification). One conformance suite and a differential test hold the two together (`tests/it/store_*.rs`).
//!
//! Only the holder of a slot's current epoch may write for it. The first outcome of a step is the only one. Every verb gives
//! the same answer when it is sent again because its reply was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::env::Clock;
use crate::event::{Event, EventDraft};
use crate::id::{RunId, Slot, StepNumber};
use crate::llm::StepInput;
use crate::plan::{Plan, Step};
use crate::run::{Outcome, RunStatus, RunView, StepRecord, StepState, Usage};

mod assemble;
pub mod memory;
pub mod redis;

/// Where runs live. A cheap handle.
#[derive(Debug, Clone)]
pub enum Store {
    /// Redis, single or cluster.
    Redis(redis::Redis),
    /// This process.
    Memory(Arc<memory::Memory>),
}

/// Whose time the store goes by.
#[derive(Debug, Clone)]
pub enum StoreTime {
    /// The server's own (Redis `TIME`), or the system's in memory.
    Own,
    /// A clock of the process; memory only.
    Clock(Clock),
    /// What a test says, in milliseconds since 1970.
    Given(Arc<AtomicU64>),
}

impl StoreTime {
    fn given_ms(&self) -> Option<u64> {
        match self {
            StoreTime::Own | StoreTime::Clock(_) => None,
            StoreTime::Given(time) => Some(time.load(Ordering::SeqCst)),
        }
    }

    fn now_ms(&self) -> u64 {
        match self {
            StoreTime::Own => Clock::System.now_ms(),
            StoreTime::Clock(clock) => clock.now_ms(),
            StoreTime::Given(time) => time.load(Ordering::SeqCst),
        }
    }
}

/// Why a verb has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or cannot serve now. The verb may have been done; repeat it.
    #[error("store is not reachable: {0}")]
    Unreachable(String),
    /// The store answered something that this version cannot use. Repeating will not help.
    #[error("store gave an unusable answer: {0}")]
    Unusable(String),
}

/// What the planner knows of a new run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// The objective message as JSON, kept for planning again.
    pub request: String,
    /// The objective itself.
    pub objective: String,
    /// Steps in flight at once.
    pub window: u32,
    /// Where the result document is to be published, if anywhere.
    pub reply_to: Option<String>,
    /// What it is to carry then.
    pub correlation_id: Option<String>,
    /// The W3C trace context of the submission.
    pub traceparent: Option<String>,
}

/// The answer of [`Store::open_run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// There was no such run before.
    Created,
    /// There was, and it stands like this.
    Exists(RunStatus),
}

/// Who claims a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest<'a> {
    /// The slot.
    pub slot: Slot,
    /// The message in hand.
    pub message_id: &'a str,
    /// Whether the broker has handed that message out before: then it takes the slot over from its own earlier holder.
    pub redelivered: bool,
    /// Unique to this claim, so that repeating it is not a second claim.
    pub nonce: &'a str,
    /// The attempt that the message starts, for steps.
    pub attempt: Option<u32>,
    /// How long the claim holds.
    pub lease: Duration,
    /// The claiming process.
    pub worker: &'a str,
}

/// The answer of [`Store::claim`].
#[derive(Debug, Clone, PartialEq)]
pub enum Claimed {
    /// The slot is the caller's until the lease ends.
    Execute(Box<Claim>),
    /// The same, but the slot has ended so many holders that it must be closed instead.
    Poisoned(Box<Claim>),
    /// The slot has ended.
    Done {
        /// What its last holder may still have owed.
        owed: Owed,
        /// How it ended.
        state: StepState,
    },
    /// Another message's holder runs it.
    Duplicate {
        /// The holder.
        worker: String,
    },
    /// The message means nothing any more.
    Stale {
        /// Why.
        why: String,
    },
    /// The run has ended.
    Finished(RunStatus),
}

/// A slot in hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The fencing epoch: every write for the slot names it.
    pub epoch: u64,
    /// The attempt, from 1.
    pub attempt: u32,
    /// How often this slot has been parked.
    pub parks: u32,
    /// For the plan: the objective message as JSON. Else the objective.
    pub text: String,
    /// The step, if the slot is one.
    pub step: Option<Step>,
    /// The turns that were journaled, as JSON, in order.
    pub journal: Vec<String>,
    /// What the step's dependencies produced.
    pub inputs: Vec<StepInput>,
}

/// Who must act next on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// Nobody because of this.
    Nothing,
    /// The planner: steps are ready.
    Planner,
    /// The summarizer: every step has reported.
    Summary,
}

/// The answer of verbs that only the holder may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The caller still holds the slot; the verb was done.
    Kept,
    /// Somebody else holds it, or nobody; nothing was done.
    Lost,
    /// The run has ended; nothing was done.
    Ended,
}

/// A step that is to be published now.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// The revision of the plan.
    pub revision: u32,
    /// The attempt that the message starts.
    pub attempt: u32,
    /// The step.
    pub step: Step,
}

/// What a verb adds to the run beside its own effect.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Account {
    /// What was used and is not recorded yet.
    pub usage: Usage,
    /// Entries for the audit trail.
    pub events: Vec<EventDraft>,
}

/// The answer of [`Store::report`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// The outcome is recorded (now, or when the same call was made before).
    Recorded(Owed),
    /// The caller is not the holder any more; nothing was recorded.
    Stale,
    /// The run has ended; nothing was recorded.
    Finished(RunStatus),
}

/// Whether a slot that is given back starts a new attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It does: something failed.
    Retry,
    /// It does not: an endpoint asked for patience.
    Park,
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The final status.
    pub status: RunStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// The result document as JSON.
    pub document: String,
    /// How long the run is kept.
    pub retention: Duration,
}

/// The answer of [`Store::advance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// There is no such run, or it has ended.
    Gone,
    /// It is live.
    Live {
        /// When to look again at the latest.
        next_look: Duration,
        /// The plan is to be made.
        plan: bool,
        /// Ready steps are to be dispatched.
        dispatch: bool,
        /// The answer is to be written.
        summary: bool,
    },
}

/// The answer of [`Store::take_back`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenBack {
    /// There is no such run, or it has ended.
    Gone,
    /// Somebody works on the slot, or nobody needs to.
    Kept,
    /// The plan is to be made.
    Plan,
    /// Ready steps are to be dispatched.
    Dispatch,
    /// The answer is to be written.
    Summary,
    /// The slot's messages have died too often: whoever claims it now closes it.
    Poisoned,
}

/// Everything about one run at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What readers see.
    pub view: RunView,
    /// The current plan; without steps before the first.
    pub plan: Plan,
    /// Where the result document is to be published.
    pub reply_to: Option<String>,
    /// What it is to carry then.
    pub correlation_id: Option<String>,
    /// The objective message as JSON.
    pub request: String,
}

/// One line of a list of runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RunLine {
    /// The run.
    pub run_id: RunId,
    /// Where it stands.
    pub status: RunStatus,
    /// What was asked.
    pub objective: String,
    /// When it was opened, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
}

/// Sends a verb to whichever store there is.
macro_rules! verb {
    ($self:ident.$verb:ident($($argument:expr),*)) => {
        match $self {
            Store::Redis(redis) => redis.$verb($($argument),*).await,
            Store::Memory(memory) => Ok(memory.$verb($($argument),*)),
        }
    };
}

impl Store {
    /// Creates the run, or answers with the existing one. Writes the hints first, so that a crash in between loses nothing.
    pub async fn open_run(&self, run: &RunId, new: &NewRun) -> Result<Opened, StoreError> {
        verb!(self.open_run(run, new))
    }

    /// Takes a slot under a lease and a new epoch, or says why not.
    pub async fn claim(&self, run: &RunId, request: &ClaimRequest<'_>) -> Result<Claimed, StoreError> {
        verb!(self.claim(run, request))
    }

    /// Extends the lease.
    pub async fn renew(&self, run: &RunId, slot: Slot, epoch: u64, lease: Duration) -> Result<Held, StoreError> {
        verb!(self.renew(run, slot, epoch, lease))
    }

    /// Gives the slot back unfinished, without counting the claim: for a graceful shutdown. The message comes back.
    pub async fn release(&self, run: &RunId, slot: Slot, epoch: u64) -> Result<Held, StoreError> {
        verb!(self.release(run, slot, epoch))
    }

    /// Records turn `index` (from 0) of the slot before going on.
    pub async fn journal(
        &self,
        run: &RunId,
        slot: Slot,
        epoch: u64,
        index: usize,
        entry: &str,
        account: &Account,
    ) -> Result<Held, StoreError> {
        verb!(self.journal(run, slot, epoch, index, entry, account))
    }

    /// Stores revision `current + 1` of the plan if `current` is the current one, and makes its free steps ready. The first
    /// writer wins: [`Held::Lost`] means that there is a plan already, or that the caller lost the slot.
    pub async fn put_plan(
        &self,
        run: &RunId,
        epoch: u64,
        current: u32,
        plan: &Plan,
        reason: &str,
        account: &Account,
    ) -> Result<Held, StoreError> {
        verb!(self.put_plan(run, epoch, current, plan, reason, account))
    }

    /// Marks ready steps dispatched, up to the run's window, and gives them; the same token gets its own unclaimed ones again.
    pub async fn take_ready(&self, run: &RunId, token: &str) -> Result<Vec<Dispatch>, StoreError> {
        verb!(self.take_ready(run, token))
    }

    /// Records how a step ended, and decides what follows.
    pub async fn report(
        &self,
        run: &RunId,
        step: StepNumber,
        epoch: u64,
        record: &StepRecord,
        account: &Account,
    ) -> Result<Reported, StoreError> {
        verb!(self.report(run, step, epoch, record, account))
    }

    /// Gives the slot back until `after` has passed. Hints at the wake-up first.
    pub async fn retry(
        &self,
        run: &RunId,
        slot: Slot,
        epoch: u64,
        again: Again,
        after: Duration,
        account: &Account,
    ) -> Result<(Held, Owed), StoreError> {
        self.wake(run, after).await?;
        let retried = verb!(self.retry(run, slot, epoch, again, after, account));
        // A poll between the two has used the hint up while the slot was still held.
        if matches!(retried, Ok((Held::Kept, _))) {
            self.wake(run, after).await?;
        }
        retried
    }

    /// Ends the run, once, by the holder of `slot` (the plan or the summary).
    pub async fn finish(&self, run: &RunId, slot: Slot, epoch: u64, end: &Finish, account: &Account) -> Result<Held, StoreError> {
        verb!(self.finish(run, slot, epoch, end, account))
    }

    /// Takes back slots whose time is over, and says what the run owes now.
    pub async fn advance(&self, run: &RunId) -> Result<Advance, StoreError> {
        verb!(self.advance(run))
    }

    /// A message of `slot` has become a dead letter for `why`: unless another message's holder has the slot, it is to be
    /// dispatched again. Counts as a claim.
    pub async fn take_back(&self, run: &RunId, slot: Slot, message_id: &str, why: &str) -> Result<TakenBack, StoreError> {
        verb!(self.take_back(run, slot, message_id, why))
    }

    /// Hints that the run is to be looked at no later than `after` from now.
    pub async fn wake(&self, run: &RunId, after: Duration) -> Result<(), StoreError> {
        verb!(self.wake(run, after))
    }

    /// Runs whose wake-up time has come, at most `limit`; each is put off, so that one planner looks at a time.
    pub async fn due(&self, limit: usize) -> Result<Vec<RunId>, StoreError> {
        verb!(self.due(limit))
    }

    /// Forgets the wake-up of a run that has ended.
    pub async fn settle(&self, run: &RunId) -> Result<(), StoreError> {
        verb!(self.settle(run))
    }

    /// Everything about a run at one moment.
    pub async fn snapshot(&self, run: &RunId) -> Result<Option<Snapshot>, StoreError> {
        verb!(self.snapshot(run))
    }

    /// Where the run stands.
    pub async fn status(&self, run: &RunId) -> Result<Option<RunStatus>, StoreError> {
        verb!(self.status(run))
    }

    /// The result document as JSON, once the run has ended.
    pub async fn result(&self, run: &RunId) -> Result<Option<String>, StoreError> {
        verb!(self.result(run))
    }

    /// Entries of the audit trail after the one called `after` (empty: from the first), at most `limit`.
    pub async fn events(&self, run: &RunId, after: &str, limit: usize) -> Result<Vec<Event>, StoreError> {
        verb!(self.events(run, after, limit))
    }

    /// The newest runs first, at most `limit`, without the first `offset`.
    pub async fn list(&self, offset: usize, limit: usize) -> Result<Vec<RunLine>, StoreError> {
        verb!(self.list(offset, limit))
    }

    /// Keeps a dead letter for people, as JSON; the oldest of more than `DEAD_LETTERS_KEPT` is forgotten.
    pub async fn keep_dead_letter(&self, letter: &str) -> Result<(), StoreError> {
        verb!(self.keep_dead_letter(letter))
    }

    /// Dead letters kept, newest first.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<String>, StoreError> {
        verb!(self.dead_letters(limit))
    }
}

/// The outcome of a record, as a report may name it: a step that ran either succeeded or failed.
fn reported_state(record: &StepRecord) -> Outcome {
    debug_assert!(matches!(record.outcome, Outcome::Succeeded | Outcome::Failed), "only a run step is reported");
    record.outcome
}

/// Something of ours as JSON. Our types hold nothing that JSON cannot say.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

/// The value of a field of the `plan` hash.
fn revision_json(revision: u32, reason: &str, plan: &Plan) -> String {
    json(&serde_json::json!({"revision": revision, "reason": reason, "plan": plan}))
}

/// The data of a `claimed` event.
fn claimed_data(worker: &str) -> String {
    json(&serde_json::json!({"worker": worker}))
}

/// The data of a `taken_back` event.
fn why_data(why: &str) -> String {
    json(&serde_json::json!({"why": why}))
}
