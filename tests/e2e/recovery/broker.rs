//! A RabbitMQ node that dies, hangs, forgets, or refuses.

use std::time::Duration;

use support::servers::PrivateRabbit;
use support::stack::Stack;
use support::stores::redis_url;
use tokio::time::{Instant, sleep};

use super::{Work, all_end};

/// Longer than two heartbeats: every connection is given up meanwhile.
const HANGS: Duration = Duration::from_secs(32);

async fn on_a_node(work: &Work) -> (PrivateRabbit, Stack, Vec<support::stack::Process>) {
    let node = PrivateRabbit::start(&[]).await;
    let settings = work.settings();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (stack, services) = Stack::on(&node.url(), &redis_url(), &settings).await.with_services().await;
    (node, stack, services)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_hangs_and_forgets() {
    let work = Work::new().await;
    let (mut node, stack, _services) = on_a_node(&work).await;

    let runs = work.begin(&stack, "killed").await;
    node.kill();
    work.answer();
    node.start_again().await;
    all_end(&stack, "a node is killed and comes back", &runs, Instant::now()).await;

    let runs = work.begin(&stack, "stopped").await;
    node.stop_app().await;
    work.answer();
    node.start_app().await;
    all_end(&stack, "a node is stopped and started", &runs, Instant::now()).await;

    let runs = work.begin(&stack, "closed").await;
    node.close_all_connections().await;
    work.answer();
    all_end(&stack, "every connection is closed", &runs, Instant::now()).await;

    let runs = work.begin(&stack, "hangs").await;
    node.pause();
    work.answer();
    sleep(HANGS).await;
    node.resume();
    all_end(&stack, "a node hangs for 32 s", &runs, Instant::now()).await;

    let runs = work.begin(&stack, "forgets").await;
    node.lose_everything().await;
    work.answer();
    all_end(&stack, "a node comes back empty", &runs, Instant::now()).await;
    stack.clean().await;
}
