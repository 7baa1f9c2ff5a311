//! What is refused, and how: bad messages, bad configuration, missing servers.

use common::limits::MESSAGE_BYTES_MAX;
use common::message::Queue;
use common::run::RunStatus;
use lapin::BasicProperties;
use serde_json::{Value, json};
use support::stack::Stack;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_messages_become_dead_letters_and_disturb_nothing() {
    let (stack, _services) = Stack::running(&[]).await;
    let oversized = vec![b' '; MESSAGE_BYTES_MAX + 1];
    let cases: [(Queue, &[u8], &str); 8] = [
        (Queue::Objectives, b"not json", "body is not JSON"),
        (Queue::Objectives, b"\xff\xfe", "body is not UTF-8"),
        (Queue::Objectives, br#"{"objective":"x","version":2}"#, "version 2 is not supported"),
        (Queue::Objectives, br#"{"objective":"x","run_id":"a}b"}"#, "run_id must be"),
        (Queue::Objectives, &oversized, "the limit is 1048576"),
        (Queue::Steps, b"[]", "body is not a JSON object"),
        (Queue::Reports, br#"{"run_id":1}"#, "body does not fit"),
        (Queue::Completions, b"", "body is not JSON"),
    ];
    for (queue, body, _) in &cases {
        stack.publish(*queue, body, BasicProperties::default()).await;
    }
    let bad_id = BasicProperties::default().with_message_id("no/slashes".into());
    stack.publish(Queue::Objectives, br#"{"objective":"x"}"#, bad_id).await;
    // Messages that fit but mean nothing are dropped without a trace.
    for (queue, body) in [
        (Queue::Steps, json!({"run_id": "ghost", "revision": 1, "step_number": 1, "attempt": 1, "description": "x"})),
        (Queue::Reports, json!({"run_id": "ghost", "step_number": 1, "outcome": "succeeded"})),
        (Queue::Completions, json!({"run_id": "ghost", "revision": 1})),
    ] {
        stack.publish(queue, body.to_string().as_bytes(), BasicProperties::default()).await;
    }
    let store = stack.store();
    stack.until("nine dead letters", async || store.dead_letters(100).await.unwrap().len() == 9).await;
    let letters: Vec<Value> =
        store.dead_letters(100).await.unwrap().iter().map(|letter| serde_json::from_str(letter).unwrap()).collect();
    for (queue, _, reason) in cases.iter().chain([&(Queue::Objectives, b"".as_slice(), "message_id is taken as run_id")]) {
        let name = queue.name(stack.prefix());
        let found = letters.iter().any(|l| l["queue"] == name.as_str() && l["reason"].as_str().unwrap().contains(reason));
        assert!(found, "{name}: {reason:?} in {letters:#?}");
    }
    // And a good one after all that is answered.
    let plan =
        json!({"steps": [{"step_number": 1, "description": "x", "tool_hint": "calculate", "arguments": {"expression": "6*7"}}]});
    let run = stack.objective("good", json!({"objective": "x", "plan": plan, "options": {"respond": "results"}})).await;
    assert_eq!(stack.result(&run).await.status, RunStatus::Succeeded);
    assert_eq!(store.list(0, 10).await.unwrap().len(), 1, "no run was made of anything else");
    stack.clean().await;
}

/// Expects `service` to end at once with `code` and a sentence that contains `sentence`.
async fn refuses_to_start(service: &str, settings: &[(&str, &str)], code: i32, sentence: &str) {
    let stack = Stack::new(&[]).await;
    let mut command = stack.command(service);
    command.envs(settings.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(sentence), "{sentence:?} not in {stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("s3cret"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_refuse_to_start_with_a_clear_sentence() {
    for service in ["planner", "executor", "summarizer"] {
        refuses_to_start(service, &[("PLANRELAY_CONCURRENCY", "many")], 2, "PLANRELAY_CONCURRENCY").await;
    }
    refuses_to_start("executor", &[("PLANRELAY_CONCURENCY", "1")], 2, "PLANRELAY_CONCURRENCY").await;
    refuses_to_start("executor", &[("PLANRELAY_LOG_FORMAT", "xml")], 2, "PLANRELAY_LOG_FORMAT").await;
    refuses_to_start("executor", &[("PLANRELAY_SEARCH_DIR", "/no/such/folder")], 2, "PLANRELAY_SEARCH_DIR").await;
    refuses_to_start("executor", &[("AMQP_URL", "http://x")], 2, "AMQP_URL").await;
    refuses_to_start("executor", &[("REDIS_URL", "nonsense")], 2, "REDIS_URL").await;
    refuses_to_start("executor", &[("AMQP_URL", "amqp://guest:s3cret@127.0.0.1:5672/%2f")], 5, "refused").await;
    refuses_to_start("executor", &[("AMQP_URL", "amqp://guest:s3cret@127.0.0.1:9/%2f")], 5, "cannot reach RabbitMQ").await;
    refuses_to_start("executor", &[("REDIS_URL", "redis://:s3cret@127.0.0.1:9")], 5, "cannot use Redis").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_is_printed_with_secrets_masked() {
    let stack = Stack::new(&[]).await;
    let mut command = stack.command("planner");
    command.arg("--print-config").env("OPENAI_API_KEY", "sk-s3cret").env("AMQP_URL", "amqp://me:s3cret@example.org/%2f");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(stdout.contains("example.org") && stdout.contains("***") && !stdout.contains("s3cret"), "{stdout}");
}
