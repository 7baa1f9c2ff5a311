//! What a collector sees of a run, and what it does not; and what the logs say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::id::RunId;
use common::message::Queue;
use common::run::RunStatus;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Value, json};
use support::collector::{Collector, Seen};
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Script, ScriptedMove};
use support::stack::{Process, Stack};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// A word that stands in the objective, the plan, a result and the answer; of a run that fails, in the arguments and the reasons.
const SECRET: &str = "XYZZYPLUGH";
const SUBMITTED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const ROOT: &str = "invoke_workflow planrelay";

/// A model that plans a step with a tool and one without, and says the word wherever it can.
fn script() -> Script {
    Script::default()
        .plan(|_| {
            json!({"steps": [
                {"step_number": 1, "description": format!("work out 6*7 for {SECRET}"), "tool_hint": "calculate", "depends_on": []},
                {"step_number": 2, "description": format!("say it kindly to {SECRET}"), "tool_hint": null, "depends_on": [1]},
            ]})
        })
        .act(|request| match (request.prompt().contains("say it kindly"), request.has_tool_output()) {
            (true, _) => ScriptedMove::Answer(format!("It is 42, {SECRET}.")),
            (false, false) => ScriptedMove::Call("calculate", json!({"expression": "6*7"})),
            (false, true) => ScriptedMove::Answer("42".into()),
        })
        .answer(|_| format!("The answer is 42, dear {SECRET}."))
}

/// A stack with a planner, two executors and a summarizer that send to a collector and ask a model.
struct Traced {
    collector: Collector,
    fake: FakeOpenAi,
    stack: Stack,
    services: Vec<Process>,
}

impl Traced {
    async fn with(script: Script, settings: &[(&str, &str)]) -> Self {
        Self::of(FakeOpenAi::scripted(script).await, settings).await
    }

    async fn of(fake: FakeOpenAi, settings: &[(&str, &str)]) -> Self {
        let collector = Collector::start().await;
        let (endpoint, url) = (collector.endpoint(), fake.base_url());
        let mut all = vec![
            ("OPENAI_BASE_URL", &*url),
            ("OPENAI_MODEL", "fake-1"),
            ("PLANRELAY_LOG", "info"),
            ("PLANRELAY_LOG_FORMAT", "json"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ];
        all.extend(settings);
        let (stack, services) = Stack::running(&all).await;
        Self { collector, fake, stack, services }
    }

    /// Stops every service that is left; gives what the collector has got by then, and what they have logged.
    async fn end(mut self) -> (Vec<Seen>, String, Collector) {
        for service in &mut self.services {
            if service.ended().is_none() {
                assert!(service.stop().await.success());
            }
        }
        let log = self.services.iter().map(|service| std::fs::read_to_string(&service.log).unwrap()).collect();
        self.stack.clean().await;
        (self.collector.spans(), log, self.collector)
    }
}

/// Every span with the path to it, sorted; queues without their prefix.
fn tree(spans: &[Seen]) -> Vec<String> {
    let named: BTreeMap<&str, &Seen> = spans.iter().map(|span| (&*span.id, span)).collect();
    assert_eq!(named.len(), spans.len(), "a span came twice");
    let name = |span: &Seen| match span.name.split_once(" test-") {
        Some((operation, queue)) => format!("{operation} {}", queue.rsplit('.').next().unwrap()),
        None => span.name.clone(),
    };
    let path = |span: &Seen| {
        let up = |span: &&Seen| named.get(&*span.parent).copied();
        let mut names: Vec<String> = std::iter::successors(Some(span), up).map(name).collect();
        names.reverse();
        names.join(" > ")
    };
    let mut paths: Vec<String> = spans.iter().map(path).collect();
    paths.sort();
    paths
}

fn one<'s>(spans: &'s [Seen], name: &str) -> &'s Seen {
    let found: Vec<&Seen> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {:?}", tree(spans));
    found[0]
}

fn traces(spans: &[Seen]) -> BTreeSet<&str> {
    spans.iter().map(|span| &*span.trace).collect()
}

/// The spans say these things.
fn says(span: &Seen, expected: Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(span.says(name), value, "{name} of {span:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_one_trace_across_all_services() {
    let traced = Traced::with(script(), &[]).await;
    let run = traced.stack.objective("traced", json!({"objective": format!("What is 6*7, {SECRET}?")})).await;
    assert_eq!(traced.stack.result(&run).await.status, RunStatus::Succeeded);
    let (spans, log, collector) = traced.end().await;
    let root = one(&spans, ROOT);
    assert_eq!(traces(&spans), BTreeSet::from([&*root.trace]), "{:?}", tree(&spans));
    let step = format!("{ROOT} > process steps");
    assert_eq!(
        tree(&spans),
        [
            ROOT.to_owned(),
            format!("{ROOT} > process completions"),
            format!("{ROOT} > process completions > invoke_agent summarizer"),
            format!("{ROOT} > process completions > invoke_agent summarizer > chat fake-1"),
            format!("{ROOT} > process objectives"),
            format!("{ROOT} > process objectives > plan planner"),
            format!("{ROOT} > process objectives > plan planner > chat fake-1"),
            format!("{ROOT} > process reports"),
            step.clone(),
            step.clone(),
            format!("{step} > invoke_agent executor"),
            format!("{step} > invoke_agent executor"),
            format!("{step} > invoke_agent executor > chat fake-1"),
            format!("{step} > invoke_agent executor > chat fake-1"),
            format!("{step} > invoke_agent executor > chat fake-1"),
            format!("{step} > invoke_agent executor > execute_tool calculate"),
        ]
    );
    let services: BTreeSet<&str> = spans.iter().map(|span| &*span.service).collect();
    assert_eq!(services, BTreeSet::from(["planrelay-planner", "planrelay-executor", "planrelay-summarizer"]));
    assert!(!collector.has_heard(SECRET) && !log.contains(SECRET), "prompts and replies are nobody's business");
    names_are_as_the_conventions_have_them(&spans);
    lines_say_what_they_are_about(&log, root);
}

fn names_are_as_the_conventions_have_them(spans: &[Seen]) {
    let root = one(spans, ROOT);
    says(
        root,
        json!({
            "gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "planrelay", "gen_ai.conversation.id": "traced",
            "planrelay.run.id": "traced", "planrelay.run.status": "succeeded", "planrelay.run.steps": 2, "planrelay.plan.revision": 1,
            "planrelay.run.model_calls": 5, "planrelay.run.tool_calls": 1, "error.type": null, "gen_ai.input.messages": null,
        }),
    );
    assert_eq!((root.kind, &*root.parent, root.failed), ("INTERNAL", "", false));
    assert_eq!(root.schema_url, "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev");
    let first = spans.iter().map(|span| span.began).min().unwrap();
    // The run is opened within the first message's span; its time is the store's, in milliseconds.
    assert!(root.began.abs_diff(first) < 1_000_000_000, "{} {first}", root.began);
    assert!(
        root.ended + 1_000_000 >= spans.iter().filter(|span| span.name.starts_with("chat")).map(|span| span.ended).max().unwrap()
    );
    for chat in spans.iter().filter(|span| span.name == "chat fake-1") {
        assert_eq!(chat.kind, "CLIENT");
        says(
            chat,
            json!({
                "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "fake-1",
                "gen_ai.response.model": "fake-model", "gen_ai.response.finish_reasons": [chat.says("gen_ai.response.finish_reasons")[0]],
                "gen_ai.conversation.id": "traced", "server.address": "127.0.0.1", "gen_ai.request.temperature": 0.0, "error.type": null,
                "gen_ai.input.messages": null, "gen_ai.output.messages": null,
            }),
        );
        for tokens in ["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.request.max_tokens", "server.port"] {
            assert!(chat.says(tokens).as_u64().is_some_and(|tokens| tokens > 0), "{tokens} of {chat:#?}");
        }
    }
    let tool = one(spans, "execute_tool calculate");
    says(tool, json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "calculate", "gen_ai.tool.type": "function"}));
    says(tool, json!({"gen_ai.tool.call.id": "traced:1:0", "gen_ai.tool.call.arguments": null, "gen_ai.tool.call.result": null}));
    says(
        one(spans, "plan planner"),
        json!({"gen_ai.operation.name": "plan", "gen_ai.agent.name": "planner", "planrelay.plan.revision": 1}),
    );
    let steps: Vec<&Seen> = spans.iter().filter(|span| span.name.ends_with(".v1.steps")).collect();
    for step in &steps {
        assert_eq!(step.kind, "CONSUMER");
        let queue = step.name.strip_prefix("process ").unwrap();
        says(
            step,
            json!({
                "messaging.system": "rabbitmq", "messaging.operation.name": "process", "messaging.operation.type": "process",
                "messaging.destination.name": queue, "planrelay.run.id": "traced", "planrelay.step.attempt": 1,
                "planrelay.outcome": "succeeded",
            }),
        );
        assert!(step.says("planrelay.step.epoch").is_u64() && step.says("messaging.message.id").is_string(), "{step:#?}");
    }
    let numbers: BTreeSet<u64> = steps.iter().filter_map(|step| step.says("planrelay.step.number").as_u64()).collect();
    assert_eq!(numbers, BTreeSet::from([1, 2]));
    for span in spans {
        assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));
        let instance = span.resource["service.instance.id"].as_str().unwrap();
        assert!(format!("planrelay-{instance}").starts_with(&span.service), "{instance}");
    }
}

/// Every line about the run says run and trace as fields, and the ones about a step, the step.
fn lines_say_what_they_are_about(log: &str, root: &Seen) {
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect();
    let about: Vec<&Value> =
        lines.iter().filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with("run traced"))).collect();
    for line in &about {
        assert_eq!((&line["run_id"], &line["trace_id"]), (&json!("traced"), &json!(root.trace)), "{line}");
    }
    let steps: BTreeSet<u64> = about.iter().filter_map(|line| line["step"].as_u64()).collect();
    assert!(about.len() >= 5 && steps == BTreeSet::from([1, 2]), "{about:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_is_said_when_it_is_asked_for() {
    let settings = [("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")];
    let resource = [("OTEL_RESOURCE_ATTRIBUTES", "service.version=9,team=blue"), ("OTEL_SERVICE_NAME", "mine")];
    let headers = [("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20eA==")];
    let traced = Traced::with(script(), &[&settings[..], &resource, &headers].concat()).await;
    let run = traced.stack.objective("quoted", json!({"objective": format!("What is 6*7, {SECRET}?")})).await;
    assert_eq!(traced.stack.result(&run).await.status, RunStatus::Succeeded);
    let (spans, log, collector) = traced.end().await;
    let messages = |span: &Seen, name: &str| -> Value { serde_json::from_str(span.says(name).as_str().unwrap()).unwrap() };
    let root = one(&spans, ROOT);
    assert_eq!(messages(root, "gen_ai.input.messages")[0]["parts"][0]["content"], format!("What is 6*7, {SECRET}?"));
    assert_eq!(messages(root, "gen_ai.output.messages")[0]["parts"][0]["content"], format!("The answer is 42, dear {SECRET}."));
    for chat in spans.iter().filter(|span| span.name == "chat fake-1") {
        assert_eq!(messages(chat, "gen_ai.input.messages")[0]["role"], "system");
        assert_eq!(messages(chat, "gen_ai.output.messages")[0]["role"], "assistant");
    }
    let tool = one(&spans, "execute_tool calculate");
    says(tool, json!({"gen_ai.tool.call.arguments": "{\"expression\":\"6*7\"}", "gen_ai.tool.call.result": "\"42\""}));
    assert!(!log.contains(SECRET), "what is asked of traces is not asked of logs");
    assert!(
        spans
            .iter()
            .all(|span| span.service == "mine" && span.resource["service.version"] == "9" && span.resource["team"] == "blue")
    );
    for headers in collector.headers() {
        assert!(headers["content-type"] == "application/json" && headers["authorization"] == "Basic eA==", "{headers:?}");
    }
}

/// A publication of an objective with a `traceparent` of its own.
async fn submit(stack: &Stack, run: &str, traceparent: &str, reply_to: Option<&str>) -> RunId {
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.into()));
    let mut properties = BasicProperties::default().with_headers(headers);
    if let Some(queue) = reply_to {
        properties = properties.with_reply_to(ShortString::from(queue));
    }
    let step = json!({"step_number": 1, "description": "x", "tool_hint": "calculate", "arguments": {"expression": "6*7"}});
    let body = json!({"objective": "x", "run_id": run, "plan": {"steps": [step]}, "options": {"respond": "results"}});
    stack.publish(Queue::Objectives, body.to_string().as_bytes(), properties).await;
    RunId::parse(run).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_that_is_traced_goes_on_being_traced() {
    let traced = Traced::with(Script::default(), &[]).await;
    let replies = traced.stack.reply_queue().await;
    let run = submit(&traced.stack, "mine", SUBMITTED, Some(&replies)).await;
    let (_, properties) = traced.stack.receive(&replies).await;
    let headers = properties.headers().clone().unwrap();
    let reply = headers.inner().get("traceparent").and_then(AMQPValue::as_long_string).map(ToString::to_string).unwrap();
    // Somebody decided that this one is not recorded, and somebody else sent what is no trace.
    let unsampled = submit(&traced.stack, "unsampled", &SUBMITTED.replace("-01", "-00").replace("0af7", "1af7"), None).await;
    let odd = submit(&traced.stack, "odd", "hello", None).await;
    for run in [&run, &unsampled, &odd] {
        assert_eq!(traced.stack.result(run).await.status, RunStatus::Succeeded);
    }
    let (spans, ..) = traced.end().await;
    let of = |run: &str| spans.iter().filter(|span| span.says("planrelay.run.id") == run).cloned().collect::<Vec<_>>();
    let mine = of("mine");
    let root = one(&mine, ROOT);
    assert_eq!((&*root.trace, &*root.parent), ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"));
    assert_eq!(reply, format!("00-{}-{}-01", root.trace, root.id), "the answer hangs under the run");
    assert_eq!(traces(&mine).len(), 1);
    assert_eq!(tree(&mine).iter().filter(|path| path.starts_with(ROOT)).count(), mine.len(), "{:?}", tree(&mine));
    assert_eq!(of("unsampled").len(), 0);
    assert_ne!(one(&of("odd"), ROOT).trace, root.trace);
    assert!(spans.iter().any(|span| span.name == "execute_tool calculate"), "of an exact step");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_planner_and_executor_die_is_still_one_trace() {
    let gate = Arc::new(Semaphore::new(0));
    let (script, inner) = (script(), Arc::clone(&gate));
    let fake = FakeOpenAi::start(move |request| {
        let reply = script.respond(request);
        // The first plan and the first move wait; what is asked again after a death does not.
        let held = matches!((request.purpose(), request.number), (Purpose::Plan, 0) | (Purpose::Act, 2));
        if held { Behaviour::Held(inner.clone(), Box::new(reply)) } else { reply }
    })
    .await;
    let mut traced = Traced::of(fake, &[]).await;
    let run = traced.stack.objective("shot", json!({"objective": "What is 6*7?"})).await;
    traced.fake.wait_for_calls(1).await;
    traced.services[0].kill();
    traced.services.push(traced.stack.start("planner"));
    traced.fake.wait_for_calls(3).await;
    for executor in &mut traced.services[1..3] {
        executor.kill();
    }
    traced.services.push(traced.stack.start("executor"));
    assert_eq!(traced.stack.result(&run).await.status, RunStatus::Succeeded);
    let (spans, ..) = traced.end().await;
    let root = one(&spans, ROOT);
    assert_eq!(traces(&spans), BTreeSet::from([&*root.trace]));
    assert!(tree(&spans).iter().all(|path| path.starts_with(ROOT)), "{:?}", tree(&spans));
    // What the dead had not sent is gone with them; what was done again is there.
    one(&spans, "plan planner");
    let done = spans.iter().filter(|span| span.says("planrelay.outcome") == "succeeded").count();
    assert_eq!(done, 2, "{:?}", tree(&spans));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_says_so() {
    let script = Script::default()
        .plan(|_| json!({"steps": [{"step_number": 1, "description": "try", "tool_hint": "calculate", "depends_on": []}]}))
        .act(|request| match request.has_tool_output() {
            false => ScriptedMove::Call("calculate", json!({"expression": format!("{SECRET} /")})),
            true => ScriptedMove::Fail { why: format!("no {SECRET}"), retryable: true },
        });
    let traced = Traced::with(script, &[("PLANRELAY_STEP_ATTEMPTS", "2"), ("PLANRELAY_MAX_REPLANS", "0")]).await;
    let run = traced.stack.objective("failing", json!({"objective": "try"})).await;
    assert_eq!(traced.stack.result(&run).await.status, RunStatus::Failed);
    let (spans, log, collector) = traced.end().await;
    let root = one(&spans, ROOT);
    assert!(root.failed, "{root:#?}");
    says(root, json!({"error.type": "failed", "planrelay.run.status": "failed"}));
    let tool = spans.iter().find(|span| span.name == "execute_tool calculate").unwrap();
    assert!(tool.failed && tool.says("error.type") == "tool_error", "{tool:#?}");
    let outcomes: BTreeMap<u64, (&Value, bool)> = spans
        .iter()
        .filter(|span| span.name.ends_with(".v1.steps"))
        .map(|span| (span.says("planrelay.step.attempt").as_u64().unwrap(), (span.says("planrelay.outcome"), span.failed)))
        .collect();
    assert_eq!(outcomes, BTreeMap::from([(1, (&json!("again"), true)), (2, (&json!("failed"), true))]), "{:?}", tree(&spans));
    let agents = spans.iter().filter(|span| span.name == "invoke_agent executor" && span.says("error.type") == "judged").count();
    assert_eq!(agents, 2);
    assert!(!collector.has_heard(SECRET) && !log.contains(SECRET), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_or_mute_fails_nothing() {
    // Takes connections, and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (what, address) in [("away", closed), ("mute", mute.local_addr().unwrap())] {
        let endpoint = format!("http://me:hunter2@{address}");
        let settings =
            [("OTEL_BSP_SCHEDULE_DELAY", "20"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"), ("OTEL_BSP_MAX_QUEUE_SIZE", "8")];
        let traced = Traced::with(script(), &[&settings[..], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]].concat()).await;
        for number in 0..5 {
            traced.stack.objective(&format!("{what}-{number}"), json!({"objective": "What is 6*7?"})).await;
        }
        for number in 0..5 {
            let run = RunId::parse(&format!("{what}-{number}")).unwrap();
            assert_eq!(traced.stack.result(&run).await.status, RunStatus::Succeeded);
        }
        let summarizer = traced.services[3].log.clone();
        let said = async || std::fs::read_to_string(&summarizer).is_ok_and(|log| log.contains("traces are not taken by"));
        traced.stack.until("it is said that nobody takes traces", said).await;
        let before = Instant::now();
        let (_, log, _) = traced.end().await;
        assert!(before.elapsed() < Duration::from_secs(30), "{what}: {:?}", before.elapsed());
        assert!(log.matches("traces are not taken by").count() <= 4, "once per process: {log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_that_cannot_be_used_are_refused_at_the_start() {
    let stack = Stack::new(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]).await;
    for (service, variable, value) in [
        ("planner", "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("executor", "OTEL_TRACES_SAMPLER", "sometimes"),
        ("summarizer", "OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
    ] {
        let mut command = stack.command(service);
        let output = command.env(variable, value).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("{service}: {variable}: ")) && said.contains(value), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_in_one_process_is_traced_as_well() {
    let (collector, fake) = (Collector::start().await, FakeOpenAi::scripted(script()).await);
    let (endpoint, url) = (collector.endpoint(), fake.base_url());
    let stack =
        Stack::new(&[("OPENAI_BASE_URL", &*url), ("OPENAI_MODEL", "fake-1"), ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)]).await;
    let output = stack.planrelay(&["run", "What is 6*7?"]).await;
    assert!(output.status.success(), "{output:?}");
    let spans = collector.spans();
    let root = one(&spans, ROOT);
    assert_eq!((traces(&spans).len(), &*root.service), (1, "planrelay-run"));
    assert!(tree(&spans).len() == 16 && tree(&spans).iter().all(|path| path.starts_with(ROOT)), "{:?}", tree(&spans));
}
