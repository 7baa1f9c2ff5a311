//! The whole path in one process, on the in-memory broker and store.

use common::llm::Llm;
use common::run::RunStatus;
use serde_json::json;
use support::world::{World, config};

#[tokio::test]
async fn the_offline_model_answers() {
    let world = World::in_memory(Llm::Offline, &config());
    let result = world.run(json!({"objective": "What is 15% of 240, and how many words are in 'to be or not to be'?"})).await;
    assert_eq!(result.status, RunStatus::Succeeded, "{result:#?}");
    assert_eq!(result.model.as_deref(), Some("offline"));
    let answer = result.final_response.unwrap();
    assert!(answer.contains("36") && answer.contains('6'), "{answer}");
    world.stop().await;
}

#[tokio::test]
async fn a_refused_plan_of_ones_own_fails_the_run_with_the_complaints() {
    let world = World::in_memory(Llm::Offline, &config());
    let plan = json!({"steps": [{"step_number": 1, "description": "x", "tool_hint": "rm", "depends_on": [2]}]});
    let result = world.run(json!({"objective": "x", "plan": plan})).await;
    assert_eq!(result.status, RunStatus::Failed);
    let error = result.error.unwrap();
    assert!(error.contains("tool_hint \"rm\" is not a known tool, use one of: calculate, analyze"), "{error}");
    world.stop().await;
}
