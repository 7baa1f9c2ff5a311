//! A RabbitMQ node that dies, hangs, forgets, or refuses.

use std::time::Duration;

use common::message::Queue;
use serde_json::json;
use support::servers::PrivateRabbit;
use support::stack::Stack;
use support::stores::redis_url;
use tokio::time::{Instant, sleep};

use super::{Work, all_end, at_rest, sums};

/// Longer than two heartbeats: every connection is given up meanwhile.
const HANGS: Duration = Duration::from_secs(22);
/// Longer than a confirm may take: publications are given up and repeated while they still wait in the broker.
const ALARM: Duration = Duration::from_secs(14);
/// How long a consumer may keep a message, where that is short.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(2);
/// RabbitMQ's default.
const HALF_AN_HOUR: Duration = Duration::from_secs(1800);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_hangs_and_forgets() {
    let (work, mut node) = (Work::new().await, PrivateRabbit::start(&[]).await);
    let (stack, _services) = work.stack(&node.url(), &redis_url(), &[]).await;

    let runs = work.begin(&stack, "killed").await;
    node.kill();
    work.answer();
    node.start_again().await;
    all_end(&stack, "RabbitMQ is killed and started on its data", &runs, Instant::now()).await;

    let runs = work.begin(&stack, "stopped").await;
    node.stop_app().await;
    work.answer();
    node.start_app().await;
    all_end(&stack, "RabbitMQ is stopped and started", &runs, Instant::now()).await;

    let runs = work.begin(&stack, "hangs").await;
    node.pause();
    work.answer();
    sleep(HANGS).await;
    node.resume();
    all_end(&stack, "RabbitMQ hangs for 22 s", &runs, Instant::now()).await;
    at_rest(&stack).await;

    let runs = work.begin(&stack, "forgets").await;
    work.answer();
    node.lose_everything().await;
    all_end(&stack, "RabbitMQ comes back without a queue or a message", &runs, Instant::now()).await;
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_refuses() {
    let (work, node) = (Work::new().await, PrivateRabbit::start(&[]).await);
    let (stack, mut services) = work.stack(&node.url(), &redis_url(), &[]).await;

    let runs = work.begin(&stack, "alarm").await;
    node.memory_alarm(true).await;
    work.answer();
    sleep(ALARM).await;
    assert!(stack.logs().contains("not confirmed"), "nobody noticed that nothing is published:\n{}", stack.logs());
    node.memory_alarm(false).await;
    all_end(&stack, "RabbitMQ has a memory alarm for 14 s", &runs, Instant::now()).await;
    // What was given up during the alarm and arrived after all is sorted out.
    at_rest(&stack).await;

    // Without executors the messages stay, so that there is no room for others.
    services.drain(1..3);
    let full = format!("^{}$", Queue::Steps.name(stack.prefix()).replace('.', "\\."));
    node.policy("full", &full, &json!({"max-length": 1})).await;
    let mut runs = Vec::new();
    for name in ["full-a", "full-b", "full-c"] {
        runs.extend(sums(&stack, name).await);
    }
    stack.until("a publication is refused", async || stack.logs().contains("nack")).await;
    sleep(Duration::from_secs(3)).await;
    node.clear_policy("full").await;
    services.push(stack.start("executor"));
    all_end(&stack, "the steps queue is full (nacks) until an executor starts", &runs, Instant::now()).await;
    at_rest(&stack).await;

    let runs = work.begin(&stack, "channels").await;
    node.fail_all_channels().await;
    work.answer();
    stack.until("the error is noticed", async || stack.logs().contains("PRECONDITION_FAILED - by a test")).await;
    all_end(&stack, "every channel has an error", &runs, Instant::now()).await;

    let runs = work.begin(&stack, "closed").await;
    node.close_all_connections().await;
    work.answer();
    all_end(&stack, "every connection is closed by an operator", &runs, Instant::now()).await;
    at_rest(&stack).await;

    takes_too_long(&work, &node, &stack).await;
    stack.clean().await;
}

/// The broker takes messages back from consumers that keep them too long, by closing their channel.
async fn takes_too_long(work: &Work, node: &PrivateRabbit, stack: &Stack) {
    node.consumer_timeout(CONSUMER_TIMEOUT).await;
    node.close_all_connections().await;
    let runs = work.begin(stack, "slow").await;
    let timed_out = || stack.logs().contains("delivery acknowledgement on channel");
    stack.until("a consumer has timed out", async || timed_out()).await;
    work.answer();
    all_end(stack, "consumers have timed out", &runs, Instant::now()).await;
    node.consumer_timeout(HALF_AN_HOUR).await;
}
