//! What the answer of a run is: the results as they are, or a model's words about them.

use std::collections::BTreeMap;

use common::env::Env;
use common::id::{RunId, Slot};
use common::llm::{self, AnswerTask, Failed, LlmError, ModelCall};
use common::message::{ObjectiveMessage, Respond};
use common::meter::Meter;
use common::metrics::Purpose;
use common::run::{Halt, HaltKind, Outcome, StepInput, StepView};
use common::store::{Claim, Snapshot};
use common::telemetry::spans;
use serde_json::Value;

/// An answer and what it took.
#[derive(Debug, Default)]
pub struct Answer {
    /// The answer; `None` when no step succeeded.
    pub text: Option<String>,
    /// Why there is none.
    pub error: Option<String>,
    /// The model that wrote it; `None` when none was asked.
    pub model: Option<String>,
    /// The requests it took.
    pub calls: Vec<ModelCall>,
    /// Why it is less than it should be, if nothing else has ended the run early.
    pub halt: Option<Halt>,
}

/// Answers from what the steps produced. A cancelled run has no answer, and what exceeds the run's budget is answered without a model.
pub async fn answer(env: &Env, run: &RunId, claim: &Claim, snapshot: &Snapshot) -> Result<Answer, Failed> {
    let (view, steps) = (&snapshot.view, &snapshot.view.steps);
    let halted = view.halt.as_ref();
    if let Some(halt) = halted.filter(|halt| halt.kind == HaltKind::Cancelled) {
        return Ok(Answer { error: Some(halt.reason.clone()), ..Answer::default() });
    }
    if !steps.iter().any(|step| step.state.outcome() == Some(Outcome::Succeeded)) {
        return Ok(Answer { error: Some(no_step_succeeded(halted, steps)), ..Answer::default() });
    }
    let request: Option<ObjectiveMessage> = serde_json::from_str(&snapshot.request).ok();
    let as_they_are = || Answer { text: Some(results(steps)), ..Answer::default() };
    match request.map(|request| request.options.respond).unwrap_or_default() {
        Respond::Results => Ok(as_they_are()),
        Respond::Answer => {
            let inputs = inputs(steps);
            let meter = Meter::of(env, run, Slot::Summary, claim.epoch, claim.budget);
            let halted = halted.map(|halt| halt.reason.as_str());
            let task = AnswerTask { objective: &view.objective, steps: &inputs, halted, meter: &meter };
            let span = spans::agent("summarizer");
            let answered = span.around(env.llm.answer(&task)).await;
            env.metrics.asked(Purpose::Answer, env.llm.name(), &answered);
            if let Err(Failed { error, .. }) = &answered {
                span.failed(error.kind());
            }
            match answered {
                Ok(reply) => {
                    let model = reply.calls.last().map(|call| call.model.clone());
                    Ok(Answer { text: Some(reply.value), model, calls: reply.calls, ..Answer::default() })
                }
                Err(Failed { error: LlmError::Exhausted(why), calls }) => {
                    let halt = Halt { kind: HaltKind::Budget, reason: format!("{why}: the results are listed as they are") };
                    Ok(Answer { calls, ..listed(&task, halt) })
                }
                Err(failed) => Err(failed),
            }
        }
    }
}

/// What stands in for a model's answer when there is no time or budget left for one: every step with its result, or why it has none.
pub fn listed(task: &AnswerTask<'_>, halt: Halt) -> Answer {
    Answer { text: Some(llm::listing(task)), halt: Some(halt), ..Answer::default() }
}

/// One JSON object: step number → result, of the steps that succeeded.
fn results(steps: &[StepView]) -> String {
    let results: BTreeMap<u32, &Value> = steps
        .iter()
        .filter(|step| step.state.outcome() == Some(Outcome::Succeeded))
        .filter_map(|step| Some((step.step.step_number.0, &step.record.as_ref()?.result)))
        .collect();
    serde_json::to_string(&results).unwrap_or_default()
}

fn no_step_succeeded(halted: Option<&Halt>, steps: &[StepView]) -> String {
    if let Some(halt) = halted {
        return format!("no step succeeded: {}", halt.reason);
    }
    let failed = steps.iter().filter(|step| step.state.outcome() == Some(Outcome::Failed));
    let why =
        failed.filter_map(|step| Some(format!("step {}: {}", step.step.step_number, step.record.as_ref()?.error.as_ref()?)));
    let why: Vec<String> = why.take(3).collect();
    if why.is_empty() { "no step succeeded".to_owned() } else { format!("no step succeeded; {}", why.join("; ")) }
}

/// Every step with what it produced.
pub fn inputs(steps: &[StepView]) -> Vec<StepInput> {
    steps.iter().map(input).collect()
}

fn input(view: &StepView) -> StepInput {
    let record = view.record.as_ref();
    StepInput {
        step_number: view.step.step_number,
        description: view.step.description.clone(),
        outcome: view.state.outcome().unwrap_or(Outcome::Cancelled),
        result: record.map_or(Value::Null, |record| record.result.clone()),
        error: record.and_then(|record| record.error.clone()),
    }
}
