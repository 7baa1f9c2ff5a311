//! What the answer of a run is: the results as they are, or a model's words about them.

use std::collections::BTreeMap;

use common::env::Env;
use common::llm::{AnswerTask, LlmError, ModelCall};
use common::message::{ObjectiveMessage, Respond};
use common::run::{Outcome, StepInput, StepView};
use common::store::Snapshot;
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
}

/// Answers from what the steps produced.
pub async fn answer(env: &Env, snapshot: &Snapshot) -> Result<Answer, LlmError> {
    let steps = &snapshot.view.steps;
    if !steps.iter().any(|step| step.state.outcome() == Some(Outcome::Succeeded)) {
        return Ok(Answer { error: Some(no_step_succeeded(steps)), ..Answer::default() });
    }
    let request: Option<ObjectiveMessage> = serde_json::from_str(&snapshot.request).ok();
    match request.map(|request| request.options.respond).unwrap_or_default() {
        Respond::Results => Ok(Answer { text: Some(results(steps)), ..Answer::default() }),
        Respond::Answer => {
            let inputs: Vec<StepInput> = steps.iter().map(input).collect();
            let reply = env.llm.answer(&AnswerTask { objective: &snapshot.view.objective, steps: &inputs }).await?;
            let model = reply.calls.last().map(|call| call.model.clone());
            Ok(Answer { text: Some(reply.value), error: None, model, calls: reply.calls })
        }
    }
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

fn no_step_succeeded(steps: &[StepView]) -> String {
    let failed = steps.iter().filter(|step| step.state.outcome() == Some(Outcome::Failed));
    let why =
        failed.filter_map(|step| Some(format!("step {}: {}", step.step.step_number, step.record.as_ref()?.error.as_ref()?)));
    let why: Vec<String> = why.take(3).collect();
    format!("no step succeeded; {}", why.join("; "))
}

fn input(view: &StepView) -> StepInput {
    let record = view.record.as_ref();
    StepInput {
        step_number: view.step.step_number,
        description: view.step.description.clone(),
        outcome: view.state.outcome().unwrap_or(Outcome::Skipped),
        result: record.map_or(Value::Null, |record| record.result.clone()),
        error: record.and_then(|record| record.error.clone()),
    }
}
