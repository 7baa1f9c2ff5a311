//! Steps that end whoever runs them, and messages that nobody can handle: they end, and nothing else does.

use common::limits::CLAIMS_MAX;
use common::message::Queue;
use common::run::{Outcome, RunStatus};
use serde_json::{Value, json};
use support::stack::{Stack, amqp_url};
use support::stores::redis_url;
use tokio::time::Instant;

use super::{KINDS, Work, all_end, sums};

/// A plan with one step that the model keeps for ever, and others that need none.
fn poisoned() -> Value {
    let exact = |number: u32, depends_on: &[u32]| {
        json!({"step_number": number, "description": "a sum", "tool_hint": "calculate", "arguments": {"expression": "20+22"},
               "depends_on": depends_on})
    };
    let steps = json!([{"step_number": 1, "description": KINDS[1].0}, exact(2, &[]), exact(3, &[2])]);
    json!({"objective": "poison", "plan": {"steps": steps}, "options": {"respond": "results", "replan": "never"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_ends_its_executors_is_closed_and_its_neighbours_go_on() {
    let work = Work::new().await;
    let (stack, mut services) = work.stack(&amqp_url(), &redis_url(), &[]).await;
    // One executor: every neighbour is in its hands, or waits in its prefetch, when it dies.
    services.drain(2..3);
    let run = stack.objective("poison", poisoned()).await;
    let mut neighbours = Vec::new();
    for death in 0..CLAIMS_MAX {
        stack.until("the step is claimed", async || work.asked() > death as usize).await;
        neighbours.extend(sums(&stack, &format!("neighbours-{death}")).await);
        services[1].kill();
        services[1] = stack.start("executor");
    }
    let since = Instant::now();
    let result = stack.result(&run).await;
    let outcomes: Vec<Outcome> = result.step_results.iter().map(|step| step.outcome).collect();
    assert_eq!(result.status, RunStatus::Partial, "{result:#?}");
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Succeeded, Outcome::Succeeded]);
    let why = result.step_results[0].error.as_deref().unwrap_or_default();
    assert!(why.contains("5 executors ended while they ran this step"), "{why}");
    all_end(&stack, "a step has ended five executors", &neighbours, since).await;
    stack.clean().await;
}

/// The dead-letter consumer sends what it finds again, and closes what keeps coming back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_messages_become_dead_letters_is_closed() {
    let stack = Stack::new(&[]).await;
    let (_planner, _summarizer) = (stack.start("planner"), stack.start("summarizer"));
    stack.queues_exist().await;
    let step = json!({"step_number": 1, "description": "a sum", "tool_hint": "calculate", "arguments": {"expression": "1+1"}});
    let options = json!({"respond": "results", "replan": "never"});
    let run = stack.objective("dead", json!({"objective": "x", "plan": {"steps": [step]}, "options": options})).await;
    for _ in 0..=CLAIMS_MAX {
        let (body, properties) = stack.receive(&Queue::Steps.name(stack.prefix())).await;
        stack.publish(Queue::Dead, &body, properties).await;
    }
    let result = stack.result(&run).await;
    assert_eq!(result.status, RunStatus::Failed, "{result:#?}");
    let why = result.step_results[0].error.as_deref().unwrap_or_default();
    assert!(why.contains("became dead letters too often"), "{why}");
    assert_eq!(stack.store().dead_letters(100).await.unwrap().len(), 1 + CLAIMS_MAX as usize, "all of them are kept for people");
    stack.clean().await;
}
