//! Mixed runs while everything around them dies and comes back: what was promised about them holds.

use std::collections::BTreeMap;
use std::time::Duration;

use common::event::{Event, EventType};
use common::id::RunId;
use common::ids::Ids;
use common::message::Queue;
use common::run::{HaltKind, Outcome, RunDocument, RunStatus};
use lapin::BasicProperties;
use serde_json::{Value, json};
use support::chaos;
use support::fake_openai::{FakeOpenAi, Script, ScriptedMove};
use support::plans::exact;
use support::stack::{Process, Stack};

/// Runs of each kind.
const RUNS_PER_KIND: usize = 3;
/// Processes killed, one after the other.
const KILLS: usize = 12;
/// Tool calls that a run with a budget may make.
const TOOL_CALLS_MAX: u64 = 4;

/// Sums in a chain, so that a run lasts for a few kills.
fn chain(length: u32) -> Vec<Value> {
    (1..=length)
        .map(|n| exact(n, &format!("{n}+{n}"), if n == 1 { &[] } else { std::slice::from_ref(&PREVIOUS[n as usize - 2]) }))
        .collect()
}

const PREVIOUS: [u32; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// The objective of a kind of run.
fn objective(kind: &str) -> Value {
    let mut steps = chain(12);
    let mut options = json!({"respond": "results"});
    match kind {
        // Its sixth step fails for good, and the model knows another way.
        "revised" => steps[5]["arguments"]["expression"] = "1/0".into(),
        "bounded" => options["max_tool_calls"] = TOOL_CALLS_MAX.into(),
        "failing" => {
            steps[5]["arguments"]["expression"] = "1/0".into();
            options["replan"] = "never".into();
        }
        // What the model does takes long enough to be cancelled or paused in the middle.
        "cancelled" | "paused" => steps[5] = json!({"step_number": 6, "description": "think", "depends_on": [5]}),
        other => panic!("no kind {other}"),
    }
    json!({"objective": kind, "plan": {"steps": steps}, "options": options})
}

async fn command(stack: &Stack, run: &RunId, command: &str) {
    let message = json!({"run_id": run.as_str(), "command": command, "by": "chaos"});
    let id = BasicProperties::default().with_message_id(format!("{run}-{command}").as_str().into());
    stack.publish(Queue::Controls, message.to_string().as_bytes(), id).await;
}

async fn events(stack: &Stack, run: &RunId) -> Vec<Event> {
    stack.store().events(run, "", 10_000).await.unwrap()
}

/// A step that has succeeded is never claimed again, and succeeds once.
fn finished_steps_stay_finished(run: &RunId, events: &[Event]) {
    let mut done: BTreeMap<&str, bool> = BTreeMap::new();
    for event in events {
        let Some(slot) = event.slot.as_deref() else { continue };
        let succeeded = event.kind == EventType::StepFinished && event.data["outcome"] == "succeeded";
        let claimed = event.kind == EventType::Claimed && slot != "plan" && slot != "summary";
        assert!(!((succeeded || claimed) && done.contains_key(slot)), "run {run}: step {slot} again: {event:?}");
        if succeeded {
            done.insert(slot, true);
        }
    }
}

/// What a run of this kind must have come to.
fn ended_as_promised(kind: &str, result: &RunDocument) {
    let succeeded = result.step_results.iter().filter(|step| step.outcome == Outcome::Succeeded).count();
    let halted = result.halt.as_ref().map(|halt| halt.kind);
    match kind {
        "revised" => assert_eq!((result.status, result.revision, succeeded), (RunStatus::Succeeded, 2, 12), "{result:#?}"),
        "bounded" => {
            assert_eq!((result.status, halted), (RunStatus::Partial, Some(HaltKind::Budget)), "{result:#?}");
            assert!(result.usage.tool_calls <= TOOL_CALLS_MAX, "{:?}", result.usage);
        }
        "failing" => assert_eq!((result.status, succeeded), (RunStatus::Partial, 5), "{result:#?}"),
        "cancelled" => assert_eq!((result.status, halted), (RunStatus::Cancelled, Some(HaltKind::Cancelled)), "{result:#?}"),
        "paused" => assert_eq!((result.status, succeeded), (RunStatus::Succeeded, 12), "{result:#?}"),
        other => panic!("no kind {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_hold_while_replicas_die() {
    let script = Script::default().act(|_| ScriptedMove::Answer("thought".into())).replan(|_| {
        let mut new = exact(13, "6*6", &[5]);
        new["replaces"] = 6.into();
        json!({"decision": "revise", "reason": "another sum", "steps": [new], "drop": []})
    });
    let fake = FakeOpenAi::scripted(script).await;
    let url = fake.base_url();
    let stack = Stack::new(&[("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1")]).await;
    let services = ["planner", "planner", "executor", "executor", "summarizer", "summarizer"];
    let mut processes: Vec<Process> = services.iter().map(|service| stack.start(service)).collect();
    stack.queues_exist().await;
    let mut runs: Vec<(&str, RunId)> = Vec::new();
    for kind in ["revised", "bounded", "failing", "cancelled", "paused"] {
        for n in 0..RUNS_PER_KIND {
            let run = stack.objective(&format!("{kind}-{n}"), objective(kind)).await;
            match kind {
                "cancelled" => command(&stack, &run, "cancel").await,
                "paused" => command(&stack, &run, "pause").await,
                _other => {}
            }
            runs.push((kind, run));
        }
    }
    for kill in 0..KILLS {
        let victim = kill % services.len();
        processes[victim].kill();
        processes[victim] = stack.start(services[victim]);
        // The pace of the kills: each finds the stack in another state.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    // A command that came before its run was opened has found none: once more, as a person would.
    for (kind, run) in &runs {
        stack.until("the run is there", async || stack.store().status(run).await.unwrap().is_some()).await;
        match *kind {
            "cancelled" => command(&stack, run, "cancel").await,
            "paused" => command(&stack, run, "resume").await,
            _other => {}
        }
    }
    for (kind, run) in &runs {
        let result = stack.result(run).await;
        finished_steps_stay_finished(run, &events(&stack, run).await);
        if *kind == "cancelled" && result.status != RunStatus::Cancelled {
            // It was faster than the command.
            assert_eq!(result.status, RunStatus::Succeeded, "{result:#?}");
        } else {
            ended_as_promised(kind, &result);
        }
    }
    // Failed and partial runs go on from where they failed; cancelled ones never change.
    for (kind, run) in runs.iter().filter(|(kind, _)| ["failing", "cancelled"].contains(kind)) {
        let before = stack.result(run).await;
        command(&stack, run, "retry").await;
        let ends = if *kind == "failing" { 2 } else { 1 };
        let answered = async || {
            let events = events(&stack, run).await;
            let count = |kind| events.iter().filter(|event| event.kind == kind).count();
            let asked = events.iter().any(|event| event.data["command"] == "retry");
            asked && count(EventType::RunFinished) == ends
        };
        stack.until("the retry is answered", answered).await;
        let after = stack.result(run).await;
        finished_steps_stay_finished(run, &events(&stack, run).await);
        if *kind == "failing" {
            ended_as_promised(kind, &after);
        } else {
            assert_eq!(after, before, "what has ended so stays so");
        }
    }
    stack.clean().await;
}

/// Of 28 kinds of faults, how many happen at least. On a slow machine, RabbitMQ takes its time for each.
const FAULT_KINDS_MIN: usize = 20;

/// `tests/chaos` for half a minute, or until every kind of fault has happened: replicas, RabbitMQ and Redis die, hang and are cut off under
/// a hundred runs, and every one comes to what a model of it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_comes_to_what_it_must_whatever_dies() {
    let seed = (Ids::random().fraction() * 1e6) as u64;
    let plan = chaos::Plan { seed, duration: Duration::from_secs(30), pace: 4.0, in_flight: 30, builds: Vec::new(), keep: false };
    let report = Box::pin(chaos::run(&plan, |line| println!("{line}"))).await;
    println!("{report}");
    assert!(report.is_clean(), "a promise was not kept, see above");
    assert!(report.kinds() >= FAULT_KINDS_MIN, "too little was tried, see above");
}
