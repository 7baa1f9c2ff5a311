//! Patches: how a model changes a plan that runs, checked against where its steps stand, and the revision that comes of it. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::StepNumber;
use crate::limits::PLAN_COMPLAINTS_MAX;
use crate::plan::{Plan, Rules, Step};
use crate::run::{RunView, StepState};

mod draft;
mod fit;
mod place;
mod repeat;

/// What a re-plan decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Another plan.
    Revise,
    /// The plan stands; what waits for a failed step is skipped or runs anyway, as it says itself.
    Keep,
    /// What was asked for is there already; the rest of the plan is dropped.
    Reached,
    /// Nothing more can be done; the rest of the plan is cancelled.
    Unreachable,
}

/// A checked patch.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// What was decided.
    pub decision: Decision,
    /// Why, in one sentence.
    pub reason: String,
    /// The next revision of the plan, for `revise` and `reached`.
    pub revision: Option<Revision>,
}

/// The next revision of a plan, as the store takes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Revision {
    /// The whole plan. For a first plan all of it is new.
    pub plan: Plan,
    /// Its steps that are new, or stand there with another text or other dependencies: those must not have started.
    pub put: Vec<Step>,
    /// Steps of the plan before that are not in this one. Those that have not ended are cancelled; none may have succeeded.
    pub retired: Vec<StepNumber>,
}

/// What a revision changes, for people: stands in the audit trail and beside the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// New steps.
    pub added: Vec<StepNumber>,
    /// Steps that have not started and read differently now.
    pub refined: Vec<StepNumber>,
    /// Steps that are no longer in the plan.
    pub retired: Vec<StepNumber>,
}

impl Revision {
    /// A first plan, or one in place of another that never started.
    pub fn first(plan: Plan) -> Self {
        Self { put: plan.steps.clone(), plan, retired: Vec::new() }
    }
}

/// Checks a patch as it came from a model:
/// `{"decision": "revise|keep|reached|unreachable", "reason": "…", "steps": [{…, "replaces": 2}], "drop": [3]}`.
///
/// - A step with a new number is added. With `replaces` it takes the place of another one: whatever depended on that one and has
///   not started depends on the new step instead, and refers to its result.
/// - A step with the number of one that has not started refines it; fields that are left out stay as they are (its exact arguments
///   only together with its text and tool).
/// - Steps that succeeded stay. Those that are dispatched or running may be replaced or dropped, not refined; those that did not
///   succeed too. Repeating them as they are changes nothing.
/// - What was tried and failed is not tried again, under whatever number, nor is what succeeded.
/// - Where one failed step in `after` and one new step can only be meant for each other, `replaces` may be left out.
/// - A failed step in `after` (the steps whose end asks for the patch) does not stay in a revised plan: that could only end partially.
///
/// On refusal gives every complaint, at most [`PLAN_COMPLAINTS_MAX`], each one sentence that a model can act on.
pub fn read(draft: &Value, run: &RunView, after: &[StepNumber], rules: &Rules) -> Result<Patch, Vec<String>> {
    let decision = draft::decision(draft).map_err(|complaint| vec![complaint])?;
    let revision = match decision {
        Decision::Revise => draft::changes(draft, rules)
            .and_then(|mut changes| {
                place::infer(&mut changes, run, after);
                fit::fit(&changes, run, rules)
            })
            .and_then(|revision| forgets_nothing(revision, run, after))
            .map(Some),
        Decision::Reached => finished(run).map(Some),
        Decision::Keep | Decision::Unreachable => Ok(None),
    };
    match revision {
        Ok(revision) => Ok(Patch { decision, reason: draft::reason(draft, decision), revision }),
        Err(mut complaints) => {
            complaints.truncate(PLAN_COMPLAINTS_MAX);
            Err(complaints)
        }
    }
}

/// Refuses a revision that says nothing about a failed step that asks for it.
fn forgets_nothing(revision: Revision, run: &RunView, after: &[StepNumber]) -> Result<Revision, Vec<String>> {
    let failed = |number: &&StepNumber| {
        let view = run.steps.iter().find(|view| view.step.step_number == **number);
        view.is_some_and(|view| view.state != StepState::Succeeded) && !revision.retired.contains(number)
    };
    let forgotten: Vec<String> = after
        .iter()
        .filter(failed)
        .map(|number| {
            format!("step {number} failed and stays in the plan: say \"replaces\": {number} in the step that does it in another way, or drop it")
        })
        .collect();
    if forgotten.is_empty() { Ok(revision) } else { Err(forgotten) }
}

/// The steps that succeeded, and nothing else.
fn finished(run: &RunView) -> Result<Revision, Vec<String>> {
    let (done, rest): (Vec<_>, Vec<_>) = run.steps.iter().partition(|view| view.state == StepState::Succeeded);
    if done.is_empty() {
        return Err(vec!["no step has succeeded yet, so the objective is not reached: say revise, keep or unreachable".into()]);
    }
    let mut plan = Plan { steps: done.into_iter().map(|view| view.step.clone()).collect() };
    plan.steps.sort_by_key(|step| step.step_number);
    let mut retired: Vec<StepNumber> = rest.into_iter().map(|view| view.step.step_number).collect();
    retired.sort_unstable();
    Ok(Revision { plan, put: Vec::new(), retired })
}

/// The first number for a new step: above every number that any revision has used.
pub fn next_number(run: &RunView) -> StepNumber {
    let used = || run.steps.iter().chain(&run.superseded).map(|view| view.step.step_number);
    let after_last = used().max().map_or(Some(1), |StepNumber(last)| last.checked_add(1));
    // Only a hostile plan uses the last number there is; then a gap must do.
    StepNumber(after_last.unwrap_or_else(|| {
        let mut numbers: Vec<u32> = used().map(|number| number.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        (1..).zip(&numbers).find(|(free, used)| free != *used).map_or(1, |(free, _)| free)
    }))
}

/// What `revision` changes in the plan before it.
pub fn diff(before: &Plan, revision: &Revision) -> Diff {
    let known: std::collections::BTreeSet<StepNumber> = before.steps.iter().map(|step| step.step_number).collect();
    let mut put: Vec<StepNumber> = revision.put.iter().map(|step| step.step_number).collect();
    put.sort_unstable();
    let (refined, added) = put.into_iter().partition(|number| known.contains(number));
    let mut retired = revision.retired.clone();
    retired.sort_unstable();
    Diff { added, refined, retired }
}

#[cfg(test)]
mod tests;
