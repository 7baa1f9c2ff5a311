//! `planrelay list`: runs, newest first.

use common::clock::Clock;
use common::config::Config;
use common::limits::RUNS_LISTED_MAX;
use common::store::RunLine;

use crate::args::{Globals, ListArgs};
use crate::connect;
use crate::display::say;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::text::{cut, moment, one_line, span, table};

/// Columns of an objective in the list.
const OBJECTIVE_COLUMNS: usize = 60;

pub(crate) async fn run(args: ListArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    let client = connect::client(config).await?;
    let limit = usize::try_from(args.limit).unwrap_or(RUNS_LISTED_MAX);
    let runs = match args.status {
        None => client.list(limit).await?,
        Some(status) => {
            let all = client.list(RUNS_LISTED_MAX).await?;
            all.into_iter().filter(|line| line.newer_schema.is_none() && line.status == status).take(limit).collect()
        }
    };
    match globals.output {
        Format::Text if runs.is_empty() => say("no runs"),
        Format::Text => {
            output::line(&render(&runs, Clock::System.now_ms()))?;
            if runs.iter().any(|run| run.newer_schema.is_some()) {
                say("runs of a later schema were written by a newer planrelay; upgrade this one to read them");
            }
        }
        Format::Json => output::json(&runs, Format::Json)?,
        Format::Jsonl => {
            for run in &runs {
                output::json(run, Format::Jsonl)?;
            }
        }
    }
    Ok(Exit::Ok)
}

fn render(runs: &[RunLine], now_ms: u64) -> String {
    let mut rows = vec![["RUN", "STATUS", "CREATED (UTC)", "TOOK", "OBJECTIVE"].map(str::to_owned)];
    rows.extend(runs.iter().map(|run| {
        let end = run.finished_at_ms.unwrap_or(now_ms);
        [
            run.run_id.to_string(),
            run.newer_schema.map_or_else(|| run.status.as_str().to_owned(), |schema| format!("schema {schema}")),
            moment(run.created_at_ms),
            span(end.saturating_sub(run.created_at_ms)),
            cut(&one_line(&run.objective), OBJECTIVE_COLUMNS),
        ]
    }));
    table(&rows).join("\n")
}

#[cfg(test)]
mod tests {
    use common::id::RunId;
    use common::run::RunStatus;

    use super::*;

    #[test]
    fn runs_as_a_table() {
        let line = |id: &str, status, objective: &str, finished_at_ms| RunLine {
            run_id: RunId::parse(id).unwrap(),
            status,
            newer_schema: None,
            objective: objective.to_owned(),
            created_at_ms: 1_793_680_171_000,
            finished_at_ms,
        };
        let long = "Compare the three offers\nin the folder and say which one is the best and why so";
        let newer = RunLine { newer_schema: Some(2), ..line("of-tomorrow", RunStatus::Running, "x", None) };
        let runs = [
            newer,
            line("019a4b-7", RunStatus::Running, long, None),
            line("report-2026-11", RunStatus::Succeeded, "15% of 240", Some(1_793_680_171_012)),
        ];
        insta::assert_snapshot!(render(&runs, 1_793_680_180_500));
    }
}
