//! The commands, one file each, and what they share at their ends.

use std::io::{self, IsTerminal};

use common::client::Client;
use common::id::RunId;
use common::run::{RunDocument, RunStatus};

use crate::args::Globals;
use crate::display::say;
use crate::exit::{Exit, Failure};
use crate::output::Format;

pub(crate) mod list;
pub(crate) mod result;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod submit;
pub(crate) mod watch;

/// The result document of a run that has ended.
async fn document(client: &Client, run: &RunId) -> Result<RunDocument, Failure> {
    let document = client.result(run).await?;
    document.ok_or_else(|| Failure::says(Exit::Failed, format!("run {run} has no result document")))
}

/// The end of a command that followed a run for its answer: prints it, and says how the run ended.
async fn answer(
    client: &Client,
    run: &RunId,
    (status, error): (RunStatus, Option<String>),
    globals: &Globals,
    hint: &str,
) -> Result<Exit, Failure> {
    match globals.output {
        Format::Text => {
            let document = document(client, run).await?;
            if !globals.quiet && document.final_response.is_some() && io::stdout().is_terminal() {
                // Progress ends above, the answer begins here.
                say("");
            }
            result::print(&document, Format::Text)?;
        }
        Format::Json => result::print(&document(client, run).await?, Format::Json)?,
        // The events stand there already.
        Format::Jsonl => {}
    }
    verdict(run, status, error.as_deref(), hint)
}

/// How a command ends whose run has ended like this; `hint` is for runs that did not do all they should.
fn verdict(run: &RunId, status: RunStatus, error: Option<&str>, hint: &str) -> Result<Exit, Failure> {
    let why = error.map(|error| format!(": {error}")).unwrap_or_default();
    let failure = match status {
        RunStatus::Succeeded => return Ok(Exit::Ok),
        RunStatus::Partial => {
            say(&format!("the answer is partial: not every step succeeded\nhint: {hint}"));
            return Ok(Exit::Ok);
        }
        RunStatus::Failed => Failure::says(Exit::of(status), format!("run {run} failed{why}")),
        RunStatus::Cancelled => Failure::says(Exit::of(status), format!("run {run} was cancelled{why}")),
        RunStatus::Planning | RunStatus::Running | RunStatus::Summarizing => {
            Failure::says(Exit::of(status), format!("run {run} has not ended"))
        }
    };
    Err(failure.hint(hint))
}

/// The end of following a run with Ctrl-C: the run goes on.
fn interrupted(run: &RunId) -> Exit {
    say(&format!("still running; re-attach with: planrelay watch {run}"));
    Exit::Interrupted
}

/// The end of waiting for a run that takes longer: the run goes on.
fn timed_out(run: &RunId) -> Failure {
    Failure::says(Exit::TimedOut, format!("the wait is over, run {run} goes on")).hint(format!("planrelay watch {run}"))
}
