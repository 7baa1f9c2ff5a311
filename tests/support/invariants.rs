//! What holds of every run, whatever happened to the processes that worked on it. One checker for every test that breaks something.
//!
//! A [`Look`] is what a run's keys say at one moment. [`always`] says what is wrong with a look at any run, [`at_the_end`] with one at a
//! run that has ended; [`never_undone`] compares two looks; [`replies`] and [`effects`] judge what came out. Each gives sentences, none
//! when all is well, that begin with the invariant's name: I1 the run ends · I2 one plan per revision · I3 one result per step · I4 one
//! answer · I5 the join is exact · I6 dependencies first · I7 stale epochs write nothing · I9 attempts are bounded and crashes cost none ·
//! I11 keys expire exactly when the run has ended · I13 the audit trail grows · I17 nothing is left in flight. What a test alone can
//! know stays with it: how long recovery took (I16), empty queues (I17), dead letters (I18).

use std::collections::BTreeMap;

use common::event::{Event, EventType};
use common::id::RunId;
use common::limits::{CLAIMS_MAX, STEP_ATTEMPTS_MAX, STORE_TIMEOUT};
use common::plan::OnFailedDependency;
use common::run::{Outcome, RunDocument, StepView};
use common::store::{Snapshot, Store};
use redis::AsyncCommands;

/// A run at one moment. Not atomic: a live run moves on while it is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// As readers see it.
    pub snapshot: Snapshot,
    /// The audit trail.
    pub events: Vec<Event>,
    /// Revision → what is stored of it.
    pub plans: BTreeMap<String, String>,
    /// Step → its record.
    pub results: BTreeMap<String, String>,
    /// The result document.
    pub document: Option<String>,
    /// Slots in flight, steps that have not ended.
    pub unfinished: Vec<String>,
    /// Every key of the run → its time to live in milliseconds; -1 for one that does not expire.
    pub keys: BTreeMap<String, i64>,
}

impl Look {
    /// Looks at a run in `store`, which is the Redis at `url` under `prefix`. `None`: there is no such run.
    pub async fn at(store: &Store, url: &str, prefix: &str, run: &RunId) -> Option<Self> {
        let client = redis::Client::open(url).expect("a Redis URL");
        // The client library's own time-out is half a second, which a busy machine exceeds.
        let config = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(STORE_TIMEOUT))
            .set_connection_timeout(Some(STORE_TIMEOUT));
        let mut redis = client.get_multiplexed_async_connection_with_config(&config).await.expect("Redis answers");
        let key = |name: &str| format!("{prefix}:{{{run}}}:{name}");
        // The audit trail comes last: it tells of everything else that is here.
        let snapshot = store.snapshot(run).await.expect("the run can be read")?;
        let document = redis.get(key("result")).await.expect("GET");
        let results = redis.hgetall(key("results")).await.expect("HGETALL");
        let plans = redis.hgetall(key("plan")).await.expect("HGETALL");
        let mut unfinished: Vec<String> = redis.zrange(key("flight"), 0, -1).await.expect("ZRANGE");
        unfinished.extend(redis.smembers::<_, Vec<String>>(key("open")).await.expect("SMEMBERS"));
        let mut keys = BTreeMap::new();
        let names: Vec<String> = redis.keys(key("*")).await.expect("KEYS");
        for name in names {
            let left: i64 = redis.pttl(&name).await.expect("PTTL");
            keys.insert(name, left);
        }
        let events = store.events(run, "", 100_000).await.expect("the events can be read");
        Some(Self { snapshot, events, plans, results, document, unfinished, keys })
    }

    /// The result document.
    pub fn result(&self) -> Option<RunDocument> {
        serde_json::from_str(self.document.as_ref()?).ok()
    }

    fn of(&self, kind: EventType) -> impl Iterator<Item = (usize, &Event)> {
        self.events.iter().enumerate().filter(move |(_, event)| event.kind == kind)
    }

    /// Whether a step's end stands in the trail before entry `before`, and whether it was a success.
    fn ended(&self, step: &str, before: usize) -> Option<bool> {
        self.events[..before].iter().rev().find(|event| event.slot.as_deref() == Some(step) && ends(event)).map(succeeds)
    }
}

fn ends(event: &Event) -> bool {
    matches!(event.kind, EventType::StepFinished | EventType::StepSkipped)
}

fn succeeds(event: &Event) -> bool {
    event.data["outcome"] == "succeeded"
}

/// What is wrong with a run, live or ended, that nobody has retried.
pub fn always(look: &Look) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut claim = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    claim(
        look.events.windows(2).all(|pair| order(&pair[0].id) < order(&pair[1].id) && pair[0].at_ms <= pair[1].at_ms),
        "I13 the audit trail goes back in time".to_owned(),
    );
    claim(
        look.events.first().is_some_and(|event| event.kind == EventType::RunOpened) && look.of(EventType::RunOpened).count() == 1,
        "I13 the audit trail does not begin with the run's opening".to_owned(),
    );
    for revision in look.plans.keys() {
        let stored =
            look.of(EventType::PlanStored).filter(|(_, event)| event.data["revision"].as_u64() == revision.parse().ok()).count();
        claim(stored == 1, format!("I2 revision {revision} was stored {stored} times"));
    }
    let mut ends_of: BTreeMap<&str, u32> = BTreeMap::new();
    for event in look.events.iter().filter(|event| ends(event)) {
        *ends_of.entry(event.slot.as_deref().unwrap_or_default()).or_default() += 1;
    }
    for (step, count) in ends_of {
        claim(count == 1, format!("I3 step {step} ended {count} times"));
    }
    if look.of(EventType::RunFinished).count() == 0 {
        let expiring: Vec<&String> = look.keys.iter().filter(|(_, left)| **left >= 0).map(|(key, _)| key).collect();
        claim(expiring.is_empty(), format!("I11 keys of a live run expire: {expiring:?}"));
    }
    wrong.extend(epochs(look));
    wrong.extend(dependencies(look));
    wrong.extend(attempts(look));
    wrong
}

/// A stream id, `<milliseconds>-<sequence>`, as two numbers.
fn order(id: &str) -> (u64, u64) {
    let (ms, sequence) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or_default(), sequence.parse().unwrap_or_default())
}

/// I7: a new claim has a new epoch, and nothing is written for a slot under an older one.
fn epochs(look: &Look) -> Vec<String> {
    let mut current: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for event in &look.events {
        let (Some(slot), Some(epoch)) = (event.slot.as_deref(), event.epoch) else { continue };
        let last = current.get(slot).copied().unwrap_or(0);
        if event.kind == EventType::Claimed && epoch <= last {
            wrong.push(format!("I7 {slot} was claimed under epoch {epoch} after {last}"));
        } else if event.kind != EventType::Claimed && epoch != last {
            wrong.push(format!("I7 {:?} of {slot} was written under epoch {epoch}, current was {last}", event.kind));
        }
        current.insert(slot, epoch.max(last));
    }
    wrong
}

/// I6: nothing is claimed before what it depends on has succeeded, or failed where it runs anyway.
fn dependencies(look: &Look) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, event) in look.of(EventType::Claimed) {
        let Some(step) = planned(look, event) else { continue };
        for dependency in &step.step.depends_on {
            let enough = match look.ended(&dependency.to_string(), index) {
                Some(succeeded) => succeeded || step.step.on_failed_dependency == OnFailedDependency::RunAnyway,
                None => false,
            };
            if !enough {
                wrong.push(format!("I6 step {} was claimed before step {dependency} had succeeded", step.step.step_number));
            }
        }
    }
    wrong
}

/// The step that an event is about, if it is in the current plan.
fn planned<'a>(look: &'a Look, event: &Event) -> Option<&'a StepView> {
    let slot = event.slot.as_deref()?;
    look.snapshot.view.steps.iter().find(|step| step.step.step_number.to_string() == slot)
}

/// I9: a slot has one attempt more than were given back for another one, whoever died meanwhile; no attempt was claimed too often.
fn attempts(look: &Look) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut retried: BTreeMap<&str, u32> = BTreeMap::new();
    let mut claims: BTreeMap<(&str, u32), u32> = BTreeMap::new();
    for event in &look.events {
        let (Some(slot), Some(attempt)) = (event.slot.as_deref(), event.attempt) else { continue };
        if event.kind == EventType::StepRetried {
            *retried.entry(slot).or_default() += 1;
        } else if event.kind == EventType::Claimed {
            *claims.entry((slot, attempt)).or_default() += 1;
            let due = retried.get(slot).copied().unwrap_or(0) + 1;
            // A plan that is looked at again begins at its first attempt.
            if attempt != due && slot != "plan" {
                wrong.push(format!("I9 {slot} was claimed as attempt {attempt}, it is at {due}"));
            }
        }
    }
    wrong.extend(
        retried
            .iter()
            .filter(|(_, count)| **count >= STEP_ATTEMPTS_MAX)
            .map(|(slot, count)| format!("I9 {slot} was tried {} times", count + 1)),
    );
    // The last one only closes it; a wait for a rate limit starts to count anew.
    let parked = look.of(EventType::Parked).count() > 0;
    wrong.extend(
        claims
            .iter()
            .filter(|(_, count)| **count > CLAIMS_MAX + 1 && !parked)
            .map(|((slot, attempt), count)| format!("I9 attempt {attempt} of {slot} was claimed {count} times")),
    );
    wrong
}

/// What is wrong with a run that must have ended.
pub fn at_the_end(look: &Look) -> Vec<String> {
    let mut wrong = always(look);
    let view = &look.snapshot.view;
    let Some(document) = look.result() else {
        wrong.push(format!("I1 the run is {} and has no document", view.status.as_str()));
        return wrong;
    };
    let mut claim = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    claim(view.status.is_final() && view.status == document.status, format!("I1 {:?} but {:?}", view.status, document.status));
    claim(look.of(EventType::RunFinished).count() == 1, "I4 the run did not end exactly once".to_owned());
    claim(
        look.events.last().is_some_and(|event| event.kind == EventType::RunFinished),
        "I13 something happened after the run's end".to_owned(),
    );
    claim(look.unfinished.is_empty(), format!("I17 still in flight or open: {:?}", look.unfinished));
    let foreign: Vec<_> = look.keys.iter().filter(|(_, left)| **left <= 0).collect();
    claim(!look.keys.is_empty() && foreign.is_empty(), format!("I11 keys of an ended run do not expire: {foreign:?}"));
    claim(document.step_results.len() == view.steps.len(), "I5 not every step of the plan is in the document".to_owned());
    for (step, result) in view.steps.iter().zip(&document.step_results) {
        let number = step.step.step_number;
        let in_trail = look.ended(&number.to_string(), look.events.len());
        let cancelled = result.outcome == Outcome::Cancelled;
        claim(
            step.state.outcome() == Some(result.outcome),
            format!("I3 step {number} is {:?} and {:?}", step.state, result.outcome),
        );
        claim(
            cancelled || in_trail == Some(result.outcome == Outcome::Succeeded),
            format!("I3 step {number} is {:?}, the audit trail differs", result.outcome),
        );
        let tries = look.of(EventType::StepRetried).filter(|(_, e)| e.slot.as_deref() == Some(&number.to_string())).count();
        claim(
            result.outcome != Outcome::Succeeded || result.attempts as usize == tries + 1,
            format!("I9 step {number} took {} attempts, {tries} were given back", result.attempts),
        );
    }
    wrong.extend(join(look));
    wrong
}

/// I5: the run is drained once, after every step's end, and the answer is begun after that.
fn join(look: &Look) -> Vec<String> {
    let mut wrong = Vec::new();
    let drained: Vec<usize> = look.of(EventType::Drained).map(|(index, _)| index).collect();
    let summary = look.of(EventType::Claimed).find(|(_, event)| event.slot.as_deref() == Some("summary"));
    match (drained.as_slice(), summary) {
        ([drained], Some((summary, _))) => {
            if look.events[*drained..].iter().any(ends) {
                wrong.push("I5 a step ended after the run was drained".to_owned());
            }
            if summary < *drained {
                wrong.push("I5 the summary was claimed before the run was drained".to_owned());
            }
        }
        ([], None) => {} // no plan could be made
        (drained, summary) => wrong.push(format!("I5 drained {} times, summary {summary:?}", drained.len())),
    }
    wrong
}

/// What was undone between two looks at one run that nobody has retried: whatever was recorded stays as it is.
pub fn never_undone(earlier: &Look, later: &Look) -> Vec<String> {
    let mut wrong = Vec::new();
    for (revision, plan) in earlier.plans.iter().filter(|(revision, plan)| later.plans.get(*revision) != Some(plan)) {
        wrong.push(format!("I2 revision {revision} has changed: {plan} is now {:?}", later.plans.get(revision)));
    }
    for (step, record) in earlier.results.iter().filter(|(step, record)| later.results.get(*step) != Some(record)) {
        wrong.push(format!("I3 the record of step {step} has changed: {record} is now {:?}", later.results.get(step)));
    }
    if earlier.document.is_some() && earlier.document != later.document {
        wrong.push("I4 the answer has changed".to_owned());
    }
    if !later.events.starts_with(&earlier.events) {
        wrong.push("I13 the audit trail has been rewritten".to_owned());
    }
    if earlier.document.is_some() && later.events.len() != earlier.events.len() {
        let more = &later.events[earlier.events.len().min(later.events.len())..];
        wrong.push(format!("I13 something happened after the run's end: {more:?}"));
    }
    wrong
}

/// I4: whoever asked for a reply got one, and every copy of it is the answer.
pub fn replies(look: &Look, replies: &[Vec<u8>]) -> Vec<String> {
    let document = look.document.as_deref().unwrap_or_default().as_bytes();
    let other = replies.iter().filter(|reply| *reply != document).count();
    let mut wrong = Vec::new();
    if replies.is_empty() {
        wrong.push("I4 nobody replied".to_owned());
    }
    if other > 0 {
        wrong.push(format!("I4 {other} of {} replies are not the answer", replies.len()));
    }
    wrong
}

/// A tool's effects, by the idempotency keys that it was called with: `step` had one if it succeeded, and repeated it only under its key.
pub fn effects(look: &Look, run: &RunId, step: u32, keys: &[String]) -> Vec<String> {
    let own = format!("{run}:{step}:0");
    let mut wrong: Vec<String> = Vec::new();
    let succeeded = look.ended(&step.to_string(), look.events.len()) == Some(true);
    if succeeded && keys.is_empty() {
        wrong.push(format!("effects: step {step} succeeded without one"));
    }
    wrong.extend(keys.iter().filter(|key| **key != own).map(|key| format!("effects: one has the key {key}, not {own}")));
    wrong
}
