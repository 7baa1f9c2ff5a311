//! What users want in a simulated world, and what must come out of it: every step says in its description what is to become of it.
//!
//! Steps with the tool `calculate` run an expression `<what> <salt>`, or the result of another step; model steps are described as `<what> <salt>`.
//! What a step gives is a hash of what went in, so that a wrong, missing or foreign input shows.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use common::id::{RunId, StepNumber};
use common::message::Command;
use common::run::{Outcome, RunDocument, RunStatus, StepResult};
use serde_json::{Value, json};

use crate::check::ensure;
use crate::dice::Dice;

/// A run that somebody wants.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// Its id.
    pub(crate) run: RunId,
    /// The objective message.
    pub(crate) body: Value,
    /// Where the reply is to go.
    pub(crate) reply_to: Option<String>,
    /// When it is published, from the beginning of the world.
    pub(crate) at: Duration,
    /// How often it is published, with ids of their own.
    pub(crate) copies: usize,
    /// What is done to it later.
    pub(crate) commands: Vec<(Duration, Command)>,
}

/// A few runs of one world that lasts for about `span`.
pub(crate) fn wishes(dice: &Dice, span: Duration) -> Vec<Wish> {
    let most = usize::try_from(span.as_millis()).unwrap_or(1_000);
    (0..dice.between(1, 4))
        .map(|n| {
            let run = RunId::parse(&format!("run-{n}")).expect("a run id");
            let at = dice.millis(0, most / 2);
            let mut body =
                json!({"objective": format!("wish {}", dice.seed()), "run_id": run.as_str(), "options": options(dice)});
            if dice.chance(0.7) {
                body["plan"] = plan(dice);
            }
            let commands = if dice.chance(0.35) { commands(dice, at, most) } else { Vec::new() };
            let reply_to = dice.chance(0.5).then(|| format!("answers-{n}"));
            Wish { run, body, reply_to, at, copies: if dice.chance(0.2) { 2 } else { 1 }, commands }
        })
        .collect()
}

fn options(dice: &Dice) -> Value {
    let mut options = json!({
        "respond": dice.pick(&["answer", "results"]),
        "replan": dice.pick(&["on_failure", "on_failure", "never", "after_each_step"]),
        "max_replans": dice.below(4),
    });
    if dice.chance(0.4) {
        options["max_parallel_steps"] = dice.between(1, 3).into();
    }
    if dice.chance(0.1) {
        options["approve"] = "plan".into();
        options["approval_timeout_secs"] = dice.between(5, 60).into();
    }
    if dice.chance(0.1) {
        options["deadline_secs"] = dice.between(5, 120).into();
    }
    if dice.chance(0.1) {
        options["max_tool_calls"] = dice.below(6).into();
    }
    if dice.chance(0.1) {
        options["max_model_calls"] = dice.between(1, 12).into();
    }
    options
}

fn commands(dice: &Dice, at: Duration, most: usize) -> Vec<(Duration, Command)> {
    let later = || at + dice.millis(0, most / 2);
    match dice.below(5) {
        0 => vec![(later(), Command::Cancel)],
        1 => vec![(later(), Command::Pause), (later(), Command::Resume)],
        2 => vec![(later(), Command::Retry), (at + Duration::from_secs(300), Command::Retry)],
        3 => vec![(later(), Command::Approve)],
        _ => vec![(later(), Command::Pause), (later(), Command::Cancel), (later(), Command::Retry)],
    }
}

/// A plan: a few steps, each depending on some before it.
pub(crate) fn plan(dice: &Dice) -> Value {
    let steps: Vec<Value> = (1..=dice.between(1, 7)).map(|number| step(dice, number)).collect();
    json!({"steps": steps})
}

fn step(dice: &Dice, number: usize) -> Value {
    let depends_on: Vec<usize> = (1..number).filter(|_| dice.chance(0.35)).collect();
    let salt = dice.below(1_000);
    let mut step = json!({"step_number": number, "depends_on": depends_on});
    if dice.chance(0.2) {
        step["on_failed_dependency"] = "run_anyway".into();
    }
    if dice.chance(0.6) {
        let expression = match depends_on.first() {
            Some(first) if dice.chance(0.5) => json!({"$result": first}),
            Some(_) | None => format!("{} {salt}", exact(dice)).into(),
        };
        step["tool_hint"] = "calculate".into();
        step["arguments"] = json!({"expression": expression});
        step["description"] = format!("exact {salt}").into();
    } else {
        let what = dice.pick(&["think", "think", "think", "use", "use", "flaky", "fail", "impossible"]);
        step["description"] = format!("{what} {salt}").into();
    }
    step
}

fn exact(dice: &Dice) -> &'static str {
    const WORDS: [&str; 9] = ["ok", "ok", "ok", "ok", "ok", "slow", "fail", "panic", "hang"];
    WORDS[dice.below(WORDS.len())]
}

/// What the tool gives for an expression; `None` if it fails.
pub(crate) fn calculated(expression: &str) -> Option<String> {
    let fails = ["fail", "panic", "hang"].iter().any(|word| expression.starts_with(word));
    (!fails).then(|| format!("ok {:x}", hash(&expression)))
}

/// What a model step gives for its description and what it is handed; `None` if it fails.
pub(crate) fn thought(description: &str, inputs: &[&Value]) -> Option<String> {
    let (what, salt) = description.split_once(' ').unwrap_or((description, ""));
    match what {
        "fail" | "impossible" => None,
        "use" => calculated(&format!("ok {salt}")).map(|output| format!("used {output}")),
        _thinks => Some(format!("ok {:x}", hash(&(description, inputs.iter().map(|v| v.to_string()).collect::<Vec<_>>())))),
    }
}

/// A number that depends on nothing but `of`.
pub(crate) fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish() & 0xffff_ffff
}

/// Reasons for which a step may fail that would have succeeded in a better world.
const MISFORTUNES: [&str; 9] = [
    "took longer than",
    "executors ended while they ran this step",
    "messages became dead letters too often",
    "misfortune",
    "the budget",
    "max_",
    "attempt 4 of 4",
    "after 100 waits",
    "broke down",
];

/// Checks the end of a run: what each step gave, and that the run's status says so. `exempt`: values of steps that ran after a failure, or in a
/// run that was retried, depend on what was there before.
pub(crate) fn verify(document: &RunDocument, exempt: bool) -> Result<(), String> {
    let planned = document.plan.steps.iter().map(|step| step.step_number);
    let complete = planned.eq(document.step_results.iter().map(|step| step.step_number));
    ensure(complete, &format!("I5: the results are not those of the plan: {document:#?}"))?;
    for step in &document.step_results {
        verify_step(document, step, exempt)?;
    }
    let succeeded = document.step_results.iter().filter(|step| step.outcome == Outcome::Succeeded).count();
    let all = succeeded == document.step_results.len() && succeeded > 0;
    let halted = document.halt.is_some();
    let fits = match document.status {
        RunStatus::Succeeded => all,
        RunStatus::Partial => succeeded > 0 && (!all || halted),
        RunStatus::Failed => document.error.is_some(),
        RunStatus::Cancelled => halted,
        RunStatus::Planning | RunStatus::AwaitingApproval | RunStatus::Running | RunStatus::Paused | RunStatus::Summarizing => {
            false
        }
    };
    ensure(fits, &format!("the status {:?} does not fit: {document:#?}", document.status))
}

fn verify_step(document: &RunDocument, result: &StepResult, exempt: bool) -> Result<(), String> {
    let planned = document.plan.steps.iter().find(|step| step.step_number == result.step_number);
    let Some(planned) = planned else { return Err(format!("a result of a step that is not planned: {result:?}")) };
    let of = |number: &StepNumber| document.step_results.iter().find(|step| step.step_number == *number);
    let inputs: Vec<&StepResult> = planned.depends_on.iter().filter_map(of).collect();
    let all_succeeded = inputs.iter().all(|input| input.outcome == Outcome::Succeeded);
    let wrong = |what: &str| Err(format!("{what}: {result:?} of {planned:?}"));
    let values: Vec<&Value> = inputs.iter().map(|input| &input.result).collect();
    let expected = match &planned.arguments {
        Some(arguments) => match arguments["expression"].as_str() {
            Some(expression) => calculated(expression),
            None => {
                let number = arguments["expression"]["$result"].as_u64().and_then(|n| u32::try_from(n).ok()).map(StepNumber);
                number.as_ref().and_then(of).and_then(|step| step.result.as_str()).and_then(calculated)
            }
        },
        None => thought(&planned.description, &values),
    };
    match result.outcome {
        Outcome::Succeeded if exempt || !all_succeeded => Ok(()),
        Outcome::Succeeded if expected.as_deref() == result.result.as_str() && expected.is_some() => Ok(()),
        Outcome::Succeeded => wrong(&format!("a wrong result, not {expected:?}")),
        Outcome::Failed if expected.is_none() || exempt || !all_succeeded => Ok(()),
        Outcome::Failed => {
            let why = result.error.as_deref().unwrap_or_default();
            if MISFORTUNES.iter().any(|misfortune| why.contains(misfortune)) { Ok(()) } else { wrong("failed without a reason") }
        }
        Outcome::Skipped if all_succeeded && !exempt => wrong("skipped without a reason"),
        Outcome::Cancelled if document.halt.is_none() && !exempt => wrong("cancelled without a reason"),
        Outcome::Skipped | Outcome::Cancelled => Ok(()),
    }
}
