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

use crate::clock::Clock;
use crate::event::Event;
use crate::id::{RunId, Slot, StepNumber};
use crate::limits::{FENCE_BITS, WAKEUP_INTERVAL_MAX};
use crate::message::{Command, ControlReply};
use crate::meter::Need;
use crate::patch::{Diff, Revision};
use crate::plan::Plan;
use crate::quote::Quote;
use crate::run::{Halt, Outcome, RunStatus, StepRecord};
use crate::seam::{Call, Fate, Watched};

mod answer;
mod assemble;
pub mod memory;
pub mod redis;
mod waits;

pub use answer::{
    Account, Advance, Again, ApprovalRule, ApprovalTimeout, Claim, ClaimRequest, Claimed, Control, Controlled, Dispatch, Finish,
    Held, Live, NewRun, Opened, Owed, Pulse, Put, Reported, Reserved, RunLine, RunRules, Snapshot, Taken, TakenBack,
};

/// The version of a run's keys, as its field `schema` says; a run without the field is of version 1. A run keeps the version it was opened
/// with: a release with another one opens new runs in it and goes on with the old ones as they are.
pub const KEYS_VERSION: u32 = 1;

/// Where runs live. A cheap handle.
#[derive(Debug, Clone)]
pub enum Store {
    /// Redis, single or cluster.
    Redis(redis::Redis),
    /// This process.
    Memory(Arc<memory::Memory>),
    /// Either of them, behind a test's seam.
    Watched(Arc<Watched<Store>>),
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
    /// The run's keys are of a version that this one does not know: it must neither read nor change them. Another process may.
    #[error("run {run} was written by a newer planrelay (schema {schema}, this one knows {KEYS_VERSION}); upgrade this one")]
    Newer {
        /// The run.
        run: RunId,
        /// The version of its keys.
        schema: u32,
    },
}

/// Whether this release knows the version of a run's keys.
fn known(run: &RunId, schema: u32) -> Result<(), StoreError> {
    if schema <= KEYS_VERSION { Ok(()) } else { Err(StoreError::Newer { run: run.clone(), schema }) }
}

/// Sends a verb to whichever store there is, past the seam if there is one: `verb!(self, Some(run), claim(run, request))`.
macro_rules! verb {
    ($self:ident, $run:expr, $($verb:tt)+) => {
        match $self {
            Store::Redis(redis) => redis.$($verb)+.await,
            Store::Memory(memory) => memory.$($verb)+,
            Store::Watched(watched) => {
                // Boxed: what only tests need should not make every future larger.
                Box::pin(async {
                    let call = Call::Verb { name: name_of!($($verb)+), run: $run, arguments: arguments_of!($($verb)+) };
                    let fate = watched.seam.before(call).await;
                    if fate == Fate::Lost {
                        return Err(StoreError::Unreachable("the verb was lost".to_owned()));
                    }
                    if fate == Fate::Twice {
                        let _lost_reply = behind!(watched, $($verb)+);
                    }
                    let answer = behind!(watched, $($verb)+);
                    watched.seam.after(call, &answer).await;
                    if fate == Fate::Unanswered { Err(StoreError::Unreachable("the reply was lost".to_owned())) } else { answer }
                })
                .await
            }
        }
    };
}

/// The verb on what is behind the seam.
macro_rules! behind {
    ($watched:ident, $($verb:tt)+) => {
        match &$watched.inner {
            Store::Redis(redis) => redis.$($verb)+.await,
            Store::Memory(memory) => memory.$($verb)+,
            Store::Watched(_) => Err(StoreError::Unusable("one seam stands behind another".to_owned())),
        }
    };
}

macro_rules! arguments_of {
    ($verb:ident ($($argument:expr),*)) => {
        &($(&$argument,)*)
    };
}

macro_rules! name_of {
    ($verb:ident $arguments:tt) => {
        stringify!($verb)
    };
}

impl Store {
    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        verb!(self, None, ping())
    }

    /// Creates the run, or answers with the existing one. Writes the hints first, so that a crash in between loses nothing.
    pub async fn open_run(&self, run: &RunId, new: &NewRun) -> Result<Opened, StoreError> {
        let opened = verb!(self, Some(run), open_run(run, new))?;
        if let Some(deadline) = new.rules.deadline.filter(|deadline| *deadline < WAKEUP_INTERVAL_MAX) {
            self.wake(run, deadline).await?;
        }
        Ok(opened)
    }

    /// Takes a slot under a lease and a new epoch, or says why not.
    pub async fn claim(&self, run: &RunId, request: &ClaimRequest<'_>) -> Result<Claimed, StoreError> {
        verb!(self, Some(run), claim(run, request))
    }

    /// Extends the lease.
    pub async fn renew(&self, run: &RunId, slot: Slot, epoch: u64, lease: Duration) -> Result<Held, StoreError> {
        verb!(self, Some(run), renew(run, slot, epoch, lease))
    }

    /// Gives the slot back unfinished, without counting the claim: when the process stops, or when the lease was lost although its holder
    /// lives. The message comes back, or somebody else has it already.
    pub async fn release(&self, run: &RunId, slot: Slot, epoch: u64) -> Result<Held, StoreError> {
        verb!(self, Some(run), release(run, slot, epoch))
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
        verb!(self, Some(run), journal(run, slot, epoch, index, entry, account))
    }

    /// Stores revision `current + 1` of the plan if `current` is the current one: its new steps wait or are ready, retired ones are
    /// cancelled. `handled` are the ended steps that the caller has looked at: whatever waits for a failed one of them goes by its
    /// own [`crate::plan::OnFailedDependency`]. `note` stands beside the plan: `reason`, `diff`, `quote`. The first writer wins.
    #[expect(clippy::too_many_arguments, reason = "one atomic operation")]
    pub async fn put_plan(
        &self,
        run: &RunId,
        epoch: u64,
        current: u32,
        revision: &Revision,
        note: &PlanNote,
        handled: &[StepNumber],
        account: &Account,
    ) -> Result<Put, StoreError> {
        verb!(self, Some(run), put_plan(run, epoch, current, revision, note, handled, account))
    }

    /// Leaves the plan as it is, by the holder of the plan slot; `handled` as in [`Store::put_plan`]. `counts` whether this uses up
    /// one of the run's re-plans.
    pub async fn keep_plan(
        &self,
        run: &RunId,
        epoch: u64,
        handled: &[StepNumber],
        counts: bool,
        account: &Account,
    ) -> Result<(Held, Owed), StoreError> {
        verb!(self, Some(run), keep_plan(run, epoch, handled, counts, account))
    }

    /// Ends the run early, by the holder of `slot`: nothing more is started, what runs is aborted, the answer is owed.
    pub async fn halt(&self, run: &RunId, slot: Slot, epoch: u64, halt: &Halt, account: &Account) -> Result<Held, StoreError> {
        verb!(self, Some(run), halt(run, slot, epoch, halt, account))
    }

    /// Reserves a part of the run's budget for what `slot`'s holder has used since its last account and for its next call, in place of
    /// what it had reserved before, as that claim's reservation `number`. The next account settles it. Refused, it ends the run with what
    /// there is.
    pub async fn reserve(&self, run: &RunId, slot: Slot, epoch: u64, number: u64, need: &Need) -> Result<Reserved, StoreError> {
        verb!(self, Some(run), reserve(run, slot, epoch, number, need))
    }

    /// Does what somebody wants of the run, once per `control.id`. The first decision wins.
    pub async fn control(&self, run: &RunId, control: &Control<'_>) -> Result<Controlled, StoreError> {
        // A run that lives again needs somebody to look at it. Hints come first, as at its opening, and again afterwards: a poll between
        // the two has used the first one up on a run that had ended.
        if control.command == Command::Retry {
            self.wake(run, Duration::ZERO).await?;
        }
        let controlled = verb!(self, Some(run), control(run, control))?;
        if control.command == Command::Retry && controlled.status.is_some_and(|status| !status.is_final()) {
            self.wake(run, Duration::ZERO).await?;
        }
        Ok(controlled)
    }

    /// What became of the command with this id, if it has been looked at.
    pub async fn control_reply(&self, run: &RunId, id: &str) -> Result<Option<ControlReply>, StoreError> {
        let Some(text) = verb!(self, Some(run), control_reply(run, id))? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| StoreError::Unusable(format!("reply to a command: {error}")))
    }

    /// Marks ready steps dispatched, up to the run's window, and gives them; the same token gets its own unclaimed ones again.
    pub async fn take_ready(&self, run: &RunId, token: &str) -> Result<Taken, StoreError> {
        verb!(self, Some(run), take_ready(run, token))
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
        verb!(self, Some(run), report(run, step, epoch, record, account))
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
        let retried = verb!(self, Some(run), retry(run, slot, epoch, again.clone(), after, account));
        // A poll between the two has used the hint up while the slot was still held.
        if matches!(retried, Ok((Held::Kept, _))) {
            self.wake(run, after).await?;
        }
        retried
    }

    /// Ends the run, once, by the holder of `slot` (the plan or the summary).
    pub async fn finish(&self, run: &RunId, slot: Slot, epoch: u64, end: &Finish, account: &Account) -> Result<Held, StoreError> {
        verb!(self, Some(run), finish(run, slot, epoch, end, account))
    }

    /// Takes back slots whose time is over, and says what the run owes now.
    pub async fn advance(&self, run: &RunId) -> Result<Advance, StoreError> {
        verb!(self, Some(run), advance(run))
    }

    /// A message of `slot` has become a dead letter for `why`: unless another message's holder has the slot, it is to be
    /// dispatched again. Counts as a claim. A slot that has ended owes what its last holder may not have published.
    pub async fn take_back(&self, run: &RunId, slot: Slot, message_id: &str, why: &str) -> Result<TakenBack, StoreError> {
        verb!(self, Some(run), take_back(run, slot, message_id, why))
    }

    /// Hints that the run is to be looked at no later than `after` from now.
    pub async fn wake(&self, run: &RunId, after: Duration) -> Result<(), StoreError> {
        verb!(self, Some(run), wake(run, after))
    }

    /// A run that was due has been looked at; the next look is no later than `next` from now.
    pub async fn looked(&self, run: &RunId, next: Duration) -> Result<(), StoreError> {
        verb!(self, Some(run), looked(run, next))
    }

    /// Runs whose wake-up time has come, at most `limit`; each is put off for `WAKEUP_LOOK_MAX`, so that one planner looks at a time. Whoever
    /// got it calls [`Store::looked`].
    pub async fn due(&self, limit: usize) -> Result<Vec<RunId>, StoreError> {
        verb!(self, None, due(limit))
    }

    /// Forgets the wake-up of a run that has ended.
    pub async fn settle(&self, run: &RunId) -> Result<(), StoreError> {
        verb!(self, Some(run), settle(run))
    }

    /// Everything about a run at one moment.
    pub async fn snapshot(&self, run: &RunId) -> Result<Option<Snapshot>, StoreError> {
        verb!(self, Some(run), snapshot(run))
    }

    /// Where the run stands.
    pub async fn status(&self, run: &RunId) -> Result<Option<RunStatus>, StoreError> {
        verb!(self, Some(run), status(run))
    }

    /// How a run does.
    pub async fn pulse(&self, run: &RunId) -> Result<Option<Pulse>, StoreError> {
        verb!(self, Some(run), pulse(run))
    }

    /// The runs that have not ended, at most `limit` of them, in no order. A hint, as wake-ups are.
    pub async fn live(&self, limit: usize) -> Result<Live, StoreError> {
        verb!(self, None, live(limit))
    }

    /// The W3C trace context that the run hangs under, if it has one.
    pub async fn traceparent(&self, run: &RunId) -> Result<Option<String>, StoreError> {
        verb!(self, Some(run), traceparent(run))
    }

    /// The result document as JSON, once the run has ended.
    pub async fn result(&self, run: &RunId) -> Result<Option<String>, StoreError> {
        verb!(self, Some(run), result(run))
    }

    /// Entries of the audit trail after the one called `after` (empty: from the first), at most `limit`.
    pub async fn events(&self, run: &RunId, after: &str, limit: usize) -> Result<Vec<Event>, StoreError> {
        verb!(self, Some(run), events(run, after, limit))
    }

    /// The newest runs first, at most `limit`, without the first `offset`.
    pub async fn list(&self, offset: usize, limit: usize) -> Result<Vec<RunLine>, StoreError> {
        verb!(self, None, list(offset, limit))
    }

    /// Keeps a dead letter for people, as JSON; the oldest of more than `DEAD_LETTERS_KEPT` is forgotten.
    pub async fn keep_dead_letter(&self, letter: &str) -> Result<(), StoreError> {
        verb!(self, None, keep_dead_letter(letter))
    }

    /// How many dead letters are kept.
    pub async fn dead_letter_count(&self) -> Result<u64, StoreError> {
        verb!(self, None, dead_letter_count())
    }

    /// Dead letters kept, newest first.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<String>, StoreError> {
        verb!(self, None, dead_letters(limit))
    }
}

/// The outcome of a record, as a report may name it: a step that ran succeeded, failed, or was stopped by the run's budget.
fn reported_state(record: &StepRecord) -> Outcome {
    debug_assert!(record.outcome != Outcome::Skipped, "only a step that ran is reported");
    record.outcome
}

/// The fencing epoch of the claim with `nonce` after `last`. Higher, and another one than any claim of another nonce was given in what
/// the store may have forgotten since: see `claim.lua`, which does the same with [`salt`].
fn next_epoch(last: u64, nonce: &str) -> u64 {
    (((last >> FENCE_BITS) + 1) << FENCE_BITS) + salt(nonce)
}

/// The lower bits of a claim's epoch.
fn salt(nonce: &str) -> u64 {
    u64::from(hash(nonce)) & ((1 << FENCE_BITS) - 1)
}

/// FNV-1a: the same in every process and version.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Something of ours as JSON. Our types hold nothing that JSON cannot say.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

/// What stands beside a revision of the plan.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PlanNote {
    /// Why there is this revision.
    pub reason: String,
    /// What it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<Diff>,
    /// What it was estimated to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<Quote>,
}

/// The value of a field of the `plan` hash.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
struct StoredPlan {
    revision: u32,
    #[serde(flatten)]
    note: PlanNote,
    plan: Plan,
}

/// The data of a `claimed` event.
fn claimed_data(worker: &str) -> String {
    json(&serde_json::json!({"worker": worker}))
}

/// The data of a `taken_back` event.
fn why_data(why: &str) -> String {
    json(&serde_json::json!({"why": why}))
}
