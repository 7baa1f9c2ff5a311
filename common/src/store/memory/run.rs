//! What memory holds of one run, field by field what `prelude.lua` lists.

use std::collections::{BTreeMap, BTreeSet};

use super::Queue;
use crate::clock::millis;
use crate::event::{Event, EventType};
use crate::id::{RunId, Slot, StepNumber};
use crate::limits::DISPATCH_TIMEOUT;
use crate::plan::{Plan, Step};
use crate::run::{RunStatus, StepRecord, StepState, Usage};
use crate::store::{Account, NewRun, RunLine, Snapshot};

#[derive(Debug)]
pub(super) struct Run {
    pub(super) status: RunStatus,
    pub(super) revision: u32,
    pub(super) window: usize,
    pub(super) backlog: bool,
    pub(super) new: NewRun,
    pub(super) created_at_ms: u64,
    pub(super) finished_at_ms: Option<u64>,
    pub(super) finished_by: Option<(Slot, u64)>,
    pub(super) expires_ms: Option<u64>,
    pub(super) error: Option<String>,
    pub(super) usage: Usage,
    pub(super) plan: Plan,
    pub(super) specs: BTreeMap<StepNumber, Step>,
    pub(super) slots: BTreeMap<Slot, SlotState>,
    pub(super) results: BTreeMap<StepNumber, StepRecord>,
    pub(super) ready: Queue,
    pub(super) flight: Queue,
    pub(super) open: BTreeSet<StepNumber>,
    /// What each dispatch took.
    pub(super) tokens: BTreeMap<String, Vec<Slot>>,
    pub(super) events: Vec<Event>,
    pub(super) result: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct SlotState {
    pub(super) state: StepState,
    pub(super) attempt: u32,
    pub(super) epoch: u64,
    pub(super) claims: u32,
    pub(super) parks: u32,
    pub(super) sent: u32,
    pub(super) message_id: String,
    pub(super) nonce: String,
    pub(super) token: String,
    pub(super) worker: String,
    pub(super) waiting: usize,
    pub(super) depends_on: Vec<StepNumber>,
    pub(super) next: Vec<StepNumber>,
    pub(super) journal: Vec<String>,
}

impl SlotState {
    pub(super) fn new(state: StepState) -> Self {
        Self {
            state,
            attempt: 1,
            epoch: 0,
            claims: 0,
            parks: 0,
            sent: 0,
            message_id: String::new(),
            nonce: String::new(),
            token: String::new(),
            worker: String::new(),
            waiting: 0,
            depends_on: Vec::new(),
            next: Vec::new(),
            journal: Vec::new(),
        }
    }
}

/// How long a message may wait for its claim before it is sent again: doubled with every dispatch that came to nothing.
pub(super) fn patience(sent: u32) -> u64 {
    millis(DISPATCH_TIMEOUT) * 2u64.pow(sent.min(6))
}

impl Run {
    pub(super) fn open(new: &NewRun, now: u64) -> Self {
        let mut run = Self {
            status: RunStatus::Planning,
            revision: 0,
            window: new.window as usize,
            backlog: false,
            new: new.clone(),
            created_at_ms: now,
            finished_at_ms: None,
            finished_by: None,
            expires_ms: None,
            error: None,
            usage: Usage::default(),
            plan: Plan::default(),
            specs: BTreeMap::new(),
            slots: BTreeMap::from([(Slot::Plan, SlotState::new(StepState::Dispatched))]),
            results: BTreeMap::new(),
            ready: Queue::default(),
            flight: Queue::default(),
            open: BTreeSet::new(),
            tokens: BTreeMap::new(),
            events: Vec::new(),
            result: None,
        };
        run.flight.put(now + patience(0), &Slot::Plan.to_string());
        run.event(now, EventType::RunOpened, None, serde_json::json!({"objective_bytes": new.objective.len()}));
        run
    }

    /// The slot if `epoch` may still write for it.
    pub(super) fn fenced(&mut self, slot: Slot, epoch: u64) -> Option<&mut SlotState> {
        self.slots.get_mut(&slot).filter(|s| s.state == StepState::Running && s.epoch == epoch)
    }

    /// Adds an entry to the audit trail; `of` names slot, attempt and epoch.
    pub(super) fn event(
        &mut self,
        now: u64,
        kind: EventType,
        of: Option<(Slot, Option<u32>, Option<u64>)>,
        data: serde_json::Value,
    ) {
        let last =
            self.events.last().filter(|event| event.at_ms == now).and_then(|event| event.id.rsplit('-').next()?.parse().ok());
        let sequence = last.map_or(0, |last: u64| last + 1);
        self.events.push(Event {
            id: format!("{now}-{sequence}"),
            at_ms: now,
            kind,
            slot: of.map(|(slot, _, _)| slot.to_string()),
            attempt: of.and_then(|(_, attempt, _)| attempt),
            epoch: of.and_then(|(_, _, epoch)| epoch),
            data,
        });
    }

    /// Adds usage and events that a verb brings along.
    pub(super) fn account(&mut self, slot: Slot, attempt: u32, epoch: u64, account: &Account, now: u64) {
        self.usage += account.usage;
        for draft in &account.events {
            self.event(now, draft.kind, Some((slot, Some(attempt), Some(epoch))), draft.data.clone());
        }
    }

    pub(super) fn events_after(&self, after: &str, limit: usize) -> Vec<Event> {
        let position = |id: &str| {
            let (ms, sequence) = id.split_once('-').unwrap_or((id, "0"));
            (ms.parse::<u64>().unwrap_or(0), sequence.parse::<u64>().unwrap_or(0))
        };
        let from = (!after.is_empty()).then(|| position(after));
        self.events.iter().filter(|event| from.is_none_or(|from| position(&event.id) > from)).take(limit).cloned().collect()
    }

    pub(super) fn line(&self, id: &RunId) -> RunLine {
        RunLine {
            run_id: id.clone(),
            status: self.status,
            objective: self.new.objective.clone(),
            created_at_ms: self.created_at_ms,
            finished_at_ms: self.finished_at_ms,
        }
    }

    pub(super) fn snapshot(&self, _id: &RunId) -> Snapshot {
        unimplemented!()
    }
}
