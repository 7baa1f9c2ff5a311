//! Random sequences of verbs give identical answers from memory and from Redis: memory is the specification.
//!
//! Both go by a time that the test sets, so that leases, back-offs and deadlines run out within a sequence. What the sequences
//! reach is counted: one that never gets to an answer could not tell a difference there.
//!
//! The same with faults (`faults`): there the answers must be alike too, repeated calls must be answered as the first time, and nobody
//! may write under a claim that the stores have forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use common::id::RunId;
use common::run::RunStatus;
use common::store::{Store, StoreTime};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::stores;

/// The verb's answer from both stores, which must be the same.
macro_rules! both {
    ($pair:ident.$verb:ident($($argument:expr),*)) => {{
        let expected = $pair.memory.$verb($($argument),*).await;
        let got = $pair.redis.$verb($($argument),*).await;
        prop_assert_eq!(&got, &expected, "redis (left) and memory (right) differ in {}", stringify!($verb));
        expected.expect("memory always answers")
    }};
}

mod apply;
mod calls;
mod faults;
mod ops;
mod pair;
mod patches;

use pair::Pair;

/// How often the sequences came to something, by its name.
type Seen = BTreeMap<String, u32>;

fn run_id(run: usize) -> RunId {
    RunId::parse(&format!("run-{run}")).unwrap()
}

/// Everything a reader can see of a run.
async fn look(pair: &mut Pair, run: usize) -> Result<(), TestCaseError> {
    let id = run_id(run);
    let snapshot = both!(pair.snapshot(&id));
    both!(pair.status(&id));
    both!(pair.traceparent(&id));
    both!(pair.result(&id));
    let events = both!(pair.events(&id, "", 1000));
    if let Some(middle) = events.get(events.len() / 2) {
        both!(pair.events(&id, &middle.id, 3));
    }
    for event in &events {
        pair.saw("event", &event.kind);
    }
    both!(pair.list(0, 10));
    if let Some(pulse) = both!(pair.pulse(&id)) {
        pair.saw("pulse", &pulse.status);
    }
    pair.check(run).await?;
    let Some(snapshot) = snapshot else { return Ok(()) };
    pair.saw("status", &snapshot.view.status);
    for wait in snapshot.view.steps.iter().filter_map(|step| step.waiting.as_ref()) {
        pair.saw("step waits", wait);
    }
    for waiting in &snapshot.view.waiting {
        pair.saw(&format!("{} waits", waiting.slot), &waiting.wait);
    }
    if !snapshot.retired.is_empty() {
        pair.came_to("retired steps".to_owned());
    }
    Ok(())
}

/// How names begin that the sequences must have come to, or they test less than they seem to.
fn everything() -> Vec<String> {
    let each = |verb: &str, answers: &[&str]| answers.iter().map(|answer| format!("{verb} {answer}")).collect::<Vec<_>>();
    let all = [
        each("open_run", &["Created", "Exists("]),
        each("claim", &["Execute(Claim", "Poisoned(Claim", "Done", "Duplicate", "Stale", "Finished("]),
        each("renew", &["Kept", "Lost", "Ended"]),
        each("release", &["Kept", "Lost", "Ended"]),
        each("journal", &["Kept", "Lost", "Ended"]),
        each("put_plan", &["Stored(Nothing)", "Stored(Planner)", "Stored(Summary)", "Lost", "Moved"]),
        each("keep_plan", &["(Kept, Nothing)", "(Kept, Planner)", "(Kept, Summary)", "(Lost, Nothing)"]),
        each("halt", &["Kept", "Lost", "Ended"]),
        each("reserve", &["Granted", "Busy", "Exhausted", "Lost"]),
        each("report", &["Recorded(Nothing)", "Recorded(Planner)", "Recorded(Summary)", "Stale", "Finished("]),
        each("retry", &["(Kept, Nothing)", "(Kept, Planner)", "(Kept, Summary)", "(Lost, Nothing)"]),
        each("finish", &["Kept", "Lost"]),
        each("take_ready", &["steps", "plan"]),
        each("advance", &["Gone", "plan", "dispatch", "summary"]),
        each("take_back", &["Gone", "Kept", "Plan", "Dispatch", "Summary", "Poisoned"]),
        each("cancel", &["Accepted", "Repeated", "Refused"]),
        each("pause", &["Accepted", "Repeated", "Refused"]),
        each("resume", &["Accepted", "Repeated", "Refused"]),
        each("approve", &["Accepted", "Repeated", "Refused"]),
        each("reject", &["Accepted", "Refused"]),
        each("edit", &["Accepted", "Refused"]),
        each("retry-run", &["Accepted", "Repeated", "Refused"]),
        each("command owes", &["plan", "dispatch", "summary"]),
        RunStatus::ALL.map(|status| format!("status {status:?}")).to_vec(),
        each(
            "step waits",
            &["Steps", "Replan", "Window", "Dispatch", "Retry", "RateLimit", "Claim", "Running", "Resume", "Approval"],
        ),
        each("plan waits", &["Claim", "Running", "Retry", "RateLimit"]),
        each("summary waits", &["Claim", "Running", "Retry"]),
        each("run waits", &["Resume", "Approval"]),
        each("event", &["StepSkipped", "TakenBack", "ReplanOwed", "ApprovalAwaited", "Controlled", "Halted", "Drained"]),
        each("retired", &["steps"]),
    ];
    all.into_iter().flatten().collect()
}

async fn play(pair: &mut Pair, ops: &[ops::Op]) -> Result<(), TestCaseError> {
    for op in ops {
        apply::apply(pair, op).await?;
    }
    look(pair, 0).await?;
    look(pair, 1).await
}

/// Rounds at the most: one more for as long as something has not been reached.
const ROUNDS_MAX: u32 = 4;

/// Plays rounds of `cases` sequences until all names in `wanted` were reached. A failure shrinks to the shortest sequence that fails.
fn differ(cases: u32, sequences: &impl Strategy<Value = Vec<ops::Op>>, wanted: Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let time = Arc::new(AtomicU64::new(1_700_000_000_000));
    let redis = runtime.block_on(stores::redis(StoreTime::Given(time.clone())));
    let seen = std::cell::RefCell::new(Seen::new());
    let round = || {
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        runner.run(&(prop::collection::vec(ops::rules(), 2), sequences), |(rules, ops)| {
            runtime.block_on(async {
                redis.delete_all().await.unwrap();
                let memory = stores::memory(StoreTime::Given(time.clone()));
                let mut pair = Pair::new(memory, Store::Redis(redis.clone()), time.clone(), rules, seen.take());
                let same = play(&mut pair, &ops).await;
                seen.replace(pair.seen);
                same
            })
        })
    };
    // What chance has not reached by then, it may reach in another round.
    let mut missed = wanted;
    let mut outcome = Ok(());
    for _ in 0..ROUNDS_MAX {
        outcome = round();
        let seen = seen.borrow();
        missed.retain(|name| !seen.keys().any(|seen| seen.starts_with(name)));
        if outcome.is_err() || missed.is_empty() {
            break;
        }
    }
    runtime.block_on(redis.delete_all()).unwrap();
    outcome.unwrap();
    let seen = seen.into_inner();
    assert!(missed.is_empty(), "never reached: {missed:?}\nreached: {seen:#?}");
}

#[test]
fn memory_and_redis_give_the_same_answers() {
    let ops = prop::collection::vec(ops::op(), 1..80);
    let sequences = (ops::start(), ops).prop_map(|(start, ops)| [start, ops].concat());
    differ(800, &sequences, everything());
}

#[test]
fn memory_and_redis_go_through_the_same_faults() {
    differ(150, &faults::sequence(), faults::everything());
}
