//! The least that each service's user must be allowed, as `deploy/README.md` says: it is enough, and less is not.

use std::path::PathBuf;

use common::id::RunId;
use common::message::Queue;
use common::run::RunStatus;
use serde_json::json;
use support::servers::{PrivateRabbit, PrivateRedis};
use support::stack::{Process, Stack};

/// The code blocks of the operators' page that begin with this line.
fn block(first_line: &str) -> Vec<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/README.md");
    let page = std::fs::read_to_string(path).unwrap();
    let block = page.split("```").find(|block| block.split_once('\n').is_some_and(|(_, text)| text.starts_with(first_line)));
    let block = block.unwrap_or_else(|| panic!("no block begins with {first_line:?}"));
    block.lines().skip(1).map(str::to_owned).filter(|line| !line.trim().is_empty()).collect()
}

/// The words of a shell command without variables; quotes hold words together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 { words.push(part.to_owned()) } else { words.extend(part.split_whitespace().map(str::to_owned)) }
    }
    words
}

/// Gives the users of the page what it says, for this prefix.
async fn grant(rabbit: &PrivateRabbit, redis: &PrivateRedis, prefix: &str) {
    for line in block("rabbitmqctl add_user planner") {
        let words = words(&line.replace("planrelay", prefix));
        let arguments: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        rabbit.ctl(&arguments).await;
    }
    for line in block("ACL SETUSER planrelay-service") {
        let words = words(&line.replace("~planrelay:", &format!("~{prefix}:")));
        let _ok: String = redis.command(&words.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    }
}

/// The servers as a user of theirs.
fn urls(rabbit: &PrivateRabbit, redis: &PrivateRedis, broker_user: &str, store_user: &str) -> [(&'static str, String); 2] {
    let amqp = rabbit.url().replace("guest:guest@", &format!("{broker_user}:SECRET@"));
    let redis = redis.url().replace("redis://", &format!("redis://{store_user}:SECRET@"));
    [("AMQP_URL", amqp), ("REDIS_URL", redis)]
}

fn start(stack: &Stack, service: &str, urls: &[(&'static str, String); 2]) -> Process {
    stack.start_with(service, &urls.each_ref().map(|(name, url)| (*name, url.as_str())))
}

/// `planrelay` as somebody who may submit and read; expects its exit code, and gives what it printed.
async fn planrelay(stack: &Stack, urls: &[(&'static str, String); 2], arguments: &[&str], code: i32) -> String {
    let mut command = stack.command("planrelay");
    command.args(arguments).envs(urls.clone());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}\n{}", stack.logs());
    String::from_utf8(output.stdout).unwrap()
}

fn plan(stack: &Stack, expressions: [&str; 2]) -> String {
    let [first, second] = expressions;
    let plan = json!({"steps": [
        {"step_number": 1, "description": "one", "tool_hint": "calculate", "arguments": {"expression": first}},
        {"step_number": 2, "description": "two", "tool_hint": "calculate", "arguments": {"expression": second}, "depends_on": [1]},
    ]});
    stack.file(&format!("plan-{}.json", first.len()), &plan.to_string()).to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_runs_with_the_least_privileges() {
    let (rabbit, redis) = (PrivateRabbit::start(&[]).await, PrivateRedis::start(&[]).await);
    let stack = Stack::on(&rabbit.url(), &redis.url(), &[]).await;
    grant(&rabbit, &redis, stack.prefix()).await;
    let service = |name, user| start(&stack, name, &urls(&rabbit, &redis, user, "planrelay-service"));
    // Executor and summarizer may not declare the queues: the planner comes first.
    let _planner = service("planner", "planner");
    stack.until("the planner has declared its queues", async || rabbit.backlog(stack.prefix()).await.len() == 6).await;
    let _services = (service("executor", "executor"), service("summarizer", "summarizer"));

    let us = urls(&rabbit, &redis, "submitter", "planrelay-reader");
    let (good, bad) = (plan(&stack, ["1+1", "2+2"]), plan(&stack, ["1 +* 2", "2"]));
    let line = ["submit", "--wait", "--run-id", "good", "--plan", &good, "--respond", "results", "x"];
    assert_eq!(planrelay(&stack, &us, &line, 0).await.trim(), "{\"1\":\"2\",\"2\":\"4\"}");
    planrelay(&stack, &us, &["submit", "--run-id", "bad", "--approve", "--replan", "never", "--plan", &bad, "x"], 0).await;
    let run = RunId::parse("bad").unwrap();
    let waits = async || stack.store().status(&run).await == Ok(Some(RunStatus::AwaitingApproval));
    stack.until("the plan waits", waits).await;
    for command in [["approve", "--wait"], ["retry", "--wait"], ["cancel", "--quiet"]] {
        // The run fails, twice; then it has ended.
        planrelay(&stack, &us, &[command[0], command[1], "bad"], 1).await;
    }
    stack.publish(Queue::Steps, b"not a step", lapin::BasicProperties::default()).await;
    stack.until("a dead letter is kept", async || stack.store().dead_letter_count().await == Ok(1)).await;
    for line in [&["list"][..], &["show", "good"], &["explain", "good"], &["watch", "good"], &["result", "good"]] {
        planrelay(&stack, &us, line, 0).await;
    }
    assert!(!stack.logs().contains("NOPERM") && !stack.logs().contains("ACCESS_REFUSED"), "{}", stack.logs());

    // Nor has the doctor anything against it, whoever asks.
    let doctor = planrelay(&stack, &us, &["doctor"], 0).await;
    assert!(doctor.contains("may consume none of the queues: enough to submit, for no service"), "{doctor}");
    assert!(doctor.contains("enough to read and to submit, for no service"), "{doctor}");
    for (user, enough) in
        [("planner", "may declare, and may consume every queue"), ("executor", "may consume steps: enough for executor")]
    {
        let doctor = planrelay(&stack, &urls(&rabbit, &redis, user, "planrelay-service"), &["doctor"], 0).await;
        assert!(doctor.contains(enough) && doctor.contains("1 warning"), "{doctor}");
    }

    // Less is not enough: neither may declare queues, and a reader writes nothing.
    for user in ["submitter", "executor"] {
        let mut command = stack.command("planner");
        command.envs(urls(&rabbit, &redis, user, "planrelay-service")).env("PLANRELAY_PREFIX", "planrelay-other");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(5) && said.contains("ACCESS_REFUSED"), "{user}: {said}");
    }
    let url = &us[1].1;
    let mut connection = ::redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut write = ::redis::cmd("HSET");
    write.arg(format!("{}:{{good}}:run", stack.prefix())).arg("status").arg("failed");
    let written: Result<(), _> = write.query_async(&mut connection).await;
    assert!(written.is_err_and(|error| error.code() == Some("NOPERM")));
    stack.clean().await;
}
