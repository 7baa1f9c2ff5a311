//! `planrelay show`: where a run stands.

use common::client::WaitError;
use common::clock::Clock;
use common::config::Config;
use common::run::{Budget, Halt, HaltKind, RunStatus, RunView, StepView, Usage};

use crate::args::{Globals, ShowArgs};
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::text::{amount, columns, count, cut, moment, one_line, span, table};
use crate::wait::{quote, waiting, waiting_of_run};

/// Columns of a description in the table.
const DESCRIPTION_COLUMNS: usize = 70;

pub(crate) async fn run(args: ShowArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    let client = connect::client(config).await?;
    let Some(view) = client.show(&args.run).await? else { return Err(WaitError::NoSuchRun(args.run).into()) };
    match globals.output {
        Format::Text => output::line(&render(&view, Clock::System.now_ms()))?,
        Format::Json | Format::Jsonl => output::json(&view, globals.output)?,
    }
    Ok(Exit::Ok)
}

/// What ended the run early, in words.
fn halted(halt: &Halt) -> String {
    match halt.kind {
        HaltKind::Cancelled => one_line(&halt.reason),
        HaltKind::Deadline | HaltKind::Budget | HaltKind::Unreachable => {
            format!("{}: {}", halt.kind.as_str(), one_line(&halt.reason))
        }
    }
}

fn render(view: &RunView, now_ms: u64) -> String {
    let took = span(view.finished_at_ms.unwrap_or(now_ms).saturating_sub(view.created_at_ms));
    let plan = match view.revision {
        0 => "none yet".to_owned(),
        revision => format!("revision {revision}, {}", count(view.steps.len(), "step")),
    };
    let mut facts = vec![
        ["run", view.run_id.as_str()].map(str::to_owned),
        ["status", view.status.as_str()].map(str::to_owned),
        ["objective".to_owned(), one_line(&view.objective)],
        ["plan".to_owned(), plan],
        ["created".to_owned(), format!("{} UTC", moment(view.created_at_ms))],
        [if view.finished_at_ms.is_some() { "took" } else { "age" }.to_owned(), took],
        ["usage".to_owned(), usage(&view.usage)],
    ];
    facts.extend(limits(view));
    facts.extend(view.waiting.iter().map(|wait| {
        let [what, why] = waiting_of_run(wait, now_ms);
        ["waiting".to_owned(), if what == "run" { why } else { format!("{what}: {why}") }]
    }));
    facts.extend(approval(view));
    let mut lines = table(&facts);
    if !view.steps.is_empty() {
        lines.push(String::new());
        lines.extend(steps(&view.steps, now_ms));
    }
    if !view.superseded.is_empty() {
        lines.extend([String::new(), "superseded".to_owned()]);
        lines.extend(steps(&view.superseded, now_ms));
    }
    lines.join("\n")
}

/// What bounds the run, and what has ended it.
fn limits(view: &RunView) -> Vec<[String; 2]> {
    let mut facts = Vec::new();
    if view.budget.is_limited() {
        facts.push(["budget".to_owned(), budget(&view.budget, &view.usage)]);
    }
    facts.extend(view.deadline_at_ms.map(|at| ["deadline".to_owned(), format!("{} UTC", moment(at))]));
    facts.extend(view.halt.as_ref().map(|halt| ["halt".to_owned(), halted(halt)]));
    facts.extend(view.error.as_ref().map(|error| ["error".to_owned(), one_line(error)]));
    facts
}

/// What has been used of what is limited.
fn budget(budget: &Budget, usage: &Usage) -> String {
    let whole = |n: u64| n.to_string();
    let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
    let of = |what: &str, used: u64, most: Option<u64>, shown: &dyn Fn(u64) -> String| {
        most.map(|most| format!("{what} {} of {}", shown(used), shown(most)))
    };
    let parts = [
        of("model calls", usage.model_calls, budget.model_calls, &whole),
        of("tool calls", usage.tool_calls, budget.tool_calls, &whole),
        of("tokens", tokens, budget.tokens, &whole),
        of("cost", usage.cost_nanos, budget.cost_nanos, &amount),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// For who is to approve the plan: what it will take, and what can be said to it.
fn approval(view: &RunView) -> Vec<[String; 2]> {
    if view.status != RunStatus::AwaitingApproval {
        return Vec::new();
    }
    let run = &view.run_id;
    let mut facts: Vec<[String; 2]> = view.quote.iter().map(|estimate| ["quote".to_owned(), quote(estimate)]).collect();
    facts.push(["approve".to_owned(), format!("planrelay approve {run}")]);
    facts.push(["reject".to_owned(), format!("planrelay reject {run} --feedback TEXT")]);
    facts
}

/// The steps as a table; what went wrong, or what is waited for, stands under its step.
pub(super) fn steps(steps: &[StepView], now_ms: u64) -> Vec<String> {
    let mut rows = vec![["STEP", "STATE", "TOOL", "AFTER", "ATTEMPTS", "TIME", "DESCRIPTION"].map(str::to_owned)];
    rows.extend(steps.iter().map(row));
    let indent = " ".repeat(rows.iter().map(|row| columns(&row[0])).max().unwrap_or(0) + 2);
    let mut lines = Vec::new();
    for (index, line) in table(&rows).into_iter().enumerate() {
        lines.push(line);
        let step = index.checked_sub(1).and_then(|index| steps.get(index));
        if let Some(error) = step.and_then(|step| step.record.as_ref()).and_then(|record| record.error.as_ref()) {
            lines.push(format!("{indent}{}", one_line(error)));
        }
        lines.extend(step.and_then(|step| step.waiting.as_ref()).map(|wait| format!("{indent}{}", waiting(wait, now_ms))));
    }
    lines
}

fn row(view: &StepView) -> [String; 7] {
    let record = view.record.as_ref();
    let tool = record.and_then(|record| record.tool.as_ref()).or(view.step.tool_hint.as_ref());
    let after: Vec<String> = view.step.depends_on.iter().map(ToString::to_string).collect();
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    [
        view.step.step_number.to_string(),
        view.state.as_str().to_owned(),
        dash(tool.map(|tool| one_line(tool)).unwrap_or_default()),
        dash(after.join(",")),
        view.attempt.to_string(),
        dash(record.filter(|_| view.attempt > 0).map(|record| span(record.duration_ms)).unwrap_or_default()),
        cut(&one_line(&view.step.description), DESCRIPTION_COLUMNS),
    ]
}

fn usage(usage: &Usage) -> String {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let estimated = if usage.estimated { " (estimated)" } else { "" };
    let cost = if usage.cost_nanos == 0 { String::new() } else { format!(", cost {}", amount(usage.cost_nanos)) };
    format!(
        "{}, {}, {} tokens in, {} out{cost}{estimated}",
        count(size(usage.model_calls), "model call"),
        count(size(usage.tool_calls), "tool call"),
        usage.input_tokens,
        usage.output_tokens
    )
}

#[cfg(test)]
pub(super) mod tests {
    use common::id::{RunId, StepNumber};
    use common::plan::Step;
    use common::quote::Quote;
    use common::run::{Halt, HaltKind, Outcome, RunWait, StepRecord, StepState};
    use common::wait::Wait;

    use super::*;

    pub(in crate::command) fn step(
        n: u32,
        description: &str,
        tool: Option<&str>,
        after: &[u32],
        state: StepState,
        attempt: u32,
    ) -> StepView {
        let record = state.outcome().map(|outcome| StepRecord {
            tool: tool.map(str::to_owned),
            duration_ms: 1_234,
            error: (outcome != Outcome::Succeeded).then(|| "no such\nfolder".to_owned()),
            ..StepRecord::without_result(outcome, String::new())
        });
        let planned = serde_json::json!({"step_number": n, "description": description, "tool_hint": tool, "depends_on": after});
        StepView { step: serde_json::from_value::<Step>(planned).unwrap(), state, attempt, worker: None, record, waiting: None }
    }

    /// A run of another time, without steps.
    pub(in crate::command) fn view() -> RunView {
        RunView {
            run_id: RunId::parse("report-2026-11").unwrap(),
            status: RunStatus::Partial,
            objective: "15% of 240,\nand the hours".to_owned(),
            revision: 2,
            created_at_ms: 1_793_680_171_000,
            finished_at_ms: Some(1_793_680_176_500),
            deadline_at_ms: None,
            steps: Vec::new(),
            superseded: Vec::new(),
            waiting: Vec::new(),
            quote: None,
            usage: Usage::default(),
            budget: Budget::default(),
            error: None,
            halt: None,
        }
    }

    #[test]
    fn a_run_with_everything() {
        let usage = Usage {
            model_calls: 3,
            tool_calls: 1,
            input_tokens: 420,
            output_tokens: 77,
            estimated: true,
            cost_nanos: 12_300_000,
        };
        let view = RunView {
            deadline_at_ms: Some(1_793_680_231_000),
            steps: vec![
                step(1, "15% of 240", Some("calculate"), &[], StepState::Succeeded, 1),
                step(2, "Find the opening hours", Some("search"), &[], StepState::Failed, 4),
                step(3, "Compare both", None, &[1, 2], StepState::Skipped, 0),
                step(10, &"long ".repeat(40), None, &[1], StepState::Cancelled, 1),
            ],
            superseded: vec![step(4, "Ask the archive", Some("search"), &[], StepState::Failed, 4)],
            usage,
            budget: Budget { tokens: Some(500), cost_nanos: Some(500_000_000), ..Budget::default() },
            halt: Some(Halt { kind: HaltKind::Budget, reason: "max_tokens is used up".to_owned() }),
            ..view()
        };
        insta::assert_snapshot!(render(&view, 0));
    }

    #[test]
    fn a_run_without_a_plan() {
        let view = RunView {
            run_id: RunId::parse("r").unwrap(),
            status: RunStatus::Planning,
            objective: "x".to_owned(),
            revision: 0,
            finished_at_ms: None,
            error: Some("model refused".to_owned()),
            ..view()
        };
        insta::assert_snapshot!(render(&view, 1_793_680_173_000));
    }

    #[test]
    fn a_plan_that_waits_for_approval() {
        let wait = Wait::Approval { otherwise: "cancel".to_owned(), until_ms: 1_793_680_231_000 };
        let waits = |step| StepView { waiting: Some(wait.clone()), ..step };
        let view = RunView {
            status: RunStatus::AwaitingApproval,
            revision: 1,
            finished_at_ms: None,
            steps: vec![
                waits(step(1, "15% of 240", Some("calculate"), &[], StepState::Ready, 0)),
                StepView {
                    waiting: Some(Wait::Steps { steps: vec![StepNumber(1)] }),
                    ..step(2, "Mail it", Some("mail"), &[1], StepState::Waiting, 0)
                },
            ],
            waiting: vec![RunWait { slot: "run".to_owned(), wait: wait.clone() }],
            quote: Some(Quote {
                steps: 2,
                model_calls: 3,
                tool_calls: 2,
                tokens: 3_000,
                tools_with_side_effects: vec!["mail".to_owned()],
                critical_path: vec![StepNumber(1), StepNumber(2)],
            }),
            ..view()
        };
        insta::assert_snapshot!(render(&view, 1_793_680_173_000));
    }
}
