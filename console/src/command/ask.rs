//! Asking on the terminal whether a plan may run.

use std::io::{self, Write};

use common::client::{Client, WaitError};
use common::clock::Clock;
use common::id::RunId;
use common::message::{Command, ControlMessage};
use common::run::RunView;

use crate::command::control;
use crate::command::show;
use crate::display::say;
use crate::exit::{Exit, Failure};
use crate::text::for_terminal;
use crate::wait;

/// What somebody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Approve,
    Reject,
    Cancel,
}

/// Shows the plan and asks until there is an answer; `None` after Ctrl-C.
pub(super) async fn approval(client: &Client, run: &RunId) -> Result<Option<ControlMessage>, Failure> {
    let view = client.show(run).await?.ok_or_else(|| WaitError::NoSuchRun(run.clone()))?;
    say(&plan(&view));
    let decided =
        |command| ControlMessage { by: control::user(), revision: Some(view.revision), ..control::of(run.clone(), command) };
    loop {
        let Some(line) = line("[a]pprove, [r]eject with feedback, [c]ancel: ").await? else { return Ok(None) };
        match reply(&line) {
            Some(Reply::Approve) => return Ok(Some(decided(Command::Approve))),
            Some(Reply::Cancel) => return Ok(Some(ControlMessage { revision: None, ..decided(Command::Cancel) })),
            Some(Reply::Reject) => {
                let Some(feedback) = line_that_says_something("what should another plan do better? ").await? else {
                    return Ok(None);
                };
                return Ok(Some(ControlMessage { feedback: Some(feedback), ..decided(Command::Reject) }));
            }
            None => {}
        }
    }
}

/// The plan that waits, and what it will take.
fn plan(view: &RunView) -> String {
    let mut lines = show::steps(&view.steps, Clock::System.now_ms());
    lines.extend(view.quote.as_ref().map(wait::quote));
    lines.join("\n")
}

fn reply(line: &str) -> Option<Reply> {
    match line.trim().to_lowercase().as_str() {
        "a" | "approve" | "y" | "yes" => Some(Reply::Approve),
        "r" | "reject" => Some(Reply::Reject),
        "c" | "cancel" => Some(Reply::Cancel),
        _another => None,
    }
}

async fn line_that_says_something(question: &str) -> Result<Option<String>, Failure> {
    loop {
        match line(question).await? {
            Some(line) if line.trim().is_empty() => {}
            line => return Ok(line.map(|line| line.trim().to_owned())),
        }
    }
}

/// A line from the terminal; `None` after Ctrl-C.
async fn line(question: &str) -> Result<Option<String>, Failure> {
    let mut stderr = io::stderr().lock();
    // With stderr gone there is nobody left to ask, and stdin says so.
    let _gone = stderr.write_all(for_terminal(question).as_bytes()).and_then(|()| stderr.flush());
    drop(stderr);
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|read| (read > 0).then_some(line))
    });
    let read = tokio::select! {
        _ = tokio::signal::ctrl_c() => {
            say("");
            return Ok(None);
        }
        read = read => read.map_err(io::Error::other).flatten(),
    };
    let line =
        read.map_err(|error| Failure::new(Exit::Failed, anyhow::Error::new(error).context("failed to read the answer")))?;
    line.map(Some).ok_or_else(|| Failure::says(Exit::Usage, "stdin ended before the plan was approved"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clear_words_are_an_answer() {
        for (line, answer) in [
            ("a\n", Some(Reply::Approve)),
            ("Approve", Some(Reply::Approve)),
            (" r ", Some(Reply::Reject)),
            ("cancel\r\n", Some(Reply::Cancel)),
            ("", None),
            ("maybe", None),
        ] {
            assert_eq!(reply(line), answer, "{line:?}");
        }
    }
}
