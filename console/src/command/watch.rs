//! `planrelay watch`: follows a run to its end.

use common::client::Client;
use common::config::Config;
use common::id::RunId;
use common::limits::RUNS_LISTED_MAX;

use crate::args::{Globals, WatchArgs};
use crate::command::{document, interrupted, timed_out, verdict, what_next};
use crate::connect;
use crate::display::say;
use crate::exit::{Exit, Failure};
use crate::follow::{Followed, follow};
use crate::output::{self, Format};

pub(crate) async fn run(args: WatchArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    let client = connect::client(config).await?;
    let run = match args.run {
        Some(run) => {
            connect::appeared(&client, &run).await?;
            run
        }
        None => newest_live(&client).await?,
    };
    if !globals.quiet {
        say(&format!("run {run}"));
    }
    match follow(&client, &run, args.after.as_deref().unwrap_or_default(), None, globals).await? {
        Followed::Ended(ending) => {
            if globals.output == Format::Json {
                output::json(&document(&client, &run).await?, Format::Json)?;
            }
            if globals.output == Format::Text && !globals.quiet && Exit::of(ending.status) == Exit::Ok {
                say(&format!("read the answer with: planrelay result {run}"));
            }
            verdict(&run, &ending, &what_next(&run, ending.status))
        }
        Followed::Interrupted => Ok(interrupted(&run)),
        // Nobody is asked who only looks on, and the wait has no limit.
        Followed::AwaitsApproval | Followed::TimedOut => Err(timed_out(&run)),
    }
}

/// The run that was opened last among those that have not ended.
async fn newest_live(client: &Client) -> Result<RunId, Failure> {
    let runs = client.list(RUNS_LISTED_MAX).await?;
    let live = runs.into_iter().find(|line| line.newer_schema.is_none() && !line.status.is_final());
    live.map(|line| line.run_id)
        .ok_or_else(|| Failure::says(Exit::Failed, "there is no live run").hint("planrelay list, then planrelay watch RUN"))
}
