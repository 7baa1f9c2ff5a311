//! The commands, one file each, and what they share at their ends.

use std::io::{self, IsTerminal};
use std::time::Duration;

use common::client::Client;
use common::id::RunId;
use common::run::{RunDocument, RunStatus};

use crate::args::Globals;
use crate::display::say;
use crate::exit::{Exit, Failure};
use crate::follow::{Ending, Followed, follow};
use crate::output::Format;

mod ask;
pub(crate) mod control;
pub(crate) mod doctor;
pub(crate) mod explain;
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

/// Follows a run to its end and prints its answer.
pub(crate) async fn follow_to_answer(
    client: &Client,
    run: &RunId,
    timeout: Option<Duration>,
    globals: &Globals,
) -> Result<Exit, Failure> {
    match follow(client, run, "", timeout, globals).await? {
        Followed::Ended(ending) => answer(client, run, &ending, globals, &what_next(run, ending.status)).await,
        Followed::Interrupted => Ok(interrupted(run)),
        // Only who owns a run is asked.
        Followed::AwaitsApproval | Followed::TimedOut => Err(timed_out(run)),
    }
}

/// The end of a command that followed a run for its answer: prints it, and says how the run ended.
async fn answer(client: &Client, run: &RunId, ending: &Ending, globals: &Globals, hint: &str) -> Result<Exit, Failure> {
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
    verdict(run, ending, hint)
}

/// What can be done about a run that has ended like this.
fn what_next(run: &RunId, status: RunStatus) -> String {
    match status {
        RunStatus::Partial | RunStatus::Failed => {
            format!("planrelay show {run}; planrelay retry {run} runs it again from its failed steps")
        }
        RunStatus::Succeeded | RunStatus::Cancelled => format!("planrelay show {run}"),
        RunStatus::Planning | RunStatus::AwaitingApproval | RunStatus::Running | RunStatus::Paused | RunStatus::Summarizing => {
            format!("planrelay watch {run}")
        }
    }
}

/// How a command ends whose run has ended like this; `hint` is for runs that did not do all they should.
fn verdict(run: &RunId, ending: &Ending, hint: &str) -> Result<Exit, Failure> {
    let Ending { status, error, halt } = ending;
    let why = error.as_ref().or(halt.as_ref()).map(|why| format!(": {why}")).unwrap_or_default();
    let failure = match status {
        RunStatus::Succeeded => return Ok(Exit::Ok),
        RunStatus::Partial => {
            let why = halt.as_deref().unwrap_or("not every step succeeded");
            say(&format!("the answer is partial: {why}\nhint: {hint}"));
            return Ok(Exit::Ok);
        }
        RunStatus::Failed => Failure::says(Exit::of(*status), format!("run {run} failed{why}")),
        RunStatus::Cancelled => {
            Failure::says(Exit::of(*status), format!("run {run}{}", if why.is_empty() { " was cancelled" } else { &why }))
        }
        RunStatus::Planning | RunStatus::AwaitingApproval | RunStatus::Running | RunStatus::Paused | RunStatus::Summarizing => {
            Failure::says(Exit::of(*status), format!("run {run} has not ended"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_stopped_says_by_what() {
        let run = RunId::parse("r").unwrap();
        let ending = |status, error: Option<&str>, halt: Option<&str>| Ending {
            status,
            error: error.map(str::to_owned),
            halt: halt.map(str::to_owned),
        };
        let failure = |ending: &Ending| {
            let failure = verdict(&run, ending, &what_next(&run, ending.status)).unwrap_err();
            (failure.exit.code(), failure.error.to_string(), failure.hint.unwrap())
        };
        let cancelled = ending(RunStatus::Cancelled, None, Some("cancelled by alice"));
        assert_eq!(failure(&cancelled), (3, "run r: cancelled by alice".into(), "planrelay show r".into()));
        let late = ending(RunStatus::Failed, Some("no step succeeded"), Some("the deadline has come"));
        let hint = "planrelay show r; planrelay retry r runs it again from its failed steps";
        assert_eq!(failure(&late), (1, "run r failed: no step succeeded".into(), hint.into()));
        let paused = ending(RunStatus::Paused, None, None);
        assert_eq!(failure(&paused), (1, "run r has not ended".into(), "planrelay watch r".into()));
        let partial = ending(RunStatus::Partial, None, Some("max_tokens is used up"));
        assert_eq!(verdict(&run, &partial, "h").unwrap(), Exit::Ok);
    }
}
