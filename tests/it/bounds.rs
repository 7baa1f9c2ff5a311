//! Runs keep within their deadline and their budgets, and say what became of what they could not do. In memory and on real servers.

use std::sync::Arc;
use std::time::Duration;

use common::llm::Llm;
use common::run::{HaltKind, Outcome, RunStatus};
use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Script};
use support::plans::{exact, step};
use support::world::{World, config, llm_config};
use tokio::sync::Semaphore;

use super::obedience::{on_both, outcomes, slow_model, with};

#[tokio::test]
async fn at_the_deadline_the_answer_is_written_from_what_exists() {
    on_both(async |backend| {
        let (fake, _closed_gate) = slow_model().await;
        let world = with(backend, &fake).await;
        let plan = json!({"steps": [exact(1, "6*7", &[]), step(2, "slow", &[])]});
        let result = world.run(json!({"objective": "x", "plan": plan, "options": {"deadline_secs": 1}})).await;
        assert_eq!(
            (result.status, outcomes(&result)),
            (RunStatus::Partial, vec![Outcome::Succeeded, Outcome::Cancelled]),
            "{result:#?}"
        );
        assert_eq!(result.halt.unwrap().kind, HaltKind::Deadline);
        assert!(result.final_response.is_some());
        world.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_budget_is_kept_and_the_answer_has_its_share() {
    on_both(async |backend| {
        let fake = FakeOpenAi::scripted(Script::default()).await;
        let world = with(backend, &fake).await;
        let steps: Vec<Value> = (1..=8).map(|n| step(n, &format!("step number {n}"), &[])).collect();
        let options = json!({"max_model_calls": 6, "max_parallel_steps": 1});
        let result = world.run(json!({"objective": "x", "plan": {"steps": steps}, "options": options})).await;
        assert_eq!(result.status, RunStatus::Partial, "{result:#?}");
        assert!(result.usage.model_calls <= 6, "{:?}", result.usage);
        assert_eq!(fake.calls() as u64, result.usage.model_calls, "every request is counted, and no other was made");
        assert!(fake.requests().iter().any(|request| request.purpose() == Purpose::Answer), "one was kept for the answer");
        let halt = result.halt.clone().unwrap();
        assert_eq!((halt.kind, halt.reason.as_str()), (HaltKind::Budget, "max_model_calls is used up"));
        assert!(outcomes(&result).contains(&Outcome::Succeeded) && outcomes(&result).contains(&Outcome::Cancelled));
        world.stop().await;
    })
    .await;
}

#[tokio::test]
async fn tokens_and_tool_calls_are_budgets_too() {
    on_both(async |backend| {
        let fake = FakeOpenAi::scripted(Script::default()).await;
        let world = with(backend, &fake).await;
        let steps: Vec<Value> = (1..=8).map(|n| exact(n, &format!("{n}+1"), &[])).collect();
        let options = json!({"max_tool_calls": 3, "respond": "results"});
        let result = world.run(json!({"objective": "x", "plan": {"steps": steps}, "options": options})).await;
        assert_eq!((result.status, result.usage.tool_calls), (RunStatus::Partial, 3), "{result:#?}");
        let options = json!({"max_tokens": 1});
        let result = world.run(json!({"objective": "x", "options": options})).await;
        assert_eq!((result.status, result.usage.model_calls), (RunStatus::Failed, 0), "{result:#?}");
        assert!(result.error.unwrap().contains("max_tokens is used up"));
        let result = world.run(json!({"objective": "x", "options": {"max_cost": 1.5}})).await;
        assert!(result.error.unwrap().contains("max_cost cannot be kept"), "no price is known for the model");
        world.stop().await;
    })
    .await;
}

/// What a dropped request took nobody knows: under a budget it counts at its estimate.
#[tokio::test]
async fn a_request_without_an_answer_counts_under_a_budget() {
    on_both(async |backend| {
        let script = Script::default();
        let fake = FakeOpenAi::start(move |request| match request.purpose() {
            Purpose::Act => Behaviour::Silence,
            Purpose::Plan | Purpose::Replan | Purpose::Answer => script.respond(request),
        })
        .await;
        let mut config = config();
        config.run.step_timeout = Duration::from_millis(500);
        let world = World::on(backend, Llm::from_config(&llm_config(&fake.base_url())).unwrap(), &config).await;
        let plan = json!({"steps": [step(1, "think", &[]), exact(2, "1+1", &[])]});
        let options = json!({"respond": "results", "replan": "never", "max_tokens": 100_000});
        let result = world.run(json!({"objective": "x", "plan": plan, "options": options})).await;
        assert_eq!(
            (result.status, outcomes(&result)),
            (RunStatus::Partial, vec![Outcome::Failed, Outcome::Succeeded]),
            "{result:#?}"
        );
        assert_eq!((result.usage.model_calls, result.usage.estimated), (1, true), "{:?}", result.usage);
        assert!(result.usage.input_tokens > 300, "the prompt, and the reply at the most: {:?}", result.usage);
        world.stop().await;
    })
    .await;
}

/// No budget is left for a written answer: the results are listed, and the run says that this is less than was asked for.
#[tokio::test]
async fn an_answer_that_cannot_be_paid_for_is_a_list_of_results() {
    on_both(async |backend| {
        let fake = FakeOpenAi::scripted(Script::default()).await;
        let world = with(backend, &fake).await;
        let plan = json!({"steps": [exact(1, "6*7", &[])]});
        let result = world.run(json!({"objective": "x", "plan": plan, "options": {"max_tokens": 50}})).await;
        assert_eq!((result.status, outcomes(&result)), (RunStatus::Partial, vec![Outcome::Succeeded]), "{result:#?}");
        assert!(result.final_response.unwrap().contains("42"));
        let halt = result.halt.unwrap();
        assert!(halt.kind == HaltKind::Budget && halt.reason.contains("max_tokens is used up"), "{halt:?}");
        assert_eq!(fake.calls(), 0);
        world.stop().await;
    })
    .await;
}

/// An endpoint that asks for an hour's patience does not keep a run beyond its deadline.
#[tokio::test]
async fn nobody_waits_for_an_answer_beyond_the_deadline() {
    on_both(async |backend| {
        let (fake, _gate) = limited_answers().await;
        let world = with(backend, &fake).await;
        let plan = json!({"steps": [exact(1, "6*7", &[]), step(2, "slow", &[])]});
        let result = world.run(json!({"objective": "x", "plan": plan, "options": {"deadline_secs": 1}})).await;
        assert_eq!(
            (result.status, outcomes(&result)),
            (RunStatus::Partial, vec![Outcome::Succeeded, Outcome::Cancelled]),
            "{result:#?}"
        );
        assert!(result.final_response.unwrap().contains("42"));
        world.stop().await;
    })
    .await;
}

/// A model whose steps never end, and whose answers have to wait for an hour.
async fn limited_answers() -> (FakeOpenAi, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let (held, script) = (gate.clone(), Script::default());
    let fake = FakeOpenAi::start(move |request| match request.purpose() {
        Purpose::Answer => Behaviour::rate_limited(Some("3600")),
        Purpose::Act => Behaviour::Held(held.clone(), Box::new(script.respond(request))),
        Purpose::Plan | Purpose::Replan => script.respond(request),
    })
    .await;
    (fake, gate)
}

#[tokio::test]
async fn money_is_a_budget_where_prices_are_known() {
    on_both(async |backend| {
        let fake = FakeOpenAi::scripted(Script::default()).await;
        let mut llm = llm_config(&fake.base_url());
        // A two-thousandth of the unit for a token, read or written.
        llm.prices = [("fake-1".to_owned(), common::config::Price::of_million(500.0, 500.0).unwrap())].into();
        let world = World::on(backend, Llm::from_config(&llm).unwrap(), &config()).await;
        let steps: Vec<Value> = (1..=60).map(|n| step(n, &format!("step number {n}"), &[])).collect();
        let options = json!({"max_cost": 1.0, "max_parallel_steps": 1});
        let result = world.run(json!({"objective": "x", "plan": {"steps": steps}, "options": options})).await;
        assert_eq!(result.status, RunStatus::Partial, "{result:#?}");
        let usage = result.usage;
        assert_eq!(usage.cost_nanos, (usage.input_tokens + usage.output_tokens) * 500_000, "{usage:?}");
        assert!(usage.cost_nanos <= 1_000_000_000, "{usage:?}");
        let halt = result.halt.unwrap();
        assert_eq!((halt.kind, halt.reason.as_str()), (HaltKind::Budget, "max_cost is used up"));
        world.stop().await;
    })
    .await;
}
