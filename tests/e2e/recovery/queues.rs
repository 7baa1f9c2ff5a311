//! Queues that are emptied or deleted while they are used: messages vanish, publications come back, consumers are cancelled.

use common::message::Queue;
use support::stack::amqp_url;
use support::stores::redis_url;
use tokio::time::Instant;

use super::{Work, all_end, at_rest, sums};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_emptied_and_deleted() {
    tokio::join!(deleted(), emptied());
}

async fn deleted() {
    let work = Work::new().await;
    let (stack, mut services) = work.stack(&amqp_url(), &redis_url(), &[]).await;

    // Deleted under its consumers, with messages in everybody's hands.
    let runs = work.begin(&stack, "deleted").await;
    for queue in [Queue::Objectives, Queue::Steps, Queue::Reports, Queue::Completions] {
        stack.delete_queue(queue).await;
    }
    let since = Instant::now();
    work.answer();
    stack.until("the consumers are cancelled", async || stack.logs().contains("the broker cancelled the consumer")).await;
    all_end(&stack, "every queue is deleted (basic.cancel)", &runs, since).await;
    at_rest(&stack).await;

    // Deleted while nobody consumes it: what is published to it comes back to the publisher, which declares it again.
    let runs = work.begin(&stack, "returned").await;
    services.remove(0);
    stack.delete_queue(Queue::Reports).await;
    work.answer();
    stack.until("a publication is returned", async || stack.logs().contains("a queue was deleted")).await;
    services.push(stack.start("planner"));
    all_end(&stack, "publications are returned, their queue is gone", &runs, Instant::now()).await;
    at_rest(&stack).await;

    stack.clean().await;
}

/// Messages vanish out of a queue: nobody but the store knows that they have been there.
async fn emptied() {
    let work = Work::new().await;
    let (stack, mut services) = work.stack(&amqp_url(), &redis_url(), &[]).await;
    services.drain(1..3);
    let runs = sums(&stack, "vanished").await;
    stack.until("steps wait for an executor", async || stack.depth(Queue::Steps).await == runs.len() as u32).await;
    assert_eq!(stack.purge(Queue::Steps).await, runs.len() as u32);
    let since = Instant::now();
    services.push(stack.start("executor"));
    all_end(&stack, "messages vanish from the steps queue", &runs, since).await;
    stack.clean().await;
}
