//! The model and the tool of a simulated process: they do what the load says, and now and then something else.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use common::llm::{
    AnswerTask, Failed, Judged, LlmError, Model, ModelCall, Move, PlanDraft, PlanTask, ReplanTask, Reply, StepTask, Turn, listing,
};
use common::run::{Usage, Verdict};
use common::seam::Answering;
use common::tool::{ToolCall, ToolSpec};
use executor::tool::{CallContext, Tool, ToolError};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::faults::ProcessSeam;
use crate::load;

/// What a model or tool does instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// A connection error.
    Transient,
    /// A 429 with so many seconds.
    RateLimited(u64),
    /// An answer that means nothing.
    Garbage,
    /// Seconds that it takes.
    Slow(u64),
}

/// The model as one process reaches it.
#[derive(Debug)]
pub(crate) struct SimModel(pub(crate) Arc<ProcessSeam>);

impl SimModel {
    /// Asks: takes its time, and may fail. `Ok(true)`: the answer is to be garbage.
    async fn ask(&self) -> Result<bool, Failed> {
        let seam = &self.0;
        seam.pass().await;
        let mishap = seam.simulation.mishap_of_model();
        seam.simulation.trace(|| format!("model asked, {mishap:?}"));
        let garbage = match mishap {
            Some(Mishap::Transient) => return Err(LlmError::Transient("misfortune: connection reset".to_owned()).into()),
            Some(Mishap::RateLimited(secs)) => {
                let (why, after) = ("misfortune: 429".to_owned(), Duration::from_secs(secs));
                return Err(LlmError::RateLimited { why, after }.into());
            }
            Some(Mishap::Slow(secs)) => {
                tokio::time::sleep(Duration::from_secs(secs)).await;
                false
            }
            Some(Mishap::Garbage) => true,
            None => false,
        };
        tokio::time::sleep(seam.simulation.time_to_think()).await;
        seam.pass().await;
        Ok(garbage)
    }
}

fn reply<T>(value: T) -> Reply<T> {
    let usage = Usage { model_calls: 1, input_tokens: 100, output_tokens: 10, ..Usage::default() };
    let call = ModelCall { model: "simulated".to_owned(), rung: "rules", usage, duration: Duration::from_millis(1) };
    Reply { value, calls: vec![call] }
}

fn draft(plan: Value) -> Reply<PlanDraft> {
    reply(PlanDraft { reply: plan.to_string(), plan: Ok(plan) })
}

fn nonsense() -> Reply<PlanDraft> {
    draft(json!({"steps": [{"step_number": 1, "description": "think 1", "depends_on": [1]}], "decision": "perhaps"}))
}

/// The same generator for the same objective, so that a plan that is asked for twice is the same plan.
fn dice_of(objective: &str) -> Dice {
    Dice::new(load::hash(&objective))
}

impl Model for SimModel {
    fn name(&self) -> &str {
        "simulated"
    }

    fn plan<'a>(&'a self, task: &'a PlanTask<'a>) -> Answering<'a, Result<Reply<PlanDraft>, Failed>> {
        Box::pin(async move {
            let garbage = self.ask().await?;
            Ok(if garbage { nonsense() } else { draft(load::plan(&dice_of(task.objective))) })
        })
    }

    fn replan<'a>(&'a self, task: &'a ReplanTask<'a>) -> Answering<'a, Result<Reply<PlanDraft>, Failed>> {
        Box::pin(async move {
            if self.ask().await? {
                return Ok(nonsense());
            }
            let dice = dice_of(&format!("{} {:?}", task.objective, task.after));
            let failed = task.after.iter().find(|number| {
                let step = task.run.steps.iter().find(|step| step.step.step_number == **number);
                step.is_some_and(|step| step.record.as_ref().is_some_and(|record| record.error.is_some()))
            });
            let patch = match failed {
                Some(failed) if dice.chance(0.6) => json!({
                    "decision": "revise", "reason": "another way", "drop": [],
                    "steps": [{"step_number": task.next_number, "description": format!("think {}", dice.below(1_000)), "replaces": failed,
                               "depends_on": []}],
                }),
                _ if dice.chance(0.1) => json!({"decision": "unreachable", "reason": "no way", "steps": [], "drop": []}),
                _ => json!({"decision": "keep", "reason": "as planned", "steps": [], "drop": []}),
            };
            Ok(draft(patch))
        })
    }

    fn act<'a>(&'a self, task: &'a StepTask<'a>) -> Answering<'a, Result<Reply<Move>, Failed>> {
        Box::pin(async move {
            if self.ask().await? {
                let (reply_text, complaint) = ("¿?".to_owned(), "it means nothing".to_owned());
                return Ok(reply(Move::Unusable { reply: reply_text, complaint }));
            }
            Ok(reply(moved(task)))
        })
    }

    fn answer<'a>(&'a self, task: &'a AnswerTask<'a>) -> Answering<'a, Result<Reply<String>, Failed>> {
        Box::pin(async move {
            self.ask().await?;
            Ok(reply(listing(task)))
        })
    }
}

fn moved(task: &StepTask<'_>) -> Move {
    let inputs: Vec<&Value> = task.inputs.iter().map(|input| &input.result).collect();
    let (what, salt) = task.description.split_once(' ').unwrap_or((task.description, ""));
    let failed = |verdict, retryable, why: &str| {
        Move::Conclude(Judged { verdict, retryable, result: why.to_owned(), learned: Some("a lesson".to_owned()) })
    };
    let returned = task.turns.iter().rev().find_map(|turn| match turn {
        Turn::Returned { output, .. } => Some(output),
        Turn::Moved(_) => None,
    });
    match what {
        "fail" => failed(Verdict::Failed, false, "it does not work"),
        "impossible" => failed(Verdict::Impossible, false, "nobody can"),
        "flaky" if task.lessons.is_empty() => failed(Verdict::Failed, true, "not this time"),
        "use" => match returned {
            Some(Ok(output)) => Move::Conclude(Judged::succeeded(format!("used {}", output.as_str().unwrap_or_default()))),
            Some(Err(why)) => failed(Verdict::Failed, true, why),
            None => {
                let arguments = json!({"expression": format!("ok {salt}")});
                Move::Call(vec![ToolCall { tool: "calculate".to_owned(), arguments }])
            }
        },
        _thinks => match load::thought(task.description, &inputs) {
            Some(text) => Move::Conclude(Judged::succeeded(text)),
            None => failed(Verdict::Failed, false, "it does not work"),
        },
    }
}

/// The tool `calculate` as one process has it.
pub(crate) struct SimTool(pub(crate) Arc<ProcessSeam>);

impl fmt::Debug for SimTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimTool")
    }
}

impl Tool for SimTool {
    fn spec(&self) -> ToolSpec {
        common::tool::calculate()
    }

    fn call<'a>(
        &'a self,
        arguments: Value,
        ctx: &'a CallContext,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ToolError>> + Send + 'a>> {
        Box::pin(async move {
            let (seam, simulation) = (&self.0, &self.0.simulation);
            let expression = arguments["expression"].as_str().unwrap_or_default().to_owned();
            seam.pass().await;
            simulation.tool_called(&ctx.idempotency_key, &expression);
            seam.pass().await;
            match (expression.split(' ').next().unwrap_or_default(), simulation.mishap_of_tool()) {
                (_, Some(Mishap::Transient)) => return Err(ToolError("misfortune: it fails".to_owned())),
                (_, Some(Mishap::Garbage)) | ("panic", _) => panic!("a tool panics, as it was told to"),
                (_, Some(Mishap::Slow(secs))) => tokio::time::sleep(Duration::from_secs(secs)).await,
                ("hang", _) => std::future::pending().await,
                ("slow", _) => tokio::time::sleep(Duration::from_secs(5)).await,
                (_, Some(Mishap::RateLimited(_)) | None) => {}
            }
            load::calculated(&expression).map(Value::String).ok_or_else(|| ToolError("it cannot be calculated".to_owned()))
        })
    }
}
