//! Commands and re-plans on real processes, through the command line and plain AMQP, with services that die in between.

use std::sync::Arc;

use common::event::EventType;
use common::message::{ControlReply, Queue};
use common::run::{Outcome, RunStatus};
use lapin::BasicProperties;
use serde_json::json;
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Script, ScriptedMove};
use support::plans::exact;
use support::stack::Stack;
use tokio::sync::Semaphore;

/// A model that never answers a step, and one that waits for the gate with patches.
async fn model(held: Purpose) -> (FakeOpenAi, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let script = Script::default().act(|_| ScriptedMove::Answer("done".into())).replan(|_| {
        let mut new = exact(3, "6*7", &[]);
        new["replaces"] = 1.into();
        json!({"decision": "revise", "reason": "another sum", "steps": [new], "drop": []})
    });
    let inner = gate.clone();
    let fake = FakeOpenAi::start(move |request| {
        let reply = script.respond(request);
        if request.purpose() == held { Behaviour::Held(inner.clone(), Box::new(reply)) } else { reply }
    })
    .await;
    (fake, gate)
}

/// What `planrelay` printed, and its exit code.
async fn planrelay(stack: &Stack, arguments: &[&str]) -> (String, i32) {
    let output = stack.planrelay(arguments).await;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (text, output.status.code().expect("an exit code"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_cancelled_from_the_command_line() {
    let (fake, _closed_gate) = model(Purpose::Act).await;
    let url = fake.base_url();
    let (stack, _processes) = Stack::running(&[("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1")]).await;
    let plan = json!({"steps": [exact(1, "6*7", &[]), {"step_number": 2, "description": "slow", "depends_on": [1]}]});
    let run = stack.objective("doomed", json!({"objective": "x", "plan": plan})).await;
    tokio::time::timeout(support::stack::PATIENCE, fake.wait_for_calls(1)).await.unwrap();
    let (text, code) = planrelay(&stack, &["explain", "doomed"]).await;
    assert!(code == 0 && text.contains("running on executor-"), "{text}");
    let (text, code) = planrelay(&stack, &["cancel", "doomed", "--by", "alice", "--reason", "enough"]).await;
    assert_eq!(code, 0, "{text}");
    let result = stack.result(&run).await;
    assert_eq!((result.status, result.step_results[0].outcome), (RunStatus::Cancelled, Outcome::Succeeded), "{result:#?}");
    let (text, code) = planrelay(&stack, &["cancel", "doomed"]).await;
    assert!(code == 0 && text.contains("cancelled by alice: enough"), "{text}");
    let (text, code) = planrelay(&stack, &["pause", "doomed"]).await;
    assert!(code == 1 && text.contains("has ended"), "{text}");
    let (text, code) = planrelay(&stack, &["cancel", "nobody"]).await;
    assert!(code == 1 && text.contains("there is no run nobody"), "{text}");
    let (_, code) = planrelay(&stack, &["watch", "doomed"]).await;
    assert_eq!(code, 3);
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_client_approves_and_is_answered() {
    let (stack, _processes) = Stack::running(&[]).await;
    let plan = json!({"steps": [exact(1, "6*7", &[])]});
    let options = json!({"approve": "plan", "respond": "results"});
    let run = stack.objective("asked", json!({"objective": "x", "plan": plan, "options": options})).await;
    stack.until("the plan waits", async || stack.store().status(&run).await.unwrap() == Some(RunStatus::AwaitingApproval)).await;
    let (text, code) = planrelay(&stack, &["show", "asked"]).await;
    assert!(code == 0 && text.contains("approve"), "{text}");
    let queue = stack.reply_queue().await;
    let properties = || {
        let properties = BasicProperties::default().with_reply_to(queue.as_str().into());
        properties.with_correlation_id("c-1".into()).with_message_id("decision-1".into())
    };
    let command = json!({"run_id": "asked", "command": "approve", "by": "alice", "reason": "fine"}).to_string();
    // The same message twice is one decision, answered twice.
    for _ in 0..2 {
        stack.publish(Queue::Controls, command.as_bytes(), properties()).await;
        let (body, properties) = stack.receive(&queue).await;
        let reply: ControlReply = serde_json::from_slice(&body).unwrap();
        assert_eq!(properties.correlation_id().as_ref().map(|id| id.as_str()), Some("c-1"));
        assert_eq!(
            (reply.answer, reply.message.as_str()),
            (common::message::Answer::Accepted, "the plan is approved by alice: fine")
        );
    }
    assert_eq!(stack.result(&run).await.status, RunStatus::Succeeded);
    let events = stack.store().events(&run, "", 1_000).await.unwrap();
    assert_eq!(events.iter().filter(|event| event.kind == EventType::Controlled).count(), 1);
    let bad = json!({"run_id": "asked", "command": "explode"}).to_string();
    stack.publish(Queue::Controls, bad.as_bytes(), BasicProperties::default()).await;
    stack.until("the bad command is a dead letter", async || !stack.store().dead_letters(10).await.unwrap().is_empty()).await;
    stack.clean().await;
}

/// A planner dies while the model thinks about a patch; another one takes the re-plan over, and there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planner_may_die_while_it_plans_again() {
    let (fake, gate) = model(Purpose::Replan).await;
    let url = fake.base_url();
    let stack = Stack::new(&[("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1")]).await;
    let mut doomed = stack.start("planner");
    let (_executor, _summarizer) = (stack.start("executor"), stack.start("summarizer"));
    stack.queues_exist().await;
    let plan = json!({"steps": [exact(1, "1/0", &[]), exact(2, "1+1", &[1])]});
    let run = stack.objective("replanned", json!({"objective": "x", "plan": plan, "options": {"respond": "results"}})).await;
    tokio::time::timeout(support::stack::PATIENCE, fake.wait_for_calls(1)).await.unwrap();
    doomed.kill();
    let _heir = stack.start("planner");
    gate.add_permits(100);
    let result = stack.result(&run).await;
    assert_eq!((result.status, result.revision), (RunStatus::Succeeded, 2), "{result:#?}");
    assert_eq!(result.final_response.as_deref(), Some("{\"2\":\"2\",\"3\":\"42\"}"));
    let events = stack.store().events(&run, "", 1_000).await.unwrap();
    assert_eq!(events.iter().filter(|event| event.kind == EventType::PlanStored).count(), 2);
    stack.clean().await;
}

/// A run that failed is retried from the command line, and its answer comes out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_run_is_retried_from_the_command_line() {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let state = broken.clone();
    let script = Script::default().act(move |_| match state.load(std::sync::atomic::Ordering::SeqCst) {
        true => ScriptedMove::Impossible("closed today".into()),
        false => ScriptedMove::Answer("bread".into()),
    });
    let fake = FakeOpenAi::scripted(script).await;
    let url = fake.base_url();
    let (stack, _processes) = Stack::running(&[("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1")]).await;
    let plan = json!({"steps": [{"step_number": 1, "description": "buy bread", "depends_on": []}]});
    let run = stack.objective("again", json!({"objective": "x", "plan": plan, "options": {"replan": "never"}})).await;
    assert_eq!(stack.result(&run).await.status, RunStatus::Failed);
    broken.store(false, std::sync::atomic::Ordering::SeqCst);
    let (text, code) = planrelay(&stack, &["retry", "again", "--by", "alice"]).await;
    assert_eq!(code, 0, "{text}");
    let (text, code) = planrelay(&stack, &["result", "--wait", "again"]).await;
    assert!(code == 0 && text.contains("the answer"), "{text}");
    stack.clean().await;
}
