//! Whatever a patch says, what succeeded stays, what has started is not changed, and the plan that comes out is one.

#![no_main]

use std::collections::BTreeSet;

use common::id::StepNumber;
use common::limits::PLAN_COMPLAINTS_MAX;
use common::patch::{Revision, next_number, read};
use common::plan::Rules;
use common::run::{RunView, StepState};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|text: &[u8]| {
    let Ok(draft) = serde_json::from_slice::<Value>(text) else { return };
    let rules = Rules { tools: ["calculate", "search"].map(str::to_owned).into(), steps_max: 12 };
    let run = run();
    match read(&draft, &run, &[StepNumber(3)], &rules) {
        Ok(patch) => {
            assert!(!patch.reason.is_empty());
            if let Some(revision) = &patch.revision {
                keeps_its_promises(&run, revision, &rules);
            }
        }
        Err(complaints) => {
            assert!((1..=PLAN_COMPLAINTS_MAX).contains(&complaints.len()), "{complaints:?}");
            assert!(complaints.iter().all(|complaint| !complaint.is_empty() && complaint.len() < 1_500), "{complaints:?}");
        }
    }
});

/// A run in the middle: 1 succeeded, 2 runs, 3 failed, 4 and 5 wait for it, 6 is ready, 7 was replaced before.
fn run() -> RunView {
    let step = |number: u32, state: &str, after: &[u32]| {
        json!({
            "step_number": number, "description": format!("do {number}"), "depends_on": after,
            "state": state, "attempt": 1, "worker": null, "record": null,
        })
    };
    let steps = [
        step(1, "succeeded", &[]),
        step(2, "running", &[1]),
        step(3, "failed", &[1]),
        step(4, "waiting", &[3]),
        step(5, "waiting", &[2, 4]),
        step(6, "ready", &[]),
    ];
    let run = json!({
        "run_id": "r", "status": "running", "objective": "o", "revision": 2, "created_at_ms": 0, "finished_at_ms": null,
        "steps": steps, "superseded": [step(7, "failed", &[])], "waiting": [], "quote": null, "usage": {}, "budget": {},
        "error": null, "halt": null, "deadline_at_ms": null,
    });
    serde_json::from_value(run).expect("a run")
}

fn keeps_its_promises(run: &RunView, revision: &Revision, rules: &Rules) {
    let numbers: BTreeSet<StepNumber> = revision.plan.steps.iter().map(|step| step.step_number).collect();
    assert_eq!(numbers.len(), revision.plan.steps.len());
    assert!(!numbers.contains(&StepNumber(7)), "a number is never used twice");
    let mut ended: BTreeSet<StepNumber> = BTreeSet::new();
    for _ in &revision.plan.steps {
        let mut open = revision.plan.steps.iter().filter(|step| !ended.contains(&step.step_number));
        // What a step depended on that started under an earlier revision may be gone.
        let next = open.find(|step| step.depends_on.iter().all(|n| ended.contains(n) || !numbers.contains(n)));
        ended.insert(next.expect("no circle").step_number);
    }
    for view in &run.steps {
        let number = view.step.step_number;
        let now = revision.plan.steps.iter().find(|step| step.step_number == number);
        match view.state {
            StepState::Succeeded => assert_eq!(now, Some(&view.step), "what succeeded stays"),
            StepState::Dispatched | StepState::Running => assert!(now.is_none_or(|step| *step == view.step)),
            StepState::Waiting | StepState::Ready | StepState::Failed | StepState::Skipped | StepState::Cancelled => {}
        }
        assert_ne!(numbers.contains(&number), revision.retired.contains(&number), "{number} is in the plan or retired");
    }
    for step in &revision.put {
        assert!(revision.plan.steps.contains(step) && step.tool_hint.as_ref().is_none_or(|tool| rules.tools.contains(tool)));
        assert!(step.depends_on.iter().all(|dependency| numbers.contains(dependency)));
    }
    assert!(!numbers.contains(&next_number(run)) || numbers.len() > run.steps.len() - revision.retired.len());
}
