//! A `dead` message: keep it for people, and see that its run goes on.

use common::broker::Envelope;
use common::id::{RunId, Slot};
use common::limits::{DEAD_LETTER_CHARS_KEPT, HANDLE_BACKOFF_MAX, REASON_CHARS_MAX};
use common::message::{self, CompletionMessage, ObjectiveMessage, ReportMessage, StepMessage};
use common::recorded;
use common::relay;
use common::store::{StoreError, TakenBack};
use common::worker::Outcome;
use serde_json::json;
use tracing::warn;

use crate::{Planner, close, dispatch};

/// Handles one message of the dead queue.
pub async fn handle(planner: &Planner, envelope: &Envelope) -> Outcome {
    let env = &planner.env;
    let known =
        |text: &Option<String>| -> String { text.as_deref().unwrap_or("unknown").chars().take(REASON_CHARS_MAX).collect() };
    let (reason, origin) = (known(&envelope.reason), known(&envelope.origin));
    let body: String = String::from_utf8_lossy(&envelope.body).chars().take(DEAD_LETTER_CHARS_KEPT).collect();
    warn!(message_id = envelope.message_id, origin, reason, "dead letter from {origin}: {reason}");
    let letter = json!({
        "at_ms": env.clock.now_ms(),
        "queue": origin,
        "reason": reason,
        "type": envelope.kind,
        "body_bytes": envelope.body.len(),
        "body": body,
    });
    let letter = letter.to_string();
    let done = async {
        recorded!(env, env.store.keep_dead_letter(&letter))?;
        revive(planner, envelope, &reason).await
    };
    match done.await {
        Ok(()) => Outcome::Done,
        // There is no queue behind this one: the letter waits here until the store makes sense again.
        Err(error) => Outcome::Retry { after: HANDLE_BACKOFF_MAX, why: error.to_string() },
    }
}

/// If the letter belongs to a live run, the slot it was for is dispatched again; claims count, so this ends.
async fn revive(planner: &Planner, envelope: &Envelope, reason: &str) -> Result<(), StoreError> {
    let env = &planner.env;
    let trace = envelope.traceparent.as_deref();
    if let Ok(ReportMessage { run_id, .. }) = message::parse::<ReportMessage>(&envelope.body)
        && envelope.kind == "report"
    {
        return dispatch::dispatch(planner, trace, &run_id, &env.ids.unique()).await;
    }
    let Some((run, slot)) = slot_of(envelope) else { return Ok(()) };
    match recorded!(env, env.store.take_back(&run, slot, &envelope.message_id, reason))? {
        TakenBack::Gone | TakenBack::Kept => {}
        TakenBack::Plan => relay::objective(env, &run).await?,
        TakenBack::Summary => relay::completion(env, trace, &run, 1).await,
        TakenBack::Poisoned => {
            close::close(planner, &run, slot, &format!("its messages became dead letters too often, the last one: {reason}"))
                .await?;
        }
        TakenBack::Dispatch => dispatch::dispatch(planner, trace, &run, &env.ids.unique()).await?,
    }
    Ok(())
}

/// The run and slot that a message is about, if it can be read at all.
fn slot_of(envelope: &Envelope) -> Option<(RunId, Slot)> {
    let body = &envelope.body;
    match envelope.kind.as_str() {
        "step" => message::parse::<StepMessage>(body).ok().map(|m| (m.run_id, Slot::Step(m.step_number))),
        "completion" => message::parse::<CompletionMessage>(body).ok().map(|m| (m.run_id, Slot::Summary)),
        _objective => {
            let message = message::parse::<ObjectiveMessage>(body).ok()?;
            message.run_id.or_else(|| RunId::parse(&envelope.message_id).ok()).map(|run| (run, Slot::Plan))
        }
    }
}
