//! A cluster of three RabbitMQ nodes and a Redis Cluster of six servers: correct results while nodes die and come back.

use std::time::Duration;

use common::id::RunId;
use serde_json::{Value, json};
use support::servers::{RabbitCluster, RedisCluster};
use support::stack::Stack;

fn chain() -> Value {
    let steps = (1..=10).map(|n| {
        json!({"step_number": n, "description": "a sum", "tool_hint": "calculate", "arguments": {"expression": format!("{n}+{n}")},
               "depends_on": if n == 1 { vec![] } else { vec![n - 1] }})
    });
    json!({"objective": "sums", "plan": {"steps": steps.collect::<Vec<_>>()}, "options": {"respond": "results"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thin() {
    let t = std::time::Instant::now();
    let (rabbit, redis) = tokio::join!(RabbitCluster::start(), RedisCluster::start());
    println!("booted {:?}", t.elapsed());
    let stack = Stack::on(&rabbit.url(), &redis.url(), &[("PLANRELAY_MODEL", "offline")]).await;
    let (stack, _services) = stack.with_services().await;
    println!("services {:?}", t.elapsed());
    let run: RunId = stack.objective("one", chain()).await;
    let result = stack.result_within(&run, Duration::from_secs(60)).await;
    println!("{result:?} {:?}", t.elapsed());
    println!(
        "{:?} leader {:?}",
        rabbit.members(stack.prefix()).await,
        rabbit.leader_of(&format!("{}.v1.steps", stack.prefix()), 0).await
    );
}
