//! A Redis that dies, hangs, refuses, or forgets.

use std::time::Duration;

use common::id::RunId;
use support::servers::PrivateRedis;
use support::stack::{Stack, amqp_url};
use tokio::time::{Instant, sleep};

use super::{Work, all_end, complete, sums, trails};

/// Longer than the services wait for one answer.
const HANGS: Duration = Duration::from_secs(8);
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
    all_end(&stack, "Redis hangs for 8 s", &runs, Instant::now()).await;

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

/// Waits until every run is in the store: one that is set back to before that is not known any more.
async fn opened(stack: &Stack, runs: &[RunId]) {
    for run in runs {
        stack.until("the run is opened", async || stack.store().status(run).await.unwrap().is_some()).await;
    }
}

/// What was answered is gone again: as after a power cut without `appendfsync always`, or a failover to a replica that lagged behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_loses_its_last_writes() {
    tokio::join!(under_way(), ended(), never_opened());
}

/// Set back while everything is under way: a plan, steps and an answer are claimed and not recorded, or just recorded.
async fn under_way() {
    let (work, mut redis) = (Work::new().await, PrivateRedis::start(&[]).await);
    let (stack, _services) = work.stack(&amqp_url(), &redis.url(), &[]).await;
    let runs = work.begin(&stack, "under-way").await;
    opened(&stack, &runs).await;
    redis.checkpoint();
    work.answer();
    sleep(Duration::from_millis(150)).await;
    redis.lose_writes_since_checkpoint().await;
    all_end(&stack, "Redis loses its last 150 ms", &runs, Instant::now()).await;
    stack.clean().await;
}

/// Set back to the middle of runs that have ended since.
async fn ended() {
    let (work, mut redis) = (Work::new().await, PrivateRedis::start(&[]).await);
    let (stack, _services) = work.stack(&amqp_url(), &redis.url(), &[]).await;
    let runs = work.begin(&stack, "ended").await;
    opened(&stack, &runs).await;
    redis.checkpoint();
    work.answer();
    for run in &runs {
        complete(&stack.result(run).await);
    }
    redis.lose_writes_since_checkpoint().await;
    assert!(stack.store().result(&runs[0]).await.unwrap().is_none(), "the end is lost as well");
    all_end(&stack, "Redis loses the ends of runs", &runs, Instant::now()).await;
    stack.clean().await;
}

/// Set back to before the runs were opened. Their objectives have been acknowledged: nobody knows of them any more, which is the one
/// thing that is not promised (ARCHITECTURE, "Not guaranteed"). Whoever gets no answer publishes the same again.
async fn never_opened() {
    let (work, mut redis) = (Work::new().await, PrivateRedis::start(&[]).await);
    let (stack, _services) = work.stack(&amqp_url(), &redis.url(), &[]).await;
    redis.checkpoint();
    let runs = sums(&stack, "gone").await;
    for run in &runs {
        complete(&stack.result(run).await);
    }
    redis.lose_writes_since_checkpoint().await;
    for run in &runs {
        assert_eq!(stack.store().status(run).await.unwrap(), None);
    }
    let since = Instant::now();
    assert_eq!(sums(&stack, "gone").await, runs);
    all_end(&stack, "Redis loses whole runs, and their objectives are published again", &runs, since).await;
    stack.clean().await;
}
