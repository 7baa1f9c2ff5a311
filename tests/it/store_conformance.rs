//! What every store promises, as scenarios that run on memory and on Redis alike. Time is the test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::event::{EventDraft, EventType};
use common::id::{RunId, Slot, StepNumber};
use common::limits::{CLAIMS_MAX, DISPATCH_TIMEOUT};
use common::plan::{Plan, Step};
use common::run::{Outcome, RunStatus, StepRecord, StepState, Usage};
use common::store::{
    Account, Advance, Again, Claim, ClaimRequest, Claimed, Finish, Held, NewRun, Opened, Owed, Reported, Store, StoreTime,
    TakenBack,
};
use serde_json::json;
use support::stores;

const LEASE: Duration = Duration::from_secs(30);

/// A store with its time, and one run.
struct Bench {
    store: Store,
    time: Arc<AtomicU64>,
    run: RunId,
}

impl Bench {
    fn pass(&self, duration: Duration) {
        self.time.fetch_add(u64::try_from(duration.as_millis()).unwrap(), Ordering::SeqCst);
    }

    async fn open(&self, window: u32) -> Opened {
        let new = NewRun {
            request: "{\"objective\":\"goal\"}".into(),
            objective: "goal".into(),
            window,
            reply_to: Some("reply".into()),
            correlation_id: None,
            traceparent: None,
        };
        self.store.open_run(&self.run, &new).await.unwrap()
    }

    async fn claim(&self, slot: Slot, message_id: &str, nonce: &str) -> Claimed {
        self.claim_of(slot, message_id, false, nonce).await
    }

    /// The broker hands the message out once more.
    async fn reclaim(&self, slot: Slot, message_id: &str, nonce: &str) -> Claimed {
        self.claim_of(slot, message_id, true, nonce).await
    }

    async fn claim_of(&self, slot: Slot, message_id: &str, redelivered: bool, nonce: &str) -> Claimed {
        let request = ClaimRequest { slot, message_id, redelivered, nonce, attempt: None, lease: LEASE, worker: "w" };
        self.store.claim(&self.run, &request).await.unwrap()
    }

    /// Claims and expects to get it.
    async fn hold(&self, slot: Slot, message_id: &str) -> Claim {
        let claimed = self.claim(slot, message_id, &format!("{message_id}-{slot}")).await;
        let Claimed::Execute(claim) = claimed else { panic!("{slot}: {claimed:?}") };
        *claim
    }

    /// Opens the run and stores a plan of `edges`: (step, its dependencies).
    async fn planned(&self, window: u32, edges: &[(u32, &[u32])]) {
        assert_eq!(self.open(window).await, Opened::Created);
        let epoch = self.hold(Slot::Plan, "objective").await.epoch;
        let stored = self.store.put_plan(&self.run, epoch, 0, &plan(edges), "first", &Account::default()).await.unwrap();
        assert_eq!(stored, Held::Kept);
    }

    async fn take(&self, token: &str) -> Vec<u32> {
        self.store.take_ready(&self.run, token).await.unwrap().iter().map(|d| d.step.step_number.0).collect()
    }

    async fn report(&self, number: u32, epoch: u64, outcome: Outcome) -> Reported {
        let record = record(outcome, number);
        self.store.report(&self.run, StepNumber(number), epoch, &record, &Account::default()).await.unwrap()
    }

    /// Claims and reports a step.
    async fn done(&self, number: u32, outcome: Outcome) -> Owed {
        let claim = self.hold(step(number), &format!("m{number}")).await;
        let reported = self.report(number, claim.epoch, outcome).await;
        let Reported::Recorded(owed) = reported else { panic!("step {number}: {reported:?}") };
        owed
    }

    async fn states(&self) -> Vec<StepState> {
        let snapshot = self.store.snapshot(&self.run).await.unwrap().unwrap();
        snapshot.view.steps.iter().map(|step| step.state).collect()
    }
}

fn step(number: u32) -> Slot {
    Slot::Step(StepNumber(number))
}

fn record(outcome: Outcome, number: u32) -> StepRecord {
    StepRecord {
        outcome,
        result: json!({"of": number}),
        error: None,
        tool: None,
        usage: Usage::default(),
        duration_ms: 1,
        worker: None,
    }
}

fn plan(edges: &[(u32, &[u32])]) -> Plan {
    let step = |(number, depends_on): &(u32, &[u32])| Step {
        step_number: StepNumber(*number),
        description: format!("step {number}"),
        tool_hint: None,
        arguments: None,
        depends_on: depends_on.iter().copied().map(StepNumber).collect(),
    };
    Plan { steps: edges.iter().map(step).collect() }
}

/// Runs a scenario on both stores.
async fn on_both(scenario: impl AsyncFn(&Bench)) {
    let time = Arc::new(AtomicU64::new(1_700_000_000_000));
    let run = RunId::parse("r").unwrap();
    let memory = stores::memory(StoreTime::Given(time.clone()));
    scenario(&Bench { store: memory, time: time.clone(), run: run.clone() }).await;
    let redis = stores::redis(StoreTime::Given(time.clone())).await;
    scenario(&Bench { store: Store::Redis(redis.clone()), time, run }).await;
    redis.delete_all().await.unwrap();
}

#[tokio::test]
async fn a_run_is_opened_once() {
    on_both(async |bench| {
        assert_eq!(bench.store.snapshot(&bench.run).await.unwrap(), None);
        assert_eq!(bench.open(4).await, Opened::Created);
        assert_eq!(bench.open(4).await, Opened::Exists(RunStatus::Planning));
        assert_eq!(bench.store.list(0, 10).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn the_first_plan_stands() {
    on_both(async |bench| {
        bench.open(4).await;
        let first = bench.hold(Slot::Plan, "a").await;
        bench.pass(LEASE);
        let second = bench.hold(Slot::Plan, "b").await;
        let put = async |epoch, current| {
            let plan = plan(&[(1, &[])]);
            bench.store.put_plan(&bench.run, epoch, current, &plan, "x", &Account::default()).await.unwrap()
        };
        assert_eq!(put(first.epoch, 0).await, Held::Lost, "its lease went to another planner");
        assert_eq!(put(second.epoch, 0).await, Held::Kept);
        assert_eq!(put(second.epoch, 0).await, Held::Kept, "the reply was lost, the call is repeated");
        assert_eq!(put(first.epoch, 0).await, Held::Lost);
        assert!(matches!(bench.claim(Slot::Plan, "c", "c").await, Claimed::Done { owed: Owed::Planner, .. }), "steps are ready");
    })
    .await;
}

#[tokio::test]
async fn steps_start_when_their_own_dependencies_have_succeeded() {
    on_both(async |bench| {
        // a(1) -> b(2), c(3) -> d(4): d is done while b has not started.
        bench.planned(8, &[(1, &[]), (2, &[1]), (3, &[]), (4, &[3])]).await;
        assert_eq!(bench.take("t1").await, [1, 3]);
        assert!(matches!(bench.claim(step(4), "m", "n").await, Claimed::Stale { .. }), "its dependency has not succeeded");
        assert_eq!(bench.done(3, Outcome::Succeeded).await, Owed::Planner);
        assert_eq!(bench.take("t2").await, [4]);
        let claim = bench.hold(step(4), "m4").await;
        assert_eq!(claim.inputs.len(), 1);
        assert_eq!((claim.inputs[0].step_number, &claim.inputs[0].result), (StepNumber(3), &json!({"of": 3})));
        assert_eq!(bench.report(4, claim.epoch, Outcome::Succeeded).await, Reported::Recorded(Owed::Nothing));
        assert_eq!(bench.done(1, Outcome::Succeeded).await, Owed::Planner);
        assert_eq!(bench.take("t3").await, [2]);
        assert_eq!(bench.done(2, Outcome::Succeeded).await, Owed::Summary);
        assert_eq!(bench.store.status(&bench.run).await.unwrap(), Some(RunStatus::Summarizing));
    })
    .await;
}

#[tokio::test]
async fn the_same_token_gets_its_own_steps_again() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[]), (2, &[])]).await;
        assert_eq!(bench.take("t1").await, [1, 2]);
        assert_eq!(bench.take("t2").await, [0u32; 0], "another planner gets nothing");
        bench.done(1, Outcome::Succeeded).await;
        assert_eq!(bench.take("t1").await, [2], "what nobody has claimed");
    })
    .await;
}

#[tokio::test]
async fn a_step_has_one_holder() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t").await;
        let first = bench.hold(step(1), "m1").await;
        assert!(matches!(bench.claim(step(1), "m2", "n2").await, Claimed::Duplicate { worker } if worker == "w"));
        assert!(matches!(bench.claim(step(1), "m1", "n3").await, Claimed::Duplicate { .. }), "published twice under one id");
        // The same claim again (its reply was lost) is not a second one; the same message again takes the step over.
        assert_eq!(bench.hold(step(1), "m1").await.epoch, first.epoch);
        let Claimed::Execute(second) = bench.reclaim(step(1), "m1", "other").await else { panic!("redelivery takes over") };
        assert_eq!(second.epoch, first.epoch + 1);
        assert_eq!(bench.store.renew(&bench.run, step(1), first.epoch, LEASE).await.unwrap(), Held::Lost);
        assert_eq!(bench.store.renew(&bench.run, step(1), second.epoch, LEASE).await.unwrap(), Held::Kept);
        // A zombie's outcome changes nothing.
        assert_eq!(bench.report(1, first.epoch, Outcome::Failed).await, Reported::Stale);
        assert_eq!(bench.states().await, [StepState::Running]);
        // When the lease is over anybody may take it.
        bench.pass(LEASE);
        let Claimed::Execute(third) = bench.claim(step(1), "m3", "n3").await else { panic!("lease is over") };
        assert_eq!(bench.report(1, third.epoch, Outcome::Succeeded).await, Reported::Recorded(Owed::Summary));
        assert_eq!(bench.report(1, third.epoch, Outcome::Succeeded).await, Reported::Recorded(Owed::Summary), "repeated call");
        assert_eq!(bench.report(1, second.epoch, Outcome::Failed).await, Reported::Stale);
        assert!(
            matches!(
                bench.claim(step(1), "m1", "late").await,
                Claimed::Done { owed: Owed::Summary, state: StepState::Succeeded }
            ),
            "redelivery sends what is owed"
        );
    })
    .await;
}

#[tokio::test]
async fn a_failed_step_skips_what_waits_for_it_and_nothing_else() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[]), (2, &[1]), (3, &[2]), (4, &[]), (5, &[4])]).await;
        bench.take("t").await;
        assert_eq!(bench.done(1, Outcome::Failed).await, Owed::Nothing);
        let expected = [StepState::Failed, StepState::Skipped, StepState::Skipped, StepState::Dispatched, StepState::Waiting];
        assert_eq!(bench.states().await, expected);
        assert_eq!(bench.done(4, Outcome::Succeeded).await, Owed::Planner);
        bench.take("t2").await;
        assert_eq!(bench.done(5, Outcome::Succeeded).await, Owed::Summary);
        let snapshot = bench.store.snapshot(&bench.run).await.unwrap().unwrap();
        let record = snapshot.view.steps[2].record.clone().unwrap();
        assert_eq!((record.outcome, record.error.as_deref()), (Outcome::Skipped, Some("step 2 did not succeed")));
    })
    .await;
}

#[tokio::test]
async fn a_wide_run_stays_in_its_window_and_is_refilled_at_half() {
    on_both(async |bench| {
        let edges: Vec<(u32, &[u32])> = (1..=10).map(|n| (n, &[] as &[u32])).collect();
        bench.planned(4, &edges).await;
        let first = bench.take("t1").await;
        assert_eq!(first.len(), 4);
        assert_eq!(bench.take("t2").await.len(), 0, "the window is full");
        assert_eq!(bench.done(first[0], Outcome::Succeeded).await, Owed::Nothing, "3 in flight");
        assert_eq!(bench.done(first[1], Outcome::Succeeded).await, Owed::Planner, "2 in flight: half");
        assert_eq!(bench.done(first[2], Outcome::Succeeded).await, Owed::Nothing, "told already");
        assert_eq!(bench.done(first[3], Outcome::Succeeded).await, Owed::Planner, "nothing in flight: told again");
        assert_eq!(bench.take("t3").await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn retries_wait_and_count_parks_wait_and_do_not() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        let claim = bench.hold(step(1), "m1").await;
        let again = async |epoch, again| {
            let wait = Duration::from_secs(10);
            bench.store.retry(&bench.run, step(1), epoch, again, wait, &Account::default()).await.unwrap()
        };
        assert_eq!(again(claim.epoch, Again::Retry).await, (Held::Kept, Owed::Nothing));
        assert_eq!(again(claim.epoch, Again::Retry).await, (Held::Kept, Owed::Nothing), "repeated call");
        assert_eq!(bench.take("t2").await.len(), 0, "not yet");
        let request = ClaimRequest {
            slot: step(1),
            message_id: "m1",
            redelivered: true,
            nonce: "late",
            attempt: Some(1),
            lease: LEASE,
            worker: "w",
        };
        let old = bench.store.claim(&bench.run, &request).await.unwrap();
        assert_eq!(old, Claimed::Stale { why: "it is at attempt 2".into() });
        bench.pass(Duration::from_secs(10));
        assert_eq!(bench.take("t3").await, [1]);
        let claim = bench.hold(step(1), "m2").await;
        assert_eq!((claim.attempt, claim.parks), (2, 0));
        assert_eq!(again(claim.epoch, Again::Park).await.0, Held::Kept);
        bench.pass(Duration::from_secs(10));
        assert_eq!(bench.take("t4").await, [1]);
        let claim = bench.hold(step(1), "m3").await;
        assert_eq!((claim.attempt, claim.parks), (2, 1));
    })
    .await;
}

#[tokio::test]
async fn a_step_that_ends_its_executors_is_poison() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        for n in 0..CLAIMS_MAX {
            assert!(matches!(bench.reclaim(step(1), "m1", &format!("n{n}")).await, Claimed::Execute(_)), "claim {n}");
        }
        let Claimed::Poisoned(claim) = bench.reclaim(step(1), "m1", "last").await else { panic!("poison") };
        assert_eq!(bench.report(1, claim.epoch, Outcome::Failed).await, Reported::Recorded(Owed::Summary));
    })
    .await;
}

#[tokio::test]
async fn a_released_slot_costs_no_claim() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        for n in 0..3 * CLAIMS_MAX {
            let Claimed::Execute(claim) = bench.reclaim(step(1), "m1", &format!("n{n}")).await else { panic!("claim {n}") };
            assert_eq!(bench.store.release(&bench.run, step(1), claim.epoch).await.unwrap(), Held::Kept);
        }
    })
    .await;
}

#[tokio::test]
async fn the_journal_outlives_its_holder() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        let first = bench.hold(step(1), "m1").await;
        let usage = Usage { model_calls: 1, input_tokens: 7, ..Usage::default() };
        let account = Account { usage, events: vec![EventDraft::new(EventType::ModelCalled, json!({"model": "m"}))] };
        let journal =
            async |epoch, index, entry| bench.store.journal(&bench.run, step(1), epoch, index, entry, &account).await.unwrap();
        assert_eq!(journal(first.epoch, 0, "one").await, Held::Kept);
        assert_eq!(journal(first.epoch, 0, "one again").await, Held::Kept, "repeated call");
        let Claimed::Execute(second) = bench.reclaim(step(1), "m1", "again").await else { panic!() };
        assert_eq!(second.journal, ["one"]);
        assert_eq!(journal(first.epoch, 1, "zombie").await, Held::Lost);
        assert_eq!(journal(second.epoch, 1, "two").await, Held::Kept);
        let snapshot = bench.store.snapshot(&bench.run).await.unwrap().unwrap();
        assert_eq!((snapshot.view.usage.model_calls, snapshot.view.usage.input_tokens), (2, 14));
    })
    .await;
}

#[tokio::test]
async fn wake_ups_repair_what_was_lost() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[]), (2, &[])]).await;
        bench.take("t1").await;
        bench.hold(step(1), "m1").await; // and its executor dies; the message of step 2 is lost
        let owed = |plan, dispatch, summary| {
            move |advance| match advance {
                Advance::Live { plan: p, dispatch: d, summary: s, .. } => (p, d, s) == (plan, dispatch, summary),
                Advance::Gone => false,
            }
        };
        assert!(owed(false, false, false)(bench.store.advance(&bench.run).await.unwrap()));
        bench.pass(DISPATCH_TIMEOUT);
        assert!(owed(false, true, false)(bench.store.advance(&bench.run).await.unwrap()));
        assert_eq!(bench.take("t2").await, [1, 2]);
        bench.done(1, Outcome::Succeeded).await;
        assert_eq!(bench.done(2, Outcome::Succeeded).await, Owed::Summary);
        bench.pass(DISPATCH_TIMEOUT); // the completion is lost
        assert!(owed(false, false, true)(bench.store.advance(&bench.run).await.unwrap()));
        assert_eq!(bench.store.take_back(&bench.run, Slot::Summary, "m", "x").await.unwrap(), TakenBack::Summary);
        assert_eq!(bench.store.take_back(&bench.run, step(1), "m", "x").await.unwrap(), TakenBack::Kept);
    })
    .await;
}

#[tokio::test]
async fn due_runs_are_given_to_one_planner_at_a_time() {
    on_both(async |bench| {
        bench.open(4).await;
        assert_eq!(bench.store.due(10).await.unwrap().len(), 0);
        bench.store.wake(&bench.run, Duration::from_secs(1)).await.unwrap();
        bench.store.wake(&bench.run, Duration::from_secs(9)).await.unwrap();
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.store.due(10).await.unwrap(), std::slice::from_ref(&bench.run), "the earlier hint holds");
        assert_eq!(bench.store.due(10).await.unwrap().len(), 0, "put off");
        bench.store.settle(&bench.run).await.unwrap();
        bench.pass(Duration::from_secs(3600));
        assert_eq!(bench.store.due(10).await.unwrap().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_refused_end_leaves_the_wake_up_of_a_live_run() {
    on_both(async |bench| {
        bench.open(4).await;
        let zombie = bench.hold(Slot::Plan, "a").await;
        bench.pass(LEASE);
        let holder = bench.hold(Slot::Plan, "b").await;
        let wait = Duration::from_secs(5);
        let parked = bench.store.retry(&bench.run, Slot::Plan, holder.epoch, Again::Park, wait, &Account::default()).await;
        assert_eq!(parked.unwrap().0, Held::Kept);
        let end = Finish { status: RunStatus::Failed, error: None, document: "{}".into(), retention: Duration::from_secs(60) };
        let finished = bench.store.finish(&bench.run, Slot::Plan, zombie.epoch, &end, &Account::default()).await.unwrap();
        assert_eq!(finished, Held::Lost);
        bench.pass(wait);
        assert_eq!(bench.store.due(10).await.unwrap(), std::slice::from_ref(&bench.run));
    })
    .await;
}

#[tokio::test]
async fn a_retry_that_comes_due_in_a_full_window_is_not_forgotten() {
    on_both(async |bench| {
        bench.planned(1, &[(1, &[]), (2, &[])]).await;
        assert_eq!(bench.take("t1").await, [1]);
        let claim = bench.hold(step(1), "m1").await;
        let wait = Duration::from_secs(1);
        let retried = bench.store.retry(&bench.run, step(1), claim.epoch, Again::Retry, wait, &Account::default()).await.unwrap();
        assert_eq!(retried, (Held::Kept, Owed::Planner), "step 2 waits for the window");
        assert_eq!(bench.take("t2").await, [2]);
        bench.pass(wait);
        assert!(matches!(bench.store.advance(&bench.run).await.unwrap(), Advance::Live { dispatch: false, .. }));
        assert_eq!(bench.done(2, Outcome::Succeeded).await, Owed::Planner);
        assert_eq!(bench.take("t3").await, [1]);
    })
    .await;
}

#[tokio::test]
async fn dead_letters_count_as_claims_and_end() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t").await;
        bench.hold(step(1), "m1").await;
        let take_back = async |message| bench.store.take_back(&bench.run, step(1), message, "dead").await.unwrap();
        assert_eq!(take_back("another").await, TakenBack::Kept, "its holder's message lives");
        assert_eq!(take_back("m1").await, TakenBack::Dispatch, "the holder's own message died");
        for n in 2..CLAIMS_MAX {
            assert_eq!(bench.take(&format!("t{n}")).await, [1]);
            assert_eq!(take_back("m").await, TakenBack::Dispatch, "{n}");
        }
        bench.take("t-last").await;
        assert_eq!(take_back("m").await, TakenBack::Poisoned);
        assert!(matches!(bench.claim(step(1), "closer", "c").await, Claimed::Poisoned(_)));
    })
    .await;
}

#[tokio::test]
async fn a_run_ends_once() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        bench.done(1, Outcome::Succeeded).await;
        let claim = bench.hold(Slot::Summary, "c1").await;
        let end = |document: &str| Finish {
            status: RunStatus::Succeeded,
            error: None,
            document: document.into(),
            retention: Duration::from_secs(60),
        };
        let finish = async |epoch, document| {
            let account = Account { events: vec![EventDraft::new(EventType::RunFinished, json!({}))], ..Account::default() };
            bench.store.finish(&bench.run, Slot::Summary, epoch, &end(document), &account).await.unwrap()
        };
        assert_eq!(finish(claim.epoch + 1, "forged").await, Held::Lost);
        assert_eq!(finish(claim.epoch, "answer").await, Held::Kept);
        assert_eq!(finish(claim.epoch, "again").await, Held::Kept, "repeated call");
        assert_eq!(bench.store.result(&bench.run).await.unwrap().as_deref(), Some("answer"));
        assert_eq!(bench.claim(Slot::Summary, "c2", "c2").await, Claimed::Finished(RunStatus::Succeeded));
        assert_eq!(bench.report(1, 1, Outcome::Failed).await, Reported::Finished(RunStatus::Succeeded));
        assert_eq!(bench.store.advance(&bench.run).await.unwrap(), Advance::Gone);
        let events = bench.store.events(&bench.run, "", 100).await.unwrap();
        assert_eq!(events.last().unwrap().kind, EventType::RunFinished);
        assert!(events.iter().zip(events.iter().skip(1)).all(|(a, b)| a.id != b.id));
    })
    .await;
}

/// Keys of a live run never expire; every key of a finished run does.
#[tokio::test]
async fn keys_expire_exactly_when_the_run_has_ended() {
    let redis = stores::redis(StoreTime::Own).await;
    let bench = Bench { store: Store::Redis(redis.clone()), time: Arc::default(), run: RunId::parse("ttl").unwrap() };
    let client = redis::Client::open(stores::redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut ttls = async || {
        let pattern = format!("{}:{{ttl}}:*", redis.prefix());
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.unwrap();
        let mut ttls = Vec::new();
        for key in keys {
            ttls.push(redis::cmd("PTTL").arg(key).query_async::<i64>(&mut connection).await.unwrap());
        }
        ttls
    };
    bench.planned(8, &[(1, &[])]).await;
    bench.take("t1").await;
    let live = ttls().await;
    assert!(live.len() >= 7 && live.iter().all(|ttl| *ttl == -1), "{live:?}");
    bench.done(1, Outcome::Succeeded).await;
    let epoch = bench.hold(Slot::Summary, "c").await.epoch;
    let end = Finish { status: RunStatus::Succeeded, error: None, document: "{}".into(), retention: Duration::from_secs(60) };
    bench.store.finish(&bench.run, Slot::Summary, epoch, &end, &Account::default()).await.unwrap();
    let ended = ttls().await;
    assert!(ended.len() >= 6 && ended.iter().all(|ttl| (1..=60_000).contains(ttl)), "{ended:?}");
    redis.delete_all().await.unwrap();
}
