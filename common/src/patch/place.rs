//! Whose place a new step takes, where the model has not said so.

use std::collections::BTreeSet;

use super::draft::Changes;
use crate::id::StepNumber;
use crate::plan::read::step_number;
use crate::run::{RunView, StepState};

/// A small model drops the failed step, or forgets it, and adds others that are to do its work, without `replaces`. Where there is no
/// doubt which failed step and which new one are meant (one failed step in `after` that nothing replaces; one new step that no
/// other new one builds on), the new one takes the other's place. What waits for the failed step would be lost otherwise.
pub(super) fn infer(changes: &mut Changes<'_>, run: &RunView, after: &[StepNumber]) {
    if changes.entries.iter().any(|entry| entry.replaces.is_some()) {
        return;
    }
    let failed = |number: &&StepNumber| {
        run.steps.iter().any(|view| view.step.step_number == **number && view.state != StepState::Succeeded)
    };
    let mut failed = after.iter().filter(failed);
    let (Some(failed), None) = (failed.next(), failed.next()) else { return };
    let known: BTreeSet<StepNumber> = run.steps.iter().map(|view| view.step.step_number).collect();
    let built_on: BTreeSet<StepNumber> = changes
        .entries
        .iter()
        .filter(|entry| !known.contains(&entry.number))
        .filter_map(|entry| entry.fields.get("depends_on")?.as_array())
        .flatten()
        .filter_map(step_number)
        .collect();
    let is_last = |number: &StepNumber| !known.contains(number) && !built_on.contains(number);
    let mut last = changes.entries.iter_mut().filter(|entry| is_last(&entry.number));
    if let (Some(entry), None) = (last.next(), last.next()) {
        entry.replaces = Some(*failed);
    }
}
