//! What a collector sees of a run, and what it does not.

use std::collections::{BTreeMap, BTreeSet};

use common::run::RunStatus;
use serde_json::json;
use support::collector::{Collector, Seen};
use support::fake_openai::{FakeOpenAi, Script, ScriptedMove};
use support::stack::Stack;

/// A word that stands in the objective, the plan, a tool's arguments, a result and the answer.
const SECRET: &str = "XYZZYPLUGH";

fn script() -> Script {
    Script::default()
        .plan(|_| {
            json!({"steps": [
                {"step_number": 1, "description": format!("work out 6*7 for {SECRET}"), "tool_hint": "calculate", "depends_on": []},
                {"step_number": 2, "description": "say it kindly", "tool_hint": null, "depends_on": [1]},
            ]})
        })
        .act(|request| match (request.prompt().contains("say it kindly"), request.has_tool_output()) {
            (true, _) => ScriptedMove::Answer(format!("It is 42, {SECRET}.")),
            (false, false) => ScriptedMove::Call("calculate", json!({"expression": "6*7"})),
            (false, true) => ScriptedMove::Answer("42".into()),
        })
        .answer(|_| format!("The answer is 42, dear {SECRET}."))
}

/// The span of a run, once it is there.
fn root(spans: &[Seen]) -> Option<&Seen> {
    spans.iter().find(|span| span.name == "invoke_workflow planrelay")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_one_trace_across_all_services() {
    let (collector, fake) = (Collector::start().await, FakeOpenAi::scripted(script()).await);
    let (endpoint, url) = (collector.endpoint(), fake.base_url());
    let settings = [
        ("OPENAI_BASE_URL", &*url),
        ("OPENAI_MODEL", "fake-1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let (stack, mut services) = Stack::running(&settings).await;
    let run = stack.objective("traced", json!({"objective": format!("What is 6*7, {SECRET}?")})).await;
    let result = stack.result(&run).await;
    assert_eq!(result.status, RunStatus::Succeeded, "{result:?}");
    for service in &mut services {
        assert!(service.stop().await.success());
    }
    let spans = collector.spans();
    eprintln!("{spans:#?}");
    let traces: BTreeSet<&str> = spans.iter().map(|span| &*span.trace).collect();
    assert_eq!(traces.len(), 1);
    let services: BTreeSet<&str> = spans.iter().map(|span| &*span.service).collect();
    assert_eq!(services, BTreeSet::from(["planrelay-planner", "planrelay-executor", "planrelay-summarizer"]));
    let _ = (root(&spans), BTreeMap::<u8, u8>::new());
    stack.clean().await;
}
