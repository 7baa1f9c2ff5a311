//! How long things wait before they are tried again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::broker::backoff;
use common::event::{Event, EventType};
use common::limits::{RETRY_BACKOFF_MAX, RETRY_BACKOFF_MIN};
use common::llm::Llm;
use serde_json::json;
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Script, ScriptedMove};
use support::world::{World, config, llm_config};

#[test]
fn back_off_doubles_up_to_its_limit_with_full_jitter() {
    let wait = |tries, random| backoff(tries, RETRY_BACKOFF_MIN, RETRY_BACKOFF_MAX, random);
    let longest: Vec<u64> = (0..8).map(|tries| wait(tries, 1.0).as_secs()).collect();
    assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60]);
    // Anything between nothing and that: replicas that failed together do not come back together.
    assert_eq!((wait(5, 0.0), wait(5, 0.25)), (Duration::ZERO, Duration::from_secs(8)));
    assert_eq!(wait(u32::MAX, 1.0), RETRY_BACKOFF_MAX);
}

/// A step that was told to wait is not tried before, soon after, and without having lost an attempt.
#[tokio::test]
async fn a_rate_limited_step_waits_as_long_as_it_was_told() {
    let limited = AtomicBool::new(true);
    let script = Script::default().act(|_| ScriptedMove::Answer("42".into()));
    let fake = FakeOpenAi::start(move |request| {
        let first = request.purpose() == Purpose::Act && limited.swap(false, Ordering::SeqCst);
        if first { Behaviour::rate_limited(Some("2")) } else { script.respond(request) }
    })
    .await;
    let world = World::in_memory(Llm::from_config(&llm_config(&fake.base_url())).unwrap(), &config());
    let plan = json!({"steps": [{"step_number": 1, "description": "think"}]});
    let result = world.run(json!({"objective": "x", "plan": plan, "options": {"respond": "results"}})).await;
    assert_eq!(result.step_results[0].attempts, 1, "{result:#?}");
    let events = world.events(&result.run_id).await;
    let parked = events.iter().position(|event| event.kind == EventType::Parked).expect("it was parked");
    let again = |event: &&Event| event.kind == EventType::Claimed && event.slot.as_deref() == Some("1");
    let waited = events[parked..].iter().find(again).expect("it was tried again").at_ms - events[parked].at_ms;
    // A quarter more at the most, so that not all come back at once; then a planner looks every half second or so.
    assert!((2_000..5_000).contains(&waited), "waited {waited} ms");
    world.stop().await;
}
