//! `planrelay show`: where a run stands.

use common::client::WaitError;
use common::clock::Clock;
use common::config::Config;
use common::run::{RunView, StepView, Usage};

use crate::args::{Globals, ShowArgs};
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::text::{columns, count, cut, moment, one_line, span, table};

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
    facts.extend(view.error.as_ref().map(|error| ["error".to_owned(), one_line(error)]));
    let mut lines = table(&facts);
    if !view.steps.is_empty() {
        lines.push(String::new());
        lines.extend(steps(&view.steps));
    }
    lines.join("\n")
}

/// The steps as a table; what went wrong stands under its step.
fn steps(steps: &[StepView]) -> Vec<String> {
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
    format!(
        "{}, {}, {} tokens in, {} out{estimated}",
        count(size(usage.model_calls), "model call"),
        count(size(usage.tool_calls), "tool call"),
        usage.input_tokens,
        usage.output_tokens
    )
}

#[cfg(test)]
mod tests {
    use common::id::{RunId, StepNumber};
    use common::plan::Step;
    use common::run::{Outcome, RunStatus, StepRecord, StepState};

    use super::*;

    fn step(n: u32, description: &str, tool: Option<&str>, after: &[u32], state: StepState, attempt: u32) -> StepView {
        let record = state.outcome().map(|outcome| StepRecord {
            outcome,
            result: serde_json::Value::Null,
            error: (outcome != Outcome::Succeeded).then(|| "no such\nfolder".to_owned()),
            tool: tool.map(str::to_owned),
            usage: Usage::default(),
            duration_ms: 1_234,
            worker: None,
        });
        StepView {
            step: Step {
                step_number: StepNumber(n),
                description: description.to_owned(),
                tool_hint: tool.map(str::to_owned),
                arguments: None,
                depends_on: after.iter().map(|n| StepNumber(*n)).collect(),
            },
            state,
            attempt,
            worker: None,
            record,
        }
    }

    #[test]
    fn a_run_with_everything() {
        let usage = Usage { model_calls: 3, tool_calls: 1, input_tokens: 420, output_tokens: 77, estimated: true };
        let view = RunView {
            run_id: RunId::parse("report-2026-11").unwrap(),
            status: RunStatus::Partial,
            objective: "15% of 240,\nand the hours".to_owned(),
            revision: 2,
            created_at_ms: 1_793_680_171_000,
            finished_at_ms: Some(1_793_680_176_500),
            steps: vec![
                step(1, "15% of 240", Some("calculate"), &[], StepState::Succeeded, 1),
                step(2, "Find the opening hours", Some("search"), &[], StepState::Failed, 4),
                step(3, "Compare both", None, &[1, 2], StepState::Skipped, 0),
                step(10, &"long ".repeat(40), None, &[1], StepState::Running, 1),
            ],
            usage,
            error: None,
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
            created_at_ms: 1_793_680_171_000,
            finished_at_ms: None,
            steps: Vec::new(),
            usage: Usage::default(),
            error: Some("model refused".to_owned()),
        };
        insta::assert_snapshot!(render(&view, 1_793_680_173_000));
    }
}
