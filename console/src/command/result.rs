//! `planrelay result`: the answer of a run.

use std::io;
use std::time::Duration;

use common::client::WaitError;
use common::config::Config;
use common::run::RunDocument;

use crate::args::{Globals, ResultArgs};
use crate::command::{interrupted, timed_out, verdict, what_next};
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::follow::Ending;
use crate::output::{self, Format};

/// As good as for ever.
const WAIT_DEFAULT: Duration = Duration::from_secs(365 * 24 * 3600);

pub(crate) async fn run(args: ResultArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    let (client, run) = (connect::client(config).await?, args.run);
    let document = if args.wait {
        connect::appeared(&client, &run).await?;
        let timeout = args.timeout.map_or(WAIT_DEFAULT, Duration::from_secs);
        let waited = tokio::select! {
            waited = client.wait(&run, timeout) => waited,
            _ = tokio::signal::ctrl_c() => return Ok(interrupted(&run)),
        };
        match waited {
            Ok(document) => document,
            Err(WaitError::TimedOut(run, _)) => return Err(timed_out(&run)),
            Err(error @ (WaitError::NoSuchRun(_) | WaitError::Store(_))) => return Err(error.into()),
        }
    } else {
        match client.result(&run).await? {
            Some(document) => document,
            None => {
                return Err(match client.status(&run).await? {
                    Some(status) => {
                        Failure::says(Exit::Failed, format!("run {run} has no result yet, it is {}", status.as_str()))
                            .hint(format!("planrelay result --wait {run}"))
                    }
                    None => WaitError::NoSuchRun(run).into(),
                });
            }
        }
    };
    print(&document, globals.output)?;
    let halt = document.halt.map(|halt| halt.reason);
    let ending = Ending { status: document.status, error: document.error, halt };
    verdict(&run, &ending, &what_next(&run, ending.status))
}

/// The answer, or the whole document.
pub(crate) fn print(document: &RunDocument, format: Format) -> io::Result<()> {
    match (format, &document.final_response) {
        (Format::Text, Some(answer)) => output::foreign(answer),
        // What there is to say instead stands on stderr.
        (Format::Text, None) => Ok(()),
        (Format::Json | Format::Jsonl, _) => output::json(document, format),
    }
}
