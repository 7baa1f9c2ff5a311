//! Publishing what a run owes: messages whose publication must not be lost once the store has decided on them.

use tracing::warn;

use crate::broker::{Envelope, PublishError, Target, backoff};
use crate::env::Env;
use crate::id::{RunId, StepNumber};
use crate::limits::{HANDLE_BACKOFF_MAX, RETRY_BACKOFF_MIN};
use crate::message::{CompletionMessage, Queue, ReportMessage, StepMessage, WIRE_VERSION};
use crate::run::Outcome;
use crate::store::{Dispatch, Snapshot};

/// A message body as JSON. Our own types hold nothing that JSON cannot say.
fn body(message: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}

/// Publishes until the broker has confirmed all of it. Every try carries new message ids: a message of an earlier try that
/// arrives after all is a duplicate, and claims sort those out.
async fn publish(env: &Env, messages: Vec<(Queue, &'static str, Vec<u8>)>) {
    let mut tries = 0;
    loop {
        let batch = messages
            .iter()
            .map(|(queue, kind, body)| (Target::Queue(*queue), Envelope::new(env.ids.unique(), kind, body.clone())))
            .collect();
        let Err(error) = env.broker.publish_all(batch).await else { return };
        let wait = backoff(tries, RETRY_BACKOFF_MIN, HANDLE_BACKOFF_MAX, env.ids.fraction());
        warn!("{} messages not confirmed, publishing again in {wait:?}: {error}", messages.len());
        tokio::time::sleep(wait).await;
        tries += 1;
    }
}

/// Publishes the messages of dispatched steps.
pub async fn steps(env: &Env, run: &RunId, dispatches: Vec<Dispatch>) {
    let messages = dispatches.into_iter().map(|Dispatch { revision, attempt, step }| {
        let message = StepMessage {
            version: WIRE_VERSION,
            run_id: run.clone(),
            revision,
            step_number: step.step_number,
            attempt,
            description: step.description,
            tool_hint: step.tool_hint,
            depends_on: step.depends_on,
        };
        (Queue::Steps, "step", body(&message))
    });
    publish(env, messages.collect()).await;
}

/// Tells the planner that a step ended and something is to be done; without a step it is a wake-up.
pub async fn report(env: &Env, run: &RunId, step: Option<(StepNumber, Outcome)>) {
    let message = ReportMessage {
        version: WIRE_VERSION,
        run_id: run.clone(),
        step_number: step.map(|(number, _)| number),
        outcome: step.map(|(_, outcome)| outcome),
    };
    publish(env, vec![(Queue::Reports, "report", body(&message))]).await;
}

/// Tells the summarizer that the answer is owed.
pub async fn completion(env: &Env, run: &RunId, revision: u32) {
    let message = CompletionMessage { version: WIRE_VERSION, run_id: run.clone(), revision };
    publish(env, vec![(Queue::Completions, "completion", body(&message))]).await;
}

/// Publishes the result document to the submitter's `reply_to`, if there is one. A queue that does not exist any more is the
/// submitter's choice and ends the matter.
pub async fn reply(env: &Env, run: &RunId, snapshot: &Snapshot, document: String) {
    let Some(queue) = &snapshot.reply_to else { return };
    let mut tries = 0;
    loop {
        let mut envelope = Envelope::new(env.ids.unique(), "result", document.clone().into_bytes());
        envelope.correlation_id = snapshot.correlation_id.clone();
        match env.broker.publish(Target::Named(queue.clone()), envelope).await {
            Ok(()) => return,
            Err(PublishError::Unroutable(queue)) => {
                warn!(run_id = %run, "run {run}: reply_to queue {queue} does not exist, the result stays in the store");
                return;
            }
            Err(error @ PublishError::Unconfirmed(_)) => {
                let wait = backoff(tries, RETRY_BACKOFF_MIN, HANDLE_BACKOFF_MAX, env.ids.fraction());
                warn!(run_id = %run, "run {run}: reply not confirmed, publishing again in {wait:?}: {error}");
                tokio::time::sleep(wait).await;
                tries += 1;
            }
        }
    }
}
