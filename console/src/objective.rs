//! The objective that a command line asks for, read from wherever it says, and checked as a service would.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::Context;
use common::id::RunId;
use common::limits::{CONTEXT_BYTES_MAX, MESSAGE_BYTES_MAX, OBJECTIVE_BYTES_MAX};
use common::message::{self, ObjectiveMessage, Options, WIRE_VERSION};

use crate::args::ObjectiveArgs;
use crate::exit::{Exit, Failure};

/// Reads the objective, its plan and its context. Every failure is one of usage.
pub(crate) fn read(args: &ObjectiveArgs, run_id: Option<RunId>) -> Result<ObjectiveMessage, Failure> {
    let usage = |error| Failure::new(Exit::Usage, error);
    let objective = match args.objective.as_deref() {
        Some("-") => read_stdin().map_err(usage)?,
        Some(text) => text.to_owned(),
        None if io::stdin().is_terminal() => {
            return Err(Failure::says(Exit::Usage, "there is no objective").hint("planrelay run \"15% of 240\""));
        }
        None => read_stdin().map_err(usage)?,
    };
    let plan = match &args.plan {
        Some(path) => {
            let text = read_file(path, "plan", MESSAGE_BYTES_MAX).map_err(usage)?;
            let plan: serde_json::Value =
                serde_json::from_str(&text).with_context(|| format!("plan {} is not JSON", path.display())).map_err(|error| {
                    usage(error).hint("a plan looks like {\"steps\": [{\"step_number\": 1, \"description\": \"…\"}]}")
                })?;
            Some(plan)
        }
        None => None,
    };
    let context = match &args.context {
        Some(path) => Some(read_file(path, "context", CONTEXT_BYTES_MAX).map_err(usage)?),
        None => None,
    };
    let message = ObjectiveMessage {
        version: WIRE_VERSION,
        objective: objective.trim().to_owned(),
        run_id,
        context,
        plan,
        options: Options { respond: args.respond.into(), ..Options::default() },
    };
    check(message)
}

/// Refuses here and now what a planner would refuse later, with nobody listening.
fn check(objective: ObjectiveMessage) -> Result<ObjectiveMessage, Failure> {
    let body = serde_json::to_vec(&objective).map_err(|error| Failure::new(Exit::Usage, error))?;
    message::parse::<ObjectiveMessage>(&body).map_err(|refusal| Failure::new(Exit::Usage, refusal))
}

fn read_stdin() -> anyhow::Result<String> {
    read_text(&mut io::stdin().lock(), OBJECTIVE_BYTES_MAX).context("failed to read the objective from stdin")
}

fn read_file(path: &Path, what: &str, max: usize) -> anyhow::Result<String> {
    let read = || read_text(&mut File::open(path)?, max);
    read().with_context(|| format!("failed to read {what} {}", path.display()))
}

/// Reads at most `max` bytes of text, whatever the source could give.
fn read_text(source: &mut impl Read, max: usize) -> anyhow::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    source.take(limit).read_to_string(&mut text)?;
    anyhow::ensure!(text.len() <= max, "it has more than {max} bytes, which is the limit");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use common::message::Respond;

    use super::*;
    use crate::args::RespondArg;

    fn args(objective: &str) -> ObjectiveArgs {
        ObjectiveArgs { objective: Some(objective.to_owned()), plan: None, context: None, respond: RespondArg::Results }
    }

    #[test]
    fn an_objective_becomes_a_message() {
        let run = RunId::parse("r-1").unwrap();
        let message = read(&args("  15% of 240\n"), Some(run.clone())).unwrap();
        assert_eq!(message.objective, "15% of 240");
        assert_eq!(message.run_id, Some(run));
        assert_eq!(message.options.respond, Respond::Results);
    }

    #[test]
    fn what_a_planner_would_refuse_is_usage() {
        for objective in [String::new(), "  \n".to_owned(), "x".repeat(OBJECTIVE_BYTES_MAX + 1)] {
            assert_eq!(read(&args(&objective), None).unwrap_err().exit, Exit::Usage);
        }
        let missing = ObjectiveArgs { plan: Some("/nonexistent/plan.json".into()), ..args("x") };
        let failure = read(&missing, None).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.error.to_string(), "failed to read plan /nonexistent/plan.json");
    }

    #[test]
    fn endless_input_is_not_read_to_its_end() {
        let error = read_text(&mut io::repeat(b'x'), 1000).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 1000 bytes, which is the limit");
        assert_eq!(read_text(&mut "abc".as_bytes(), 3).unwrap(), "abc");
    }
}
