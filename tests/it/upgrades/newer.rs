//! What belongs to a newer release: its runs are left alone and lose no message; a message in a shape of its own is kept for people.

use std::time::Duration;

use common::broker::{Envelope, Target};
use common::llm::Llm;
use common::message::Queue;
use common::run::{RunStatus, StepState};
use common::store::KEYS_VERSION;
use serde_json::{Value, json};
use support::plans::{exact, step};
use support::stores::set_schema;
use support::world::{Backend, World, config};
use tokio::time::sleep;

/// Messages that were given back so far.
fn returned(world: &World) -> u64 {
    let text = world.env.metrics.text();
    let lines = text.lines().filter(|line| line.starts_with("planrelay_messages_total") && line.contains("outcome=\"returned\""));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Messages in all queues, but for those that somebody has in hand.
async fn ready(world: &World) -> u64 {
    let mut all = 0;
    for queue in Queue::ALL {
        all += world.env.broker.depth(queue).await.unwrap();
    }
    all
}

async fn publish(world: &World, queue: Queue, message_id: &str, kind: &str, body: &Value) {
    let envelope = Envelope::new(message_id.to_owned(), kind, body.to_string().into_bytes());
    world.env.broker.publish(Target::Queue(queue), envelope).await.unwrap();
}

/// A message of every kind for a run that a newer release has opened: none is lost, none is handled, and none goes round in a hurry.
async fn all_wait_for_a_newer_process(backend: Backend, watched: Duration) {
    let mut world = World::without_executor(backend, Llm::Offline, &config()).await;
    let plan = json!({"steps": [exact(1, "6*7", &[]), exact(2, "2*3", &[1])]});
    let run = world.submit(json!({"objective": "x", "plan": plan, "options": {"respond": "results"}})).await;
    world.until(&run, "a step is dispatched", |view| view.steps.first().is_some_and(|s| s.state == StepState::Dispatched)).await;
    let before = world.client.show(&run).await.unwrap().unwrap();
    let trail = world.events(&run).await;
    set_schema(&world.env.store, &run, KEYS_VERSION + 1).await;

    world.start_executor(&config());
    publish(&world, Queue::Objectives, "again", "objective", &json!({"objective": "x", "run_id": run})).await;
    publish(&world, Queue::Reports, "report", "report", &json!({"run_id": run, "step_number": 1, "outcome": "failed"})).await;
    publish(&world, Queue::Completions, "completion", "completion", &json!({"run_id": run, "revision": 1})).await;
    publish(&world, Queue::Controls, "pause", "control", &json!({"run_id": run, "command": "pause", "by": "ann"})).await;
    let letter = json!({"version": 1, "run_id": run, "revision": 1, "step_number": 1, "attempt": 1, "description": "6*7"});
    let letter = Envelope::new("letter".to_owned(), "step", letter.to_string().into_bytes());
    let letter = Envelope { origin: Some(Queue::Steps.name(world.prefix())), reason: Some("lost".to_owned()), ..letter };
    world.env.broker.publish(Target::Queue(Queue::Dead), letter).await.unwrap();

    // Others are not in the way meanwhile.
    let other =
        world.run(json!({"objective": "y", "plan": {"steps": [exact(1, "1+1", &[])]}, "options": {"respond": "results"}}));
    assert_eq!(other.await.status, RunStatus::Succeeded);
    sleep(watched).await;
    let rounds = returned(&world);
    let most = u64::try_from(watched.as_millis() / 400).unwrap() * 6;
    assert!(rounds >= 6, "each is given back: {rounds}");
    assert!(rounds <= most, "each waits before it is: {rounds} in {watched:?}");
    assert_eq!(
        world.env.store.dead_letters(10).await.unwrap(),
        Vec::<String>::new(),
        "none is dead, and the letter is not kept twice"
    );
    assert_eq!(world.events(&run).await, trail, "nothing has been done");

    // Somebody comes who knows the version: here, the same services, which know it all at once.
    set_schema(&world.env.store, &run, KEYS_VERSION).await;
    assert_eq!(world.client.show(&run).await.unwrap().unwrap().steps[0].state, before.steps[0].state);
    // The command was not lost; whether it still found something to pause is another matter.
    while world.env.store.control_reply(&run, "pause").await.unwrap().is_none() {
        sleep(Duration::from_millis(50)).await;
    }
    world.control(&run, json!({"command": "resume"})).await;
    let result = world.client.wait(&run, Duration::from_secs(120)).await.unwrap();
    assert_eq!(result.final_response.as_deref(), Some(r#"{"1":"42","2":"6"}"#));
    // The letter is kept once it has been handled.
    while ready(&world).await > 0 || world.env.store.dead_letters(10).await.unwrap().is_empty() {
        sleep(Duration::from_millis(50)).await;
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_newer_run_wait_in_memory() {
    all_wait_for_a_newer_process(Backend::Memory, Duration::from_secs(120)).await;
}

#[tokio::test]
async fn messages_of_a_newer_run_wait_on_servers() {
    all_wait_for_a_newer_process(Backend::Servers, Duration::from_secs(4)).await;
}

/// A newer run is not driven on by whoever does not know it: not by wake-ups, not by the sweep.
#[tokio::test(start_paused = true)]
async fn wake_ups_leave_a_newer_run_alone() {
    let world = World::in_memory_without_executor(Llm::Offline, &config());
    let run = world.submit(json!({"objective": "x", "plan": {"steps": [exact(1, "6*7", &[])]}})).await;
    world.until(&run, "a step is dispatched", |view| view.steps.first().is_some_and(|s| s.state == StepState::Dispatched)).await;
    let trail = world.events(&run).await;
    set_schema(&world.env.store, &run, KEYS_VERSION + 1).await;
    // Its step has not been claimed for ever so long.
    sleep(Duration::from_secs(600)).await;
    assert_eq!(world.events(&run).await, trail);
    assert_eq!(ready(&world).await, 1, "only its first message");
    set_schema(&world.env.store, &run, KEYS_VERSION).await;
    world.until(&run, "it is driven on", |view| view.steps[0].state == StepState::Dispatched).await;
    let driven = async || world.events(&run).await.len() > trail.len();
    let since = tokio::time::Instant::now();
    while !driven().await {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(since.elapsed() < Duration::from_secs(10), "its wake-up was kept for whoever knows it: {:?}", since.elapsed());
    world.stop().await;
}

/// A message of a newer wire on a queue of this one is refused and kept whole; the run does not miss it. Only a command and an objective,
/// which nobody repeats, are left to people.
#[tokio::test(start_paused = true)]
async fn a_newer_shape_on_our_queues_is_kept_and_its_run_goes_on() {
    let world = World::in_memory_without_executor(Llm::Offline, &config());
    let plan = json!({"steps": [exact(1, "6*7", &[]), step(2, "say so", &[1])]});
    let run = world.submit(json!({"objective": "x", "plan": plan, "options": {"respond": "results"}})).await;
    world.until(&run, "a step is dispatched", |view| view.steps.first().is_some_and(|s| s.state == StepState::Dispatched)).await;
    // A newer planner has published the step in a shape of its own, and no other message of it is there.
    take_all(&world, Queue::Steps).await;
    let bodies = [
        (Queue::Steps, json!({"version": 2, "run": {"id": run, "step": 1}, "invented": "later"})),
        (Queue::Reports, json!({"version": 2, "run": run})),
        (Queue::Completions, json!({"version": 2, "run": run})),
        (Queue::Controls, json!({"version": 2, "run": run, "do": "cancel"})),
        (Queue::Objectives, json!({"version": 2, "goal": "y"})),
    ];
    let mut world = world;
    world.start_executor(&config());
    for (n, (queue, body)) in bodies.iter().enumerate() {
        publish(&world, *queue, &format!("newer-{n}"), "of_tomorrow", body).await;
    }
    let result = world.client.wait(&run, Duration::from_secs(300)).await.unwrap();
    assert_eq!(result.status, RunStatus::Succeeded);
    let mut kept: Vec<(String, Value, String)> =
        world.env.store.dead_letters(10).await.unwrap().iter().map(|text| letter(text)).collect();
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    let refused = "version 2 is not supported, this service speaks version 1";
    let mut all: Vec<(String, Value, String)> =
        bodies.into_iter().map(|(queue, body)| (queue.name(world.prefix()), body, refused.to_owned())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(kept, all);
    world.stop().await;
}

/// Queue, body and reason of a dead letter that was kept.
fn letter(text: &str) -> (String, Value, String) {
    let letter: Value = serde_json::from_str(text).unwrap();
    let part = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
    (part("queue"), serde_json::from_str(&part("body")).unwrap(), part("reason"))
}

async fn take_all(world: &World, queue: Queue) {
    let mut consumer = world.env.broker.consume(queue, 100);
    while world.env.broker.depth(queue).await.unwrap() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    while let Ok(delivery) = tokio::time::timeout(Duration::from_millis(10), consumer.next()).await {
        assert!(delivery.ack().await);
    }
}
