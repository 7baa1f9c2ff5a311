//! The whole path in one process, on the in-memory broker and store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::broker::{Broker, memory};
use common::env::Env;
use common::event::EventType;
use common::id::RunId;
use common::llm::Llm;
use common::message::Queue;
use common::relay;
use common::run::RunStatus;
use common::store::{NewRun, RunRules};
use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Script, ScriptedMove};
use support::world::{World, config, llm_config};

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

/// A world whose model is `fake`.
fn with(fake: &FakeOpenAi) -> World {
    World::in_memory(Llm::from_config(&llm_config(&fake.base_url())).unwrap(), &config())
}

fn lone_step() -> Value {
    json!({"steps": [{"step_number": 1, "description": "work it out", "tool_hint": "calculate", "depends_on": []}]})
}

#[tokio::test]
async fn a_bad_plan_is_repaired_with_the_complaints() {
    let script = Script::default()
        .plan(|request| {
            if request.prompt().contains("steps wait for each other in a circle") {
                lone_step()
            } else {
                json!({"steps": [
                    {"step_number": 1, "description": "a", "depends_on": [2]},
                    {"step_number": 2, "description": "b", "depends_on": [1]},
                ]})
            }
        })
        .act(|_| ScriptedMove::Answer("42".into()));
    let fake = FakeOpenAi::scripted(script).await;
    let world = with(&fake);
    let result = world.run(json!({"objective": "x"})).await;
    assert_eq!((result.status, result.plan.steps.len()), (RunStatus::Succeeded, 1), "{result:#?}");
    let events = world.env.store.events(&result.run_id, "", 100).await.unwrap();
    let refused = events.iter().find(|event| event.kind == EventType::PlanRefused).unwrap();
    assert!(refused.data["complaints"][0].as_str().unwrap().contains("circle"), "{refused:?}");
    world.stop().await;
}

/// A plan that stays bad: the run fails with the complaints after the first try and two repairs.
async fn plan_stays_refused(plan: Value, complaint: &str) {
    let fake = FakeOpenAi::scripted(Script::default().plan(move |_| plan.clone())).await;
    let world = with(&fake);
    let result = world.run(json!({"objective": "x"})).await;
    assert_eq!(result.status, RunStatus::Failed, "{result:#?}");
    assert!(result.error.as_deref().unwrap().contains(complaint), "{complaint:?} not in {:?}", result.error);
    let plans = fake.requests().iter().filter(|request| request.purpose() == Purpose::Plan).count();
    assert_eq!(plans, 3, "{complaint}");
    assert!(result.step_results.is_empty() && result.revision == 0);
    world.stop().await;
}

#[tokio::test]
async fn a_plan_that_stays_bad_fails_the_run() {
    let step = |n: u32| json!({"step_number": n, "description": "x", "depends_on": []});
    plan_stays_refused(json!({"steps": (1..=10_000).map(step).collect::<Vec<_>>()}), "has 10000 steps, at most 100").await;
    plan_stays_refused(json!({"steps": []}), "the plan has no steps").await;
    plan_stays_refused(json!({"steps": "none"}), "an array \"steps\"").await;
    plan_stays_refused(
        json!({"steps": [{"step_number": 1, "description": "x", "tool_hint": "shell"}]}),
        "\"shell\" is not a known tool",
    )
    .await;
    plan_stays_refused(json!({"steps": [{"step_number": "one", "description": "x"}]}), "step_number must be a whole number")
        .await;
}

#[tokio::test]
async fn endless_tool_calls_end() {
    let script = Script::default().plan(|_| lone_step()).act(|_| ScriptedMove::Call("calculate", json!({"expression": "1+1"})));
    let fake = FakeOpenAi::scripted(script).await;
    let world = with(&fake);
    let result = world.run(json!({"objective": "x"})).await;
    assert_eq!(result.status, RunStatus::Failed, "{result:#?}");
    let error = result.step_results[0].error.clone().unwrap();
    assert!(error.contains("no answer within 12 turns"), "{error}");
    assert!(fake.calls() < 40, "{} requests", fake.calls());
    world.stop().await;
}

#[tokio::test]
async fn a_tool_error_goes_back_to_the_model() {
    let script = Script::default().plan(|_| lone_step()).act(|request| {
        match (request.prompt().contains("division by zero"), request.has_tool_output()) {
            (true, _) => ScriptedMove::Answer("it cannot be divided".into()),
            (false, _) => ScriptedMove::Call("calculate", json!({"expression": "1/0"})),
        }
    });
    let fake = FakeOpenAi::scripted(script).await;
    let world = with(&fake);
    let result = world.run(json!({"objective": "x"})).await;
    assert_eq!(result.status, RunStatus::Succeeded, "{result:#?}");
    assert_eq!(result.step_results[0].result, "it cannot be divided");
    world.stop().await;
}

/// The first request for a step is answered with `fault`, the others as they should be.
async fn first_act_fails(fault: Behaviour) -> (common::run::RunDocument, Vec<EventType>) {
    let script = Script::default().plan(|_| lone_step()).act(|_| ScriptedMove::Answer("42".into()));
    let first = AtomicBool::new(true);
    let fake = FakeOpenAi::start(move |request| {
        let fails = request.purpose() == Purpose::Act && first.swap(false, Ordering::SeqCst);
        if fails { fault.clone() } else { script.respond(request) }
    })
    .await;
    let world = with(&fake);
    let result = world.run(json!({"objective": "x"})).await;
    let events = world.env.store.events(&result.run_id, "", 100).await.unwrap();
    world.stop().await;
    (result, events.iter().map(|event| event.kind).collect())
}

#[tokio::test]
async fn a_failing_endpoint_costs_an_attempt_and_a_rate_limit_does_not() {
    let (result, events) = first_act_fails(Behaviour::status(503, "busy")).await;
    assert_eq!((result.status, result.step_results[0].attempts), (RunStatus::Succeeded, 2), "{result:#?}");
    assert!(events.contains(&EventType::StepRetried));
    let (result, events) = first_act_fails(Behaviour::rate_limited(Some("1"))).await;
    assert_eq!((result.status, result.step_results[0].attempts), (RunStatus::Succeeded, 1), "{result:#?}");
    assert!(events.contains(&EventType::Parked) && !events.contains(&EventType::StepRetried));
    let (result, events) = first_act_fails(Behaviour::error(401, "invalid_api_key", "no such key")).await;
    assert_eq!((result.status, result.step_results[0].attempts), (RunStatus::Failed, 1), "{result:#?}");
    assert!(!events.contains(&EventType::StepRetried) && result.error.unwrap().contains("no such key"));
}

#[tokio::test]
async fn a_rate_limited_planner_and_summarizer_wait_and_go_on() {
    let script = Script::default().plan(|_| lone_step()).act(|_| ScriptedMove::Answer("42".into())).answer(|_| "done".into());
    let (plan, answer) = (AtomicBool::new(true), AtomicBool::new(true));
    let fake = FakeOpenAi::start(move |request| {
        let limited = match request.purpose() {
            Purpose::Plan => plan.swap(false, Ordering::SeqCst),
            Purpose::Answer => answer.swap(false, Ordering::SeqCst),
            Purpose::Act | Purpose::Replan => false,
        };
        if limited { Behaviour::rate_limited(Some("1")) } else { script.respond(request) }
    })
    .await;
    let world = with(&fake);
    let result = world.run(json!({"objective": "x"})).await;
    assert_eq!((result.status, result.final_response.as_deref()), (RunStatus::Succeeded, Some("done")), "{result:#?}");
    world.stop().await;
}

/// Messages vanish from the queue; nobody ever reports those steps. Wake-ups send them again, and the run ends.
#[tokio::test(start_paused = true)]
async fn lost_messages_are_sent_again() {
    messages_vanish(false).await;
}

/// The hint at the run's next wake-up vanishes with them: the sweep over the list of runs finds the run.
#[tokio::test(start_paused = true)]
async fn a_lost_wake_up_is_hinted_at_again() {
    messages_vanish(true).await;
}

async fn messages_vanish(with_the_hint: bool) {
    let mut world = World::in_memory_without_executor(Llm::Offline, &config());
    let step = |n: u32| json!({"step_number": n, "description": "x", "tool_hint": "calculate", "arguments": {"expression": format!("{n}+1")}});
    let plan = json!({"steps": (1..=30).map(step).collect::<Vec<_>>()});
    // A consumer that takes messages off the queue and does nothing.
    let mut thief = world.env.broker.consume(Queue::Steps, 5);
    let run = world.submit(json!({"objective": "x", "plan": plan, "options": {"respond": "results"}})).await;
    for _ in 0..5 {
        assert!(thief.next().await.ack().await);
    }
    drop(thief);
    if with_the_hint {
        world.env.store.settle(&run).await.unwrap();
    }
    world.start_executor(&config());
    let result = world.client.wait(&run, Duration::from_secs(600)).await.unwrap();
    assert_eq!(result.status, RunStatus::Succeeded, "{result:#?}");
    let events = world.env.store.events(&run, "", 1000).await.unwrap();
    let lost =
        events.iter().filter(|event| event.kind == EventType::TakenBack && event.data["why"] == "not claimed in time").count();
    assert_eq!(lost, 5);
    world.stop().await;
}

/// Found by the simulation: Redis had lost the run with its last writes, and the message that opened it again named nobody to answer.
#[tokio::test]
async fn an_objective_that_is_published_again_tells_whom_to_answer() {
    let world = World::in_memory(Llm::Offline, &config());
    let run = RunId::parse("again").unwrap();
    let new = NewRun {
        request: json!({"objective": "2 + 2"}).to_string(),
        objective: "2 + 2".into(),
        window: 1,
        reply_to: Some("answers".into()),
        correlation_id: Some("c-1".into()),
        traceparent: None,
        rules: RunRules::default(),
    };
    let broker = memory::Memory::new("elsewhere");
    let env = Env { broker: Broker::Memory(Arc::clone(&broker)), ..world.env.clone() };
    env.store.open_run(&run, &new).await.unwrap();
    relay::objective(&env, &run).await.unwrap();
    let message = env.broker.consume(Queue::Objectives, 1).next().await;
    let envelope = message.envelope();
    assert_eq!(envelope.reply_to.as_deref(), Some("answers"));
    assert_eq!(envelope.correlation_id.as_deref(), Some("c-1"));
    assert_eq!(envelope.kind, relay::PLAN_OWED);
    world.stop().await;
}
