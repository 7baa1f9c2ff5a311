//! Budgets and prices: every request is reserved before it is made, and costs what the configuration says.

use common::id::{RunId, Slot};
use common::run::{Budget, Usage};
use common::store::{ClaimRequest, Claimed, NewRun, RunRules};
use support::world::{World, config as world_config};

use super::*;

/// The meter of a live run's plan under that budget.
async fn metered(world: &World, name: &str, budget: Budget) -> Meter {
    metered_at(world, name, budget, 0).await
}

/// The same, as somebody sees it whose claim is `ahead` of the current one.
async fn metered_at(world: &World, name: &str, budget: Budget, ahead: u64) -> Meter {
    let run = RunId::parse(name).unwrap();
    let new = NewRun {
        request: "{}".into(),
        objective: "x".into(),
        window: 1,
        reply_to: None,
        correlation_id: None,
        traceparent: None,
        rules: RunRules { budget, ..RunRules::default() },
    };
    world.env.store.open_run(&run, &new).await.unwrap();
    let (message_id, nonce, worker, lease) = ("m", "n", "w", seconds(30));
    let request = ClaimRequest { slot: Slot::Plan, message_id, redelivered: false, nonce, attempt: None, lease, worker };
    let Claimed::Execute(claim) = world.env.store.claim(&run, &request).await.unwrap() else { panic!("not claimed") };
    Meter::of(&world.env, &run, Slot::Plan, claim.epoch + ahead, budget)
}

fn calls(model_calls: u64) -> Budget {
    Budget { model_calls: Some(model_calls), ..Budget::default() }
}

fn exhausted(got: &Result<Got, LlmError>) -> bool {
    matches!(got, Err(LlmError::Exhausted(why)) if !why.is_empty())
}

#[tokio::test]
async fn every_request_is_reserved_before_it_is_made() {
    let world = World::in_memory_without_executor(Llm::Offline, &world_config());
    let fake = FakeOpenAi::start(text("no object on any rung")).await;
    let refuses = FakeOpenAi::start(|request| match request.body.get("temperature") {
        Some(_) => Behaviour::error(400, "unsupported_parameter", "temperature is not supported"),
        None => Behaviour::text("2"),
    })
    .await;
    for (allowed, name) in [(0, "none"), (1, "one"), (3, "three")] {
        let before = fake.calls();
        // What the answer may need is kept back from a plan, so a budget is never used up to the last call by one.
        let meter = metered(&world, name, calls(allowed)).await;
        let (got, paid) = asked_on(&meter, &llm(&fake), Plan, &[]).await;
        assert!(exhausted(&got), "{allowed}: {got:?}");
        let made = fake.calls() - before;
        assert!(made as u64 <= allowed, "{made} of {allowed}");
        assert_eq!(paid.len(), made, "what was answered is counted all the same");
    }
    let meter = metered(&world, "refused", calls(1)).await;
    let (got, _) = asked_on(&meter, &llm(&refuses), Plan, &[]).await;
    assert!(exhausted(&got) && refuses.calls() == 2, "a refusal costs nothing, an answer does: {got:?}");
    world.stop().await;
}

#[tokio::test]
async fn the_stand_in_is_counted_like_a_model() {
    let world = World::in_memory_without_executor(Llm::Offline, &world_config());
    let meter = metered(&world, "offline", calls(0)).await;
    for ask in [Plan, Replan, Act, Answer] {
        let (got, paid) = asked_on(&meter, &Llm::Offline, ask, &[]).await;
        assert!(exhausted(&got) && paid.is_empty(), "{got:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_slot_that_is_lost_asks_nothing() {
    let world = World::in_memory_without_executor(Llm::Offline, &world_config());
    let fake = FakeOpenAi::start(text("2")).await;
    let meter = metered_at(&world, "lost", calls(100), 1).await;
    let (got, _) = asked_on(&meter, &llm(&fake), Answer, &[]).await;
    assert!(matches!(&got, Err(LlmError::Permanent(why)) if why.contains("somebody else's")), "{got:?}");
    assert_eq!(fake.calls(), 0);
    world.stop().await;
}

#[tokio::test]
async fn requests_cost_what_is_configured() {
    let fake = FakeOpenAi::start(text("2")).await;
    let mut config = config(fake.base_url(), seconds(5));
    let llm = |config: &LlmConfig| Llm::from_config(config).expect("a usable configuration");
    assert!(llm(&config).has_prices().is_err_and(|why| why.contains("test-model") && why.contains("PLANRELAY_PRICES")));
    let price = common::config::Price::of_million(0.15, 0.6).unwrap();
    config.prices.insert("test-model".into(), price);
    assert_eq!(llm(&config).has_prices(), Ok(()));
    let (_, calls) = asked(&llm(&config), Answer, &[]).await;
    // 11 tokens read and 7 written.
    assert_eq!(
        calls[0].usage,
        Usage { model_calls: 1, input_tokens: 11, output_tokens: 7, cost_nanos: 5_850, ..Usage::default() }
    );
    config.executor_model = Some("other".into());
    assert!(llm(&config).has_prices().is_err_and(|why| why.contains("other")));
    let (_, calls) = asked(&llm(&config), Last, &[]).await;
    assert_eq!(calls[0].usage.cost_nanos, 0, "no price is known");
    assert_eq!(Llm::Offline.has_prices(), Ok(()));
}
