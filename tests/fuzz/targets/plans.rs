//! What passes the validator keeps every promise of a plan, and passes again as it was; what does not gets a few short complaints.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use common::id::StepNumber;
use common::limits::{ARGUMENTS_BYTES_MAX, DESCRIPTION_BYTES_MAX, PLAN_COMPLAINTS_MAX};
use common::message::Respond;
use common::plan::{Plan, Rules, Step, check};
use common::quote::quote;
use common::reference::references;
use common::tool::builtin;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    let Ok(draft) = serde_json::from_slice::<Value>(text) else { return };
    let rules = Rules { tools: ["calculate", "search", "analyze"].map(str::to_owned).into(), steps_max: 20 };
    match check(&draft, &rules) {
        Ok(plan) => {
            keeps_its_promises(&plan, &rules);
            let again = serde_json::to_value(&plan).expect("a plan can be written");
            assert_eq!(check(&again, &rules).as_ref(), Ok(&plan), "written again it is the same");
            let quote = quote(&plan, Respond::Answer, &builtin(true));
            assert_eq!(quote.steps, plan.steps.len());
        }
        Err(complaints) => {
            assert!((1..=PLAN_COMPLAINTS_MAX).contains(&complaints.len()), "{complaints:?}");
            assert!(complaints.iter().all(|complaint| !complaint.is_empty() && complaint.len() < 1_000), "{complaints:?}");
        }
    }
});

fn keeps_its_promises(plan: &Plan, rules: &Rules) {
    assert!((1..=rules.steps_max).contains(&plan.steps.len()));
    let numbers: BTreeSet<StepNumber> = plan.steps.iter().map(|step| step.step_number).collect();
    assert!(numbers.len() == plan.steps.len() && !numbers.contains(&StepNumber(0)), "unique and positive");
    assert!(plan.steps.is_sorted_by_key(|step| step.step_number));
    for step in &plan.steps {
        assert!(step.depends_on.iter().all(|dependency| numbers.contains(dependency)), "{step:?}");
        within_limits(step, rules);
    }
    // Steps end one after another, each after those it waits for: all of them can.
    let waits: BTreeMap<StepNumber, &[StepNumber]> = plan.steps.iter().map(|s| (s.step_number, &s.depends_on[..])).collect();
    let mut ended = BTreeSet::new();
    for _ in &plan.steps {
        let next = waits.iter().find(|(number, after)| !ended.contains(*number) && after.iter().all(|n| ended.contains(n)));
        ended.insert(*next.expect("no circle").0);
    }
}

fn within_limits(step: &Step, rules: &Rules) {
    assert!(!step.description.trim().is_empty() && step.description.len() <= DESCRIPTION_BYTES_MAX);
    assert!(step.tool_hint.as_ref().is_none_or(|tool| rules.tools.contains(tool)));
    assert!(step.check.as_ref().is_none_or(|check| check.complaint().is_none()));
    if let Some(arguments) = &step.arguments {
        assert!(arguments.is_object() && step.tool_hint.is_some() && arguments.to_string().len() <= ARGUMENTS_BYTES_MAX);
        let found = references(arguments).expect("references were checked");
        assert!(found.iter().all(|reference| step.depends_on.contains(&reference.step)), "{step:?}");
    }
}
