//! Publishing what a run owes: messages whose publication must not be lost once the store has decided on them.

use tracing::warn;

use crate::broker::{Envelope, PublishError, Target, backoff};
use crate::env::Env;
use crate::id::{RunId, StepNumber};
use crate::limits::{HANDLE_BACKOFF_MAX, REPLY_TRIES_MAX, RETRY_BACKOFF_MIN};
use crate::message::{CompletionMessage, ObjectiveMessage, Queue, ReportMessage, StepMessage, WIRE_VERSION};
use crate::recorded;
use crate::run::Outcome;
use crate::store::{Dispatch, Snapshot, StoreError};

/// The W3C trace context of a run, which all its messages carry; see [`crate::telemetry::traces`].
pub type Trace<'a> = Option<&'a str>;

/// What the messages of `run` carry, by its record: for work that no message of the run's own has led to.
pub async fn trace(env: &Env, run: &RunId) -> Result<Option<String>, StoreError> {
    let stored = recorded!(env, env.store.traceparent(run))?;
    Ok(env.traces.of_run(run, stored.as_deref()))
}

/// A message body as JSON. Our own types hold nothing that JSON cannot say.
fn body(message: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}

/// The AMQP `type` of an objective that a service publishes once more because its plan is owed: it tells who is to be answered, as the
/// first one did, but does not ask for an answer of a run that has ended.
pub const PLAN_OWED: &str = "plan_owed";

/// Publishes bodies, see [`publish_all`].
async fn publish(env: &Env, trace: Trace<'_>, messages: Vec<(Queue, &'static str, Vec<u8>)>) {
    let envelope = |(queue, kind, body)| {
        let envelope = Envelope::new(String::new(), kind, body);
        (queue, Envelope { traceparent: trace.map(str::to_owned), ..envelope })
    };
    publish_all(env, messages.into_iter().map(envelope).collect()).await;
}

/// Publishes until the broker has confirmed all of it. Every try carries new message ids: a message of an earlier try that
/// arrives after all is a duplicate, and claims sort those out.
async fn publish_all(env: &Env, messages: Vec<(Queue, Envelope)>) {
    let mut tries = 0;
    loop {
        let batch = messages
            .iter()
            .map(|(queue, envelope)| (Target::Queue(*queue), Envelope { message_id: env.ids.unique(), ..envelope.clone() }))
            .collect();
        let Err(error) = env.broker.publish_all(batch).await else { return };
        let wait = backoff(tries, RETRY_BACKOFF_MIN, HANDLE_BACKOFF_MAX, env.ids.fraction());
        env.metrics.publishing_again();
        warn!("{} messages not confirmed, publishing again in {wait:?}: {error}", messages.len());
        tokio::time::sleep(wait).await;
        tries += 1;
    }
}

/// Publishes the messages of dispatched steps.
pub async fn steps(env: &Env, trace: Trace<'_>, run: &RunId, dispatches: Vec<Dispatch>) {
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
    publish(env, trace, messages.collect()).await;
}

/// Publishes the objective of a run whose plan is owed once more, as a message of its own. It is as good as the first one: should the store
/// lose the run with its last writes, this message opens it again.
pub async fn objective(env: &Env, run: &RunId) -> Result<(), StoreError> {
    let Some(snapshot) = recorded!(env, env.store.snapshot(run))? else { return Ok(()) };
    let stored = serde_json::from_str::<ObjectiveMessage>(&snapshot.request);
    let mut message = stored.map_err(|error| StoreError::Unusable(format!("stored objective: {error}")))?;
    message.run_id = Some(run.clone());
    let envelope = Envelope {
        reply_to: snapshot.reply_to,
        correlation_id: snapshot.correlation_id,
        // As the submission carried it: should the store lose the run, it begins where it began.
        traceparent: snapshot.traceparent,
        ..Envelope::new(String::new(), PLAN_OWED, body(&message))
    };
    publish_all(env, vec![(Queue::Objectives, envelope)]).await;
    Ok(())
}

/// Tells the planner that a step ended and something is to be done.
pub async fn report(env: &Env, trace: Trace<'_>, run: &RunId, step_number: StepNumber, outcome: Outcome) {
    let message = ReportMessage { version: WIRE_VERSION, run_id: run.clone(), step_number, outcome };
    publish(env, trace, vec![(Queue::Reports, "report", body(&message))]).await;
}

/// Tells the summarizer that the answer is owed.
pub async fn completion(env: &Env, trace: Trace<'_>, run: &RunId, revision: u32) {
    let message = CompletionMessage { version: WIRE_VERSION, run_id: run.clone(), revision };
    publish(env, trace, vec![(Queue::Completions, "completion", body(&message))]).await;
}

/// Publishes the result document to the submitter's `reply_to`, if there is one.
pub async fn reply(env: &Env, run: &RunId, snapshot: &Snapshot, document: String) {
    let Some(queue) = &snapshot.reply_to else { return };
    let trace = env.traces.of_run(run, snapshot.traceparent.as_deref());
    answer(env, trace.as_deref(), run, (queue, snapshot.correlation_id.as_deref()), ("result", document.into_bytes())).await;
}

/// Publishes to a queue of somebody who asked. A queue that does not exist any more, or that takes nothing, is their choice: after
/// [`REPLY_TRIES_MAX`] tries the answer stays in the store only.
pub async fn answer(
    env: &Env,
    trace: Trace<'_>,
    run: &RunId,
    (queue, correlation_id): (&str, Option<&str>),
    (kind, body): (&str, Vec<u8>),
) {
    for tries in 0..REPLY_TRIES_MAX {
        let mut envelope = Envelope::new(env.ids.unique(), kind, body.clone());
        envelope.correlation_id = correlation_id.map(str::to_owned);
        envelope.traceparent = trace.map(str::to_owned);
        match env.broker.publish(Target::Named(queue.to_owned()), envelope).await {
            Ok(()) => return,
            Err(PublishError::Unroutable(_)) => break,
            Err(error @ PublishError::Unconfirmed(_)) => {
                let wait = backoff(tries, RETRY_BACKOFF_MIN, HANDLE_BACKOFF_MAX, env.ids.fraction());
                warn!("run {run}: {kind} not confirmed, publishing again in {wait:?}: {error}");
                tokio::time::sleep(wait).await;
            }
        }
    }
    warn!("run {run}: reply_to queue {queue} takes no {kind}, it stays in the store");
}

/// Publishes the reply of a run that has ended: for a redelivery, which cannot know whether the first delivery came that far.
pub async fn reply_again(env: &Env, run: &RunId) -> Result<(), StoreError> {
    let (snapshot, document) = (recorded!(env, env.store.snapshot(run))?, recorded!(env, env.store.result(run))?);
    if let (Some(snapshot), Some(document)) = (snapshot, document) {
        reply(env, run, &snapshot, document).await;
    }
    Ok(())
}
