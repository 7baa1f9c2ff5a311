//! The objective that a command line asks for, read from wherever it says, and checked as a service would.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::Context;
use common::id::RunId;
use common::limits::{CONTEXT_BYTES_MAX, MESSAGE_BYTES_MAX, OBJECTIVE_BYTES_MAX};
use common::message::{self, Approve, Body, ObjectiveMessage, Options, ReplanPolicy, WIRE_VERSION};
use serde::Serialize;
use serde_json::Value;

use crate::args::{BoundsArgs, ObjectiveArgs};
use crate::exit::{Exit, Failure};

/// Whether the plan waits for approval, and how long.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Approval {
    pub(crate) asked: bool,
    pub(crate) timeout_secs: Option<u64>,
}

/// Reads the objective, its plan and its context. Every failure is one of usage.
pub(crate) fn read(args: &ObjectiveArgs, run_id: Option<RunId>, approval: Approval) -> Result<ObjectiveMessage, Failure> {
    let usage = |error| Failure::new(Exit::Usage, error);
    let objective = match args.objective.as_deref() {
        Some("-") => read_stdin("the objective").map_err(usage)?,
        Some(text) => text.to_owned(),
        None if io::stdin().is_terminal() => {
            return Err(Failure::says(Exit::Usage, "there is no objective").hint("planrelay run \"15% of 240\""));
        }
        None => read_stdin("the objective").map_err(usage)?,
    };
    let plan = args.plan.as_deref().map(read_plan).transpose()?;
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
        options: Options {
            respond: args.respond.into(),
            approve: approval.asked.then_some(Approve::Plan),
            approval_timeout_secs: approval.timeout_secs,
            ..options(&args.bounds)
        },
    };
    check(&message)
}

/// What the bounds on the command line mean.
fn options(bounds: &BoundsArgs) -> Options {
    Options {
        replan: bounds.replan.map(ReplanPolicy::from).unwrap_or_default(),
        max_replans: bounds.max_replans,
        deadline_secs: bounds.deadline,
        max_tokens: bounds.max_tokens,
        max_model_calls: bounds.max_model_calls,
        max_tool_calls: bounds.max_tool_calls,
        max_cost: bounds.max_cost,
        ..Options::default()
    }
}

/// Refuses here and now what a planner would refuse later, with nobody listening.
pub(crate) fn check<T: Body + Serialize>(message: &T) -> Result<T, Failure> {
    let body = serde_json::to_vec(message).map_err(|error| Failure::new(Exit::Usage, error))?;
    message::parse::<T>(&body).map_err(|refusal| Failure::new(Exit::Usage, refusal))
}

/// A plan that somebody wrote; its steps are for the planner to check.
pub(crate) fn read_plan(path: &Path) -> Result<Value, Failure> {
    let usage = |error| Failure::new(Exit::Usage, error);
    let text = read_file(path, "plan", MESSAGE_BYTES_MAX).map_err(usage)?;
    serde_json::from_str(&text)
        .with_context(|| format!("plan {} is not JSON", path.display()))
        .map_err(|error| usage(error).hint("a plan looks like {\"steps\": [{\"step_number\": 1, \"description\": \"…\"}]}"))
}

/// Reads `what` from stdin.
pub(crate) fn read_stdin(what: &str) -> anyhow::Result<String> {
    let text = read_text(&mut io::stdin().lock(), OBJECTIVE_BYTES_MAX);
    text.with_context(|| format!("failed to read {what} from stdin"))
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
    use crate::args::{ReplanArg, RespondArg};

    fn args(objective: &str) -> ObjectiveArgs {
        ObjectiveArgs {
            objective: Some(objective.to_owned()),
            plan: None,
            context: None,
            respond: RespondArg::Results,
            bounds: BoundsArgs::default(),
        }
    }

    #[test]
    fn an_objective_becomes_a_message() {
        let run = RunId::parse("r-1").unwrap();
        let message = read(&args("  15% of 240\n"), Some(run.clone()), Approval::default()).unwrap();
        assert_eq!(message.objective, "15% of 240");
        assert_eq!(message.run_id, Some(run));
        assert_eq!(message.options.respond, Respond::Results);
    }

    #[test]
    fn what_a_planner_would_refuse_is_usage() {
        for objective in [String::new(), "  \n".to_owned(), "x".repeat(OBJECTIVE_BYTES_MAX + 1)] {
            assert_eq!(read(&args(&objective), None, Approval::default()).unwrap_err().exit, Exit::Usage);
        }
        let missing = ObjectiveArgs { plan: Some("/nonexistent/plan.json".into()), ..args("x") };
        let failure = read(&missing, None, Approval::default()).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.error.to_string(), "failed to read plan /nonexistent/plan.json");
    }

    #[test]
    fn bounds_become_options() {
        let bounds = BoundsArgs { replan: Some(ReplanArg::Never), deadline: Some(60), max_cost: Some(0.5), ..Default::default() };
        let approval = Approval { asked: true, timeout_secs: Some(5) };
        let options = Options {
            respond: Respond::Results,
            replan: ReplanPolicy::Never,
            deadline_secs: Some(60),
            max_cost: Some(0.5),
            approve: Some(Approve::Plan),
            approval_timeout_secs: Some(5),
            ..Options::default()
        };
        assert_eq!(read(&ObjectiveArgs { bounds, ..args("x") }, None, approval).unwrap().options, options);
        let bounds = BoundsArgs { max_tokens: Some(0), ..Default::default() };
        let failure = read(&ObjectiveArgs { bounds, ..args("x") }, None, approval).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.error.to_string().starts_with("options.max_tokens must be"), "{}", failure.error);
    }

    #[test]
    fn endless_input_is_not_read_to_its_end() {
        let error = read_text(&mut io::repeat(b'x'), 1000).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 1000 bytes, which is the limit");
        assert_eq!(read_text(&mut "abc".as_bytes(), 3).unwrap(), "abc");
    }
}
