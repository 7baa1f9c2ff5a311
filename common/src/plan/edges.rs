//! What lies between the steps of a plan: dependencies and references.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Step;
use crate::id::StepNumber;
use crate::reference::references;

/// Most steps of a circle that a complaint names.
const CIRCLE_STEPS_NAMED_MAX: usize = 12;

/// Complains when dependencies do not exist, steps wait for themselves, or references are not declared.
///
/// `settled` steps started under an earlier revision: what they depended on may be gone.
pub(crate) fn check(steps: &BTreeMap<StepNumber, Step>, settled: impl Fn(StepNumber) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, step) in steps.iter().filter(|(number, _)| !settled(**number)) {
        for dependency in &step.depends_on {
            if dependency == number {
                complaints.push(format!("step {number} depends on itself"));
            } else if !steps.contains_key(dependency) {
                complaints.push(format!("step {number} depends on step {dependency}, which does not exist"));
            }
        }
        match references(step.arguments.as_ref().unwrap_or(&Value::Null)) {
            Ok(found) => {
                // Once for every step that is meant, and never with advice that would only earn the next complaint.
                let undeclared: BTreeSet<StepNumber> =
                    found.iter().map(|r| r.step).filter(|meant| step.depends_on.binary_search(meant).is_err()).collect();
                complaints.extend(undeclared.into_iter().map(|meant| {
                    if meant == *number {
                        format!("step {number} refers to its own result")
                    } else if steps.contains_key(&meant) {
                        format!("step {number} refers to the result of step {meant}, add {meant} to its depends_on")
                    } else {
                        format!("step {number} refers to the result of step {meant}, which does not exist")
                    }
                }));
            }
            Err(bad) => complaints.push(format!("step {number}: {bad}")),
        }
    }
    if complaints.is_empty()
        && let Err(circle) = in_order(steps)
    {
        let named: Vec<String> = circle.iter().take(CIRCLE_STEPS_NAMED_MAX).map(ToString::to_string).collect();
        let more = if circle.len() > CIRCLE_STEPS_NAMED_MAX { " -> …" } else { "" };
        complaints.push(format!("steps wait for each other in a circle: {}{more}", named.join(" -> ")));
    }
    complaints
}

/// The steps, every one after those it depends on, or a circle among them. Dependencies that are no steps do not count.
///
/// Kahn's algorithm: what it leaves are exactly the steps in or behind circles.
pub(crate) fn in_order<S: Borrow<Step>>(steps: &BTreeMap<StepNumber, S>) -> Result<Vec<StepNumber>, Vec<StepNumber>> {
    let mut waiting: BTreeMap<StepNumber, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<StepNumber, Vec<StepNumber>> = BTreeMap::new();
    for (number, step) in steps {
        let dependencies = step.borrow().depends_on.iter().filter(|d| steps.contains_key(d));
        waiting.insert(*number, dependencies.clone().count());
        for dependency in dependencies {
            dependents.entry(*dependency).or_default().push(*number);
        }
    }
    let mut order: Vec<StepNumber> = waiting.iter().filter(|(_, count)| **count == 0).map(|(n, _)| *n).collect();
    let mut next = 0;
    while let Some(number) = order.get(next).copied() {
        next += 1;
        waiting.remove(&number);
        for dependent in dependents.remove(&number).unwrap_or_default() {
            if let Some(count) = waiting.get_mut(&dependent) {
                *count -= 1;
                if *count == 0 {
                    order.push(dependent);
                }
            }
        }
    }
    match waiting.keys().next() {
        None => Ok(order),
        Some(stuck) => Err(circle_behind(*stuck, steps, &waiting)),
    }
}

/// A circle: every step that is `waiting` waits for another one that is, so walking back from `at` must come round.
fn circle_behind<S: Borrow<Step>>(
    mut at: StepNumber,
    steps: &BTreeMap<StepNumber, S>,
    waiting: &BTreeMap<StepNumber, usize>,
) -> Vec<StepNumber> {
    let mut path: Vec<StepNumber> = Vec::new();
    let mut places: BTreeMap<StepNumber, usize> = BTreeMap::new();
    loop {
        if let Some(start) = places.insert(at, path.len()) {
            path.push(at);
            return path.split_off(start);
        }
        path.push(at);
        let back = steps.get(&at).and_then(|step| step.borrow().depends_on.iter().find(|d| waiting.contains_key(d)));
        let Some(back) = back else { return path };
        at = *back;
    }
}
