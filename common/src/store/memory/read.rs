//! What readers see of a run.

use super::run::Run;
use crate::event::Event;
use crate::id::{RunId, Slot, StepNumber};
use crate::limits::PULSE_SLOTS_MAX;
use crate::run::StepState;
use crate::store::assemble::{Parts, RunFields, SlotFields, assemble, retired};
use crate::store::{KEYS_VERSION, Pulse, RunLine, Snapshot};

impl Run {
    pub(super) fn snapshot(&self, id: &RunId) -> Snapshot {
        let slot = |slot: Slot| self.standing(slot);
        let record = |step: StepNumber| self.results.get(&step).cloned();
        let plan = self.plan.clone();
        // The first revision holds every step there is.
        let retired = if plan.revision > 1 { retired(self.specs.values(), &plan) } else { Vec::new() };
        let parts = Parts {
            now_ms: self.now,
            plan,
            retired,
            news: self.news.iter().copied().collect(),
            in_flight: self.in_flight() as u64,
            slot: &slot,
            record: &record,
        };
        assemble(id, self.fields(), parts)
    }

    fn fields(&self) -> RunFields {
        let rules = &self.new.rules;
        RunFields {
            status: self.status,
            objective: self.new.objective.clone(),
            request: self.new.request.clone(),
            revision: self.plan.revision,
            window: self.new.window.into(),
            created_at_ms: self.created_at_ms,
            finished_at_ms: self.finished_at_ms,
            deadline_at_ms: self.deadline_at_ms,
            error: self.error.clone(),
            halt: self.halt.clone(),
            paused_by: self.paused_by.clone(),
            reply_to: self.new.reply_to.clone(),
            correlation_id: self.new.correlation_id.clone(),
            traceparent: self.new.traceparent.clone(),
            usage: self.usage,
            budget: rules.budget,
            replan: rules.replan,
            replans_left: rules.max_replans.saturating_sub(self.replans),
            feedback: self.feedback.clone(),
            edited: self.edited.clone(),
            approval: rules.approval,
            approval_until_ms: self.approval_until_ms,
        }
    }

    fn standing(&self, slot: Slot) -> SlotFields {
        let Some(standing) = self.slots.get(&slot) else { return SlotFields::default() };
        SlotFields {
            state: standing.state,
            attempt: standing.attempt,
            epoch: standing.epoch,
            worker: Some(standing.worker.clone()).filter(|worker| !worker.is_empty()),
            since_ms: standing.since_ms,
            parked: standing.parked,
            flight_ms: self.flight.time_of(&slot.to_string()),
            ready_ms: self.ready.time_of(&slot.to_string()),
        }
    }

    pub(super) fn pulse(&self) -> Pulse {
        let last = self.events.last().map_or(self.now, |event| event.at_ms);
        let watched = self.paused_by.is_none() && !self.status.is_final();
        let slots = self.flight.names().take(PULSE_SLOTS_MAX).filter_map(|name| self.slots.get(&Slot::parse(name)?));
        let unclaimed = slots.filter(|slot| watched && slot.state == Some(StepState::Dispatched));
        let oldest = unclaimed.map(|slot| slot.since_ms).min().unwrap_or(self.now);
        Pulse { status: self.status, quiet_ms: self.now.saturating_sub(last), unclaimed_ms: self.now.saturating_sub(oldest) }
    }

    pub(super) fn line(&self, id: &RunId) -> RunLine {
        RunLine {
            newer_schema: Some(self.schema).filter(|schema| *schema > KEYS_VERSION),
            run_id: id.clone(),
            status: self.status,
            objective: self.new.objective.clone(),
            created_at_ms: self.created_at_ms,
            finished_at_ms: self.finished_at_ms,
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
}
