//! What becomes of patches. Cases are data: a run, a patch, and either the new plan or a part of a complaint.

use serde_json::json;

use super::*;
use crate::run::{Budget, RunStatus, StepView, Usage};

mod cases;
mod repeats;

const STATES: [StepState; 8] = [
    StepState::Waiting,
    StepState::Ready,
    StepState::Dispatched,
    StepState::Running,
    StepState::Succeeded,
    StepState::Failed,
    StepState::Skipped,
    StepState::Cancelled,
];

fn rules() -> Rules {
    Rules { tools: vec!["calculate".into(), "search".into()], steps_max: 10 }
}

/// A step `{…}` with its `state`; a description stands in for a missing one.
fn view(step: &Value) -> StepView {
    let mut step = step.clone();
    if step.get("description").is_none() {
        step["description"] = json!(format!("do {}", step["step_number"]));
    }
    let state = step["state"].as_str().and_then(StepState::parse).unwrap();
    StepView { step: serde_json::from_value(step).unwrap(), state, attempt: 0, worker: None, record: None, waiting: None }
}

/// A run of steps as `(number, state, the steps it depends on)`.
fn run(steps: &[(u32, &str, &[u32])]) -> RunView {
    run_of(steps.iter().map(|(n, state, deps)| json!({"step_number": n, "state": state, "depends_on": deps})).collect(), &[])
}

fn run_of(steps: Vec<Value>, superseded: &[Value]) -> RunView {
    RunView {
        run_id: crate::id::RunId::parse("r").unwrap(),
        status: RunStatus::Running,
        objective: "x".into(),
        revision: 1,
        created_at_ms: 0,
        finished_at_ms: None,
        deadline_at_ms: None,
        steps: steps.iter().map(view).collect(),
        superseded: superseded.iter().map(view).collect(),
        waiting: Vec::new(),
        quote: None,
        usage: Usage::default(),
        budget: Budget::default(),
        error: None,
        halt: None,
    }
}

/// A revision as text: the plan with its dependencies, what is put, what is retired. `1 3<1,2 | put 3 | retired 2`.
fn sketch(patch: &Patch) -> String {
    let Some(revision) = &patch.revision else { return format!("{:?}", patch.decision) };
    let list = |numbers: &[StepNumber]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let steps = revision.plan.steps.iter().map(|step| {
        let after = if step.depends_on.is_empty() { String::new() } else { format!("<{}", list(&step.depends_on)) };
        format!("{}{after}", step.step_number)
    });
    let put: Vec<StepNumber> = revision.put.iter().map(|step| step.step_number).collect();
    format!("{} | put {} | retired {}", steps.collect::<Vec<_>>().join(" "), list(&put), list(&revision.retired))
}

/// Expects the patch to give the revision that `expected` sketches, or, where that starts with `!`, a complaint that contains the rest.
fn check(name: &str, run: &RunView, draft: &Value, expected: &str) {
    match (read(draft, run, &[], &rules()), expected.strip_prefix('!')) {
        (Ok(patch), None) => {
            assert_eq!(sketch(&patch), expected, "{name}");
            if let Some(revision) = &patch.revision {
                keeps_its_promises(name, run, revision);
            }
        }
        (Err(complaints), Some(part)) => {
            assert!(complaints.iter().any(|c| c.contains(part)), "{name}: {part:?} not in {complaints:?}");
            assert!(
                complaints.len() <= PLAN_COMPLAINTS_MAX && complaints.iter().all(|c| c.len() < 600),
                "{name}: {complaints:?}"
            );
        }
        (got, _) => panic!("{name}: expected {expected:?}, got {got:?}"),
    }
}

/// What the store relies on, whatever the patch was.
fn keeps_its_promises(name: &str, run: &RunView, revision: &Revision) {
    let state = |number: StepNumber| run.steps.iter().find(|v| v.step.step_number == number).map(|v| v.state);
    let numbers: Vec<StepNumber> = revision.plan.steps.iter().map(|s| s.step_number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{name}: sorted and unique");
    assert!(revision.retired.is_sorted_by(|a, b| a < b), "{name}: retired are sorted and unique");
    for step in &revision.put {
        assert!(revision.plan.steps.contains(step), "{name}: what is put is in the plan");
        assert!(
            matches!(state(step.step_number), None | Some(StepState::Waiting | StepState::Ready)),
            "{name}: put has not started"
        );
        assert!(step.depends_on.iter().all(|d| numbers.contains(d)), "{name}: put depends on what is in the plan");
    }
    for number in &revision.retired {
        assert!(!numbers.contains(number) && state(*number) != Some(StepState::Succeeded), "{name}: {number} may go");
    }
    for view in &run.steps {
        let number = view.step.step_number;
        assert!(numbers.contains(&number) || revision.retired.contains(&number), "{name}: {number} is not lost");
        if !revision.put.iter().any(|s| s.step_number == number) && !revision.retired.contains(&number) {
            assert!(revision.plan.steps.contains(&view.step), "{name}: {number} is untouched");
        }
    }
}

#[test]
fn numbers_are_never_used_again() {
    assert_eq!(next_number(&run(&[])), StepNumber(1));
    assert_eq!(next_number(&run(&[(3, "failed", &[]), (1, "succeeded", &[])])), StepNumber(4));
    let superseded = [json!({"step_number": 9, "state": "failed"})];
    assert_eq!(next_number(&run_of(vec![json!({"step_number": 2, "state": "waiting"})], &superseded)), StepNumber(10));
    assert_eq!(next_number(&run(&[(u32::MAX, "failed", &[]), (1, "failed", &[]), (3, "failed", &[])])), StepNumber(2));
}

#[test]
fn what_asked_for_the_patch_is_not_forgotten() {
    let run = run(&[(1, "succeeded", &[]), (2, "failed", &[1]), (3, "waiting", &[2])]);
    let read = |draft: Value, after: &[u32]| {
        let after: Vec<StepNumber> = after.iter().copied().map(StepNumber).collect();
        read(&draft, &run, &after, &rules())
    };
    let step = |number: u32, depends_on: &[u32]| json!({"step_number": number, "description": format!("way {number}"), "depends_on": depends_on});
    let retired = |draft: Value| read(draft, &[2]).unwrap().revision.unwrap().retired;
    // No doubt what is meant: the last new step takes the place of the failed one, dropped or not.
    assert_eq!(retired(json!({"steps": [step(4, &[])]})), [StepNumber(2)]);
    assert_eq!(retired(json!({"steps": [step(4, &[1]), step(5, &[4])], "drop": [2]})), [StepNumber(2)]);
    let complaints = read(json!({"steps": [step(4, &[]), step(5, &[])]}), &[2]).unwrap_err();
    assert!(complaints[0].contains("step 2 failed and stays in the plan: say \"replaces\": 2"), "{complaints:?}");
    assert!(read(json!({"steps": [step(4, &[]), step(5, &[])]}), &[1]).is_ok(), "after a success nothing has to go");
    assert!(read(json!({"steps": [{"step_number": 4, "description": "another way", "replaces": 2}]}), &[2]).is_ok());
    assert!(read(json!({"drop": [2, 3]}), &[2]).is_ok());
}

#[test]
fn differences_are_told() {
    let run = run(&[(1, "succeeded", &[]), (2, "failed", &[1]), (3, "waiting", &[2]), (4, "waiting", &[])]);
    let draft = json!({"steps": [{"step_number": 5, "description": "another way", "replaces": 2}], "drop": [4]});
    let revision = read(&draft, &run, &[], &rules()).unwrap().revision.unwrap();
    let before = Plan { steps: run.steps.iter().map(|view| view.step.clone()).collect() };
    let expected = Diff { added: vec![StepNumber(5)], refined: vec![StepNumber(3)], retired: vec![StepNumber(2), StepNumber(4)] };
    assert_eq!(diff(&before, &revision), expected);
    let first = Revision::first(before.clone());
    assert_eq!(diff(&Plan::default(), &first).added.len(), 4);
}

#[test]
fn reasons_are_bounded() {
    let run = run(&[(1, "succeeded", &[])]);
    let reason = |reason: Value| read(&json!({"decision": "keep", "reason": reason}), &run, &[], &rules()).unwrap().reason;
    assert_eq!(reason(json!(" it is fine ")), "it is fine");
    assert_eq!(reason(json!("ü".repeat(9_999))).chars().count(), 501);
    for missing in [json!(null), json!(""), json!(7), json!(["x"])] {
        assert_eq!(reason(missing), "The plan was kept; no reason was given.");
    }
}

#[test]
fn rewired_arguments_refer_to_the_new_step() {
    let run = run_of(
        vec![
            json!({"step_number": 1, "state": "failed"}),
            json!({"step_number": 2, "state": "waiting", "depends_on": [1], "tool_hint": "calculate",
                   "arguments": {"expression": {"$result": 1, "pointer": "/a"}, "other": [{"$result": 1}, 1]}}),
        ],
        &[],
    );
    let draft = json!({"steps": [{"step_number": 3, "description": "another way", "replaces": 1}]});
    let revision = read(&draft, &run, &[], &rules()).unwrap().revision.unwrap();
    let rewired = revision.put.iter().find(|step| step.step_number == StepNumber(2)).unwrap();
    let expected = json!({"expression": {"$result": 3, "pointer": "/a"}, "other": [{"$result": 3}, 1]});
    assert_eq!(rewired.arguments, Some(expected));
}

#[test]
fn refining_keeps_what_is_not_said() {
    let step = json!({"step_number": 2, "state": "waiting", "description": "add  up", "depends_on": [1], "tool_hint": "calculate",
        "arguments": {"expression": "1+1"}, "done_when": "there is a sum", "check": {"equals": 2}, "on_failed_dependency": "run_anyway"});
    let run = run_of(vec![json!({"step_number": 1, "state": "succeeded"}), step.clone()], &[]);
    let refine = |fields: Value| {
        let mut entry = fields;
        entry["step_number"] = json!(2);
        read(&json!({"steps": [entry]}), &run, &[], &rules()).map(|patch| patch.revision.unwrap().put.remove(0))
    };
    let before = view(&step).step;
    let words = refine(json!({"description": "add all up"})).unwrap();
    assert_eq!(words, Step { description: "add all up".into(), arguments: None, ..before.clone() });
    let tool = refine(json!({"tool_hint": "search"})).unwrap();
    assert_eq!(tool, Step { tool_hint: Some("search".into()), arguments: None, ..before.clone() });
    let alone = refine(json!({"description": "add up", "depends_on": []})).unwrap();
    assert_eq!(alone, Step { depends_on: vec![], ..before.clone() });
    let unjudged = refine(json!({"done_when": null, "check": null, "on_failed_dependency": null})).unwrap();
    assert_eq!(unjudged, Step { done_when: None, check: None, on_failed_dependency: Default::default(), ..before });
    assert!(refine(json!({"description": " add up ", "tool_hint": "calculate"})).unwrap_err()[0].contains("changes nothing"));
}

#[test]
fn large_and_hostile_patches_are_bounded() {
    let rules = Rules { tools: vec![], steps_max: 10_000 };
    let numbers: Vec<Value> = (1..=10_000u32)
        .map(|n| json!({"step_number": n, "state": "waiting", "depends_on": if n == 1 { vec![] } else { vec![n - 1] }}))
        .collect();
    let mut chain = run_of(numbers, &[]);
    chain.steps[0].state = StepState::Failed;
    let revision =
        read(&json!({"steps": [{"step_number": 10_001, "description": "y", "replaces": 1}]}), &chain, &[], &rules).unwrap();
    assert_eq!(revision.revision.unwrap().put.len(), 2);
    let one_more = read(&json!({"steps": [{"step_number": 10_001, "description": "y"}]}), &chain, &[], &rules).unwrap_err();
    assert_eq!(one_more, ["the new plan has 10001 steps, at most 10000 are allowed"]);
    let all = json!({"drop": (2..=10_000).collect::<Vec<u32>>()});
    assert_eq!(read(&all, &chain, &[], &rules).unwrap().revision.unwrap().retired.len(), 9_999);
    let bad: Vec<Value> = (0..10_000).map(|n| json!({"step_number": -n, "replaces": "x".repeat(200)})).collect();
    assert_eq!(
        read(&json!({"steps": bad, "drop": vec![0; 10_000]}), &chain, &[], &rules).unwrap_err().len(),
        PLAN_COMPLAINTS_MAX
    );
}

#[test]
fn every_state_has_its_rule() {
    for state in STATES {
        let run = run(&[(1, "succeeded", &[]), (2, state.as_str(), &[])]);
        let name = state.as_str();
        let (refined, gone) = match state {
            StepState::Waiting | StepState::Ready => ("1 2 | put 2 | retired ", "1 | put  | retired 2"),
            StepState::Dispatched | StepState::Running => ("!step 2 has been started", "1 | put  | retired 2"),
            StepState::Succeeded => ("!step 2 has succeeded and stays", "!which has succeeded and stays"),
            StepState::Failed | StepState::Skipped | StepState::Cancelled => ("!step 2 has ended", "1 | put  | retired 2"),
        };
        check(name, &run, &json!({"steps": [{"step_number": 2, "description": "other"}]}), refined);
        check(name, &run, &json!({"drop": [2]}), gone);
        let replaced = if gone.starts_with('!') { gone } else { "1 3 | put 3 | retired 2" };
        check(name, &run, &json!({"steps": [{"step_number": 3, "description": "other", "replaces": 2}]}), replaced);
    }
}
