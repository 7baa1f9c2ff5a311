//! A verb with everything that it is told: it can be sent again, at once or much later, and to a store that has forgotten it.

use std::fmt::Debug;
use std::time::Duration;

use common::event::{EventDraft, EventType};
use common::id::{Slot, StepNumber};
use common::message::Command;
use common::meter::Need;
use common::patch::Revision;
use common::run::{Halt, StepRecord, Usage};
use common::store::{
    Account, Advance, Again, ClaimRequest, Claimed, Control, Controlled, Finish, Held, NewRun, Opened, Owed, PlanNote, Put,
    Reported, Reserved, Store, StoreError, Taken, TakenBack,
};
use serde_json::json;

use super::run_id;

pub(super) const LEASE: Duration = Duration::from_secs(30);

/// A verb about the run with number `run`.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) run: usize,
    pub(super) verb: Verb,
}

#[derive(Debug, Clone)]
pub(super) enum Verb {
    Open(Box<NewRun>),
    Claim { slot: Slot, message_id: String, redelivered: bool, nonce: String, attempt: Option<u32>, worker: &'static str },
    Renew { slot: Slot, epoch: u64 },
    Release { slot: Slot, epoch: u64 },
    Journal { slot: Slot, epoch: u64, index: usize },
    PutPlan { epoch: u64, current: u32, revision: Revision, note: Box<PlanNote>, handled: Vec<StepNumber> },
    KeepPlan { epoch: u64, handled: Vec<StepNumber>, counts: bool },
    Halt { slot: Slot, epoch: u64, halt: Halt },
    Reserve { slot: Slot, epoch: u64, number: u64, need: Need },
    Report { step: StepNumber, epoch: u64, record: Box<StepRecord> },
    Retry { slot: Slot, epoch: u64, again: Again, after: Duration },
    Finish { slot: Slot, epoch: u64, end: Finish },
    TakeReady { token: String },
    Control { id: String, command: Command, reason: &'static str, revision: Option<u32>, refused: &'static str },
    TakeBack { slot: Slot, message_id: String },
    Advance,
}

/// What a store said.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Opened(Opened),
    Claimed(Claimed),
    Held(Held),
    Put(Put),
    Settled(Held, Owed),
    Reserved(Reserved),
    Reported(Reported),
    Taken(Taken),
    Controlled(Controlled),
    Advance(Advance),
    TakenBack(TakenBack),
}

fn account(kind: EventType) -> Account {
    let usage = Usage { model_calls: 1, tool_calls: 2, input_tokens: 10, output_tokens: 4, estimated: false, cost_nanos: 3 };
    Account { usage, events: vec![EventDraft::new(kind, json!({"model": "m", "quote\"d": [1, null]}))] }
}

impl Call {
    pub(super) async fn send(&self, store: &Store) -> Result<Answer, StoreError> {
        let id = &run_id(self.run);
        Ok(match &self.verb {
            Verb::Open(new) => Answer::Opened(store.open_run(id, new).await?),
            Verb::Claim { slot, message_id, redelivered, nonce, attempt, worker } => {
                let (slot, redelivered, attempt, lease) = (*slot, *redelivered, *attempt, LEASE);
                let request = ClaimRequest { slot, message_id, redelivered, nonce, attempt, lease, worker };
                Answer::Claimed(store.claim(id, &request).await?)
            }
            Verb::Renew { slot, epoch } => Answer::Held(store.renew(id, *slot, *epoch, LEASE).await?),
            Verb::Release { slot, epoch } => Answer::Held(store.release(id, *slot, *epoch).await?),
            Verb::Journal { slot, epoch, index } => {
                let account = account(EventType::ModelCalled);
                Answer::Held(store.journal(id, *slot, *epoch, *index, "{\"turn\":1}", &account).await?)
            }
            Verb::PutPlan { epoch, current, revision, note, handled } => {
                let account = account(EventType::PlanStored);
                Answer::Put(store.put_plan(id, *epoch, *current, revision, note, handled, &account).await?)
            }
            Verb::KeepPlan { epoch, handled, counts } => {
                settled(store.keep_plan(id, *epoch, handled, *counts, &account(EventType::PlanKept)).await?)
            }
            Verb::Halt { slot, epoch, halt } => {
                Answer::Held(store.halt(id, *slot, *epoch, halt, &account(EventType::PlanKept)).await?)
            }
            Verb::Reserve { slot, epoch, number, need } => {
                Answer::Reserved(store.reserve(id, *slot, *epoch, *number, need).await?)
            }
            Verb::Report { step, epoch, record } => {
                Answer::Reported(store.report(id, *step, *epoch, record, &account(EventType::StepFinished)).await?)
            }
            Verb::Retry { slot, epoch, again, after } => {
                settled(store.retry(id, *slot, *epoch, again.clone(), *after, &account(EventType::StepRetried)).await?)
            }
            Verb::Finish { slot, epoch, end } => {
                Answer::Held(store.finish(id, *slot, *epoch, end, &account(EventType::RunFinished)).await?)
            }
            Verb::TakeReady { token } => Answer::Taken(store.take_ready(id, token).await?),
            Verb::Control { id: command_id, command, reason, revision, refused } => {
                let (command, revision) = (*command, *revision);
                let (text, feedback) = ("{\"steps\":[]}", "better");
                let control = Control { id: command_id, command, by: "ann", reason, text, revision, feedback, refused };
                Answer::Controlled(store.control(id, &control).await?)
            }
            Verb::TakeBack { slot, message_id } => {
                Answer::TakenBack(store.take_back(id, *slot, message_id, "dead \"letter\"").await?)
            }
            Verb::Advance => Answer::Advance(store.advance(id).await?),
        })
    }

    /// As the store's method is called.
    pub(super) fn name(&self) -> &'static str {
        match &self.verb {
            Verb::Open(_) => "open_run",
            Verb::Claim { .. } => "claim",
            Verb::Renew { .. } => "renew",
            Verb::Release { .. } => "release",
            Verb::Journal { .. } => "journal",
            Verb::PutPlan { .. } => "put_plan",
            Verb::KeepPlan { .. } => "keep_plan",
            Verb::Halt { .. } => "halt",
            Verb::Reserve { .. } => "reserve",
            Verb::Report { .. } => "report",
            Verb::Retry { .. } => "retry",
            Verb::Finish { .. } => "finish",
            Verb::TakeReady { .. } => "take_ready",
            Verb::Control { .. } => "control",
            Verb::TakeBack { .. } => "take_back",
            Verb::Advance => "advance",
        }
    }

    /// The claim under which it is sent, for the verbs of a holder.
    pub(super) fn held(&self) -> Option<(Slot, u64)> {
        match &self.verb {
            Verb::Renew { slot, epoch }
            | Verb::Release { slot, epoch }
            | Verb::Journal { slot, epoch, .. }
            | Verb::Halt { slot, epoch, .. }
            | Verb::Reserve { slot, epoch, .. }
            | Verb::Retry { slot, epoch, .. }
            | Verb::Finish { slot, epoch, .. } => Some((*slot, *epoch)),
            Verb::Report { step, epoch, .. } => Some((Slot::Step(*step), *epoch)),
            Verb::PutPlan { epoch, .. } | Verb::KeepPlan { epoch, .. } => Some((Slot::Plan, *epoch)),
            Verb::Open(_)
            | Verb::Claim { .. }
            | Verb::TakeReady { .. }
            | Verb::Control { .. }
            | Verb::TakeBack { .. }
            | Verb::Advance => None,
        }
    }

    /// Whether `second` is what `first` must be followed by when the same call is made again at once, because the first answer was lost.
    pub(super) fn repeats(&self, first: &Answer, second: &Answer) -> bool {
        match (first, second) {
            (Answer::Opened(_), Answer::Opened(second)) => matches!(second, Opened::Exists(_)),
            // Given back is given back; nobody waits for this answer.
            (Answer::Held(Held::Kept), Answer::Held(second)) if matches!(self.verb, Verb::Release { .. }) => {
                *second == Held::Lost
            }
            (Answer::Put(Put::Stored(first)), Answer::Put(Put::Stored(second))) => owes_no_less(*first, *second),
            (Answer::Settled(held, first), Answer::Settled(again, second)) => held == again && owes_no_less(*first, *second),
            (Answer::Reported(Reported::Recorded(first)), Answer::Reported(Reported::Recorded(second))) => {
                owes_no_less(*first, *second)
            }
            // Each look and each dead letter counts.
            (Answer::Advance(_), Answer::Advance(_)) | (Answer::TakenBack(_), Answer::TakenBack(_)) => true,
            _ => first == second,
        }
    }
}

/// A redelivery cannot know what its first delivery still published: it may owe more than that one, never less.
fn owes_no_less(first: Owed, second: Owed) -> bool {
    match first {
        Owed::Nothing => true,
        Owed::Planner => second != Owed::Nothing,
        Owed::Summary => second == Owed::Summary,
    }
}

fn settled((held, owed): (Held, Owed)) -> Answer {
    Answer::Settled(held, owed)
}

impl Answer {
    /// Whether the two differ in nothing but what is owed.
    pub(super) fn is_of_the_kind_of(&self, other: &Answer) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.accepts() == other.accepts()
    }

    /// The answer itself, to be named.
    pub(super) fn text(&self) -> String {
        let said: &dyn Debug = match self {
            Answer::Opened(said) => said,
            Answer::Claimed(said) => said,
            Answer::Held(said) => said,
            Answer::Put(said) => said,
            Answer::Settled(held, owed) => return format!("{:?}", (held, owed)),
            Answer::Reserved(said) => said,
            Answer::Reported(said) => said,
            Answer::Taken(said) => said,
            Answer::Controlled(said) => said,
            Answer::Advance(said) => said,
            Answer::TakenBack(said) => said,
        };
        format!("{said:?}")
    }

    /// Whether a holder is told that it may go on, or that what it brought was taken.
    pub(super) fn accepts(&self) -> bool {
        match self {
            Answer::Held(held) | Answer::Settled(held, _) => *held == Held::Kept,
            Answer::Put(put) => matches!(put, Put::Stored(_)),
            Answer::Reserved(reserved) => *reserved != Reserved::Lost,
            Answer::Reported(reported) => matches!(reported, Reported::Recorded(_)),
            Answer::Opened(_)
            | Answer::Claimed(_)
            | Answer::Taken(_)
            | Answer::Controlled(_)
            | Answer::Advance(_)
            | Answer::TakenBack(_) => false,
        }
    }
}
