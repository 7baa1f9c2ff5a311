//! What must hold of every audit trail, whatever happened.

use std::collections::{BTreeMap, BTreeSet};

use common::event::{Event, EventType};

/// What an audit trail says in numbers.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) steps: u64,
    /// Claims of the same attempt of the same slot beyond its first, without those after a wait for a rate limit.
    pub(super) executed_again: u64,
    pub(super) retries: u64,
    pub(super) taken_back: u64,
    pub(super) model_calls: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.steps += more.steps;
        self.executed_again += more.executed_again;
        self.retries += more.retries;
        self.taken_back += more.taken_back;
        self.model_calls += more.model_calls;
    }
}

/// Counts what happened.
pub(super) fn count(events: &[Event]) -> Counts {
    let of = |kind: EventType| events.iter().filter(|event| event.kind == kind).count() as u64;
    let attempts: BTreeSet<_> =
        events.iter().filter(|event| event.kind == EventType::Claimed).map(|event| (event.slot.clone(), event.attempt)).collect();
    Counts {
        steps: of(EventType::StepFinished),
        executed_again: (of(EventType::Claimed) - attempts.len() as u64).saturating_sub(of(EventType::Parked)),
        retries: of(EventType::StepRetried),
        taken_back: of(EventType::TakenBack),
        model_calls: of(EventType::ModelCalled),
    }
}

/// How often a slot was claimed, or counted as claimed because its message had died.
pub(super) fn claims(events: &[Event], slot: &str) -> usize {
    let counts = |event: &&Event| matches!(event.kind, EventType::Claimed | EventType::TakenBack);
    events.iter().filter(counts).filter(|event| event.slot.as_deref() == Some(slot)).count()
}

/// What is wrong with the trail of a run that has ended and was never retried, in sentences. `after`: what each step waits for,
/// in every revision of the plan.
pub(super) fn check(events: &[Event], after: &BTreeMap<u32, Vec<u32>>) -> Vec<String> {
    let mut wrong = Vec::new();
    let at = |kind: EventType| events.iter().enumerate().filter(move |(_, event)| event.kind == kind);
    for (kind, name) in [(EventType::RunOpened, "opened"), (EventType::RunFinished, "finished"), (EventType::Drained, "drained")]
    {
        let times = at(kind).count();
        // A run that is given up before it has a plan is not drained.
        if times > 1 || (times == 0 && kind != EventType::Drained) {
            wrong.push(format!("it is {name} {times} times"));
        }
    }
    if let Some((end, _)) = at(EventType::RunFinished).next()
        && let Some(late) = events[end + 1..].iter().find(|event| event.kind != EventType::Controlled)
    {
        wrong.push(format!("something happens after its end: {late:?}"));
    }
    if let Some((drained, _)) = at(EventType::Drained).next()
        && let Some(late) = events[drained..].iter().find(|event| ends_a_step(event))
    {
        wrong.push(format!("a step ends after the last step: {late:?}"));
    }
    wrong.extend(slots(events, after));
    let revisions: Vec<u64> = at(EventType::PlanStored).filter_map(|(_, event)| event.data["revision"].as_u64()).collect();
    if !revisions.iter().copied().eq(1..=revisions.len() as u64) {
        wrong.push(format!("revisions {revisions:?} of its plan were stored"));
    }
    wrong
}

fn ends_a_step(event: &Event) -> bool {
    matches!(event.kind, EventType::StepFinished | EventType::StepSkipped)
}

/// What each slot goes through: epochs that grow, one end, nothing after it, and nothing before what it waits for has ended.
fn slots(events: &[Event], after: &BTreeMap<u32, Vec<u32>>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut epochs: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ended: BTreeSet<&str> = BTreeSet::new();
    for event in events {
        let Some(slot) = event.slot.as_deref() else { continue };
        let epoch = event.epoch.unwrap_or_default();
        if event.kind == EventType::Claimed {
            let last = epochs.insert(slot, epoch).unwrap_or_default();
            if epoch <= last {
                wrong.push(format!("{slot} was claimed under epoch {epoch} after {last}"));
            }
            let waits_for = slot.parse().ok().and_then(|number: u32| after.get(&number)).map_or(&[][..], Vec::as_slice);
            if let Some(early) = waits_for.iter().find(|dependency| !ended.contains(dependency.to_string().as_str())) {
                wrong.push(format!("step {slot} began before step {early} had ended"));
            }
        } else if event.epoch.is_some_and(|epoch| epochs.get(slot) != Some(&epoch)) {
            wrong.push(format!("{slot} recorded {:?} under epoch {epoch}, which is not current", event.kind));
        }
        let works = matches!(event.kind, EventType::Claimed | EventType::StepDispatched | EventType::StepRetried);
        if ended.contains(slot) && (works || ends_a_step(event)) {
            wrong.push(format!("step {slot} goes on after its end: {event:?}"));
        }
        if ends_a_step(event) {
            ended.insert(slot);
        }
    }
    wrong
}
