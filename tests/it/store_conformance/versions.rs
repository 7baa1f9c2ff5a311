//! The version of a run's keys: a run that a newer release has opened is neither read nor changed, and nothing is said about it but that.

use std::collections::BTreeSet;

use common::store::{KEYS_VERSION, StoreError};
use redis::AsyncTypedCommands;

use super::*;

const NEWER: u32 = KEYS_VERSION + 1;

impl Bench {
    fn newer(&self) -> StoreError {
        StoreError::Newer { run: self.run.clone(), schema: NEWER }
    }

    /// Every verb on the run, with what it says.
    async fn every_verb(&self, epoch: u64) -> Vec<(&'static str, Option<StoreError>)> {
        let (store, run, account) = (&self.store, &self.run, Account::default());
        let (note, revision) = (PlanNote::default(), Revision::first(plan(&[(1, &[])])));
        let new = NewRun {
            request: "{}".into(),
            objective: "goal".into(),
            window: 1,
            reply_to: None,
            correlation_id: None,
            traceparent: None,
            rules: RunRules::default(),
        };
        let claim = ClaimRequest {
            slot: step(2),
            message_id: "m",
            redelivered: true,
            nonce: "n",
            attempt: None,
            lease: LEASE,
            worker: "w",
        };
        let control = Control {
            id: "c",
            command: Command::Cancel,
            by: "ann",
            reason: "",
            text: "",
            revision: None,
            feedback: "",
            refused: "",
        };
        let halt = Halt { kind: HaltKind::Budget, reason: "x".into() };
        let (succeeded, end) = (record(Outcome::Succeeded, 1), end(RunStatus::Succeeded));
        let (again, after) = (Again::Retry, Duration::ZERO);
        vec![
            ("open_run", store.open_run(run, &new).await.err()),
            ("claim", store.claim(run, &claim).await.err()),
            ("renew", store.renew(run, step(1), epoch, LEASE).await.err()),
            ("journal", store.journal(run, step(1), epoch, 0, "{}", &account).await.err()),
            ("put_plan", store.put_plan(run, epoch, 1, &revision, &note, &[], &account).await.err()),
            ("keep_plan", store.keep_plan(run, epoch, &[], true, &account).await.err()),
            ("reserve", store.reserve(run, step(1), epoch, 1, &Need::default()).await.err()),
            ("take_ready", store.take_ready(run, "t2").await.err()),
            ("take_back", store.take_back(run, step(1), "m1", "x").await.err()),
            ("advance", store.advance(run).await.err()),
            ("retry", store.retry(run, step(1), epoch, again, after, &account).await.err()),
            ("release", store.release(run, step(1), epoch).await.err()),
            ("report", store.report(run, StepNumber(1), epoch, &succeeded, &account).await.err()),
            ("control", store.control(run, &control).await.err()),
            ("halt", store.halt(run, step(1), epoch, &halt, &account).await.err()),
            ("finish", store.finish(run, step(1), epoch, &end, &account).await.err()),
            ("snapshot", store.snapshot(run).await.err()),
            ("status", store.status(run).await.err()),
            ("pulse", store.pulse(run).await.err()),
        ]
    }
}

#[tokio::test]
async fn no_verb_touches_a_run_of_a_newer_release() {
    on_both(async |bench| {
        bench.planned(1, &[(1, &[]), (2, &[])]).await;
        bench.take("t1").await;
        let epoch = bench.hold(step(1), "m1").await.epoch;
        let (before, trail) = (bench.view().await, bench.store.events(&bench.run, "", 1000).await.unwrap());
        stores::set_schema(&bench.store, &bench.run, NEWER).await;
        // Everything in it is due by now: there is plenty to do for whoever may.
        bench.pass(LEASE * 2);
        for (verb, said) in bench.every_verb(epoch).await {
            assert_eq!(said, Some(bench.newer()), "{verb}");
        }
        // Who knows the version finds it as it was, but for the time.
        stores::set_schema(&bench.store, &bench.run, KEYS_VERSION).await;
        let untouched = |view: RunView| RunView { waiting: Vec::new(), ..view };
        assert_eq!(untouched(bench.view().await), untouched(before));
        assert_eq!(bench.store.events(&bench.run, "", 1000).await.unwrap(), trail);
        assert_eq!(bench.report(1, epoch, Outcome::Succeeded).await, Reported::Recorded(Owed::Planner));
    })
    .await;
}

#[tokio::test]
async fn a_list_names_runs_of_a_newer_release_and_a_result_is_theirs_to_read() {
    on_both(async |bench| {
        bench.planned(1, &[(1, &[])]).await;
        bench.take("t1").await;
        bench.done(1, Outcome::Succeeded).await;
        assert_eq!(bench.store.list(0, 10).await.unwrap()[0].newer_schema, None);
        stores::set_schema(&bench.store, &bench.run, NEWER).await;
        let line = bench.store.list(0, 10).await.unwrap().remove(0);
        assert_eq!((line.run_id, line.newer_schema), (bench.run.clone(), Some(NEWER)));
        assert_eq!(bench.store.result(&bench.run).await, Ok(None), "it has not ended, whatever else it is");
        stores::set_schema(&bench.store, &bench.run, KEYS_VERSION).await;
        assert_eq!(bench.end(RunStatus::Succeeded).await, Held::Kept);
        stores::set_schema(&bench.store, &bench.run, NEWER).await;
        assert_eq!(bench.store.result(&bench.run).await, Err(bench.newer()));
        let said = bench.newer().to_string();
        assert_eq!(said, "run r was written by a newer planrelay (schema 2, this one knows 1); upgrade this one");
    })
    .await;
}

/// Hints are nobody's: a due run of a newer release is put off like any other, and stays due for its own.
#[tokio::test]
async fn the_wake_up_of_a_run_of_a_newer_release_is_kept() {
    on_both(async |bench| {
        bench.open(1).await;
        stores::set_schema(&bench.store, &bench.run, NEWER).await;
        bench.pass(Duration::from_secs(60));
        assert_eq!(bench.store.due(10).await.unwrap(), std::slice::from_ref(&bench.run));
        assert_eq!(bench.store.advance(&bench.run).await, Err(bench.newer()));
        bench.store.wake(&bench.run, Duration::from_secs(1)).await.unwrap();
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.store.due(10).await.unwrap(), std::slice::from_ref(&bench.run), "sooner than who took it would need");
    })
    .await;
}

/// Releases before the field wrote none: their runs are of version 1. A word that a newer release has for where a run stands hides no other
/// run from a list.
#[tokio::test]
async fn what_redis_holds_of_other_releases_is_read() {
    let time = Arc::new(AtomicU64::new(1_700_000_000_000));
    let redis = stores::redis(StoreTime::Given(time.clone())).await;
    let bench = |run: &str| Bench { store: Store::Redis(redis.clone()), time: time.clone(), run: RunId::parse(run).unwrap() };
    let (old, newer) = (bench("old"), bench("newer"));
    let mut connection = stores::connection().await;
    let key = |bench: &Bench| format!("{}:{{{}}}:run", redis.prefix(), bench.run);
    old.planned(1, &[(1, &[])]).await;
    newer.open(1).await;
    assert_eq!(connection.hget(key(&old), "schema").await.unwrap().as_deref(), Some("1"), "every run says its version");
    connection.hdel(key(&old), "schema").await.unwrap();
    let other = [("schema", "2"), ("status", "musing")];
    connection.hset_multiple(key(&newer), &other).await.unwrap();
    assert_eq!(old.take("t").await, [1]);
    assert_eq!(old.done(1, Outcome::Succeeded).await, Owed::Summary);
    let lines = old.store.list(0, 10).await.unwrap();
    let listed: BTreeSet<(&str, Option<u32>)> = lines.iter().map(|line| (line.run_id.as_str(), line.newer_schema)).collect();
    assert_eq!(listed, BTreeSet::from([("old", None), ("newer", Some(2))]));
    redis.delete_all().await.unwrap();
}
