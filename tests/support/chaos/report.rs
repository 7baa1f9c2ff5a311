//! What was done and what was found, for people.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Plan;
use super::board::Board;
use super::verify::{Findings, Violation};

/// Every run has ended so soon after the last fault.
pub(super) const RECOVERY_MAX: Duration = Duration::from_secs(120);
/// Violations that are printed.
const SHOWN_MAX: usize = 40;

/// The whole story.
pub struct Report {
    /// What was to be done.
    plan: Plan,
    /// How long runs were submitted.
    took: Duration,
    faults: BTreeMap<String, u32>,
    /// By fate: how many ended how.
    runs: BTreeMap<&'static str, BTreeMap<String, u32>>,
    shapes: BTreeMap<&'static str, u32>,
    total: usize,
    published_again: usize,
    bad: usize,
    not_started: u32,
    findings: Findings,
    /// Kinds of faults that happened too rarely.
    rare: Vec<String>,
    /// From the last fault to the end of the last run.
    recovery: Option<Duration>,
    /// The longest stand-still of a run, and which.
    stall: (Duration, String),
    /// The longest run, and which.
    longest: (Duration, String),
    logs: PathBuf,
    /// Whether they are still there.
    kept: bool,
}

impl Report {
    pub(super) fn new(plan: &Plan, board: &Board, mut findings: Findings, logs: PathBuf) -> Self {
        let tracked = board.runs.borrow();
        let mut runs: BTreeMap<&'static str, BTreeMap<String, u32>> = BTreeMap::new();
        let (mut stall, mut longest) = ((Duration::ZERO, String::new()), (Duration::ZERO, String::new()));
        let mut shapes: BTreeMap<&'static str, u32> = BTreeMap::new();
        for (id, run) in tracked.iter() {
            *shapes.entry(run.load.shape).or_default() += 1;
            *runs.entry(run.load.fate.name()).or_default().entry(run.status.clone()).or_default() += 1;
            stall = stall.max((run.stall, id.clone()));
            longest = longest.max((run.ended.map_or(Duration::ZERO, |end| end - run.published), id.clone()));
        }
        let all_ended = tracked.values().all(|run| run.ended.is_some());
        let last_end = tracked.values().filter_map(|run| run.ended).max();
        let recovery = last_end.filter(|_| all_ended).map(|end| end.saturating_duration_since(board.last_fault.get()));
        let faults = board.faults.borrow().clone();
        if recovery.is_some_and(|recovery| recovery > RECOVERY_MAX) {
            let what = format!("the last run ended {:?} after the last fault", recovery.unwrap_or_default());
            findings.violations.push(Violation { run: String::new(), what, show: String::new() });
        }
        Self {
            plan: plan.clone(),
            took: board.took(),
            runs,
            shapes,
            total: tracked.len(),
            published_again: tracked.values().map(|run| run.load.again.len() - run.again).sum(),
            bad: board.bad.borrow().len(),
            not_started: board.not_started.get(),
            faults,
            kept: plan.keep || !findings.violations.is_empty(),
            findings,
            rare: board.rare(),
            recovery,
            stall,
            longest,
            logs,
        }
    }

    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.findings.violations.is_empty()
    }

    /// Whether every kind of fault happened often enough for that to mean something.
    pub fn proves_something(&self) -> bool {
        self.rare.is_empty()
    }

    /// How many kinds of faults there were.
    pub fn kinds(&self) -> usize {
        self.faults.values().filter(|times| **times > 0).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Findings { violations, counts, poisoned, revived, replies } = &self.findings;
        writeln!(f, "\n{:<60} times", "fault")?;
        for (kind, times) in &self.faults {
            writeln!(f, "{kind:<60} {times:>5}")?;
        }
        writeln!(f, "{:<60} {:>5}", "all", self.faults.values().sum::<u32>())?;
        writeln!(f, "\n{:<60} runs", "what becomes of a run, how it ended")?;
        for (fate, ends) in &self.runs {
            for (status, count) in ends {
                writeln!(f, "{:<60} {count:>5}", format!("{fate}: {}", if status.is_empty() { "not there" } else { status }))?;
            }
        }
        let secs = self.took.as_secs_f64();
        writeln!(f, "{:<60} {:>5}", "all", self.total)?;
        let shapes: Vec<String> = self.shapes.iter().map(|(shape, count)| format!("{shape} {count}")).collect();
        writeln!(f, "\nshapes: {}", shapes.join(", "))?;
        writeln!(f, "objectives published again {}, bad messages {}, replies {replies}", self.published_again, self.bad)?;
        writeln!(
            f,
            "steps ended {}, executed again {}, tried again {}, taken back {}, model calls {}, given up as poison {poisoned}",
            counts.steps, counts.executed_again, counts.retries, counts.taken_back, counts.model_calls
        )?;
        writeln!(
            f,
            "good messages that died too often and were sent again {revived}, services that found no server {}",
            self.not_started
        )?;
        writeln!(f, "throughput {:.1} runs/s, {:.1} steps/s", self.total as f64 / secs, counts.steps as f64 / secs)?;
        match self.recovery {
            Some(recovery) => writeln!(f, "the last run ended {:.1} s after the last fault", recovery.as_secs_f64())?,
            None => writeln!(f, "not every run ended")?,
        }
        writeln!(f, "longest time without progress {:.1} s ({})", self.stall.0.as_secs_f64(), self.stall.1)?;
        writeln!(f, "longest run {:.1} s ({})", self.longest.0.as_secs_f64(), self.longest.1)?;
        for rare in &self.rare {
            writeln!(f, "{rare}")?;
        }
        writeln!(f, "violations {}", violations.len())?;
        for Violation { run, what, show } in violations.iter().take(SHOWN_MAX) {
            writeln!(f, "  {run} {what}{}{show}", if show.is_empty() { "" } else { "\n      " })?;
        }
        if violations.len() > SHOWN_MAX {
            writeln!(f, "  and {} more", violations.len() - SHOWN_MAX)?;
        }
        if self.kept {
            writeln!(f, "logs of every process and the times of all faults: {}", self.logs.display())?;
        }
        let Plan { seed, duration, pace, in_flight, keep, builds } = &self.plan;
        let (secs, keep) = (duration.as_secs(), if *keep { " --keep" } else { "" });
        let what = if builds.is_empty() { "chaos" } else { "upgrade REF" };
        write!(f, "again: tests/{what} --seconds {secs} --seed {seed} --rate {pace} --runs {in_flight}{keep}")
    }
}
