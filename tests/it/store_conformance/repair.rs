//! What repairs lost messages, lost holders and lost wake-ups.

use common::limits::{WAKEUP_INTERVAL_MAX, WAKEUP_SHARDS};
use common::store::{Live, Pulse};
use redis::AsyncTypedCommands;

use super::*;

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
        bench.pass(DISPATCH_TIMEOUT.max(LEASE));
        assert!(owed(false, true, false)(bench.store.advance(&bench.run).await.unwrap()));
        assert_eq!(bench.take("t2").await, [1, 2]);
        bench.done(1, Outcome::Succeeded).await;
        assert_eq!(bench.done(2, Outcome::Succeeded).await, Owed::Summary);
        bench.pass(DISPATCH_TIMEOUT); // the completion is lost
        assert!(owed(false, false, true)(bench.store.advance(&bench.run).await.unwrap()));
        assert_eq!(bench.store.take_back(&bench.run, Slot::Summary, "m", "x").await.unwrap(), TakenBack::Summary);
        let of_an_ended_step = bench.store.take_back(&bench.run, step(1), "m", "x").await.unwrap();
        assert_eq!(of_an_ended_step, TakenBack::Summary, "its executor may have died before it told the summarizer");
    })
    .await;
}

/// A message whose handler died after it had recorded the outcome: what it may not have published is owed.
#[tokio::test]
async fn a_dead_letter_of_an_ended_slot_owes_what_follows() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[]), (2, &[1])]).await;
        let take_back = async |slot| bench.store.take_back(&bench.run, slot, "m", "x").await.unwrap();
        assert_eq!(take_back(Slot::Plan).await, TakenBack::Dispatch, "step 1 is ready");
        bench.take("t1").await;
        assert_eq!(take_back(Slot::Plan).await, TakenBack::Kept);
        bench.done(1, Outcome::Succeeded).await;
        assert_eq!(take_back(step(1)).await, TakenBack::Dispatch, "step 2 is ready");
        bench.take("t2").await;
        assert_eq!(take_back(step(1)).await, TakenBack::Kept);
    })
    .await;
}

#[tokio::test]
async fn a_pulse_tells_how_long_nothing_has_happened() {
    on_both(async |bench| {
        assert_eq!(bench.store.pulse(&bench.run).await.unwrap(), None);
        let pulse = async || {
            let Pulse { status, quiet_ms, unclaimed_ms } = bench.store.pulse(&bench.run).await.unwrap().unwrap();
            (status, quiet_ms / 1000, unclaimed_ms / 1000)
        };
        bench.planned(8, &[(1, &[]), (2, &[]), (3, &[1])]).await;
        assert_eq!(pulse().await, (RunStatus::Running, 0, 0));
        bench.take("t1").await;
        bench.pass(Duration::from_secs(5));
        assert_eq!(pulse().await, (RunStatus::Running, 5, 5), "two messages that nobody has claimed");
        bench.hold(step(1), "m1").await;
        bench.pass(Duration::from_secs(5));
        assert_eq!(pulse().await, (RunStatus::Running, 5, 10), "the other one");
        bench.hold(step(2), "m2").await;
        assert_eq!(pulse().await, (RunStatus::Running, 0, 0));
        bench.control("c1", Command::Pause).await;
        bench.pass(Duration::from_secs(900));
        assert_eq!(pulse().await, (RunStatus::Paused, 900, 0), "a person is waited for");
    })
    .await;
}

#[tokio::test]
async fn live_runs_are_known_by_their_wake_ups() {
    on_both(async |bench| {
        assert_eq!(bench.store.live(10).await.unwrap(), Live::default());
        bench.open(4).await;
        let live = |late_ms, runs| Live { count: 1, late_ms, runs };
        assert_eq!(bench.store.live(10).await.unwrap(), live(0, vec![bench.run.clone()]));
        assert_eq!(bench.store.live(0).await.unwrap(), live(0, vec![]));
        bench.pass(WAKEUP_INTERVAL_MAX + Duration::from_secs(7));
        assert_eq!(bench.store.live(10).await.unwrap(), live(7_000, vec![bench.run.clone()]), "no planner looks");
        bench.store.settle(&bench.run).await.unwrap();
        assert_eq!(bench.store.live(10).await.unwrap(), Live::default());
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
        bench.pass(WAKEUP_LOOK_MAX);
        assert_eq!(bench.store.due(10).await.unwrap().len(), 1, "whoever took it has died");
        bench.store.wake(&bench.run, 2 * WAKEUP_LOOK_MAX).await.unwrap();
        bench.store.looked(&bench.run, 2 * WAKEUP_LOOK_MAX).await.unwrap();
        bench.store.looked(&bench.run, 3 * WAKEUP_LOOK_MAX).await.unwrap();
        bench.pass(WAKEUP_LOOK_MAX);
        assert_eq!(bench.store.due(10).await.unwrap().len(), 0, "whoever took it has looked");
        bench.pass(WAKEUP_LOOK_MAX);
        assert_eq!(bench.store.due(10).await.unwrap().len(), 1);
        bench.store.wake(&bench.run, Duration::from_secs(1)).await.unwrap();
        bench.store.looked(&bench.run, WAKEUP_LOOK_MAX).await.unwrap();
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.store.due(10).await.unwrap().len(), 1, "what was asked for meanwhile holds");
        bench.store.settle(&bench.run).await.unwrap();
        bench.pass(Duration::from_secs(3600));
        assert_eq!(bench.store.due(10).await.unwrap().len(), 0);
    })
    .await;
}

/// In Redis, hints are kept in shards, by the run's id. All are looked through, and none twice.
#[tokio::test]
async fn due_runs_of_every_shard_are_given_once() {
    on_both(async |bench| {
        let runs: Vec<RunId> = (0..64).map(|n| RunId::parse(&format!("run-{n}")).unwrap()).collect();
        for run in &runs {
            bench.store.wake(run, Duration::from_secs(1)).await.unwrap();
        }
        if let Store::Redis(redis) = &bench.store {
            let keys: Vec<String> = stores::connection().await.keys(format!("{}:wakeups:*", redis.prefix())).await.unwrap();
            assert_eq!(keys.len(), usize::try_from(WAKEUP_SHARDS).unwrap(), "the ids are spread over all shards: {keys:?}");
        }
        bench.pass(Duration::from_secs(1));
        let sorted = |mut runs: Vec<RunId>| {
            runs.sort();
            runs
        };
        let runs = sorted(runs);
        assert_eq!(sorted(bench.store.due(100).await.unwrap()), runs, "one look finds all");
        bench.pass(WAKEUP_LOOK_MAX);
        let mut due = Vec::new();
        for _ in 0..6 {
            let some = bench.store.due(10).await.unwrap();
            assert_eq!(some.len(), 10, "as many as were asked for, whichever shards they are in");
            due.extend(some);
        }
        due.extend(bench.store.due(10).await.unwrap());
        assert_eq!(sorted(due), runs, "each to one planner");
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
