//! Three RabbitMQ nodes and a Redis Cluster of six: nodes die and come back while runs go on, and services are replaced one by one.

use common::message::Queue;
use support::servers::{RabbitCluster, RedisCluster};
use support::stack::{Process, Stack};
use tokio::time::Instant;

use super::{SERVICES, Work, all_end, at_rest, sums};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_die_and_services_are_replaced() {
    let work = Work::new().await;
    let (mut rabbit, mut redis) = tokio::join!(RabbitCluster::start(), RedisCluster::start());
    let (stack, mut services) = work.stack(&rabbit.url(), &redis.url(), &[]).await;
    // Queues that only one node had would outlive nothing.
    let members = rabbit.members(stack.prefix()).await;
    assert!(members.len() == Queue::ALL.len() && members.iter().all(|(_, members)| *members == 3), "{members:?}");

    let runs = work.begin(&stack, "leader").await;
    let victim = rabbit.leader_of(&Queue::Steps.name(stack.prefix()), 0).await.expect("the queue has a leader");
    rabbit.nodes[victim].kill();
    work.answer();
    // It comes back only after everything has ended without it.
    all_end(&stack, "the RabbitMQ node with the leader of the steps queue is killed", &runs, Instant::now()).await;
    rabbit.nodes[victim].start_again().await;
    let runs = work.begin(&stack, "back").await;
    let other = (victim + 1) % rabbit.nodes.len();
    rabbit.nodes[other].kill();
    work.answer();
    rabbit.nodes[other].start_again().await;
    all_end(&stack, "another RabbitMQ node is killed and comes back", &runs, Instant::now()).await;
    at_rest(&stack).await;

    // Every primary once: each holds some of the runs.
    for primary in redis.primaries().await {
        let runs = work.begin(&stack, &format!("primary-{primary}")).await;
        redis.nodes[primary].kill();
        work.answer();
        let since = Instant::now();
        redis.taken_over().await;
        all_end(&stack, "a Redis primary is killed, its replica takes over", &runs, since).await;
        redis.nodes[primary].start_again().await;
        redis.is_whole().await;
        assert_eq!(redis.nodes[primary].role().await.as_deref(), Some("slave"));
    }
    at_rest(&stack).await;

    let runs = work.begin(&stack, "rolling").await;
    work.answer();
    replace_all(&stack, &mut services).await;
    all_end(&stack, "all services are replaced one by one", &runs, Instant::now()).await;
    at_rest(&stack).await;
    stack.clean().await;
}

/// A rolling restart: SIGTERM, and the next one only when a new process is there. New runs come all the while.
async fn replace_all(stack: &Stack, services: &mut [Process]) {
    for (number, service) in SERVICES.iter().enumerate() {
        let runs = sums(stack, &format!("rolling-{number}")).await;
        let status = services[number].stop().await;
        assert!(status.success(), "{service} was asked to stop and ended with {status}:\n{}", stack.logs());
        services[number] = stack.start(service);
        let since = Instant::now();
        all_end(stack, &format!("a {service} is replaced"), &runs, since).await;
    }
}
