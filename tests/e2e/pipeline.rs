//! Objectives in, answers out.

use common::event::EventType;
use common::id::StepNumber;
use common::message::Queue;
use common::run::{Outcome, RunStatus};
use common::store::Store;
use lapin::BasicProperties;
use lapin::types::ShortString;
use serde_json::{Value, json};
use support::fake_openai::{FakeOpenAi, Script, ScriptedMove};
use support::stack::Stack;

/// A plan of exact steps: (number, expression or reference, dependencies).
fn exact(steps: Value) -> Value {
    json!({"objective": "calculate", "plan": {"steps": steps}, "options": {"respond": "results"}})
}

fn calculate(number: u32, expression: Value, depends_on: &[u32]) -> Value {
    json!({
        "step_number": number,
        "description": format!("step {number}"),
        "tool_hint": "calculate",
        "arguments": {"expression": expression},
        "depends_on": depends_on,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exact_run_needs_no_model() {
    let (stack, _services) = Stack::running(&[]).await;
    let plan = json!([
        calculate(1, json!("2^100"), &[]),
        calculate(2, json!({"$result": 1}), &[1]),
        calculate(3, json!("15% of 240"), &[]),
        {"step_number": 4, "description": "sum", "tool_hint": "analyze", "depends_on": [2, 3],
         "arguments": {"numbers": [{"$result": 3}, 4]}},
    ]);
    let run = stack.objective("exact", exact(plan)).await;
    let result = stack.result(&run).await;
    assert_eq!(result.status, RunStatus::Succeeded, "{result:?}");
    assert_eq!((result.model.as_deref(), result.usage.model_calls, result.usage.tool_calls), (None, 0, 4));
    let answer: Value = serde_json::from_str(result.final_response.as_deref().unwrap()).unwrap();
    assert_eq!(answer["1"], "1267650600228229401496703205376");
    assert_eq!(answer["2"], answer["1"]);
    assert_eq!(answer["3"], "36");
    assert_eq!(answer["4"]["sum"], 40);
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_plans_calls_tools_and_answers() {
    let script = Script::default()
        .plan(|_| {
            json!({"steps": [
                {"step_number": 1, "description": "15% of 240", "tool_hint": "calculate", "depends_on": []},
                {"step_number": 2, "description": "say it kindly", "tool_hint": null, "depends_on": [1]},
            ]})
        })
        .act(|request| match (request.prompt().contains("say it kindly"), request.has_tool_output()) {
            (true, _) => ScriptedMove::Answer("It is 36, dear.".into()),
            (false, false) => ScriptedMove::Call("calculate", json!({"expression": "15% of 240"})),
            (false, true) => ScriptedMove::Answer("36".into()),
        })
        .answer(|_| "The answer is 36.".into());
    let fake = FakeOpenAi::scripted(script).await;
    let url = fake.base_url();
    let (stack, _services) =
        Stack::running(&[("OPENAI_BASE_URL", &url), ("OPENAI_API_KEY", "sk-test"), ("OPENAI_MODEL", "fake-1")]).await;
    let run = stack.objective("modelled", json!({"objective": "What is 15% of 240?"})).await;
    let result = stack.result(&run).await;
    assert_eq!(result.status, RunStatus::Succeeded, "{result:?}");
    assert_eq!(result.final_response.as_deref(), Some("The answer is 36."));
    assert_eq!(result.step_results[0].result, "36");
    assert_eq!(result.step_results[0].tool.as_deref(), Some("calculate"));
    assert_eq!(result.usage.model_calls, 5, "plan, two turns of step 1, one of step 2, answer: {:?}", result.usage);
    assert!(result.usage.input_tokens > 0 && !result.usage.estimated);
    // The second step saw the first one's result.
    assert!(fake.requests().iter().any(|request| request.prompt().contains("say it kindly") && request.prompt().contains("36")));
    // The audit trail tells the whole story, in order.
    let events = stack.store().events(&run, "", 1000).await.unwrap();
    let kinds: Vec<EventType> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds.first(), Some(&EventType::RunOpened));
    assert_eq!(kinds.last(), Some(&EventType::RunFinished));
    assert_eq!(kinds.iter().filter(|kind| **kind == EventType::ModelCalled).count(), 5);
    assert_eq!(kinds.iter().filter(|kind| **kind == EventType::ToolCalled).count(), 1);
    assert_eq!(kinds.iter().filter(|kind| **kind == EventType::StepFinished).count(), 2);
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_barrier() {
    // 1 -> 2 (held by the model), 3 -> 4: 4 ends while 2 has not.
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let script = Script::default()
        .plan(|_| {
            json!({"steps": [
                {"step_number": 1, "description": "first", "depends_on": []},
                {"step_number": 2, "description": "slow one", "depends_on": [1]},
                {"step_number": 3, "description": "third", "depends_on": []},
                {"step_number": 4, "description": "fourth", "depends_on": [3]},
            ]})
        })
        .act(|_| ScriptedMove::Answer("done".into()))
        .answer(|_| "all done".into());
    let fake = FakeOpenAi::start(move |request| {
        let reply = script.respond(request);
        if request.prompt().contains("slow one") && !request.prompt().contains("third") {
            support::fake_openai::Behaviour::Held(held.clone(), Box::new(reply))
        } else {
            reply
        }
    })
    .await;
    let url = fake.base_url();
    let (stack, _services) = Stack::running(&[("OPENAI_BASE_URL", &url), ("OPENAI_MODEL", "fake-1")]).await;
    let run = stack.objective("no-barrier", json!({"objective": "four things"})).await;
    let store: Store = stack.store();
    stack
        .until("step 4 ends", async || {
            let snapshot = store.snapshot(&run).await.unwrap();
            snapshot.is_some_and(|s| s.view.steps.get(3).is_some_and(|step| step.state.outcome() == Some(Outcome::Succeeded)))
        })
        .await;
    let snapshot = store.snapshot(&run).await.unwrap().unwrap();
    assert_eq!(snapshot.view.steps[1].state.outcome(), None, "step 2 is still running");
    gate.add_permits(10);
    assert_eq!(stack.result(&run).await.status, RunStatus::Succeeded);
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_step_leaves_a_partial_answer() {
    let (stack, _services) = Stack::running(&[]).await;
    let plan = json!([calculate(1, json!("1/0"), &[]), calculate(2, json!("1+1"), &[1]), calculate(3, json!("2+2"), &[])]);
    let run = stack.objective("partial", exact(plan)).await;
    let result = stack.result(&run).await;
    assert_eq!(result.status, RunStatus::Partial, "{result:?}");
    let outcomes: Vec<Outcome> = result.step_results.iter().map(|step| step.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Skipped, Outcome::Succeeded]);
    assert!(result.step_results[0].error.as_deref().unwrap().contains("division by zero"), "{:?}", result.step_results[0]);
    assert_eq!(result.step_results[1].error.as_deref(), Some("step 1 did not succeed"));
    assert_eq!(result.step_results[1].step_number, StepNumber(2));
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_make_submissions_idempotent_and_replies_are_sent() {
    let (stack, _services) = Stack::running(&[]).await;
    let reply_to = stack.reply_queue().await;
    let body = exact(json!([calculate(1, json!("6*7"), &[])]));
    let properties = || {
        BasicProperties::default()
            .with_message_id(ShortString::from("order-66"))
            .with_reply_to(reply_to.as_str().into())
            .with_correlation_id(ShortString::from("c-1"))
    };
    stack.publish(Queue::Objectives, body.to_string().as_bytes(), properties()).await;
    let (reply, reply_properties) = stack.receive(&reply_to).await;
    let document: common::run::RunDocument = serde_json::from_slice(&reply).unwrap();
    assert_eq!((document.run_id.as_str(), document.status), ("order-66", RunStatus::Succeeded));
    assert_eq!(reply_properties.correlation_id().as_ref().map(|id| id.to_string()).as_deref(), Some("c-1"));
    // The same id again is the same run: nothing is done again, and the asker gets the same document.
    stack.publish(Queue::Objectives, body.to_string().as_bytes(), properties()).await;
    let (again, _) = stack.receive(&reply_to).await;
    assert_eq!(again, reply);
    // Without any id the planner stamps one.
    stack.publish(Queue::Objectives, body.to_string().as_bytes(), BasicProperties::default()).await;
    stack.until("two runs are listed", async || stack.store().list(0, 10).await.unwrap().len() == 2).await;
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wide_run_of_a_thousand_steps_ends() {
    let (stack, _services) = Stack::running(&[("PLANRELAY_PLAN_STEPS_MAX", "1000"), ("PLANRELAY_PARALLEL_STEPS", "50")]).await;
    let steps: Vec<Value> = (1..=1000).map(|n| calculate(n, json!(format!("{n}*{n}")), &[])).collect();
    let run = stack.objective("wide", exact(json!(steps))).await;
    let result = stack.result(&run).await;
    assert_eq!(result.status, RunStatus::Succeeded);
    assert!(result.step_results.iter().all(|s| s.result.as_str() == Some(&u64::from(s.step_number.0).pow(2).to_string())));
    stack.clean().await;
}
