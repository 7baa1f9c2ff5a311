//! A run from its opening to its end.

use super::*;

#[tokio::test]
async fn a_run_is_opened_once() {
    on_both(async |bench| {
        assert_eq!(bench.store.snapshot(&bench.run).await.unwrap(), None);
        assert_eq!(bench.open(4).await, Opened::Created);
        assert_eq!(bench.open(4).await, Opened::Exists(RunStatus::Planning));
        let snapshot = bench.store.snapshot(&bench.run).await.unwrap().unwrap();
        assert_eq!(snapshot.traceparent.as_deref(), Some(TRACE));
        assert_eq!(bench.store.traceparent(&bench.run).await.unwrap().as_deref(), Some(TRACE));
        assert_eq!(bench.store.traceparent(&RunId::parse("nobody").unwrap()).await.unwrap(), None);
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
        let put = async |epoch| bench.put(epoch, 0, &Revision::first(plan(&[(1, &[])])), &[]).await;
        assert_eq!(put(first.epoch).await, Put::Lost, "its lease went to another planner");
        assert_eq!(put(second.epoch).await, Put::Stored(Owed::Planner));
        assert_eq!(put(second.epoch).await, Put::Stored(Owed::Planner), "the reply was lost, the call is repeated");
        assert_eq!(put(first.epoch).await, Put::Lost);
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
    let ttls = async || stores::times_to_live(redis.prefix(), &bench.run).await;
    bench.planned(8, &[(1, &[])]).await;
    bench.take("t1").await;
    let live = ttls().await;
    assert!(live.len() >= 7 && live.iter().all(|(_, ttl)| *ttl == -1), "{live:?}");
    bench.done(1, Outcome::Succeeded).await;
    let epoch = bench.hold(Slot::Summary, "c").await.epoch;
    let end = Finish { status: RunStatus::Succeeded, error: None, document: "{}".into(), retention: Duration::from_secs(60) };
    bench.store.finish(&bench.run, Slot::Summary, epoch, &end, &Account::default()).await.unwrap();
    let ended = ttls().await;
    assert!(ended.len() >= 6 && ended.iter().all(|(_, ttl)| (1..=60_000).contains(ttl)), "{ended:?}");
    redis.delete_all().await.unwrap();
}

/// The place in the list is a hint, written before the run: whoever lists in that moment must not take it away. One that has outlived its run goes.
#[tokio::test]
async fn a_run_that_is_being_opened_keeps_its_place_in_the_list() {
    let time = Arc::new(AtomicU64::new(1_700_000_000_000));
    let redis = stores::redis(StoreTime::Given(Arc::clone(&time))).await;
    let index = format!("{}:runs", redis.prefix());
    let client = ::redis::Client::open(stores::redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (now, id) = (time.load(Ordering::SeqCst), "opening");
    let _added: i64 = ::redis::cmd("ZADD").arg(&index).arg(now).arg(id).query_async(&mut connection).await.unwrap();
    let store = Store::Redis(redis.clone());
    let mut kept = Vec::new();
    for later_ms in [0, 60_000, 2 * 3_600_000] {
        time.store(now + later_ms, Ordering::SeqCst);
        assert_eq!(store.list(0, 10).await.unwrap(), []);
        let score: Option<f64> = ::redis::cmd("ZSCORE").arg(&index).arg(id).query_async(&mut connection).await.unwrap();
        kept.push(score.is_some());
    }
    assert_eq!(kept, [true, true, false]);
    redis.delete_all().await.unwrap();
}
