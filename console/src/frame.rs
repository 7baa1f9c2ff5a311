//! The picture of a running run that a terminal shows and keeps up to date. Pure.

use common::id::StepNumber;
use common::run::Outcome;

use crate::progress::{Phase, Progress, Standing, StepProgress};
use crate::text::{columns, count, cut, pad, rough, span};

/// Turns of the wheel beside what runs, one every [`TURN_MS`].
const WHEEL: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// How long one turn lasts, in milliseconds.
pub(crate) const TURN_MS: u64 = 100;
/// Lines of the terminal that the picture leaves to others.
const LINES_LEFT: usize = 3;
/// Fewest columns that a description gets, however narrow the terminal.
const DESCRIPTION_COLUMNS_MIN: usize = 10;

/// What is drawn on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paper {
    pub(crate) columns: usize,
    pub(crate) lines: usize,
    pub(crate) colour: bool,
}

/// The lines of the picture at `now_ms`. Never more than fit: of a wide run those that matter, and a line that counts all.
pub(crate) fn frame(progress: &Progress, now_ms: u64, paper: Paper) -> Vec<String> {
    let room = paper.lines.saturating_sub(LINES_LEFT).max(1);
    let mut lines: Vec<String> = Vec::new();
    let errors = progress.steps.values().filter(|step| step.why.is_some()).count();
    if progress.steps.len() + errors <= room {
        for (number, step) in &progress.steps {
            lines.push(row(progress, *number, step, now_ms, paper));
            lines.extend(reason(progress, step, paper));
        }
    } else {
        let shown = most_telling(progress, room.saturating_sub(2));
        lines.extend(shown.into_iter().map(|(number, step)| row(progress, number, step, now_ms, paper)));
        lines.push(cut(&tally(progress), paper.columns));
    }
    match progress.phase {
        Phase::Quiet => {}
        Phase::Planning(since) => lines.push(activity("planning", since, now_ms, paper)),
        Phase::Answering(since) => lines.push(activity("writing the answer", since, now_ms, paper)),
        Phase::Approving => lines.push(held("waiting for approval", paper)),
        Phase::Paused => lines.push(held("paused", paper)),
    }
    lines
}

fn activity(what: &str, since_ms: u64, now_ms: u64, paper: Paper) -> String {
    let (wheel, colour) = icon(Standing::Running, now_ms);
    format!("{} {what}  {}", paint(wheel, colour, paper), span_so_far(now_ms.saturating_sub(since_ms)))
}

/// That nothing goes on before somebody says so.
fn held(what: &str, paper: Paper) -> String {
    let (sign, colour) = icon(Standing::Parked, 0);
    format!("{} {what}", paint(sign, colour, paper))
}

/// A step: icon, number, description, tool, time, attempt.
fn row(progress: &Progress, number: StepNumber, step: &StepProgress, now_ms: u64, paper: Paper) -> String {
    let digits = progress.digits();
    let (icon, colour) = icon(step.standing, now_ms);
    let mut right = String::new();
    if progress.tool_columns() > 0 {
        right += &format!("  {}", pad(&step.tool, progress.tool_columns()));
    }
    let time = match step.standing {
        Standing::Running => span_so_far(now_ms.saturating_sub(step.since_ms)),
        Standing::Ended(_) => step.took_ms.map(span).unwrap_or_default(),
        Standing::Waiting | Standing::Queued | Standing::Retrying | Standing::Parked => String::new(),
    };
    right += &format!("  {time}");
    if step.attempt > 1 {
        right += &format!("  attempt {}", step.attempt);
    }
    let right = right.trim_end();
    // As wide as the widest description, so that what follows is aligned; less when the widest right side needs the room.
    let widest = progress.steps.values().map(|step| columns(&step.description)).max().unwrap_or(0);
    let left = digits + 4;
    let reserved = left + progress.tool_columns() + 2 + "  12 min 05 s".len() + "  attempt 2".len();
    let width = widest.min(paper.columns.saturating_sub(reserved).max(DESCRIPTION_COLUMNS_MIN));
    let line = format!("{:>digits$}  {}{right}", number.0, pad(&cut(&step.description, width), width));
    format!("{} {}", paint(icon, colour, paper), cut(line.trim_end(), paper.columns.saturating_sub(2)))
}

/// Why a step waits or did not succeed, under its row.
fn reason(progress: &Progress, step: &StepProgress, paper: Paper) -> Option<String> {
    let why = step.why.as_ref()?;
    let indent = " ".repeat(progress.digits() + 4);
    Some(cut(&format!("{indent}{why}"), paper.columns))
}

/// At most `room` steps, in the order of the plan: those that run first, then those in trouble, then those that wait.
fn most_telling(progress: &Progress, room: usize) -> Vec<(StepNumber, &StepProgress)> {
    let rank = |step: &StepProgress| match step.standing {
        Standing::Running => 0,
        Standing::Retrying | Standing::Parked | Standing::Ended(Outcome::Failed) => 1,
        Standing::Queued => 2,
        Standing::Waiting => 3,
        Standing::Ended(Outcome::Succeeded | Outcome::Skipped | Outcome::Cancelled) => 4,
    };
    let mut steps: Vec<(StepNumber, &StepProgress)> = progress.steps.iter().map(|(number, step)| (*number, step)).collect();
    steps.sort_by_key(|(number, step)| (rank(step), *number));
    steps.truncate(room);
    steps.sort_by_key(|(number, _)| *number);
    steps
}

/// `300 steps: 12 succeeded, 1 failed, 5 running, 282 waiting`.
fn tally(progress: &Progress) -> String {
    let named = |standing: Standing| match standing {
        Standing::Ended(outcome) => outcome.as_str(),
        Standing::Running => "running",
        Standing::Waiting | Standing::Queued | Standing::Retrying | Standing::Parked => "waiting",
    };
    let parts: Vec<String> = ["succeeded", "failed", "skipped", "cancelled", "running", "waiting"]
        .into_iter()
        .map(|name| (progress.steps.values().filter(|step| named(step.standing) == name).count(), name))
        .filter(|(n, _)| *n > 0)
        .map(|(n, name)| format!("{n} {name}"))
        .collect();
    format!("{}: {}", count(progress.steps.len(), "step"), parts.join(", "))
}

/// Time that is still running: whole seconds, nothing in the first.
fn span_so_far(ms: u64) -> String {
    if ms < 1_000 { String::new() } else { rough(ms) }
}

/// The icon of a step, and its ANSI colour.
fn icon(standing: Standing, now_ms: u64) -> (&'static str, &'static str) {
    let turn = usize::try_from(now_ms / TURN_MS % 10).unwrap_or(0);
    match standing {
        Standing::Waiting => ("·", "2"),
        Standing::Queued => ("○", "2"),
        Standing::Running => (WHEEL[turn], "36"),
        Standing::Retrying => ("↻", "33"),
        Standing::Parked => ("‖", "33"),
        Standing::Ended(Outcome::Succeeded) => ("✔", "32"),
        Standing::Ended(Outcome::Failed) => ("✖", "31"),
        Standing::Ended(Outcome::Skipped | Outcome::Cancelled) => ("–", "2"),
    }
}

fn paint(text: &str, colour: &str, paper: Paper) -> String {
    if paper.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{governed, progress_after, story};

    const PAPER: Paper = Paper { columns: 80, lines: 24, colour: false };

    fn picture(progress: &Progress, now_ms: u64, paper: Paper) -> String {
        frame(progress, now_ms, paper).join("\n")
    }

    #[test]
    fn a_run_half_way() {
        let progress = progress_after(&story()[..10]);
        insta::assert_snapshot!(picture(&progress, 4_100, PAPER));
    }

    #[test]
    fn a_plan_that_waits_for_approval() {
        let progress = progress_after(&governed()[..8]);
        insta::assert_snapshot!(picture(&progress, 4_100, PAPER));
    }

    #[test]
    fn a_run_at_its_end() {
        let progress = progress_after(&story());
        insta::assert_snapshot!(picture(&progress, 9_000, PAPER));
    }

    #[test]
    fn a_narrow_terminal_cuts() {
        let progress = progress_after(&story());
        let paper = Paper { columns: 40, ..PAPER };
        let picture = picture(&progress, 9_000, paper);
        assert!(picture.lines().all(|line| columns(line) <= 40), "{picture}");
        insta::assert_snapshot!(picture);
    }

    #[test]
    fn a_wide_run_is_counted() {
        let progress = progress_after(&crate::progress::tests::wide(300));
        let lines = frame(&progress, 5_000, PAPER);
        assert!(lines.len() <= 21, "{}", lines.len());
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn colour_is_paint_only() {
        let progress = progress_after(&story());
        let painted = picture(&progress, 9_000, Paper { colour: true, ..PAPER });
        assert!(painted.contains("\x1b[32m✔\x1b[0m"));
        assert_eq!(console::strip_ansi_codes(&painted), picture(&progress, 9_000, PAPER));
    }
}
