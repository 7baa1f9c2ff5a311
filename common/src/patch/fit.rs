//! Fitting a patch to where the steps of a run stand.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::draft::{Changes, Entry};
use super::{Revision, next_number, repeat};
use crate::id::StepNumber;
use crate::plan::{OnFailedDependency, Plan, Rules, Step, edges, read};
use crate::reference::{references, rewrite};
use crate::run::{RunView, StepState, StepView};

/// What a patch may do to a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Anything: it has not started.
    Pending,
    /// Replace or drop it: somebody works on it, or may in a moment.
    InFlight,
    /// Nothing.
    Done,
    /// Replace or drop it: it ended without success.
    Ended,
}

pub(super) fn standing(state: StepState) -> Standing {
    match state {
        StepState::Waiting | StepState::Ready => Standing::Pending,
        StepState::Dispatched | StepState::Running => Standing::InFlight,
        StepState::Succeeded => Standing::Done,
        StepState::Failed | StepState::Skipped | StepState::Cancelled => Standing::Ended,
    }
}

/// A patch, sorted by what it does.
#[derive(Default)]
struct Sorted {
    /// New steps, and refined ones that read differently now.
    given: BTreeMap<StepNumber, Step>,
    /// Steps that go, with the step that takes their place.
    replaced: BTreeMap<StepNumber, StepNumber>,
    /// Steps that go without one.
    dropped: BTreeSet<StepNumber>,
}

impl Sorted {
    fn retires(&self, number: StepNumber) -> bool {
        self.replaced.contains_key(&number) || self.dropped.contains(&number)
    }
}

/// The revision that `changes` make of the run's plan.
pub(super) fn fit(changes: &Changes<'_>, run: &RunView, rules: &Rules) -> Result<Revision, Vec<String>> {
    let current: BTreeMap<StepNumber, &StepView> = run.steps.iter().map(|view| (view.step.step_number, view)).collect();
    let sorted = sort(changes, &current, run, rules)?;
    let Assembled { steps, put } = assemble(&sorted, &current, rules)?;
    let settled = |number| current.get(&number).is_some_and(|view| standing(view.state) != Standing::Pending);
    let mut complaints = edges::check(&steps, settled);
    if complaints.is_empty() {
        complaints = doomed(&steps, &sorted, &current);
        complaints.append(&mut repeat::complaints(&steps, &sorted.given, |number| sorted.retires(number), run));
        if put.is_empty() && sorted.replaced.is_empty() && sorted.dropped.is_empty() {
            complaints.push("the patch changes nothing: say keep if the plan is to stay as it is".into());
        }
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let retired = current.keys().copied().filter(|number| sorted.retires(*number)).collect();
    Ok(Revision { plan: Plan { steps: steps.into_values().collect() }, put, retired })
}

/// Sorts what the patch says by what it does, each entry on its own.
fn sort(
    changes: &Changes<'_>,
    current: &BTreeMap<StepNumber, &StepView>,
    run: &RunView,
    rules: &Rules,
) -> Result<Sorted, Vec<String>> {
    let mut complaints = Vec::new();
    let mut sorted = Sorted::default();
    let superseded: BTreeSet<StepNumber> = run.superseded.iter().map(|view| view.step.step_number).collect();
    let next = next_number(run);
    let mut seen = BTreeSet::new();
    for entry in &changes.entries {
        let number = entry.number;
        if !seen.insert(number) {
            complaints.push(format!("step_number {number} is used more than once"));
            continue;
        }
        let taken = match current.get(&number) {
            Some(view) => known(entry, view, next, rules),
            None if superseded.contains(&number) => {
                Err(vec![format!("step_number {number} was used before: number new steps from {next}")])
            }
            None => read::step(entry.fields, entry.position, rules).map(Some),
        };
        match taken {
            Ok(Some(step)) => drop(sorted.given.insert(number, step)),
            Ok(None) => {}
            Err(mut found) => complaints.append(&mut found),
        }
        // A step in its own place is refined.
        let replaces = entry.replaces.filter(|old| *old != number || !current.contains_key(old));
        let Some(old) = replaces else { continue };
        complaints.extend(stays(old, current).map(|why| format!("step {number} replaces step {old}, which {why}")));
        if let Some(other) = sorted.replaced.insert(old, number) {
            complaints.push(format!(
                "steps {other} and {number} both replace step {old}: let one replace it, and the other one depend on that"
            ));
        }
    }
    // What is replaced goes anyway: small models name it twice.
    sorted.dropped = changes.drop.iter().copied().filter(|number| !sorted.replaced.contains_key(number)).collect();
    for number in &sorted.dropped {
        complaints.extend(stays(*number, current).map(|why| format!("drop names step {number}, which {why}")));
    }
    let both = |number: &&StepNumber| sorted.retires(**number);
    for number in sorted.given.keys().chain(sorted.replaced.values()).filter(both).collect::<BTreeSet<_>>() {
        complaints.push(format!("step {number} is in steps and goes at the same time: either change it, or replace or drop it"));
    }
    if complaints.is_empty() { Ok(sorted) } else { Err(complaints) }
}

/// Why a step cannot be replaced or dropped.
fn stays(number: StepNumber, current: &BTreeMap<StepNumber, &StepView>) -> Option<&'static str> {
    match current.get(&number).map(|view| standing(view.state)) {
        None => Some("is not in the plan"),
        Some(Standing::Done) => Some("has succeeded and stays as it is"),
        Some(Standing::Pending | Standing::InFlight | Standing::Ended) => None,
    }
}

/// What the patch makes of a step that is in the plan: refined, or left as it is.
fn known(entry: &Entry<'_>, view: &StepView, next: StepNumber, rules: &Rules) -> Result<Option<Step>, Vec<String>> {
    let (number, step) = (entry.number, &view.step);
    let echoed = entry.replaces.is_none_or(|old| old == number);
    let complaint = match standing(view.state) {
        Standing::Pending => {
            let refined = read::step(&refined(entry.fields, step), entry.position, rules)?;
            return Ok((refined != *step).then_some(refined));
        }
        Standing::Done if echoed && reads_the_same(entry.fields, step) => return Ok(None),
        Standing::Done => {
            format!("step {number} has succeeded and stays as it is; leave it out, new steps are numbered from {next}")
        }
        Standing::InFlight if echoed && is_the_same(entry.fields, step) => return Ok(None),
        Standing::InFlight => format!(
            "step {number} has been started and cannot be changed; leave it out, or give the new step the number {next} with \
             \"replaces\": {number}"
        ),
        Standing::Ended => {
            let how = view.state.as_str();
            format!("step {number} has ended ({how}); to do it another way, use the number {next} with \"replaces\": {number}")
        }
    };
    Err(vec![complaint])
}

/// A pending step with the fields that an entry gives. Exact arguments belong to a text and a tool: they stay only with both.
fn refined(entry: &Value, step: &Step) -> Value {
    let mut fields = match serde_json::to_value(step) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    };
    let same_text = entry.get("description").is_none() || reads_the_same(entry, step);
    let tool = entry.get("tool_hint").map(|tool| tool.as_str().map(str::trim));
    if !same_text || tool.is_some_and(|tool| tool != step.tool_hint.as_deref()) {
        fields.remove("arguments");
    }
    fields.extend(entry.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
    if same_text {
        fields.insert("description".into(), Value::from(step.description.as_str()));
    }
    Value::Object(fields)
}

/// Whether the entry has the step's description, but for white space.
fn reads_the_same(entry: &Value, step: &Step) -> bool {
    let text = entry.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().eq(step.description.split_whitespace())
}

/// Whether everything that the entry says about what is to be done is so already.
fn is_the_same(entry: &Value, step: &Step) -> bool {
    let says = |field: &str| entry.get(field).filter(|value| !value.is_null());
    reads_the_same(entry, step)
        && says("tool_hint").is_none_or(|tool| tool.as_str().map(str::trim) == step.tool_hint.as_deref())
        && says("arguments").is_none_or(|arguments| Some(arguments) == step.arguments.as_ref())
}

/// A new plan, put together.
struct Assembled {
    steps: BTreeMap<StepNumber, Step>,
    /// Those of them that are new or read differently now.
    put: Vec<Step>,
}

/// Puts the new plan together: what stays, what is refined, what is new, and what depends on something else now.
fn assemble(sorted: &Sorted, current: &BTreeMap<StepNumber, &StepView>, rules: &Rules) -> Result<Assembled, Vec<String>> {
    let kept = current.iter().filter(|(number, _)| !sorted.retires(**number));
    let mut steps: BTreeMap<StepNumber, Step> = kept.map(|(number, view)| (*number, view.step.clone())).collect();
    steps.extend(sorted.given.iter().map(|(number, step)| (*number, step.clone())));
    if steps.is_empty() {
        return Err(vec!["the new plan has no steps: add one, or say unreachable".into()]);
    }
    if steps.len() > rules.steps_max {
        return Err(vec![format!("the new plan has {} steps, at most {} are allowed", steps.len(), rules.steps_max)]);
    }
    let mut complaints = Vec::new();
    let mut put = Vec::new();
    for (number, step) in &mut steps {
        let before = current.get(number);
        if before.is_some_and(|view| standing(view.state) != Standing::Pending) {
            continue;
        }
        complaints.extend(rewire(step, &sorted.replaced));
        for gone in step.depends_on.iter().filter(|dependency| sorted.dropped.contains(dependency)) {
            complaints.push(format!(
                "step {number} depends on step {gone}, which is dropped: drop step {number} too, or give it again without step {gone}"
            ));
        }
        if before.is_none_or(|view| view.step != *step) {
            put.push(step.clone());
        }
    }
    if complaints.is_empty() { Ok(Assembled { steps, put }) } else { Err(complaints) }
}

/// Lets a step depend on, and refer to, what takes the place of replaced steps. A step does not wait for the one it replaces.
fn rewire(step: &mut Step, replaced: &BTreeMap<StepNumber, StepNumber>) -> Option<String> {
    let number = step.step_number;
    let changed: Vec<(StepNumber, StepNumber)> =
        step.depends_on.iter().filter_map(|old| replaced.get(old).map(|new| (*old, *new))).collect();
    for (old, new) in &changed {
        step.depends_on.retain(|dependency| dependency != old);
        let arguments = step.arguments.as_ref();
        if *new != number {
            step.depends_on.push(*new);
            step.arguments = arguments.map(|arguments| rewrite(arguments, *old, *new));
        } else if arguments.is_some_and(|arguments| references(arguments).is_ok_and(|all| all.iter().any(|r| r.step == *old))) {
            return Some(format!("step {number} refers to the result of step {old}, which it replaces"));
        }
    }
    step.depends_on.sort_unstable();
    step.depends_on.dedup();
    None
}

/// Complains about steps of the patch that would never run: what they depend on did not succeed, or will be skipped.
fn doomed(steps: &BTreeMap<StepNumber, Step>, sorted: &Sorted, current: &BTreeMap<StepNumber, &StepView>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut doomed: BTreeSet<StepNumber> = BTreeSet::new();
    for number in edges::in_order(steps).unwrap_or_default() {
        let standing = current.get(&number).map_or(Standing::Pending, |view| standing(view.state));
        let Some(step) = steps.get(&number) else { continue };
        let hopeless = match (standing, step.on_failed_dependency) {
            (Standing::Ended, _) => doomed.insert(number),
            (Standing::Done | Standing::InFlight, _) | (Standing::Pending, OnFailedDependency::RunAnyway) => false,
            (Standing::Pending, OnFailedDependency::Skip) => {
                step.depends_on.iter().any(|dependency| doomed.contains(dependency)) && doomed.insert(number)
            }
        };
        if !hopeless || !sorted.given.contains_key(&number) {
            continue;
        }
        // A step of the patch that is doomed itself has its own complaint.
        let cause = step.depends_on.iter().find(|d| doomed.contains(d) && !sorted.given.contains_key(d));
        let Some(cause) = cause else { continue };
        let why = match current.get(cause).map(|view| view.state) {
            Some(StepState::Failed) => "failed",
            Some(StepState::Skipped) => "was skipped",
            Some(StepState::Cancelled) => "was cancelled",
            None
            | Some(StepState::Waiting | StepState::Ready | StepState::Dispatched | StepState::Running | StepState::Succeeded) => {
                "will be skipped, since a step it waits for did not succeed"
            }
        };
        complaints.push(format!(
            "step {number} depends on step {cause}, which {why}: replace what did not succeed, or set on_failed_dependency of \
             step {number} to \"run_anyway\""
        ));
    }
    complaints
}
