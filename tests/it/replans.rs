//! Judged steps, plans that are revised, and steps whose dependencies failed; every scenario in memory and on real servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::event::EventType;
use common::llm::Llm;
use common::run::{HaltKind, Outcome, RunDocument, RunStatus, Verdict};
use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Request, Script, ScriptedMove};
use support::world::{Backend, World, config, llm_config};
use tokio::sync::Semaphore;

/// Runs a scenario in memory and on real servers, each with a model of its own.
async fn on_both(scenario: impl AsyncFn(Backend)) {
    for backend in [Backend::Memory, Backend::Servers] {
        scenario(backend).await;
    }
}

async fn with(backend: Backend, fake: &FakeOpenAi) -> World {
    World::on(backend, Llm::from_config(&llm_config(&fake.base_url())).unwrap(), &config()).await
}

/// A run of one objective with a model that follows `script`; the result, and what the model was asked.
async fn run(backend: Backend, script: Script, objective: Value) -> (RunDocument, Vec<Request>, Vec<EventType>) {
    let fake = FakeOpenAi::scripted(script).await;
    let world = with(backend, &fake).await;
    let result = world.run(objective).await;
    let events = world.events(&result.run_id).await.iter().map(|event| event.kind).collect();
    world.stop().await;
    (result, fake.requests(), events)
}

fn step(number: u32, description: &str, depends_on: &[u32]) -> Value {
    json!({"step_number": number, "description": description, "tool_hint": null, "depends_on": depends_on})
}

fn plan(steps: &[Value]) -> Value {
    json!({"steps": steps})
}

/// Does what the description says: "fail …" fails, everything else is answered with "did" and the description.
fn obey(request: &Request) -> ScriptedMove {
    let prompt = request.prompt();
    // The step's own description is named last.
    let said = ["gather", "fail once", "fail again", "fail", "compare", "another way", "third way", "refined"];
    let task = said.into_iter().filter_map(|word| Some((prompt.rfind(&format!("please {word}"))?, word))).max();
    match task.map(|(_, word)| word) {
        Some("fail") => ScriptedMove::Fail { why: "the source is gone".into(), retryable: false },
        Some("fail again") => ScriptedMove::Fail { why: "this one is gone, too".into(), retryable: false },
        Some(word) => ScriptedMove::Answer(format!("did {word}")),
        None => ScriptedMove::Answer("did something".into()),
    }
}

fn asked(requests: &[Request], purpose: Purpose, part: &str) -> usize {
    requests.iter().filter(|request| request.purpose() == purpose && request.prompt().contains(part)).count()
}

fn outcomes(result: &RunDocument) -> Vec<(u32, Outcome)> {
    result.step_results.iter().map(|step| (step.step_number.0, step.outcome)).collect()
}

/// gather, fail, and a comparison of both.
fn three_steps() -> Value {
    plan(&[step(1, "please gather", &[]), step(2, "please fail", &[]), step(3, "please compare", &[1, 2])])
}

fn another_way() -> Value {
    let mut new = step(4, "please go another way", &[]);
    new["description"] = "please another way".into();
    new["replaces"] = 2.into();
    json!({"decision": "revise", "reason": "the source is gone", "steps": [new], "drop": []})
}

#[tokio::test]
async fn a_failed_step_is_replaced_and_finished_work_is_kept() {
    on_both(async |backend| {
        let script = Script::default().plan(|_| three_steps()).act(obey).replan(|_| another_way());
        let (result, requests, events) = run(backend, script, json!({"objective": "compare"})).await;
        assert_eq!((result.status, result.revision), (RunStatus::Succeeded, 2), "{result:#?}");
        assert_eq!(outcomes(&result), [(1, Outcome::Succeeded), (3, Outcome::Succeeded), (4, Outcome::Succeeded)]);
        let superseded: Vec<_> = result.superseded.iter().map(|step| (step.step_number.0, step.outcome)).collect();
        assert_eq!(superseded, [(2, Outcome::Failed)]);
        assert_eq!(result.superseded[0].error.as_deref(), Some("the source is gone"));
        assert_eq!(result.superseded[0].verdict, Some(Verdict::Failed));
        let depends_on: Vec<u32> = result.plan.steps[1].depends_on.iter().map(|n| n.0).collect();
        assert_eq!(depends_on, [1, 4], "what waited for step 2 waits for step 4");
        // The first step was done once, before and for both revisions; the third saw the new result.
        let firsts = requests.iter().filter(|r| r.purpose() == Purpose::Act && !r.prompt().contains("compare"));
        assert!(firsts.filter(|r| r.prompt().contains("please gather")).count() <= 2, "gathered once");
        assert!(asked(&requests, Purpose::Act, "did another way") > 0);
        assert_eq!(asked(&requests, Purpose::Replan, "the source is gone"), 1);
        assert!(events.contains(&EventType::ReplanOwed) && !events.contains(&EventType::StepSkipped));
    })
    .await;
}

#[tokio::test]
async fn a_run_out_of_re_plans_ends_with_what_there_is() {
    on_both(async |backend| {
        let tries = Arc::new(AtomicUsize::new(0));
        let script = Script::default().plan(|_| three_steps()).act(obey).replan(move |_| {
            // Another wording each time, and it fails each time.
            let n = 4 + u32::try_from(tries.fetch_add(1, Ordering::SeqCst)).unwrap();
            let mut new = step(n, &format!("please fail again, try {n}"), &[]);
            new["replaces"] = (if n == 4 { 2 } else { n - 1 }).into();
            json!({"decision": "revise", "reason": "once more", "steps": [new], "drop": []})
        });
        let options = json!({"max_replans": 2});
        let (result, requests, events) = run(backend, script, json!({"objective": "compare", "options": options})).await;
        assert_eq!((result.status, result.revision), (RunStatus::Partial, 3), "{result:#?}");
        assert_eq!(outcomes(&result), [(1, Outcome::Succeeded), (3, Outcome::Skipped), (5, Outcome::Failed)]);
        assert_eq!(asked(&requests, Purpose::Replan, ""), 2);
        assert!(events.contains(&EventType::StepSkipped));
        assert_eq!(asked(&requests, Purpose::Answer, "skipped"), 1, "the answer can say what is missing");
    })
    .await;
}

#[tokio::test]
async fn patches_that_repeat_what_failed_are_refused() {
    on_both(async |backend| {
        let script = Script::default().plan(|_| three_steps()).act(obey).replan(|_| {
            let mut same = step(4, "Please  FAIL.", &[]);
            same["replaces"] = 2.into();
            json!({"decision": "revise", "reason": "again", "steps": [same], "drop": []})
        });
        let (result, requests, events) = run(backend, script, json!({"objective": "compare"})).await;
        assert_eq!((result.status, result.revision), (RunStatus::Partial, 1), "{result:#?}");
        assert_eq!(asked(&requests, Purpose::Replan, ""), 3, "once, and two repairs");
        assert!(asked(&requests, Purpose::Replan, "repeats step 2") > 0);
        assert!(events.contains(&EventType::PlanKept));
    })
    .await;
}

#[tokio::test]
async fn nobody_is_asked_where_nobody_wants_it() {
    on_both(async |backend| {
        let script = Script::default().plan(|_| three_steps()).act(obey).replan(|_| another_way());
        let options = json!({"replan": "never"});
        let (result, requests, _) = run(backend, script, json!({"objective": "compare", "options": options})).await;
        assert_eq!((result.status, result.revision), (RunStatus::Partial, 1), "{result:#?}");
        assert_eq!(asked(&requests, Purpose::Replan, ""), 0);
    })
    .await;
}

#[tokio::test]
async fn a_re_plan_may_end_the_run() {
    on_both(async |backend| {
        let script = |decision: &'static str| {
            let patch = move |_: &Request| json!({"decision": decision, "reason": "it is so", "steps": [], "drop": []});
            Script::default().plan(|_| three_steps()).act(obey).replan(patch)
        };
        // Step 1 has to be there before the objective can have been reached.
        let first_then_fail =
            plan(&[step(1, "please gather", &[]), step(2, "please fail", &[1]), step(3, "please compare", &[2])]);
        let objective = json!({"objective": "compare", "plan": first_then_fail});
        let (result, ..) = run(backend, script("reached"), objective.clone()).await;
        assert_eq!((result.status, result.revision), (RunStatus::Succeeded, 2), "{result:#?}");
        assert_eq!(outcomes(&result), [(1, Outcome::Succeeded)]);
        let (result, ..) = run(backend, script("unreachable"), objective).await;
        assert_eq!((result.status, result.revision), (RunStatus::Partial, 1), "{result:#?}");
        assert_eq!(outcomes(&result), [(1, Outcome::Succeeded), (2, Outcome::Failed), (3, Outcome::Cancelled)]);
        let halt = result.halt.unwrap();
        assert_eq!((halt.kind, halt.reason.as_str()), (HaltKind::Unreachable, "it is so"));
    })
    .await;
}

#[tokio::test]
async fn after_each_step_the_rest_may_be_refined_or_dropped() {
    on_both(async |backend| {
        let chain = plan(&[step(1, "please gather", &[]), step(2, "please compare", &[1]), step(3, "please fail", &[2])]);
        let looks = Arc::new(AtomicUsize::new(0));
        let script = Script::default().act(obey).replan(move |_| match looks.fetch_add(1, Ordering::SeqCst) {
            0 => {
                json!({"decision": "revise", "reason": "now it is clear", "steps": [step(2, "please refined", &[1])], "drop": []})
            }
            _ => json!({"decision": "reached", "reason": "that is all", "steps": [], "drop": []}),
        });
        let options = json!({"replan": "after_each_step"});
        let (result, requests, _) =
            run(backend, script, json!({"objective": "compare", "plan": chain, "options": options})).await;
        assert_eq!((result.status, result.revision), (RunStatus::Succeeded, 3), "{result:#?}");
        let results: Vec<&Value> = result.step_results.iter().map(|step| &step.result).collect();
        assert_eq!(results, ["did gather", "did refined"]);
        assert_eq!(asked(&requests, Purpose::Act, "please compare"), 0, "nothing starts before it has been looked at");
        assert_eq!(asked(&requests, Purpose::Act, "please fail"), 0);
    })
    .await;
}

/// A patch may cancel what runs: its model request is dropped, and a late outcome changes nothing.
#[tokio::test]
async fn a_patch_may_cancel_what_runs() {
    on_both(async |backend| {
        let gate = Arc::new(Semaphore::new(0));
        let script = Script::default().act(obey).replan(|_| {
            let mut new = step(4, "please another way", &[]);
            new["replaces"] = 1.into();
            json!({"decision": "revise", "reason": "both at once", "steps": [new], "drop": [2]})
        });
        let held = gate.clone();
        let fake = FakeOpenAi::start(move |request| {
            let reply = script.respond(request);
            let waits = request.purpose() == Purpose::Act && request.prompt().contains("please gather");
            if waits { Behaviour::Held(held.clone(), Box::new(reply)) } else { reply }
        })
        .await;
        let world = with(backend, &fake).await;
        let two = plan(&[step(1, "please gather", &[]), step(2, "please fail", &[])]);
        let result = world.run(json!({"objective": "x", "plan": two})).await;
        assert_eq!(outcomes(&result), [(4, Outcome::Succeeded)], "{result:#?}");
        let superseded: Vec<_> = result.superseded.iter().map(|step| (step.step_number.0, step.outcome)).collect();
        assert_eq!(superseded, [(1, Outcome::Cancelled), (2, Outcome::Failed)]);
        world.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_step_that_may_succeed_is_tried_anew_with_what_was_learned() {
    on_both(async |backend| {
        let script = Script::default().plan(|_| plan(&[step(1, "please gather", &[])])).act(|request| {
            // The lesson stands in the request for a move, the move in the one for a verdict on it.
            let prompt = request.prompt();
            match prompt.contains("attempt 1: the shop was closed") || prompt.contains("found it elsewhere") {
                true => ScriptedMove::Answer("found it elsewhere".into()),
                false => ScriptedMove::Fail { why: "the shop was closed".into(), retryable: true },
            }
        });
        let (result, _, events) = run(backend, script, json!({"objective": "x"})).await;
        assert_eq!((result.status, result.step_results[0].attempts), (RunStatus::Succeeded, 2), "{result:#?}");
        assert_eq!(result.step_results[0].result, "found it elsewhere");
        assert!(events.contains(&EventType::StepRetried));
    })
    .await;
}

#[tokio::test]
async fn what_is_impossible_is_not_tried_again() {
    on_both(async |backend| {
        let script = Script::default()
            .plan(|_| plan(&[step(1, "please gather", &[])]))
            .act(|_| ScriptedMove::Impossible("there is no such number".into()));
        let (result, ..) = run(backend, script, json!({"objective": "x"})).await;
        assert_eq!((result.status, result.step_results[0].attempts), (RunStatus::Failed, 1), "{result:#?}");
        assert_eq!(result.step_results[0].verdict, Some(Verdict::Impossible));
        assert!(result.error.unwrap().contains("there is no such number"));
    })
    .await;
}

/// A step with exact arguments.
fn exact(number: u32, expression: &Value, more: Value) -> Value {
    let mut step = step(number, "work it out", &[]);
    step["tool_hint"] = "calculate".into();
    step["arguments"] = json!({"expression": expression});
    for (key, value) in more.as_object().unwrap() {
        step[key] = value.clone();
    }
    step
}

#[tokio::test]
async fn results_that_fail_their_check_are_no_success() {
    on_both(async |backend| {
        let good = exact(1, &json!("6*7"), json!({"check": {"equals": 42}}));
        let bad = exact(2, &json!("6*7"), json!({"check": {"equals": 43}}));
        let shape = exact(3, &json!("6*7"), json!({"check": {"schema": {"type": "string", "pattern": "^[0-9]+$"}}}));
        let objective = json!({"objective": "x", "plan": plan(&[good, bad, shape]), "options": {"respond": "results"}});
        let (result, ..) = run(backend, Script::default(), objective).await;
        assert_eq!(result.status, RunStatus::Partial, "{result:#?}");
        assert_eq!(outcomes(&result), [(1, Outcome::Succeeded), (2, Outcome::Failed), (3, Outcome::Succeeded)]);
        let error = result.step_results[1].error.clone().unwrap();
        assert!(error.contains("check") && error.contains("43") && error.contains("42"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_exact_step_with_a_meaning_of_done_is_judged() {
    on_both(async |backend| {
        let step = exact(1, &json!("6*7"), json!({"done_when": "the number is above 100"}));
        let script = Script::default().act(|request| {
            assert!(request.prompt().contains("above 100") && request.prompt().contains("42"));
            ScriptedMove::Fail { why: "42 is not above 100".into(), retryable: false }
        });
        let (result, ..) = run(backend, script, json!({"objective": "x", "plan": plan(&[step])})).await;
        assert_eq!((result.status, result.step_results[0].outcome), (RunStatus::Failed, Outcome::Failed), "{result:#?}");
        assert_eq!(result.step_results[0].error.as_deref(), Some("42 is not above 100"));
    })
    .await;
}

#[tokio::test]
async fn a_step_may_run_with_the_error_of_another_as_input() {
    on_both(async |backend| {
        let broken = exact(1, &json!("1/0"), json!({}));
        let skipped = exact(2, &json!("1+1"), json!({"depends_on": [1]}));
        let mut count = step(3, "count the words of the error", &[1, 2]);
        count["tool_hint"] = "analyze".into();
        count["arguments"] = json!({"text": {"$result": 1, "pointer": "/error"}});
        count["on_failed_dependency"] = "run_anyway".into();
        let plan = plan(&[broken, skipped, count]);
        let objective = json!({"objective": "x", "plan": plan, "options": {"respond": "results", "replan": "never"}});
        let (result, ..) = run(backend, Script::default(), objective).await;
        assert_eq!(outcomes(&result), [(1, Outcome::Failed), (2, Outcome::Skipped), (3, Outcome::Succeeded)], "{result:#?}");
        assert!(result.step_results[2].result["words"].as_u64().unwrap() > 0);
    })
    .await;
}
