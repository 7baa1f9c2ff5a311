//! The states in which a run may be when its release is replaced: each is played with the services themselves, up to the moment.
//!
//! In all of them the model does what the words of a step say, and hangs where the scene wants it to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::id::RunId;
use common::run::{RunStatus, RunView, StepState};
use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Request, Script, ScriptedMove};
use support::plans::{exact, step};
use support::seam::{Kind, Script as Seam};

use super::stage::Stage;

/// Every scene, by the name of its file.
pub(super) const SCENES: [&str; 18] = [
    "opened",
    "planning",
    "awaiting-approval",
    "dispatched",
    "running",
    "taken-over",
    "budgeted",
    "retrying",
    "parked",
    "reported",
    "replan-owed",
    "replanning",
    "paused",
    "halted",
    "summarizing",
    "succeeded",
    "partial",
    "cancelled",
];

/// The model of all scenes. While `troubled`, it hangs, fails and is busy where the words say so.
pub(super) async fn model(troubled: &Arc<AtomicBool>) -> FakeOpenAi {
    let troubled = Arc::clone(troubled);
    let script = Script::default().plan(planned).replan(|_| revised()).act(acted);
    FakeOpenAi::start(move |request| {
        let trouble = troubled.load(Ordering::SeqCst).then(|| trouble(request)).flatten();
        trouble.unwrap_or_else(|| script.respond(request))
    })
    .await
}

fn trouble(request: &Request) -> Option<Behaviour> {
    let (prompt, told) = (request.prompt(), told(request));
    match request.purpose() {
        Purpose::Plan => prompt.contains("juggle").then_some(Behaviour::Silence),
        Purpose::Replan => Some(Behaviour::Silence),
        Purpose::Act if told == "please stumble" => Some(Behaviour::error(500, "server_error", "oops")),
        Purpose::Act if told == "please stand in line" => Some(Behaviour::rate_limited(Some("2"))),
        Purpose::Act if told == "please look up" && request.has_tool_output() => Some(Behaviour::Silence),
        Purpose::Act => None,
        Purpose::Answer => prompt.contains("please hesitate").then_some(Behaviour::Silence),
    }
}

/// The first draft cannot be used; after the complaint about it comes one that can.
fn planned(request: &Request) -> Value {
    let mut only = step(1, "please look up", &[]);
    if !request.prompt().contains("juggle") {
        only["tool_hint"] = "juggle".into();
    }
    json!({"steps": [only]})
}

fn revised() -> Value {
    let mut new = step(9, "please do it another way", &[]);
    new["replaces"] = 2.into();
    json!({"decision": "revise", "reason": "there is another way", "steps": [new], "drop": []})
}

fn acted(request: &Request) -> ScriptedMove {
    match told(request).as_str() {
        "please fail" => ScriptedMove::Fail { why: "the source is gone".into(), retryable: false },
        "please look up" if !request.has_tool_output() => ScriptedMove::Call("calculate", json!({"expression": "6*7"})),
        "please look up" => ScriptedMove::Answer("looked up: 42".into()),
        _ => ScriptedMove::Answer("done".into()),
    }
}

/// The words of the step that the request is about.
fn told(request: &Request) -> String {
    let prompt = request.prompt();
    prompt.split_once("The step to do:\n").and_then(|(_, rest)| rest.lines().next()).unwrap_or_default().to_owned()
}

fn objective(name: &str, plan: &[Value], options: Value) -> Value {
    let mut objective = json!({"run_id": format!("golden-{name}"), "objective": format!("see {name}"), "options": options});
    if !plan.is_empty() {
        objective["plan"] = json!({"steps": plan});
    }
    objective
}

fn listed() -> Value {
    json!({"respond": "results"})
}

fn is(number: u32, state: StepState) -> impl Fn(&RunView) -> bool {
    move |view| view.steps.iter().any(|step| step.step.step_number.0 == number && step.state == state)
}

/// A sum, two steps that follow it, one that follows those, one that needs nothing; one at a time.
fn mixed() -> Vec<Value> {
    let steps = [(2, "please look up", &[1][..]), (3, "please do it", &[1]), (4, "please compare", &[2, 3])];
    let steps = steps.into_iter().map(|(number, what, after)| step(number, what, after));
    std::iter::once(exact(1, "2*3", &[])).chain(steps).collect()
}

/// Plays a scene up to its moment; gives the run, and the commands that somebody will have for it afterwards.
pub(super) async fn play(stage: &mut Stage, model: &FakeOpenAi, name: &'static str) -> (RunId, Vec<&'static str>) {
    match name {
        "opened" | "planning" | "awaiting-approval" => early(stage, model, name).await,
        "dispatched" | "running" | "taken-over" | "budgeted" | "paused" | "halted" => at_work(stage, model, name).await,
        "retrying" | "parked" | "reported" | "replan-owed" | "replanning" => failing(stage, model, name).await,
        "summarizing" | "succeeded" | "partial" | "cancelled" => late(stage, model, name).await,
        other => panic!("no scene {other}"),
    }
}

async fn early(stage: &mut Stage, model: &FakeOpenAi, name: &str) -> (RunId, Vec<&'static str>) {
    let seam = Seam::new();
    match name {
        "opened" => {
            seam.hold(Kind::Verb("claim"), true);
            stage.start("planner", Some(&seam));
            let run = stage.submit(&objective(name, &[exact(1, "6*7", &[])], listed())).await;
            seam.asked(Kind::Verb("claim"), 1).await;
            (run, vec![])
        }
        "planning" => {
            stage.start("planner", None);
            let run = stage.submit(&objective(name, &[], listed())).await;
            model.wait_for_calls(2).await;
            (run, vec![])
        }
        _ => {
            stage.start("planner", None);
            let options = json!({"respond": "results", "approve": "plan"});
            let run = stage.submit(&objective(name, &[exact(1, "6*7", &[])], options)).await;
            stage.until(&run, "a plan that waits", |view| view.status == RunStatus::AwaitingApproval).await;
            (run, vec!["approve"])
        }
    }
}

async fn at_work(stage: &mut Stage, model: &FakeOpenAi, name: &str) -> (RunId, Vec<&'static str>) {
    stage.start("planner", None);
    let options = match name {
        "budgeted" => json!({"respond": "results", "max_parallel_steps": 1, "max_tokens": 100_000, "max_tool_calls": 9}),
        _ => json!({"respond": "results", "max_parallel_steps": 1}),
    };
    let mut first = objective(name, &mixed(), options);
    if name == "running" {
        first["context"] = "there is some".into();
        first["options"]["deadline_secs"] = 600.into();
    }
    let run = stage.submit(&first).await;
    if name == "dispatched" {
        stage.until(&run, "a step is dispatched", is(1, StepState::Dispatched)).await;
        return (run, vec![]);
    }
    stage.start("executor", None);
    // The first turn calls a tool; the second one hangs, with the first in the journal.
    model.wait_for_calls(2).await;
    match name {
        "taken-over" => {
            stage.kill().await;
            stage.start("executor", None);
            model.wait_for_calls(3).await;
        }
        "paused" => {
            stage.control(&run, "pause").await;
            return (run, vec!["resume"]);
        }
        "halted" => stage.control(&run, "cancel").await,
        _ => {}
    }
    (run, vec![])
}

async fn failing(stage: &mut Stage, model: &FakeOpenAi, name: &str) -> (RunId, Vec<&'static str>) {
    let words = match name {
        "retrying" => "please stumble",
        "parked" => "please stand in line",
        "reported" => "please do it",
        _ => "please fail",
    };
    let plan = [exact(1, "2*3", &[]), step(2, words, &[]), step(3, "please compare", &[1, 2])];
    let seam = Seam::new();
    let planner = Seam::new();
    stage.start("planner", Some(&planner));
    let run = stage.submit(&objective(name, &plan, listed())).await;
    stage.until(&run, "both are dispatched", is(2, StepState::Dispatched)).await;
    if name != "replanning" {
        // Nobody dispatches again what comes to be ready.
        stage.kill().await;
    }
    if name == "reported" {
        seam.hold(Kind::Publish, true);
    }
    stage.start("executor", Some(&seam));
    match name {
        "retrying" | "parked" => stage.until(&run, "the step waits", is(2, StepState::Ready)).await,
        "reported" => seam.asked(Kind::Publish, 1).await,
        "replan-owed" => {
            stage.until(&run, "the step has failed", is(2, StepState::Failed)).await;
            stage.until(&run, "the sum is done", is(1, StepState::Succeeded)).await;
        }
        _ => {
            model.wait_for_calls(2).await;
            stage.until(&run, "the sum is done", is(1, StepState::Succeeded)).await;
        }
    }
    (run, vec![])
}

async fn late(stage: &mut Stage, model: &FakeOpenAi, name: &str) -> (RunId, Vec<&'static str>) {
    stage.start_all();
    match name {
        "summarizing" => {
            let mut objective = objective(name, &[exact(1, "6*7", &[])], json!({}));
            objective["objective"] = "please hesitate".into();
            let run = stage.submit(&objective).await;
            model.wait_for_calls(1).await;
            (run, vec![])
        }
        "succeeded" => {
            let run = stage.submit(&objective(name, &[exact(1, "6*7", &[])], listed())).await;
            stage.result(&run).await;
            (run, vec![])
        }
        "partial" => {
            let plan = [exact(1, "6*7", &[]), exact(2, "1/0", &[]), step(3, "please compare", &[1, 2])];
            let options = json!({"respond": "results", "replan": "never"});
            let run = stage.submit(&objective(name, &plan, options)).await;
            stage.result(&run).await;
            (run, vec!["retry"])
        }
        _ => {
            let run = stage.submit(&objective(name, &mixed(), listed())).await;
            model.wait_for_calls(1).await;
            stage.control(&run, "cancel").await;
            stage.result(&run).await;
            (run, vec![])
        }
    }
}
