//! Plans of every form, and revisions of them that fit together.

use common::id::StepNumber;
use common::patch::Revision;
use common::plan::{OnFailedDependency, Plan, Step};
use common::run::{RunStatus, StepState};
use common::store::Snapshot;

use super::ops::{Handled, Patch};

fn step(number: u32, depends_on: &[u32], anyway: bool) -> Step {
    Step {
        step_number: StepNumber(number),
        description: format!("step {number}"),
        tool_hint: None,
        arguments: None,
        depends_on: depends_on.iter().copied().map(StepNumber).collect(),
        done_when: None,
        check: None,
        on_failed_dependency: if anyway { OnFailedDependency::RunAnyway } else { OnFailedDependency::Skip },
    }
}

/// Chain, fan, diamond, lone steps, many at once; steps with `true` run anyway.
fn shape(number: usize) -> Plan {
    let edges: &[(u32, &[u32], bool)] = match number {
        0 => &[(1, &[], false), (2, &[1], false), (3, &[2], false)],
        1 => &[(1, &[], false), (2, &[1], false), (3, &[1], true), (4, &[2, 3], false)],
        2 => &[(1, &[], false), (2, &[], false), (3, &[], false), (4, &[], false), (5, &[1, 2, 3], true)],
        3 => &[(1, &[], false)],
        4 => &[(1, &[], false), (2, &[], false), (3, &[1, 2], true), (4, &[3], false), (5, &[3, 4], true)],
        _ => &[(1, &[], false), (2, &[], false), (3, &[], false), (4, &[], false), (10, &[], false), (11, &[], false)],
    };
    Plan { steps: edges.iter().map(|(number, depends_on, anyway)| step(*number, depends_on, *anyway)).collect() }
}

/// The steps that a planner says it has decided on.
pub(super) fn handled(snapshot: &Snapshot, handled: &Handled) -> Vec<StepNumber> {
    match handled {
        Handled::News => snapshot.news.clone(),
        Handled::Nothing => Vec::new(),
        Handled::These(steps) => steps.iter().map(|n| StepNumber(*n as u32)).collect(),
    }
}

/// The next revision of the run's plan. A step that another one depends on is replaced in its place.
pub(super) fn revision(snapshot: &Snapshot, patch: &Patch) -> Revision {
    let current = &snapshot.plan;
    if snapshot.view.status == RunStatus::Planning || current.steps.is_empty() {
        return Revision::first(shape(patch.shape));
    }
    let known = current.steps.iter().chain(&snapshot.retired).map(|step| step.step_number.0);
    let mut fresh = known.max().unwrap_or(0);
    let mut revision = Revision { plan: current.clone(), ..Revision::default() };
    let pick = |index: usize| &current.steps[index % current.steps.len()];
    let stands = |number: StepNumber| {
        let view = snapshot.view.steps.iter().find(|view| view.step.step_number == number);
        view.map_or(StepState::Waiting, |view| view.state)
    };
    if let Some(index) = patch.replace {
        let old = pick(index);
        // Mostly a step that may go; now and then one that has moved.
        if stands(old.step_number) != StepState::Succeeded || patch.shape.is_multiple_of(2) {
            fresh += 1;
            replace(&mut revision, old, StepNumber(fresh), patch.anyway);
        }
    }
    if let Some(index) = patch.refine {
        let number = pick(index).step_number;
        let moved = !matches!(stands(number), StepState::Waiting | StepState::Ready);
        if (!moved || patch.shape % 2 == 1) && !revision.put.iter().any(|step| step.step_number == number) {
            refine(&mut revision, number, patch.anyway);
        }
    }
    if let Some(indices) = &patch.add {
        fresh += 1;
        let mut depends_on: Vec<u32> =
            indices.iter().map(|index| revision.plan.steps[index % revision.plan.steps.len()].step_number.0).collect();
        depends_on.sort_unstable();
        depends_on.dedup();
        let new = step(fresh, &depends_on, patch.anyway);
        revision.plan.steps.push(new.clone());
        revision.put.push(new);
    }
    revision
}

fn replace(revision: &mut Revision, old: &Step, new: StepNumber, anyway: bool) {
    let depends_on: Vec<u32> = old.depends_on.iter().map(|n| n.0).collect();
    revision.retired.push(old.step_number);
    revision.plan.steps.retain(|step| step.step_number != old.step_number);
    for step in &mut revision.plan.steps {
        if step.depends_on.contains(&old.step_number) {
            step.depends_on.retain(|n| *n != old.step_number);
            step.depends_on.push(new);
            revision.put.push(step.clone());
        }
    }
    let new = step(new.0, &depends_on, anyway);
    revision.plan.steps.push(new.clone());
    revision.put.push(new);
}

fn refine(revision: &mut Revision, number: StepNumber, drop_one: bool) {
    if let Some(step) = revision.plan.steps.iter_mut().find(|step| step.step_number == number) {
        step.description.push_str(" (better)");
        if drop_one {
            step.depends_on.pop();
        }
        revision.put.push(step.clone());
    }
}
