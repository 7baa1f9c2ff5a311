//! A service that is stopped ends what it has begun.

use std::sync::Arc;
use std::time::Duration;

use common::broker::{Broker, memory};
use common::clock::Clock;
use common::env::Env;
use common::message::Queue;
use common::store::StoreTime;
use serde_json::json;
use support::plans::exact;
use support::seam::{Kind, Script};
use support::stores;
use support::world::{config, env};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A step whose message was lost is taken for another dispatch by a wake-up, and the planner is stopped before it has published it.
#[tokio::test(start_paused = true)]
async fn a_planner_that_is_stopped_publishes_what_a_wake_up_has_taken() {
    let clock = Clock::Tokio { epoch_ms: 1_700_000_000_000, started: Instant::now() };
    let memory = memory::Memory::new("planrelay");
    let world = Env { clock, store: stores::memory(StoreTime::Clock(clock)), ..env(Broker::Memory(Arc::clone(&memory))) };
    let client = common::client::Client::new(world.store.clone(), world.ids.clone(), clock);
    let (seam, stop) = (Script::new(), CancellationToken::new());
    let seen = Env { broker: seam.before_broker(world.broker.clone()), ..world.clone() };
    let mut planner = JoinSet::new();
    let stopped = stop.clone();
    planner.spawn(async move { planner::run(seen, &config(), stopped).await });

    let objective = json!({"objective": "x", "plan": {"steps": [exact(1, "6*7", &[])]}});
    client.submit(&world.broker, serde_json::from_value(objective).unwrap()).await.unwrap();
    seam.asked(Kind::Publish, 1).await;
    let steps = Queue::Steps.name("planrelay");
    while memory.lose(|queue, _| queue == steps) == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    seam.hold(Kind::Publish, true);
    seam.asked(Kind::Publish, 2).await;
    stop.cancel();
    sleep(Duration::from_millis(10)).await;
    seam.hold(Kind::Publish, false);
    planner.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(world.broker.depth(Queue::Steps).await.unwrap(), 1, "nobody has to miss the message first");
}
