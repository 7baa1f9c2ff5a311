//! `planrelay` as a user runs it: in one process, and against a stack.

use std::process::Output;

use common::event::{Event, EventType};
use common::run::{RunDocument, RunStatus, RunView};
use serde_json::{Value, json};
use support::fake_openai::{FakeOpenAi, Script, ScriptedMove};
use support::stack::Stack;

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Expects the exit code, and says what was printed when it is another.
fn exited(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout: {}\nstderr: {}", stdout(output), stderr(output));
}

const OBJECTIVE: &str = "What is 15% of 240, and how many words are in 'to be or not to be'?";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_answers_without_broker_or_key() {
    let stack = Stack::new(&[("AMQP_URL", "amqp://127.0.0.1:9"), ("REDIS_URL", "redis://127.0.0.1:9")]).await;
    let output = stack.planrelay(&["run", OBJECTIVE]).await;
    exited(&output, 0);
    assert!(stdout(&output).contains("36") && stdout(&output).contains('6'), "the answer: {}", stdout(&output));
    assert_eq!(
        stderr(&output).lines().filter(|line| line.contains("offline")).count(),
        1,
        "says so in one line: {}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("calculate") && stderr(&output).contains("analyze"), "live progress: {}", stderr(&output));
    let output = stack.planrelay(&["run", OBJECTIVE, "-o", "json"]).await;
    let document: RunDocument = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((document.status, document.model.as_deref()), (RunStatus::Succeeded, Some("offline")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_asks_a_configured_endpoint_and_reads_the_objective_from_a_pipe() {
    let script = Script::default()
        .plan(|_| json!({"steps": [{"step_number": 1, "description": "greet", "tool_hint": null, "depends_on": []}]}))
        .act(|_| ScriptedMove::Answer("hello there".into()))
        .answer(|_| "It says hello.".into());
    let fake = FakeOpenAi::scripted(script).await;
    let url = fake.base_url();
    let stack = Stack::new(&[("OPENAI_BASE_URL", &url), ("OPENAI_MODEL", "fake-1"), ("OPENAI_API_KEY", "sk-s3cret")]).await;
    let mut command = stack.command("planrelay");
    let objective = stack.file("objective.txt", "Say hello\n");
    command.args(["run", "-"]).stdin(std::fs::File::open(objective).unwrap());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    exited(&output, 0);
    assert_eq!(stdout(&output), "It says hello.\n");
    assert!(!stderr(&output).contains("offline") && !stderr(&output).contains("s3cret"), "{}", stderr(&output));
    assert!(fake.requests().iter().any(|request| request.prompt().contains("Say hello")));
    assert!(
        fake.requests().iter().all(|request| request.headers.get("authorization").is_some_and(|key| key == "Bearer sk-s3cret"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_fails_says_why_and_exits_with_1() {
    let stack = Stack::new(&[]).await;
    let plan =
        stack.file("plan.json", &json!({"steps": [{"step_number": 1, "description": "x", "tool_hint": "rm"}]}).to_string());
    let output = stack.planrelay(&["run", "x", "--plan", plan.to_str().unwrap()]).await;
    exited(&output, 1);
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("\"rm\" is not a known tool"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_is_used_from_the_command_line() {
    let (stack, _services) = Stack::running(&[]).await;
    let output = stack.planrelay(&["submit", OBJECTIVE, "--run-id", "cli-1"]).await;
    exited(&output, 0);
    assert_eq!(stdout(&output), "cli-1\n");
    let output = stack.planrelay(&["result", "cli-1", "--wait"]).await;
    exited(&output, 0);
    assert!(stdout(&output).contains("36"), "{}", stdout(&output));
    let output = stack.planrelay(&["submit", OBJECTIVE, "--run-id", "cli-2", "--wait"]).await;
    exited(&output, 0);
    assert!(stdout(&output).contains("36") && stderr(&output).contains("calculate"), "{output:?}");

    let output = stack.planrelay(&["watch", "cli-1", "-o", "jsonl"]).await;
    exited(&output, 0);
    let printed: Vec<Event> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let run = common::id::RunId::parse("cli-1").unwrap();
    assert_eq!(printed, stack.store().events(&run, "", 1000).await.unwrap(), "the same events as in Redis");
    assert_eq!(printed.last().map(|event| event.kind), Some(EventType::RunFinished));
    // From a later entry on: only what came after it.
    let output = stack.planrelay(&["watch", "cli-1", "--after", &printed[2].id, "-o", "jsonl"]).await;
    assert_eq!(stdout(&output).lines().count(), printed.len() - 3);

    let output = stack.planrelay(&["show", "cli-1", "-o", "json"]).await;
    let view: RunView = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((view.status, view.steps.len()), (RunStatus::Succeeded, 2));
    let output = stack.planrelay(&["list", "-o", "json"]).await;
    let lines: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids: Vec<&str> = lines.as_array().unwrap().iter().map(|line| line["run_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["cli-2", "cli-1"], "newest first");
    exited(&stack.planrelay(&["show", "no-such-run"]).await, 1);
    exited(&stack.planrelay(&["submit", "x", "--run-id", "a{b}"]).await, 2);
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_server_is_exit_code_5_and_a_bad_setting_2() {
    let stack = Stack::new(&[("AMQP_URL", "amqp://127.0.0.1:9"), ("REDIS_URL", "redis://127.0.0.1:9")]).await;
    let output = stack.planrelay(&["submit", "x"]).await;
    exited(&output, 5);
    assert!(
        stderr(&output).contains("cannot reach RabbitMQ") || stderr(&output).contains("cannot use Redis"),
        "{}",
        stderr(&output)
    );
    exited(&stack.planrelay(&["list"]).await, 5);
    exited(&stack.planrelay(&["run", "x", "--model", "magic"]).await, 2);
    exited(&stack.planrelay(&["run"]).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_of_every_message_are_printed() {
    let stack = Stack::new(&[]).await;
    let output = stack.planrelay(&["schema"]).await;
    let schemas: Value = serde_json::from_slice(&output.stdout).unwrap();
    for name in ["objective", "step", "report", "completion", "result"] {
        assert!(schemas[name]["properties"]["version"].is_object(), "{name} in {schemas}");
    }
}
