//! `planrelay explain`: why a run does not go on, a line for each thing that waits.

use common::client::WaitError;
use common::clock::Clock;
use common::config::Config;
use common::run::{HaltKind, RunStatus, RunView, StepView};
use serde_json::{Value, json};

use crate::args::{ExplainArgs, Globals};
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::text::{moment, one_line, span, table};
use crate::wait::{waiting, waiting_of_run};

pub(crate) async fn run(args: ExplainArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    let client = connect::client(config).await?;
    let Some(view) = client.show(&args.run).await? else { return Err(WaitError::NoSuchRun(args.run).into()) };
    match globals.output {
        Format::Text => output::line(&render(&view, Clock::System.now_ms()))?,
        Format::Json | Format::Jsonl => output::json(&waits(&view), globals.output)?,
    }
    Ok(Exit::Ok)
}

/// The steps that wait: those of the plan, and those that it has dropped and that still run.
fn unfinished(view: &RunView) -> impl Iterator<Item = &StepView> {
    view.steps.iter().chain(&view.superseded).filter(|step| step.waiting.is_some())
}

fn waits(view: &RunView) -> Value {
    let step = |step: &StepView| json!({"step_number": step.step.step_number, "waiting": step.waiting});
    json!({
        "run_id": view.run_id,
        "status": view.status,
        "halt": view.halt,
        "error": view.error,
        "waiting": view.waiting,
        "steps": unfinished(view).map(step).collect::<Vec<_>>(),
    })
}

fn render(view: &RunView, now_ms: u64) -> String {
    let mut rows: Vec<[String; 2]> = view.waiting.iter().map(|wait| waiting_of_run(wait, now_ms)).collect();
    rows.extend(unfinished(view).filter_map(|step| {
        let words = waiting(step.waiting.as_ref()?, now_ms);
        Some([format!("step {}", step.step.step_number), words])
    }));
    let mut lines = vec![headline(view, rows.is_empty())];
    lines.extend(halt(view));
    lines.extend(table(&rows));
    lines.join("\n")
}

/// Where the run stands; `idle`: with nothing that could be said of its parts.
fn headline(view: &RunView, idle: bool) -> String {
    let run = &view.run_id;
    match view.status {
        RunStatus::Planning if idle => format!("run {run} is new: a planner plans it next"),
        RunStatus::Planning => format!("run {run} is being planned"),
        RunStatus::AwaitingApproval => format!("run {run} waits for approval of its plan: planrelay show {run}"),
        RunStatus::Running if idle => format!("run {run} is running: every step has ended, its answer is next"),
        RunStatus::Running => format!("run {run} is running"),
        RunStatus::Paused => format!("run {run} is paused: planrelay resume {run}"),
        RunStatus::Summarizing => format!("run {run} has no step left to run: its answer is being written"),
        RunStatus::Succeeded | RunStatus::Partial | RunStatus::Failed | RunStatus::Cancelled => {
            let when = view
                .finished_at_ms
                .map(|at| format!(" at {} UTC, after {}", moment(at), span(at.saturating_sub(view.created_at_ms))));
            let error = view.error.as_ref().map(|error| format!(": {}", one_line(error))).unwrap_or_default();
            format!("run {run} has ended, {}{}{error}", view.status.as_str(), when.unwrap_or_default())
        }
    }
}

/// What ended the run early, or is about to.
fn halt(view: &RunView) -> Option<String> {
    let halt = view.halt.as_ref()?;
    let what = match halt.kind {
        HaltKind::Cancelled => return Some(one_line(&halt.reason)),
        HaltKind::Deadline => "stopped by its deadline",
        HaltKind::Budget => "stopped by its budget",
        HaltKind::Unreachable => "stopped, its objective is out of reach",
    };
    Some(format!("{what}: {}", one_line(&halt.reason)))
}

#[cfg(test)]
mod tests {
    use common::id::StepNumber;
    use common::run::{Halt, RunWait, StepState};
    use common::wait::Wait;

    use super::*;
    use crate::command::show::tests::{step, view};

    const NOW_MS: u64 = 1_793_680_180_000;

    fn live(status: RunStatus, waiting: Vec<RunWait>, steps: Vec<StepView>) -> RunView {
        RunView { status, waiting, steps, finished_at_ms: None, halt: None, ..view() }
    }

    #[track_caller]
    fn check(view: &RunView, lines: &[&str]) {
        assert_eq!(render(view, NOW_MS).lines().collect::<Vec<_>>(), lines);
    }

    fn waits_for(n: u32, state: StepState, wait: Wait) -> StepView {
        StepView { waiting: Some(wait), ..step(n, "x", None, &[], state, 1) }
    }

    #[test]
    fn a_line_for_each_step_that_waits() {
        let running = Wait::Running { worker: "executor-1".into(), since_ms: NOW_MS - 12_000, lease_until_ms: NOW_MS + 20_000 };
        let steps = vec![
            step(1, "x", None, &[], StepState::Succeeded, 1),
            waits_for(2, StepState::Running, running),
            waits_for(10, StepState::Waiting, Wait::Steps { steps: vec![StepNumber(2), StepNumber(3)] }),
        ];
        check(
            &live(RunStatus::Running, Vec::new(), steps),
            &[
                "run report-2026-11 is running",
                "step 2   running on executor-1 since 04:29:28 UTC (12 s), lease until 04:30:00 UTC",
                "step 10  waiting for steps 2 and 3",
            ],
        );
    }

    #[test]
    fn what_the_run_as_a_whole_waits_for_comes_first() {
        let wait = |slot: &str, wait| RunWait { slot: slot.to_owned(), wait };
        let paused = Wait::Resume { by: "alice".into() };
        check(
            &live(RunStatus::Paused, vec![wait("run", paused.clone())], vec![waits_for(2, StepState::Ready, paused)]),
            &[
                "run report-2026-11 is paused: planrelay resume report-2026-11",
                "run     waiting for somebody to resume the run, paused by alice",
                "step 2  waiting for somebody to resume the run, paused by alice",
            ],
        );
        let writing = Wait::Running { worker: "summarizer-1".into(), since_ms: NOW_MS, lease_until_ms: NOW_MS + 30_000 };
        check(
            &live(RunStatus::Summarizing, vec![wait("summary", writing)], Vec::new()),
            &[
                "run report-2026-11 has no step left to run: its answer is being written",
                "answer  running on summarizer-1 since 04:29:40 UTC (0 s), lease until 04:30:10 UTC",
            ],
        );
    }

    #[test]
    fn there_is_always_something_to_say() {
        check(&live(RunStatus::Planning, Vec::new(), Vec::new()), &["run report-2026-11 is new: a planner plans it next"]);
        check(
            &live(RunStatus::Running, Vec::new(), Vec::new()),
            &["run report-2026-11 is running: every step has ended, its answer is next"],
        );
    }

    #[test]
    fn a_run_that_has_ended_says_how() {
        let halt = Some(Halt { kind: HaltKind::Cancelled, reason: "cancelled by alice".to_owned() });
        let ended = RunView { status: RunStatus::Cancelled, halt, ..view() };
        check(&ended, &["run report-2026-11 has ended, cancelled at 2026-11-03 04:29:36 UTC, after 5.5 s", "cancelled by alice"]);
        assert_eq!(waits(&ended)["steps"], json!([]));
    }

    #[test]
    fn json_holds_the_waits_as_they_are() {
        let steps = vec![waits_for(4, StepState::Waiting, Wait::Steps { steps: vec![StepNumber(2)] })];
        let waits = waits(&live(RunStatus::Running, Vec::new(), steps));
        assert_eq!(waits["steps"], json!([{"step_number": 4, "waiting": {"for": "steps", "steps": [2]}}]));
    }
}
