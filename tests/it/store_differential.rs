//! Random sequences of verbs give identical answers from memory and from Redis: memory is the specification.
//!
//! Both go by a time that the test sets, so that leases and back-offs run out within a sequence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::event::{EventDraft, EventType};
use common::id::{RunId, Slot, StepNumber};
use common::plan::{Plan, Step};
use common::run::{Outcome, RunStatus, StepRecord, Usage};
use common::store::{Account, Again, ClaimRequest, Claimed, Finish, NewRun, Store, StoreTime};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use support::stores;

const LEASE: Duration = Duration::from_secs(30);

/// One verb with small arguments. `run` and `slot` index short lists, `back` says how many epochs a caller is behind.
#[derive(Debug, Clone)]
enum Op {
    Open { run: usize },
    Claim { run: usize, slot: usize, message: u8, redelivered: bool, nonce: u8, attempt: Option<u32> },
    Renew { run: usize, slot: usize, back: u64 },
    Release { run: usize, slot: usize, back: u64 },
    Journal { run: usize, slot: usize, back: u64, index: usize },
    PutPlan { run: usize, back: u64, current: u32, shape: usize },
    TakeReady { run: usize, token: u8 },
    Report { run: usize, slot: usize, back: u64, succeeded: bool },
    Retry { run: usize, slot: usize, back: u64, park: bool, after_ms: u64 },
    Finish { run: usize, slot: usize, back: u64, status: usize },
    Advance { run: usize },
    TakeBack { run: usize, slot: usize, message: u8 },
    Due,
    Tick { ms: u64 },
    Look { run: usize },
}

/// Plans of every form: chain, fan, diamond, lone steps, many at once.
fn shapes() -> Vec<Plan> {
    let plan = |edges: &[(u32, &[u32])]| Plan {
        steps: edges
            .iter()
            .map(|(number, depends_on)| Step {
                step_number: StepNumber(*number),
                description: format!("step {number}"),
                tool_hint: None,
                arguments: None,
                depends_on: depends_on.iter().copied().map(StepNumber).collect(),
            })
            .collect(),
    };
    vec![
        plan(&[(1, &[]), (2, &[1]), (3, &[2])]),
        plan(&[(1, &[]), (2, &[1]), (3, &[1]), (4, &[2, 3])]),
        plan(&[(1, &[]), (2, &[]), (3, &[]), (4, &[]), (5, &[1, 2, 3])]),
        plan(&[(1, &[])]),
        plan(&[(1, &[]), (2, &[]), (3, &[]), (4, &[]), (10, &[]), (11, &[])]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let (run, slot, back) = (0..2usize, 0..6usize, prop_oneof![6 => Just(0u64), 1 => Just(1u64)]);
    prop_oneof![
        2 => run.clone().prop_map(|run| Op::Open { run }),
        10 => (run.clone(), slot.clone(), 0..3u8, any::<bool>(), 0..12u8, prop::option::weighted(0.3, 1..3u32))
            .prop_map(|(run, slot, message, redelivered, nonce, attempt)| Op::Claim { run, slot, message, redelivered, nonce, attempt }),
        2 => (run.clone(), slot.clone(), back.clone()).prop_map(|(run, slot, back)| Op::Renew { run, slot, back }),
        1 => (run.clone(), slot.clone(), back.clone()).prop_map(|(run, slot, back)| Op::Release { run, slot, back }),
        2 => (run.clone(), slot.clone(), back.clone(), 0..3usize)
            .prop_map(|(run, slot, back, index)| Op::Journal { run, slot, back, index }),
        6 => (run.clone(), back.clone(), 0..2u32, 0..5usize)
            .prop_map(|(run, back, current, shape)| Op::PutPlan { run, back, current, shape }),
        6 => (run.clone(), 0..3u8).prop_map(|(run, token)| Op::TakeReady { run, token }),
        8 => (run.clone(), slot.clone(), back.clone(), prop::bool::weighted(0.8))
            .prop_map(|(run, slot, back, succeeded)| Op::Report { run, slot, back, succeeded }),
        2 => (run.clone(), slot.clone(), back.clone(), any::<bool>(), 0..90_000u64)
            .prop_map(|(run, slot, back, park, after_ms)| Op::Retry { run, slot, back, park, after_ms }),
        1 => (run.clone(), slot.clone(), back.clone(), 0..3usize)
            .prop_map(|(run, slot, back, status)| Op::Finish { run, slot, back, status }),
        2 => run.clone().prop_map(|run| Op::Advance { run }),
        2 => (run.clone(), slot.clone(), 0..3u8).prop_map(|(run, slot, message)| Op::TakeBack { run, slot, message }),
        1 => Just(Op::Due),
        2 => prop_oneof![0..50u64, 20_000..200_000u64].prop_map(|ms| Op::Tick { ms }),
        1 => run.prop_map(|run| Op::Look { run }),
    ]
}

/// The two stores, their time, and the epochs that claims have given.
struct Pair {
    memory: Store,
    redis: Store,
    time: Arc<AtomicU64>,
    epochs: BTreeMap<(usize, Slot), u64>,
}

/// The verb's answer from both stores, which must be the same.
macro_rules! both {
    ($pair:ident.$verb:ident($($argument:expr),*)) => {{
        let expected = $pair.memory.$verb($($argument),*).await;
        let got = $pair.redis.$verb($($argument),*).await;
        prop_assert_eq!(&got, &expected, "redis (left) and memory (right) differ");
        expected.expect("memory always answers")
    }};
}

fn run_id(run: usize) -> RunId {
    RunId::parse(&format!("run-{run}")).unwrap()
}

fn slot_of(slot: usize) -> Slot {
    match slot {
        0 => Slot::Plan,
        5 => Slot::Summary,
        number => Slot::Step(StepNumber(number as u32)),
    }
}

fn account(kind: EventType) -> Account {
    let usage = Usage { model_calls: 1, tool_calls: 2, input_tokens: 30, output_tokens: 4, estimated: false };
    Account { usage, events: vec![EventDraft::new(kind, json!({"model": "m", "quote\"d": [1, null]}))] }
}

#[expect(clippy::too_many_lines, reason = "one arm a verb")]
async fn apply(pair: &mut Pair, op: &Op) -> Result<(), TestCaseError> {
    let epoch = |pair: &Pair, run: usize, slot: Slot, back: u64| {
        pair.epochs.get(&(run, slot)).map_or(99, |epoch| epoch.saturating_sub(back).max(1))
    };
    match op.clone() {
        Op::Open { run } => {
            let new = NewRun {
                request: format!("{{\"objective\":\"goal {run}\"}}"),
                objective: format!("goal {run}"),
                window: 2 + run as u32,
                reply_to: (run == 1).then(|| "reply".to_owned()),
                correlation_id: None,
                traceparent: None,
            };
            both!(pair.open_run(&run_id(run), &new));
        }
        Op::Claim { run, slot, message, redelivered, nonce, attempt } => {
            let slot = slot_of(slot);
            let (message_id, nonce) = (format!("m{message}"), format!("n{nonce}"));
            let request =
                ClaimRequest { slot, message_id: &message_id, redelivered, nonce: &nonce, attempt, lease: LEASE, worker: "w" };
            let claimed = both!(pair.claim(&run_id(run), &request));
            if let Claimed::Execute(claim) | Claimed::Poisoned(claim) = claimed {
                pair.epochs.insert((run, slot), claim.epoch);
            }
        }
        Op::Renew { run, slot, back } => {
            let epoch = epoch(pair, run, slot_of(slot), back);
            both!(pair.renew(&run_id(run), slot_of(slot), epoch, LEASE));
        }
        Op::Release { run, slot, back } => {
            let epoch = epoch(pair, run, slot_of(slot), back);
            both!(pair.release(&run_id(run), slot_of(slot), epoch));
        }
        Op::Journal { run, slot, back, index } => {
            let epoch = epoch(pair, run, slot_of(slot), back);
            // Turns are recorded in order: a process never skips one.
            let account = account(EventType::ModelCalled);
            for index in 0..=index {
                both!(pair.journal(&run_id(run), slot_of(slot), epoch, index, "{\"turn\":1}", &account));
            }
        }
        Op::PutPlan { run, back, current, shape } => {
            let epoch = epoch(pair, run, Slot::Plan, back);
            let plan = &shapes()[shape];
            both!(pair.put_plan(&run_id(run), epoch, current, plan, "first", &account(EventType::PlanStored)));
        }
        Op::TakeReady { run, token } => {
            both!(pair.take_ready(&run_id(run), &format!("t{token}")));
        }
        Op::Report { run, slot, back, succeeded } => {
            let Slot::Step(step) = slot_of(slot) else { return Ok(()) };
            let record = StepRecord {
                outcome: if succeeded { Outcome::Succeeded } else { Outcome::Failed },
                result: json!({"value": step}),
                error: (!succeeded).then(|| "broken".to_owned()),
                tool: None,
                usage: Usage::default(),
                duration_ms: 5,
                worker: Some("w".to_owned()),
            };
            let epoch = epoch(pair, run, Slot::Step(step), back);
            both!(pair.report(&run_id(run), step, epoch, &record, &account(EventType::StepFinished)));
        }
        Op::Retry { run, slot, back, park, after_ms } => {
            let again = if park { Again::Park } else { Again::Retry };
            let epoch = epoch(pair, run, slot_of(slot), back);
            let after = Duration::from_millis(after_ms);
            both!(pair.retry(&run_id(run), slot_of(slot), epoch, again, after, &account(EventType::StepRetried)));
        }
        Op::Finish { run, slot, back, status } => {
            let status = [RunStatus::Succeeded, RunStatus::Partial, RunStatus::Failed][status];
            let error = (status == RunStatus::Failed).then(|| "no".to_owned());
            let end = Finish { status, error, document: "{\"a\":1}".to_owned(), retention: Duration::from_secs(3600) };
            let epoch = epoch(pair, run, slot_of(slot), back);
            both!(pair.finish(&run_id(run), slot_of(slot), epoch, &end, &account(EventType::RunFinished)));
        }
        Op::Advance { run } => {
            both!(pair.advance(&run_id(run)));
        }
        Op::TakeBack { run, slot, message } => {
            both!(pair.take_back(&run_id(run), slot_of(slot), &format!("m{message}"), "dead letter"));
        }
        Op::Due => {
            let mut expected = pair.memory.due(100).await.unwrap();
            let mut got = pair.redis.due(100).await.unwrap();
            expected.sort();
            got.sort();
            prop_assert_eq!(got, expected);
        }
        Op::Tick { ms } => {
            pair.time.fetch_add(ms, Ordering::SeqCst);
        }
        Op::Look { run } => look(pair, run).await?,
    }
    Ok(())
}

/// Everything a reader can see of a run.
async fn look(pair: &mut Pair, run: usize) -> Result<(), TestCaseError> {
    both!(pair.snapshot(&run_id(run)));
    both!(pair.status(&run_id(run)));
    both!(pair.result(&run_id(run)));
    let events = both!(pair.events(&run_id(run), "", 1000));
    if let Some(middle) = events.get(events.len() / 2) {
        both!(pair.events(&run_id(run), &middle.id, 3));
    }
    both!(pair.list(0, 10));
    Ok(())
}

#[test]
fn memory_and_redis_give_the_same_answers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let time = Arc::new(AtomicU64::new(1_700_000_000_000));
    let redis = runtime.block_on(stores::redis(StoreTime::Given(time.clone())));
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    // Every sequence starts where the interesting states are: a run that is open and claimed.
    let start = [Op::Open { run: 0 }, Op::Claim { run: 0, slot: 0, message: 0, redelivered: false, nonce: 0, attempt: None }];
    let outcome = runner.run(&prop::collection::vec(op(), 1..60), |ops| {
        runtime.block_on(async {
            redis.delete_all().await.unwrap();
            let memory = stores::memory(StoreTime::Given(time.clone()));
            let mut pair = Pair { memory, redis: Store::Redis(redis.clone()), time: time.clone(), epochs: BTreeMap::new() };
            for op in start.iter().chain(&ops) {
                apply(&mut pair, op).await?;
            }
            look(&mut pair, 0).await?;
            look(&mut pair, 1).await
        })
    });
    runtime.block_on(redis.delete_all()).unwrap();
    outcome.unwrap();
}
