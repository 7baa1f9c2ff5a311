//! Dead letters in memory: each does what its redelivery would have done, once, and none stands in the way of the others.

use std::sync::Arc;
use std::time::Duration;

use common::broker::memory::Memory;
use common::broker::{Broker, Envelope, Target};
use common::event::EventType;
use common::id::RunId;
use common::llm::Llm;
use common::message::{Answer, ControlReply, Queue};
use common::run::{RunDocument, RunStatus};
use common::store::{NewRun, RunRules};
use serde_json::{Value, json};
use support::stack::PATIENCE;
use support::world::{World, config};
use tokio::time::{sleep, timeout};

use support::plans::exact;

/// Where the tests are answered.
const ANSWERS: &str = "answers";
/// Why the letters are dead.
const REASON: &str = "handler panicked";

fn world() -> (World, Arc<Memory>) {
    let world = World::in_memory(Llm::Offline, &config());
    let Broker::Memory(memory) = &world.env.broker else { panic!("a world in memory") };
    let memory = memory.clone();
    memory.declare(ANSWERS);
    (world, memory)
}

fn letter(message_id: &str, kind: &str, body: &Value) -> Envelope {
    let envelope = Envelope::new(message_id.to_owned(), kind, body.to_string().into_bytes());
    Envelope { reply_to: Some(ANSWERS.to_owned()), correlation_id: Some("mine".to_owned()), ..envelope }
}

/// The handler of this message in `queue` has died.
async fn die(world: &World, queue: Queue, letter: Envelope) {
    let origin = Some(queue.name(world.prefix()));
    let letter = Envelope { reason: Some(REASON.to_owned()), origin, ..letter };
    world.env.broker.publish(Target::Queue(Queue::Dead), letter).await.unwrap();
}

/// Waits until so many letters are kept and none is being handled; then nothing more may be kept.
async fn all_handled(world: &World, memory: &Memory, letters: usize) {
    let kept = async || world.env.store.dead_letters(1_000).await.unwrap().len();
    let handled = async {
        while kept().await < letters || world.env.broker.depth(Queue::Dead).await.unwrap() > 0 || memory.unacknowledged() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, handled).await.expect("every letter is handled");
    assert_eq!(kept().await, letters, "each is kept once");
}

async fn answer(memory: &Memory, kind: &str) -> Vec<u8> {
    let answer = timeout(PATIENCE, memory.receive(ANSWERS)).await.expect("there is an answer");
    assert_eq!((answer.kind.as_str(), answer.correlation_id.as_deref()), (kind, Some("mine")));
    answer.body
}

async fn result(memory: &Memory) -> RunDocument {
    serde_json::from_slice(&answer(memory, "result").await).unwrap()
}

fn sum(run: Option<&str>) -> Value {
    let mut objective = json!({"objective": "x", "plan": {"steps": [exact(1, "6*7", &[])]}, "options": {"respond": "results"}});
    if let Some(run) = run {
        objective["run_id"] = run.into();
    }
    objective
}

#[tokio::test(start_paused = true)]
async fn a_command_is_carried_out_once_and_answered_each_time() {
    let (world, memory) = world();
    let mut objective = sum(None);
    objective["options"]["approve"] = "plan".into();
    let run = world.submit(objective).await;
    let waits = async || {
        world.until(&run, "it waits for approval", |view| view.status == RunStatus::AwaitingApproval).await;
    };
    waits().await;
    let cancel = letter("cancel", "control", &json!({"run_id": run, "command": "cancel"}));
    // Nobody would carry out a command that comes again to the wrong queue.
    die(&world, Queue::Objectives, cancel.clone()).await;
    all_handled(&world, &memory, 1).await;
    waits().await;
    for _ in 0..2 {
        die(&world, Queue::Controls, cancel.clone()).await;
        let reply: ControlReply = serde_json::from_slice(&answer(&memory, "control_reply").await).unwrap();
        assert_eq!((&reply.run_id, reply.answer), (&run, Answer::Accepted), "{reply:?}");
    }
    assert_eq!(world.client.wait(&run, PATIENCE).await.unwrap().status, RunStatus::Cancelled);
    all_handled(&world, &memory, 3).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_objective_without_an_id_gets_one() {
    let (world, memory) = world();
    die(&world, Queue::Objectives, letter("", "objective", &sum(None))).await;
    let result = result(&memory).await;
    assert_eq!((result.status, &result.step_results[0].result), (RunStatus::Succeeded, &json!("42")), "{result:#?}");
    all_handled(&world, &memory, 1).await;
    assert_eq!(world.client.list(10).await.unwrap().len(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_a_run_that_has_ended_is_answered() {
    let (world, memory) = world();
    world.run(sum(Some("ended"))).await;
    for kind in ["objective", "plan_owed"] {
        die(&world, Queue::Objectives, letter("another", kind, &sum(Some("ended")))).await;
        assert_eq!(result(&memory).await.run_id.as_str(), "ended");
    }
    all_handled(&world, &memory, 2).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_cannot_be_handled_is_given_up() {
    let (world, memory) = world();
    let run = RunId::parse("senseless").unwrap();
    let new = NewRun {
        request: "what a run without sense was asked for".to_owned(),
        objective: "x".to_owned(),
        window: 1,
        reply_to: None,
        correlation_id: None,
        traceparent: None,
        rules: RunRules::default(),
    };
    world.env.store.open_run(&run, &new).await.unwrap();
    die(&world, Queue::Objectives, letter("bad", "objective", &sum(Some(run.as_str())))).await;
    die(&world, Queue::Objectives, letter("good", "objective", &sum(Some("behind")))).await;
    assert_eq!(result(&memory).await.run_id.as_str(), "behind");
    all_handled(&world, &memory, 2).await;
    let taken_back = |event: &&common::event::Event| event.kind == EventType::TakenBack && event.data["why"] == REASON;
    assert_eq!(world.events(&run).await.iter().filter(taken_back).count(), 1, "one letter is one claim");
    world.stop().await;
}
