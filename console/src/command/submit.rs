//! `planrelay submit`: publishes an objective; with `--wait` follows its run to the answer.

use std::time::Duration;

use common::config::Config;

use crate::args::{Globals, SubmitArgs};
use crate::command::follow_to_answer;
use crate::connect;
use crate::display::say;
use crate::exit::{Exit, Failure};
use crate::objective::{self, Approval};
use crate::output::{self, Format};

pub(crate) async fn run(args: SubmitArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    let approval = Approval { asked: args.approve, timeout_secs: args.approval_timeout };
    let objective = objective::read(&args.what, args.run_id, approval)?;
    let client = connect::client(config).await?;
    let broker = connect::broker(config).await?;
    let run = client.submit(&broker, objective).await?;
    broker.close().await;
    if !args.wait {
        match globals.output {
            Format::Text => output::line(run.as_str())?,
            Format::Json | Format::Jsonl => output::json(&serde_json::json!({"run_id": run}), globals.output)?,
        }
        return Ok(Exit::Ok);
    }
    if !globals.quiet {
        say(&format!("run {run}"));
    }
    follow_to_answer(&client, &run, args.timeout.map(Duration::from_secs), globals).await
}
