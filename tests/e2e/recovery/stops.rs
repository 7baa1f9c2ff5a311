//! Services that are stopped (SIGTERM) or hang (SIGSTOP) in the middle of their work.

use common::limits::CLAIMS_MAX;
use futures::future::join_all;
use support::stack::{Process, amqp_url};
use support::stores::redis_url;
use tokio::time::Instant;

use super::{SERVICES, Work, all_end, at_rest, trails};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_stopped_and_hang() {
    tokio::join!(stopped(), hanging());
}

/// Every service, more often than a step may end its executors: neither an attempt nor a claim is counted.
async fn stopped() {
    let work = Work::new().await;
    let (stack, mut services) = work.stack(&amqp_url(), &redis_url(), &[("PLANRELAY_SHUTDOWN_GRACE_SECS", "0")]).await;
    let runs = work.begin(&stack, "stopped").await;
    for _ in 0..=CLAIMS_MAX {
        let asked = work.asked();
        for status in join_all(services.iter_mut().map(Process::stop)).await {
            assert_eq!(status.code(), Some(0), "{}", stack.logs());
        }
        services = SERVICES.iter().map(|service| stack.start(service)).collect();
        work.waits_again(&stack, asked).await;
    }
    let stopped = Instant::now();
    work.answer();
    all_end(&stack, "every service is stopped and started, six times", &runs, stopped).await;
    at_rest(&stack).await;
    stack.clean().await;
}

/// A process of each service hangs for longer than its lease. Others take its work, and what it does when it goes on changes nothing.
async fn hanging() {
    let work = Work::new().await;
    let (stack, zombies) = work.stack(&amqp_url(), &redis_url(), &[]).await;
    let runs = work.begin(&stack, "hanging").await;
    zombies.iter().for_each(Process::pause);
    let since = Instant::now();
    let _heirs: Vec<Process> = SERVICES.iter().map(|service| stack.start(service)).collect();
    work.answer();
    all_end(&stack, "every service hangs, others are started (from then on)", &runs, since).await;
    let before = trails(&stack, &runs).await;
    zombies.iter().for_each(Process::resume);
    at_rest(&stack).await;
    let gone_on = || zombies.iter().all(|zombie| std::fs::read_to_string(&zombie.log).unwrap().contains("consuming anew"));
    stack.until("they notice that they were given up", async || gone_on()).await;
    assert_eq!(trails(&stack, &runs).await, before, "a zombie records nothing");
    stack.clean().await;
}
