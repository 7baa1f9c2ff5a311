//! What memory holds of one run, field by field what `prelude.lua` lists.

use std::collections::{BTreeMap, BTreeSet};

use super::queue::Queue;
use crate::clock::millis;
use crate::event::{Event, EventType};
use crate::id::{Slot, StepNumber};
use crate::message::ControlReply;
use crate::meter::Need;
use crate::plan::Step;
use crate::run::{Halt, RunStatus, StepRecord, StepState, Usage};
use crate::store::{KEYS_VERSION, NewRun, StoredPlan};

#[derive(Debug, Clone)]
pub(super) struct Run {
    /// The time of the verb at work.
    pub(super) now: u64,
    /// The version of its keys.
    pub(super) schema: u32,
    /// What it was opened with; its rules hold to the end.
    pub(super) new: NewRun,
    pub(super) status: RunStatus,
    pub(super) created_at_ms: u64,
    pub(super) finished_at_ms: Option<u64>,
    pub(super) finished_by: Option<(Slot, u64)>,
    pub(super) expires_ms: Option<u64>,
    pub(super) error: Option<String>,
    pub(super) result: Option<String>,
    /// The current revision of the plan; revision 0 has no steps.
    pub(super) plan: StoredPlan,
    /// Every step that was ever planned.
    pub(super) specs: BTreeMap<StepNumber, Step>,
    pub(super) slots: BTreeMap<Slot, SlotState>,
    pub(super) results: BTreeMap<StepNumber, StepRecord>,
    /// Steps by when they may be dispatched.
    pub(super) ready: Queue,
    /// Slots by when their lease or their wait for a claim ends.
    pub(super) flight: Queue,
    /// Steps that have not ended, and the plan while it is owed.
    pub(super) open: BTreeSet<Slot>,
    /// Ended steps that the planner is to decide on.
    pub(super) news: BTreeSet<StepNumber>,
    /// What each dispatch took.
    pub(super) tokens: BTreeMap<String, Vec<StepNumber>>,
    /// Whether ready steps wait for the window.
    pub(super) backlog: bool,
    pub(super) usage: Usage,
    /// Reserved by calls under way.
    pub(super) held: Need,
    pub(super) replans: u32,
    pub(super) deadline_at_ms: Option<u64>,
    pub(super) halt: Option<Halt>,
    pub(super) paused_by: Option<String>,
    pub(super) resumed_by: Option<String>,
    pub(super) retried_by: Option<String>,
    pub(super) approval_until_ms: Option<u64>,
    /// What was decided on the plan that waited for approval last, in one sentence.
    pub(super) approval_decision: Option<String>,
    pub(super) rejections: u32,
    pub(super) feedback: Option<String>,
    pub(super) edited: Option<String>,
    pub(super) events: Vec<Event>,
    /// Replies to commands by their id.
    pub(super) controls: BTreeMap<String, ControlReply>,
}

/// Where a slot stands. The fields after `reservation` are those of steps.
#[derive(Debug, Clone, Default)]
pub(super) struct SlotState {
    /// None before anybody planned it.
    pub(super) state: Option<StepState>,
    pub(super) since_ms: u64,
    pub(super) attempt: u32,
    pub(super) epoch: u64,
    pub(super) claims: u32,
    /// The epochs that it was taken over from within their leases and whose holders have not said that they live.
    pub(super) taken: Vec<u64>,
    pub(super) parks: u32,
    /// Whether it was given back for a rate limit the last time.
    pub(super) parked: bool,
    /// Dispatches in a row without a claim.
    pub(super) sent: u32,
    pub(super) message_id: String,
    pub(super) nonce: String,
    pub(super) worker: String,
    pub(super) token: String,
    pub(super) journal: Vec<String>,
    /// What its holder has reserved.
    pub(super) held: Need,
    /// The number of its holder's last reservation.
    pub(super) reservation: Option<u64>,
    /// Dependencies that it still waits for.
    pub(super) waiting: usize,
    pub(super) depends_on: Vec<StepNumber>,
    pub(super) next: Vec<StepNumber>,
    /// Runs even when a dependency did not succeed.
    pub(super) anyway: bool,
    /// What waits for it has been told that it did not succeed.
    pub(super) settled: bool,
    /// Not in the plan any more.
    pub(super) retired: bool,
}

impl Run {
    pub(super) fn open(new: &NewRun, now: u64) -> Self {
        let mut run = Self {
            now,
            schema: KEYS_VERSION,
            new: new.clone(),
            status: RunStatus::Planning,
            created_at_ms: now,
            finished_at_ms: None,
            finished_by: None,
            expires_ms: None,
            error: None,
            result: None,
            plan: StoredPlan::default(),
            specs: BTreeMap::new(),
            slots: BTreeMap::new(),
            results: BTreeMap::new(),
            ready: Queue::default(),
            flight: Queue::default(),
            open: BTreeSet::new(),
            news: BTreeSet::new(),
            tokens: BTreeMap::new(),
            backlog: false,
            usage: Usage::default(),
            held: Need::default(),
            replans: 0,
            deadline_at_ms: new.rules.deadline.map(|deadline| now + millis(deadline)),
            halt: None,
            paused_by: None,
            resumed_by: None,
            retried_by: None,
            approval_until_ms: None,
            approval_decision: None,
            rejections: 0,
            feedback: None,
            edited: None,
            events: Vec::new(),
            controls: BTreeMap::new(),
        };
        run.event(EventType::RunOpened, serde_json::json!({"objective_bytes": new.objective.len()}));
        run.open_plan(None);
        run
    }

    /// The slot as it stands; one that nobody planned has no state.
    pub(super) fn slot(&mut self, slot: Slot) -> &mut SlotState {
        self.slots.entry(slot).or_default()
    }

    pub(super) fn state(&self, slot: Slot) -> Option<StepState> {
        self.slots.get(&slot)?.state
    }

    /// Moves the slot to `state`, now.
    pub(super) fn enter(&mut self, slot: Slot, state: StepState) {
        let now = self.now;
        let standing = self.slot(slot);
        standing.state = Some(state);
        standing.since_ms = now;
    }

    /// The slot's attempt if `epoch` may still write for it.
    pub(super) fn fenced(&self, slot: Slot, epoch: u64) -> Option<u32> {
        let standing = self.slots.get(&slot)?;
        (standing.state == Some(StepState::Running) && standing.epoch == epoch).then_some(standing.attempt)
    }

    /// Whether the slot stands at `state` and `epoch` was the last to hold it.
    pub(super) fn left_at(&self, slot: Slot, state: StepState, epoch: u64) -> bool {
        self.slots.get(&slot).is_some_and(|standing| standing.state == Some(state) && standing.epoch == epoch)
    }

    /// Whether a step may be dispatched now.
    pub(super) fn any_ready(&self) -> bool {
        self.ready.due(self.now).next().is_some()
    }

    /// Steps in flight: what else flies does not count for the window.
    pub(super) fn in_flight(&self) -> usize {
        let others = [Slot::Plan, Slot::Summary].iter().filter(|slot| self.flight.time_of(&slot.to_string()).is_some());
        self.flight.len() - others.count()
    }

    pub(super) fn window(&self) -> usize {
        self.new.window as usize
    }

    /// Adds an entry on the run as a whole to the audit trail.
    pub(super) fn event(&mut self, kind: EventType, data: serde_json::Value) {
        self.append(kind, None, None, None, data);
    }

    /// Adds an entry on a slot to the audit trail.
    pub(super) fn event_of(
        &mut self,
        kind: EventType,
        slot: Slot,
        attempt: Option<u32>,
        epoch: Option<u64>,
        data: serde_json::Value,
    ) {
        self.append(kind, Some(slot.to_string()), attempt, epoch, data);
    }

    fn append(
        &mut self,
        kind: EventType,
        slot: Option<String>,
        attempt: Option<u32>,
        epoch: Option<u64>,
        data: serde_json::Value,
    ) {
        // Never before the last one, even if the clock has gone back.
        let at_ms = self.events.last().map_or(self.now, |last| last.at_ms.max(self.now));
        let last = self.events.last().filter(|event| event.at_ms == at_ms);
        let last: Option<u64> = last.and_then(|event| event.id.rsplit('-').next()?.parse().ok());
        let id = format!("{at_ms}-{}", last.map_or(0, |last| last + 1));
        self.events.push(Event { id, at_ms, kind, slot, attempt, epoch, data });
    }
}
