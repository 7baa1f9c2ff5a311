//! What processes say over HTTP: health, metrics, and the API of `planrelay serve`.

use common::message::Queue;
use common::run::RunStatus;
use serde_json::{Value, json};
use support::http::{Answer, ask, get, post, sample};
use support::proxy::Proxy;
use support::servers::free_port;
use support::stack::{Process, Stack, through};

/// An address that nobody listens on.
fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// A service that answers over HTTP.
fn start(stack: &Stack, service: &str) -> (Process, String) {
    let address = address();
    (stack.start_with(service, &[("PLANRELAY_HTTP", &address)]), address)
}

/// `planrelay serve`, answering.
async fn serve(stack: &Stack, settings: &[(&str, &str)]) -> (Process, String) {
    let address = address();
    let mut command = stack.command("planrelay");
    command.arg("serve").env("PLANRELAY_HTTP", &address).envs(settings.iter().copied());
    let process = Process::spawn(&mut command, stack.file("serve.log", ""));
    stack.until("the console answers", async || get(&address, "/healthz").await.is_some()).await;
    (process, address)
}

async fn is_ready(address: &str) -> bool {
    get(address, "/readyz").await.is_some_and(|answer| answer.status == 200)
}

async fn healthcheck(stack: &Stack, service: &str, address: &str) -> (Option<i32>, String) {
    let mut command = stack.command(service);
    command.arg("healthcheck").env("PLANRELAY_HTTP", address);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Steps that need no model: `n` calculations.
fn plan(n: u32) -> Value {
    let step = |n| json!({"step_number": n, "description": "sum", "tool_hint": "calculate", "arguments": {"expression": "1+1"}});
    json!({"objective": "sums", "options": {"respond": "results"}, "plan": {"steps": (1..=n).map(step).collect::<Vec<_>>()}})
}

/// Each service says which server it misses, lives on, and is ready again when they are back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_follows_the_servers() {
    let (amqp, amqp_url) = through(&support::stack::amqp_url(), 5672).await;
    let (redis, redis_url) = through(&support::stores::redis_url(), 6379).await;
    let stack = Stack::new(&[("AMQP_URL", amqp_url.as_str()), ("REDIS_URL", redis_url.as_str())]).await;
    let services = ["planner", "executor", "summarizer"].map(|service| (service, start(&stack, service)));
    for (service, (_, address)) in &services {
        stack.until("it is ready", async || is_ready(address).await).await;
        assert_eq!(healthcheck(&stack, service, &address.replace("127.0.0.1", "0.0.0.0")).await, (Some(0), String::new()));
    }
    let says = async |address: &str, words: [&str; 2]| {
        let answer = get(address, "/readyz").await;
        answer.is_some_and(|answer| answer.status == 503 && words.iter().all(|word| answer.body.contains(word)))
    };
    let away = |proxy: &Proxy, away: bool| {
        proxy.refuse(away);
        proxy.break_connections();
    };
    for (proxy, words) in [(&redis, ["store is not reachable", ""]), (&amqp, ["broker cannot be used", "are not consumed"])] {
        away(proxy, true);
        for (service, (_, address)) in &services {
            stack.until("it misses a server", async || says(address, words).await).await;
            assert_eq!(get(address, "/healthz").await.map(|answer| answer.status), Some(200));
            let (code, why) = healthcheck(&stack, service, address).await;
            assert!(code == Some(1) && why.starts_with(&format!("{service}: not ready: ")), "{code:?} {why}");
        }
        away(proxy, false);
        for (_, (_, address)) in &services {
            stack.until("it is ready again", async || is_ready(address).await).await;
        }
    }
    for (_, (_, address)) in &services {
        let metrics = get(address, "/metrics").await.unwrap().body;
        for server in ["broker", "store"] {
            let count = sample(&metrics, &format!("planrelay_reconnects_total{{server=\"{server}\"}}"));
            assert!(count.is_some_and(|count| count > 0.0), "{server}: {count:?}");
        }
    }
    let (code, why) = healthcheck(&stack, "planner", &self::address()).await;
    assert!(code == Some(1) && why.contains("nobody answers at 127.0.0.1:"), "{code:?} {why}");
    stack.clean().await;
}

/// What is counted is what has happened, and ends with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_count_what_happens() {
    let stack = Stack::new(&[]).await;
    let (_planner, planner) = start(&stack, "planner");
    let (_executor, executor) = start(&stack, "executor");
    let (_summarizer, summarizer) = start(&stack, "summarizer");
    stack
        .until("it is ready", async || is_ready(&planner).await && is_ready(&executor).await && is_ready(&summarizer).await)
        .await;
    let good = stack.objective("good", plan(7)).await;
    let mut bad = plan(2);
    bad["plan"]["steps"][1]["arguments"]["expression"] = "1 +* 2".into();
    bad["options"]["replan"] = "never".into();
    let bad = stack.objective("bad", bad).await;
    stack.publish(Queue::Steps, b"{}", lapin::BasicProperties::default()).await;
    assert_eq!(stack.result(&good).await.status, RunStatus::Succeeded);
    assert_eq!(stack.result(&bad).await.status, RunStatus::Partial);
    let expected = [
        (&planner, "planrelay_runs_opened_total", 2.0),
        (&planner, "planrelay_steps_dispatched_total", 9.0),
        (&planner, "planrelay_plans_total{kind=\"first\"}", 2.0),
        (&planner, "planrelay_dead_letters_total{queue=\"steps\"}", 1.0),
        (&planner, "planrelay_consuming{queue=\"objectives\"}", 1.0),
        (&executor, "planrelay_steps_total{outcome=\"succeeded\",tool=\"calculate\"}", 8.0),
        (&executor, "planrelay_steps_total{outcome=\"failed\",tool=\"none\"}", 1.0),
        (&executor, "planrelay_step_attempts_total{end=\"reported\"}", 9.0),
        (&executor, "planrelay_tool_calls_total{tool=\"calculate\",outcome=\"error\"}", 1.0),
        (&executor, "planrelay_queue_wait_seconds_count{queue=\"steps\"}", 9.0),
        (&executor, "planrelay_messages_total{queue=\"steps\",outcome=\"done\"}", 9.0),
        (&executor, "planrelay_messages_total{queue=\"steps\",outcome=\"parked\"}", 1.0),
        (&executor, "planrelay_messages_in_hand{queue=\"steps\"}", 0.0),
        (&executor, "planrelay_claims_total{slot=\"step\",answer=\"execute\"}", 9.0),
        (&summarizer, "planrelay_runs_ended_total{status=\"succeeded\"}", 1.0),
        (&summarizer, "planrelay_runs_ended_total{status=\"partial\"}", 1.0),
        (&summarizer, "planrelay_run_duration_seconds_count{status=\"partial\"}", 1.0),
    ];
    for (address, name, value) in expected {
        let counted = async || sample(&get(address, "/metrics").await.unwrap().body, name);
        stack.until(&format!("{name} = {value}"), async || counted().await == Some(value)).await;
    }
    stack.clean().await;
}

/// The gauges over everything show a backlog that nobody works off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_sees_what_no_service_can() {
    let stack = Stack::new(&[]).await;
    let _planner = stack.start("planner");
    stack.queues_exist().await;
    let run = stack.objective("waits", plan(5)).await;
    stack.until("the steps wait", async || stack.depth(Queue::Steps).await == 5).await;
    let (_console, console) = serve(&stack, &[]).await;
    let shown = async |name: &str| sample(&get(&console, "/metrics").await.unwrap().body, name);
    stack.until("there is a census", async || shown("planrelay_census_age_seconds").await.is_some()).await;
    for (name, value) in [
        ("planrelay_live_runs{status=\"running\"}", 1.0),
        ("planrelay_live_runs{status=\"planning\"}", 0.0),
        ("planrelay_stuck_runs", 0.0),
        ("planrelay_queue_messages{queue=\"steps\"}", 5.0),
        ("planrelay_queue_consumers{queue=\"steps\"}", 0.0),
        ("planrelay_queue_consumers{queue=\"objectives\"}", 1.0),
        ("planrelay_dead_letters_kept", 0.0),
    ] {
        assert_eq!(shown(name).await, Some(value), "{name}");
    }
    assert!(shown("planrelay_backlog_age_seconds").await > Some(0.0));
    let _services = (stack.start("executor"), stack.start("summarizer"));
    assert_eq!(stack.result(&run).await.status, RunStatus::Succeeded);
    stack.clean().await;
}

fn checked(answer: Option<Answer>, status: u16) -> Value {
    let answer = answer.expect("the console answers");
    assert_eq!(answer.status, status, "{answer:?}");
    answer.json()
}

/// A program's whole day with the API.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_over_http() {
    let (stack, _services) = Stack::running(&[]).await;
    let (mut console, address) = serve(&stack, &[]).await;
    let at = address.as_str();
    assert!(get(at, "/").await.unwrap().body.contains("POST /v1/runs"));

    let submitted = post(at, "/v1/runs?wait=60", &json!({"objective": "15% of 240", "run_id": "one"}).to_string()).await;
    assert!(submitted.as_ref().unwrap().head.contains("location: /v1/runs/one"), "{submitted:?}");
    let document = checked(submitted, 200);
    assert_eq!((&document["status"], &document["final_response"]), (&"succeeded".into(), &"36".into()));
    assert_eq!(checked(get(at, "/v1/runs/one/result").await, 200), document);
    let later = checked(post(at, "/v1/runs", "{\"objective\": \"2 + 2\", \"options\": {\"approve\": \"plan\"}}").await, 202);
    let id = later["run_id"].as_str().unwrap().to_owned();
    let show = async || get(at, &format!("/v1/runs/{id}")).await.filter(|answer| answer.status == 200);
    let waits = async || show().await.is_some_and(|answer| answer.json()["status"] == "awaiting_approval");
    stack.until("the plan waits for approval", waits).await;
    assert_eq!(checked(get(at, &format!("/v1/runs/{id}/result?wait=1")).await, 202)["status"], "awaiting_approval");
    let approve = format!("/v1/runs/{id}/approve");
    let approved = checked(post(at, &approve, "{\"by\": \"alice\", \"reason\": \"fine\"}").await, 200);
    assert_eq!(approved["answer"], "accepted");
    assert_eq!(checked(get(at, &format!("/v1/runs/{id}/result?wait=60")).await, 200)["final_response"], "4");
    assert_eq!(checked(post(at, &format!("/v1/runs/{id}/cancel"), "{}").await, 409)["answer"], "refused");

    let ids = |answer: Value| answer.as_array().unwrap().iter().map(|run| run["run_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(checked(get(at, "/v1/runs").await, 200)), [json!(id), json!("one")]);
    assert_eq!(ids(checked(get(at, "/v1/runs?limit=1").await, 200)), [json!(id)]);
    assert_eq!(ids(checked(get(at, "/v1/runs?status=failed").await, 200)), Vec::<Value>::new());

    let all = checked(get(at, "/v1/runs/one/events").await, 200);
    let events = all.as_array().unwrap();
    assert_eq!((&events[0]["type"], &events.last().unwrap()["type"]), (&"run_opened".into(), &"run_finished".into()));
    let after = format!("/v1/runs/one/events?after={}", events[0]["id"].as_str().unwrap());
    assert_eq!(checked(get(at, &after).await, 200).as_array().unwrap().len(), events.len() - 1);
    let stream = ask(at, "GET", "/v1/runs/one/events", &["Accept: text/event-stream"], "").await.unwrap().body;
    assert_eq!(stream.lines().filter(|line| line.starts_with("data: ")).count(), events.len(), "{stream}");

    assert_eq!(console.stop().await.code(), Some(0));
    stack.clean().await;
}

/// Bad requests are refused with a reason, and so is whoever does not know the token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_with_a_reason() {
    let (stack, _services) = Stack::running(&[]).await;
    let (_open, open) = serve(&stack, &[]).await;
    let large = format!("{{\"objective\": \"{}\"}}", "x".repeat(2 << 20));
    let cases = [
        ("POST", "/v1/runs", "{\"objective\": \" \"}", 400, "objective is empty"),
        ("POST", "/v1/runs", "{", 400, "body is not JSON"),
        ("POST", "/v1/runs", "{\"objective\": \"x\", \"options\": {\"max_tokens\": 0}}", 400, "options.max_tokens"),
        ("POST", "/v1/runs", &large, 413, "the limit is 1048576 bytes"),
        (
            "POST",
            "/v1/runs?wait=61",
            "{\"objective\": \"x\", \"run_id\": \"w\"}",
            400,
            "wait must be a whole number of at most 60",
        ),
        ("GET", "/v1/runs?limit=-1", "", 400, "limit must be"),
        ("GET", "/v1/runs?status=happy", "", 400, "there is no status \"happy\""),
        ("GET", "/v1/runs/nobody", "", 404, "there is no run nobody"),
        ("GET", "/v1/runs/nobody/result", "", 404, "there is no run nobody"),
        ("GET", "/v1/runs/nobody/events", "", 404, "there is no run nobody"),
        ("GET", "/v1/runs/%7Bx%7D", "", 400, "run id"),
        ("POST", "/v1/runs/nobody/cancel", "{}", 404, "there is no run nobody"),
        ("POST", "/v1/runs/nobody/please", "{}", 400, "unknown variant `please`"),
        ("POST", "/v1/runs/nobody/cancel", "[]", 400, "not a JSON object"),
    ];
    let json = ["Content-Type: application/json"];
    for (method, path, body, status, why) in cases {
        let answer = ask(&open, method, path, &json, body).await;
        let error = checked(answer, status)["error"].clone();
        assert!(error.as_str().is_some_and(|error| error.contains(why)), "{method} {path}: {error}");
    }
    let plain = ask(&open, "POST", "/v1/runs", &["Content-Type: text/plain"], "{\"objective\": \"x\"}").await;
    assert_eq!(plain.map(|answer| answer.status), Some(415));

    let (_closed, closed) = serve(&stack, &[("PLANRELAY_API_TOKEN", "s3cret")]).await;
    for (header, status) in [("X: y", 401), ("Authorization: Bearer s3creT", 401), ("Authorization: Bearer s3cret", 200)] {
        let answer = ask(&closed, "GET", "/v1/runs", &[header], "").await;
        assert_eq!(answer.map(|answer| answer.status), Some(status), "{header}");
    }
    // Probes and scrapers know no token.
    assert_eq!(get(&closed, "/metrics").await.map(|answer| answer.status), Some(200));
    stack.clean().await;
}
