//! `planrelay cancel`, `pause`, `resume`, `approve`, `reject`, `retry`: a decision about a run, published on `controls`.

use std::env;
use std::time::Duration;

use common::broker::Broker;
use common::client::Client;
use common::config::Config;
use common::id::RunId;
use common::message::{Answer, Command, ControlMessage, ControlReply, WIRE_VERSION};

use crate::args::{ApproveArgs, DecisionArgs, Globals, RejectArgs, RetryArgs};
use crate::command::follow_to_answer;
use crate::connect;
use crate::display::say;
use crate::exit::{Exit, Failure};
use crate::objective;
use crate::output::{self, Format};

/// How long a planner may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn cancel(args: DecisionArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    tell(decision(Command::Cancel, args), false, globals, config).await
}

pub(crate) async fn pause(args: DecisionArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    tell(decision(Command::Pause, args), false, globals, config).await
}

pub(crate) async fn resume(args: DecisionArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    tell(decision(Command::Resume, args), false, globals, config).await
}

pub(crate) async fn approve(args: ApproveArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    let plan = args.plan.as_deref().map(objective::read_plan).transpose()?;
    let command = if plan.is_some() { Command::Edit } else { Command::Approve };
    let message = ControlMessage { plan, revision: args.revision, ..decision(command, args.decision) };
    tell(message, args.wait, globals, config).await
}

pub(crate) async fn reject(args: RejectArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    let feedback = match args.feedback.as_str() {
        "-" => objective::read_stdin("the feedback").map_err(|error| Failure::new(Exit::Usage, error))?,
        _words => args.feedback,
    };
    let feedback = Some(feedback.trim().to_owned());
    let message = ControlMessage { feedback, revision: args.revision, ..decision(Command::Reject, args.decision) };
    tell(message, false, globals, config).await
}

pub(crate) async fn retry(args: RetryArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    tell(decision(Command::Retry, args.decision), args.wait, globals, config).await
}

fn decision(command: Command, args: DecisionArgs) -> ControlMessage {
    ControlMessage { by: args.by.or_else(user), reason: args.reason, ..of(args.run, command) }
}

/// The command alone: nobody, no reason.
pub(crate) fn of(run_id: RunId, command: Command) -> ControlMessage {
    let (by, reason, feedback, plan, revision) = (None, None, None, None, None);
    ControlMessage { version: WIRE_VERSION, run_id, command, by, reason, feedback, plan, revision }
}

/// Who sits at the keyboard, as far as the environment knows.
pub(crate) fn user() -> Option<String> {
    ["USER", "LOGNAME"].into_iter().find_map(|name| env::var(name).ok().filter(|user| !user.trim().is_empty()))
}

/// Publishes a decision, prints what became of it, and follows the run if that is wanted.
async fn tell(message: ControlMessage, wait: bool, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    let message = objective::check(&message)?;
    let client = connect::client(config).await?;
    connect::appeared(&client, &message.run_id).await?;
    let reply = publish(&client, message, config).await?;
    if !wait {
        print(&reply, globals)?;
        return Ok(ending(&reply, globals));
    }
    if !globals.quiet {
        say(&reply.message);
    }
    match reply.answer {
        Answer::Accepted | Answer::Repeated => follow_to_answer(&client, &reply.run_id, None, globals).await,
        Answer::Refused => Ok(ending(&reply, globals)),
    }
}

async fn publish(client: &Client, message: ControlMessage, config: &Config) -> Result<ControlReply, Failure> {
    let broker: Broker = connect::broker(config).await?;
    let reply = client.control(&broker, &message, ANSWER_TIMEOUT).await;
    broker.close().await;
    Ok(reply?)
}

fn print(reply: &ControlReply, globals: &Globals) -> std::io::Result<()> {
    match globals.output {
        Format::Text => output::foreign(&reply.message),
        Format::Json | Format::Jsonl => output::json(reply, globals.output),
    }
}

/// How the command ends. What was refused, and why, has been printed.
fn ending(reply: &ControlReply, globals: &Globals) -> Exit {
    match reply.answer {
        Answer::Accepted | Answer::Repeated => Exit::Ok,
        Answer::Refused => {
            if !globals.quiet {
                say(&format!("hint: planrelay explain {}", reply.run_id));
            }
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{self, CommandLine};

    #[test]
    fn a_decision_names_who_and_why() {
        let line = "planrelay cancel r --by alice --reason why".split(' ');
        let Some(args::Command::Cancel(args)) = CommandLine::try_parse_from(line).unwrap().command else { panic!("not cancel") };
        let message = decision(Command::Cancel, args);
        let run = RunId::parse("r").unwrap();
        let (by, reason) = (Some("alice".to_owned()), Some("why".to_owned()));
        assert_eq!(message, ControlMessage { by, reason, ..of(run, Command::Cancel) });
        assert_eq!(objective::check(&message).unwrap(), message);
    }

    #[test]
    fn what_a_planner_would_refuse_to_read_is_usage() {
        let run = RunId::parse("r").unwrap();
        let feedback = Some("  ".to_owned());
        let message = ControlMessage { feedback, ..of(run, Command::Reject) };
        assert_eq!(objective::check(&message).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn only_refusals_fail() {
        let reply = |answer| ControlReply {
            version: 1,
            run_id: RunId::parse("r").unwrap(),
            command: Command::Pause,
            answer,
            message: "m".to_owned(),
            status: None,
        };
        let quiet = Globals { quiet: true, ..Globals::default() };
        for (answer, code) in [(Answer::Accepted, 0), (Answer::Repeated, 0), (Answer::Refused, 1)] {
            assert_eq!(ending(&reply(answer), &quiet).code(), code, "{answer:?}");
        }
    }
}
