//! A Redis that dies, hangs, refuses, or forgets.

use std::time::Duration;

use common::run::RunStatus;
use serde_json::json;
use support::servers::PrivateRedis;
use support::stack::{Stack, amqp_url};
use tokio::time::{Instant, sleep};

use super::{Work, all_end, sums};

/// Longer than the services wait for one answer, tries included.
const HANGS: Duration = Duration::from_secs(16);
/// A Redis without memory.
const FULL: &str = "1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_dies_hangs_and_refuses() {
    let (work, mut redis) = (Work::new().await, PrivateRedis::start(&[]).await);
    let (stack, _services) = work.stack(&amqp_url(), &redis.url(), &[]).await;

    // Every write is on disk before it is answered: nothing is lost.
    let runs = work.begin(&stack, "killed").await;
    let before = trails(&stack, &runs).await;
    redis.kill();
    work.answer();
    sleep(Duration::from_secs(2)).await;
    redis.start_again().await;
    all_end(&stack, "Redis is killed and started on its data", &runs, Instant::now()).await;
    for (earlier, later) in before.iter().zip(trails(&stack, &runs).await) {
        assert_eq!(earlier.as_slice(), &later[..earlier.len()], "what was answered is kept");
    }

    let runs = work.begin(&stack, "hangs").await;
    redis.pause();
    work.answer();
    sleep(HANGS).await;
    redis.resume();
    all_end(&stack, "Redis hangs for 16 s", &runs, Instant::now()).await;

    let runs = work.begin(&stack, "full").await;
    redis.set("maxmemory", FULL).await;
    work.answer();
    sleep(Duration::from_secs(4)).await;
    assert!(stack.logs().contains("OOM"), "{}", stack.logs());
    redis.set("maxmemory", "0").await;
    all_end(&stack, "Redis is out of memory for 4 s", &runs, Instant::now()).await;

    let runs = work.begin(&stack, "replica").await;
    // Of a primary that is not there: it keeps what it has.
    let _ok: String = redis.command(&["REPLICAOF", "127.0.0.1", "9"]).await.unwrap();
    work.answer();
    sleep(Duration::from_secs(4)).await;
    assert!(stack.logs().contains("ReadOnly"), "{}", stack.logs());
    redis.replicate(None).await;
    all_end(&stack, "Redis is read-only for 4 s", &runs, Instant::now()).await;
    assert_eq!(
        stack.store().dead_letters(10).await.unwrap(),
        Vec::<String>::new(),
        "an outage is no reason to give a message up"
    );
    stack.clean().await;
}

/// The audit trails as they are now.
async fn trails(stack: &Stack, runs: &[common::id::RunId]) -> Vec<Vec<common::event::Event>> {
    let mut trails = Vec::new();
    for run in runs {
        trails.push(stack.store().events(run, "", 10_000).await.unwrap());
    }
    trails
}

/// Waits until every run is in the store: one that is set back to before that is not known any more.
async fn opened(stack: &Stack, runs: &[common::id::RunId]) {
    for run in runs {
        stack.until("the run is opened", async || stack.store().status(run).await.unwrap().is_some()).await;
    }
}

/// What was answered is gone again: as after a power cut without `appendfsync always`, or a failover to a replica that lagged behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_loses_its_last_writes() {
    let (work, mut redis) = (Work::new().await, PrivateRedis::start(&[]).await);
    let (stack, _services) = work.stack(&amqp_url(), &redis.url(), &[]).await;

    // Set back while everything is under way: a plan, steps and an answer that are claimed and not recorded.
    let runs = work.begin(&stack, "under-way").await;
    opened(&stack, &runs).await;
    redis.checkpoint();
    work.answer();
    sleep(Duration::from_millis(150)).await;
    redis.lose_writes_since_checkpoint().await;
    all_end(&stack, "Redis loses the last 150 ms", &runs, Instant::now()).await;

    // Set back to before any of them was claimed.
    redis.checkpoint();
    let runs = work.begin(&stack, "claims").await;
    stack
        .until("the sums are done", async || stack.store().status(&runs[6]).await.is_ok_and(|s| s == Some(RunStatus::Succeeded)))
        .await;
    let opened_again = Instant::now();
    redis.lose_writes_since_checkpoint().await;
    work.answer();
    // Nobody knows them any more: their objectives are published again, as whoever gets no answer would do.
    for (number, (kind, _)) in super::KINDS.iter().enumerate() {
        for n in 0..super::RUNS_PER_KIND {
            stack.objective(&format!("claims-{number}-{n}"), json!({"objective": kind})).await;
        }
    }
    sums(&stack, "claims").await;
    all_end(&stack, "Redis loses whole runs, and their objectives are published again", &runs, opened_again).await;

    // Set back to the middle of runs that have ended since.
    let runs = work.begin(&stack, "ended").await;
    opened(&stack, &runs).await;
    redis.checkpoint();
    work.answer();
    all_end(&stack, "(nothing happens)", &runs, Instant::now()).await;
    redis.lose_writes_since_checkpoint().await;
    assert!(stack.store().result(&runs[0]).await.unwrap().is_none(), "the end is lost as well");
    all_end(&stack, "Redis loses the ends of runs", &runs, Instant::now()).await;
    stack.clean().await;
}
