//! What keeps a store from growing for ever. What only Redis holds is filled up behind its back.

use common::limits::{CONTROLS_KEPT_MAX, DEAD_LETTERS_KEPT, EVENTS_MAX, RUNS_LISTED_MAX};
use redis::AsyncTypedCommands;

use super::*;

#[tokio::test]
async fn the_newest_dead_letters_are_kept() {
    on_both(async |bench| {
        let letters = DEAD_LETTERS_KEPT + 2;
        for n in 0..letters {
            bench.store.keep_dead_letter(&n.to_string()).await.unwrap();
        }
        let newest_first: Vec<String> = (2..letters).rev().map(|n| n.to_string()).collect();
        assert_eq!(bench.store.dead_letters(letters).await.unwrap(), newest_first);
        assert_eq!(bench.store.dead_letters(3).await.unwrap(), newest_first[..3]);
    })
    .await;
}

/// What is refused beyond the limit is not remembered either, and what was answered before keeps its answer.
#[tokio::test]
async fn a_run_takes_only_so_many_commands_but_a_cancel_at_any_time() {
    on_both(async |bench| {
        bench.open(4).await;
        assert_eq!(bench.control("0", Command::Pause).await.answer, Answer::Accepted);
        for n in 1..CONTROLS_KEPT_MAX {
            assert_eq!(bench.control(&n.to_string(), Command::Pause).await.answer, Answer::Repeated, "{n}");
        }
        let beyond = bench.control("beyond", Command::Resume).await;
        let why = "the run has had too many commands, only cancel is taken";
        assert_eq!((beyond.answer, &*beyond.message), (Answer::Refused, why));
        assert_eq!(bench.store.control_reply(&bench.run, "beyond").await.unwrap(), None);
        assert_eq!(bench.control("0", Command::Pause).await.answer, Answer::Accepted, "the same command");
        assert_eq!(bench.control("cancel", Command::Cancel).await.answer, Answer::Accepted);
        assert_eq!(bench.control("cancel", Command::Cancel).await.answer, Answer::Accepted, "remembered");
    })
    .await;
}

/// Redis, and a run in it.
async fn on_redis(scenario: impl AsyncFn(&Bench, &str, redis::aio::MultiplexedConnection)) {
    let time = Arc::new(AtomicU64::new(1_700_000_000_000));
    let redis = stores::redis(StoreTime::Given(time.clone())).await;
    let bench = Bench { store: Store::Redis(redis.clone()), time, run: RunId::parse("r").unwrap() };
    scenario(&bench, redis.prefix(), stores::connection().await).await;
    redis.delete_all().await.unwrap();
}

#[tokio::test]
async fn the_newest_runs_are_listed() {
    on_redis(async |bench, prefix, mut connection| {
        let index = format!("{prefix}:runs");
        let older: Vec<(usize, String)> = (1..=RUNS_LISTED_MAX).map(|n| (n, format!("older-{n}"))).collect();
        connection.zadd_multiple(&index, &older).await.unwrap();
        bench.open(4).await;
        assert_eq!(connection.zcard(&index).await.unwrap(), RUNS_LISTED_MAX);
        assert_eq!(connection.zscore(&index, "older-1").await.unwrap(), None, "the oldest makes room");
        assert!(connection.zscore(&index, "older-2").await.unwrap().is_some());
        assert_eq!(bench.store.list(0, 1).await.unwrap()[0].run_id, bench.run);
    })
    .await;
}

/// The limit is approximate: whole nodes of the stream go, of a hundred entries unless the server is told otherwise.
#[tokio::test]
async fn an_audit_trail_forgets_its_oldest_entries() {
    const NODE: usize = 1_000;
    const FILL: &str =
        "for n = ARGV[1], ARGV[1] + 999 do redis.call('XADD', KEYS[1], '1-' .. n, 'type', 'claimed', 'data', '{}') end";
    on_redis(async |bench, prefix, mut connection| {
        let trail = format!("{prefix}:{{{}}}:events", bench.run);
        let fill = redis::Script::new(FILL);
        for first in (1..=EVENTS_MAX + 5 * NODE).step_by(NODE) {
            let () = fill.key(&trail).arg(first).invoke_async(&mut connection).await.unwrap();
        }
        assert!(connection.xlen(&trail).await.unwrap() > EVENTS_MAX + NODE);
        bench.open(4).await;
        let left = connection.xlen(&trail).await.unwrap();
        assert!((EVENTS_MAX..EVENTS_MAX + NODE).contains(&left), "{left} entries");
        assert_ne!(bench.store.events(&bench.run, "", 1).await.unwrap()[0].id, "1-1", "the oldest goes first");
    })
    .await;
}
