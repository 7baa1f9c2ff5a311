//! Runs obey the person who owns them: commands, approval, and the reason for every wait. In memory and on real
//! servers.

use std::sync::Arc;
use std::time::Duration;

use common::event::EventType;
use common::id::RunId;
use common::llm::Llm;
use common::message::Answer;
use common::run::{HaltKind, Outcome, RunDocument, RunStatus, StepState, Verdict};
use common::wait::Wait;
use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Script, ScriptedMove};
use support::plans::{exact, step};
use support::stack::PATIENCE;
use support::world::{Backend, World, config, llm_config};
use tokio::sync::Semaphore;

pub(super) async fn on_both(scenario: impl AsyncFn(Backend)) {
    for backend in [Backend::Memory, Backend::Servers] {
        scenario(backend).await;
    }
}

pub(super) async fn with(backend: Backend, fake: &FakeOpenAi) -> World {
    World::on(backend, Llm::from_config(&llm_config(&fake.base_url())).unwrap(), &config()).await
}

/// A model whose moves in steps that say "slow" wait for the gate.
pub(super) async fn slow_model() -> (FakeOpenAi, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let (held, script) = (gate.clone(), Script::default().act(|_| ScriptedMove::Answer("done".into())));
    let fake = FakeOpenAi::start(move |request| {
        let reply = script.respond(request);
        let slow = request.purpose() == Purpose::Act && request.prompt().contains("slow");
        if slow { Behaviour::Held(held.clone(), Box::new(reply)) } else { reply }
    })
    .await;
    (fake, gate)
}

pub(super) fn outcomes(result: &RunDocument) -> Vec<Outcome> {
    result.step_results.iter().map(|step| step.outcome).collect()
}

async fn result(world: &World, run: &RunId) -> RunDocument {
    world.client.wait(run, PATIENCE).await.expect("the run ends")
}

async fn running(world: &World, run: &RunId, number: usize) {
    world.until(run, "the step runs", |view| view.steps.get(number - 1).is_some_and(|s| s.state == StepState::Running)).await;
}

#[tokio::test]
async fn cancel_aborts_what_runs_and_keeps_what_is_done() {
    on_both(async |backend| {
        let (fake, _closed_gate) = slow_model().await;
        let world = with(backend, &fake).await;
        let plan = json!({"steps": [exact(1, "6*7", &[]), step(2, "slow", &[1]), exact(3, "1+1", &[2])]});
        let run = world.submit(json!({"objective": "x", "plan": plan})).await;
        running(&world, &run, 2).await;
        let reply = world.control(&run, json!({"command": "cancel", "by": "alice", "reason": "too slow"})).await;
        assert_eq!(reply.answer, Answer::Accepted, "{reply:?}");
        // The gate never opens: the run can only end because its model request is not waited for any more.
        let result = result(&world, &run).await;
        assert_eq!(result.status, RunStatus::Cancelled, "{result:#?}");
        assert_eq!(outcomes(&result), [Outcome::Succeeded, Outcome::Cancelled, Outcome::Cancelled]);
        assert_eq!(result.step_results[0].result, "42");
        let halt = result.halt.clone().unwrap();
        assert_eq!((halt.kind, halt.reason.as_str()), (HaltKind::Cancelled, "cancelled by alice: too slow"));
        // The first decision stands, and whoever comes later is told.
        let again = world.control(&run, json!({"command": "cancel", "by": "bob"})).await;
        assert_eq!(again.answer, Answer::Repeated);
        assert!(again.message.contains("cancelled by alice: too slow"), "{again:?}");
        for command in ["pause", "resume", "retry", "approve"] {
            assert_eq!(world.control(&run, json!({"command": command})).await.answer, Answer::Refused, "{command}");
        }
        let events = world.events(&run).await;
        let controls: Vec<&Value> = events.iter().filter(|e| e.kind == EventType::Controlled).map(|e| &e.data).collect();
        assert_eq!(controls.len(), 6, "all are in the audit trail");
        assert_eq!((controls[0]["by"].as_str(), controls[0]["reason"].as_str()), (Some("alice"), Some("too slow")));
        assert_eq!(self::result(&world, &run).await, result, "a cancelled run never changes");
        world.stop().await;
    })
    .await;
}

/// The executor's only slot is free again: another run's step gets it while the first one's model still does not answer.
#[tokio::test]
async fn cancel_frees_the_executor() {
    on_both(async |backend| {
        let (fake, _closed_gate) = slow_model().await;
        let mut config = config();
        config.run.concurrency = 1;
        let world = World::on(backend, Llm::from_config(&llm_config(&fake.base_url())).unwrap(), &config).await;
        let run = world.submit(json!({"objective": "x", "plan": {"steps": [step(1, "slow", &[])]}})).await;
        running(&world, &run, 1).await;
        world.control(&run, json!({"command": "cancel"})).await;
        let other = world
            .run(json!({"objective": "y", "plan": {"steps": [exact(1, "1+1", &[])]}, "options": {"respond": "results"}}))
            .await;
        assert_eq!(other.status, RunStatus::Succeeded);
        world.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_paused_run_starts_nothing_until_it_is_resumed() {
    on_both(async |backend| {
        let (fake, gate) = slow_model().await;
        let world = with(backend, &fake).await;
        let plan = json!({"steps": [step(1, "slow", &[]), exact(2, "1+1", &[1])]});
        let run = world.submit(json!({"objective": "x", "plan": plan, "options": {"respond": "results"}})).await;
        running(&world, &run, 1).await;
        assert_eq!(world.control(&run, json!({"command": "resume"})).await.answer, Answer::Refused);
        assert_eq!(world.control(&run, json!({"command": "pause", "by": "alice"})).await.answer, Answer::Accepted);
        assert_eq!(world.control(&run, json!({"command": "pause", "by": "bob"})).await.answer, Answer::Repeated);
        gate.add_permits(100);
        let view = world.until(&run, "the running step ends", |view| view.steps[0].state == StepState::Succeeded).await;
        assert_eq!((view.status, view.steps[1].state), (RunStatus::Paused, StepState::Ready));
        assert_eq!(view.steps[1].waiting, Some(Wait::Resume { by: "alice".into() }));
        assert_eq!(world.control(&run, json!({"command": "resume"})).await.answer, Answer::Accepted);
        assert_eq!(result(&world, &run).await.status, RunStatus::Succeeded);
        world.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_failed_run_goes_on_from_its_failed_steps() {
    on_both(async |backend| {
        let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let state = broken.clone();
        let script = Script::default().act(move |_| match state.load(std::sync::atomic::Ordering::SeqCst) {
            true => ScriptedMove::Fail { why: "the shop is closed".into(), retryable: false },
            false => ScriptedMove::Answer("bread".into()),
        });
        let fake = FakeOpenAi::scripted(script).await;
        let world = with(backend, &fake).await;
        let plan = json!({"steps": [exact(1, "6*7", &[]), step(2, "buy bread", &[1]), exact(3, "1+1", &[2])]});
        let options = json!({"respond": "results", "replan": "never"});
        let first = world.run(json!({"objective": "x", "plan": plan, "options": options})).await;
        let run = first.run_id.clone();
        assert_eq!(outcomes(&first), [Outcome::Succeeded, Outcome::Failed, Outcome::Skipped]);
        broken.store(false, std::sync::atomic::Ordering::SeqCst);
        let reply = world.control(&run, json!({"command": "retry", "by": "alice"})).await;
        assert_eq!((reply.answer, reply.status), (Answer::Accepted, Some(RunStatus::Running)), "{reply:?}");
        let second = result(&world, &run).await;
        assert_eq!(second.status, RunStatus::Succeeded, "{second:#?}");
        assert_eq!(second.step_results[1].result, "bread");
        let events = world.events(&run).await;
        let claims = events.iter().filter(|e| e.kind == EventType::Claimed && e.slot.as_deref() == Some("1")).count();
        assert_eq!(claims, 1, "finished work is kept");
        assert_eq!(world.control(&run, json!({"command": "retry"})).await.answer, Answer::Refused);
        // A watch from the beginning tells of both lives.
        let mut watch = world.client.watch(&run, "");
        let mut ends = 0;
        while let Some(event) = watch.next().await.unwrap() {
            ends += u32::from(event.kind == EventType::RunFinished);
        }
        assert_eq!(ends, 2);
        world.stop().await;
    })
    .await;
}

async fn awaiting(world: &World, objective: Value) -> RunId {
    let run = world.submit(objective).await;
    world.until(&run, "the plan waits", |view| view.status == RunStatus::AwaitingApproval).await;
    run
}

fn planned_by_model() -> Script {
    Script::default().plan(|request| match request.prompt().contains("in two steps") {
        true => json!({"steps": [step(1, "one", &[]), step(2, "two", &[1])]}),
        false => json!({"steps": [step(1, "all at once", &[])]}),
    })
}

#[tokio::test]
async fn a_plan_waits_for_approval_and_the_first_decision_wins() {
    on_both(async |backend| {
        let fake = FakeOpenAi::scripted(planned_by_model()).await;
        let world = with(backend, &fake).await;
        let run = awaiting(&world, json!({"objective": "x", "options": {"approve": "plan"}})).await;
        let view = world.client.show(&run).await.unwrap().unwrap();
        let quote = view.quote.clone().unwrap();
        assert_eq!((quote.steps, quote.tools_with_side_effects.len(), quote.critical_path.len()), (1, 0, 1), "{quote:?}");
        assert!(quote.model_calls >= 2 && quote.tokens > 0);
        assert!(matches!(view.steps[0].waiting, Some(Wait::Approval { .. })), "{view:#?}");
        let acts = || fake.requests().iter().filter(|request| request.purpose() == Purpose::Act).count();
        assert_eq!(acts(), 0, "nothing runs before it is approved");
        let wrong = world.control(&run, json!({"command": "approve", "revision": 7})).await;
        assert_eq!(wrong.answer, Answer::Refused, "{wrong:?}");
        let approved = world.control(&run, json!({"command": "approve", "by": "alice", "revision": 1})).await;
        assert_eq!(approved.answer, Answer::Accepted, "{approved:?}");
        let again = world.control(&run, json!({"command": "approve", "by": "bob"})).await;
        let late = world.control(&run, json!({"command": "reject", "by": "bob", "feedback": "no"})).await;
        assert_ne!(again.answer, Answer::Accepted);
        assert_eq!(late.answer, Answer::Refused);
        assert!(late.message.contains("alice") || late.message.contains("ended"), "{late:?}");
        assert_eq!(result(&world, &run).await.status, RunStatus::Succeeded);
        world.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_rejected_plan_is_made_again_with_the_feedback() {
    on_both(async |backend| {
        let fake = FakeOpenAi::scripted(planned_by_model()).await;
        let world = with(backend, &fake).await;
        let run = awaiting(&world, json!({"objective": "x", "options": {"approve": "plan"}})).await;
        let reply = world.control(&run, json!({"command": "reject", "feedback": "do it in two steps"})).await;
        assert_eq!(reply.answer, Answer::Accepted, "{reply:?}");
        let awaits = |view: &common::run::RunView| view.status == RunStatus::AwaitingApproval && view.revision == 2;
        let view = world.until(&run, "another plan waits", awaits).await;
        assert_eq!(view.steps.len(), 2, "{view:#?}");
        world.control(&run, json!({"command": "approve"})).await;
        let result = result(&world, &run).await;
        assert_eq!((result.status, result.step_results.len()), (RunStatus::Succeeded, 2), "{result:#?}");
        assert!(result.superseded.is_empty(), "what never started is not kept");
        world.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_edited_plan_runs_in_place_of_the_one_that_waits() {
    on_both(async |backend| {
        let fake = FakeOpenAi::scripted(planned_by_model()).await;
        let world = with(backend, &fake).await;
        let options = json!({"approve": "plan", "respond": "results"});
        let run = awaiting(&world, json!({"objective": "x", "options": options})).await;
        let bad = json!({"command": "edit", "plan": {"steps": [exact(1, "6*7", &[9])]}});
        let refused = world.control(&run, bad).await;
        assert_eq!(refused.answer, Answer::Refused);
        assert!(refused.message.contains("step 9, which does not exist"), "{refused:?}");
        let good = json!({"command": "edit", "by": "alice", "plan": {"steps": [exact(1, "6*7", &[])]}});
        assert_eq!(world.control(&run, good).await.answer, Answer::Accepted);
        let result = result(&world, &run).await;
        assert_eq!((result.status, result.revision), (RunStatus::Succeeded, 2), "{result:#?}");
        assert_eq!(result.final_response.as_deref(), Some("{\"1\":\"42\"}"));
        world.stop().await;
    })
    .await;
}

#[tokio::test]
async fn nobody_who_decides_is_a_decision() {
    on_both(async |backend| {
        let fake = FakeOpenAi::scripted(planned_by_model()).await;
        let world = with(backend, &fake).await;
        let options = json!({"approve": "plan", "approval_timeout_secs": 1});
        let result = world.run(json!({"objective": "x", "options": options})).await;
        assert_eq!(result.status, RunStatus::Cancelled, "{result:#?}");
        assert!(result.halt.unwrap().reason.contains("approved the plan in time"));
        world.stop().await;
    })
    .await;
}

#[tokio::test]
async fn every_wait_has_a_reason() {
    on_both(async |backend| {
        let (fake, gate) = slow_model().await;
        let world = with(backend, &fake).await;
        let plan =
            json!({"steps": [step(1, "slow", &[]), step(2, "slow, too", &[]), exact(3, "1+1", &[1, 2]), exact(4, "1+1", &[])]});
        let options = json!({"max_parallel_steps": 2, "respond": "results"});
        let run = world.submit(json!({"objective": "x", "plan": plan, "options": options})).await;
        running(&world, &run, 1).await;
        running(&world, &run, 2).await;
        let view = world.client.show(&run).await.unwrap().unwrap();
        assert!(matches!(&view.steps[0].waiting, Some(Wait::Running { worker, .. }) if worker == "test"), "{view:#?}");
        let waits = |n: usize| serde_json::to_value(&view.steps[n - 1].waiting).unwrap();
        assert_eq!(waits(3), json!({"for": "steps", "steps": [1, 2]}));
        assert_eq!(waits(4), json!({"for": "window", "in_flight": 2, "window": 2}));
        gate.add_permits(100);
        let result = result(&world, &run).await;
        assert_eq!((result.status, result.step_results[0].verdict), (RunStatus::Succeeded, Some(Verdict::Succeeded)));
        let view = world.client.show(&run).await.unwrap().unwrap();
        assert!(view.steps.iter().all(|step| step.waiting.is_none()) && view.waiting.is_empty(), "{view:#?}");
        world.stop().await;
    })
    .await;
}

/// A plan that needs approval holds no message: the planner can be away and come back, and the run is decided on all the same.
#[tokio::test(start_paused = true)]
async fn an_approval_outlives_every_planner() {
    let mut world = World::in_memory_without_executor(Llm::Offline, &config());
    let plan = json!({"steps": [exact(1, "6*7", &[])]});
    let options = json!({"approve": "plan", "respond": "results"});
    let run = world.submit(json!({"objective": "x", "plan": plan, "options": options})).await;
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    let status = world.client.status(&run).await.unwrap();
    assert_eq!(status, Some(RunStatus::AwaitingApproval));
    world.control(&run, json!({"command": "approve"})).await;
    world.start_executor(&config());
    assert_eq!(result(&world, &run).await.status, RunStatus::Succeeded);
    world.stop().await;
}

/// The judge of an exact call is asked again after a rate limit; the call itself, which may have effects, is not made again.
#[tokio::test]
async fn an_exact_call_is_made_once_however_often_it_is_judged() {
    on_both(async |backend| {
        let first = std::sync::atomic::AtomicBool::new(true);
        let script = Script::default().act(|_| ScriptedMove::Answer("it is".into()));
        let fake = FakeOpenAi::start(move |request| match first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            true => Behaviour::rate_limited(Some("1")),
            false => script.respond(request),
        })
        .await;
        let world = with(backend, &fake).await;
        let mut judged = exact(1, "6*7", &[]);
        judged["done_when"] = "it is a number".into();
        let options = json!({"respond": "results"});
        let result = world.run(json!({"objective": "x", "plan": {"steps": [judged]}, "options": options})).await;
        assert_eq!((result.status, result.step_results[0].result.clone()), (RunStatus::Succeeded, json!("42")), "{result:#?}");
        assert_eq!((result.usage.tool_calls, fake.calls()), (1, 2), "{:?}", result.usage);
        world.stop().await;
    })
    .await;
}
