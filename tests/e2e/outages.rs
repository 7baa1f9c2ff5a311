//! RabbitMQ or Redis are away for a while: services wait, go on, and can be stopped all the same.

use common::run::RunStatus;
use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Script, ScriptedMove};
use support::proxy::Proxy;
use support::stack::{Stack, through};

fn chain() -> Value {
    json!({"steps": [
        {"step_number": 1, "description": "first", "depends_on": []},
        {"step_number": 2, "description": "second", "depends_on": [1]},
        {"step_number": 3, "description": "third", "depends_on": [2]},
    ]})
}

/// Every service behind proxies; both servers go away while the first step is in the model's hands, and come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_outlives_an_outage_of_both_servers() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let script = Script::default().plan(|_| chain()).act(|_| ScriptedMove::Answer("done".into())).answer(|_| "all done".into());
    let fake = FakeOpenAi::start(move |request| {
        let reply = script.respond(request);
        if request.purpose() == Purpose::Act { Behaviour::Held(held.clone(), Box::new(reply)) } else { reply }
    })
    .await;
    let (amqp, amqp_url) = through(&support::stack::amqp_url(), 5672).await;
    let (redis, redis_url) = through(&support::stores::redis_url(), 6379).await;
    let url = fake.base_url();
    let settings = [
        ("OPENAI_BASE_URL", url.as_str()),
        ("OPENAI_MODEL", "fake-1"),
        ("AMQP_URL", amqp_url.as_str()),
        ("REDIS_URL", redis_url.as_str()),
    ];
    let (stack, _services) = Stack::running(&settings).await;
    let run = stack.objective("outage", json!({"objective": "three things"})).await;
    stack.until("the first step is asked for", async || fake.calls() >= 2).await;
    let away: [&Proxy; 2] = [&amqp, &redis];
    for proxy in away {
        proxy.refuse(true);
        proxy.break_connections();
    }
    // The model answers into the outage: the outcome can be neither stored nor reported yet.
    gate.add_permits(100);
    stack.until("the outage is noticed", async || stack.logs().contains("store does not answer")).await;
    for proxy in away {
        proxy.refuse(false);
    }
    let result = stack.result(&run).await;
    assert_eq!((result.status, result.final_response.as_deref()), (RunStatus::Succeeded, Some("all done")), "{result:#?}");
    stack.clean().await;
}

/// SIGTERM ends every service, also one that waits for a server that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_stop_during_an_outage() {
    let (amqp, amqp_url) = through(&support::stack::amqp_url(), 5672).await;
    let (redis, redis_url) = through(&support::stores::redis_url(), 6379).await;
    let settings = [("AMQP_URL", amqp_url.as_str()), ("REDIS_URL", redis_url.as_str()), ("PLANRELAY_SHUTDOWN_GRACE_SECS", "1")];
    let (stack, services) = Stack::running(&settings).await;
    for proxy in [&amqp, &redis] {
        proxy.refuse(true);
        proxy.break_connections();
    }
    for mut service in services {
        assert_eq!(service.stop().await.code(), Some(0), "{}", stack.logs());
    }
    stack.clean().await;
}
