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

use crate::{Planner, close, dispatch, objective};

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

/// What a redelivery of the letter would do is done here: the slot that it was for is dispatched again (claims count, so this ends), and
/// what the handler that it died with may have owed is published, rather once too often.
async fn revive(planner: &Planner, envelope: &Envelope, reason: &str) -> Result<(), StoreError> {
    let env = &planner.env;
    let trace = envelope.traceparent.as_deref();
    // Steps that were taken under the letter's id and may not have been published are taken again.
    let token = &envelope.message_id;
    let (run, slot) = match letter(envelope) {
        Letter::Of(run, slot) => (run, slot),
        Letter::Objective(run, message) => {
            // Its planner may have died before there was a run: then this is all that is left of it.
            objective::open(planner, envelope, &run, &message).await?;
            (run, Slot::Plan)
        }
        Letter::Report(run) => return dispatch::dispatch(planner, trace, &run, token).await,
        Letter::Foreign => return Ok(()),
    };
    match recorded!(env, env.store.take_back(&run, slot, &envelope.message_id, reason))? {
        TakenBack::Gone => match slot {
            Slot::Plan | Slot::Summary => relay::reply_again(env, &run).await?,
            Slot::Step(_) => {}
        },
        TakenBack::Plan => relay::objective(env, &run).await?,
        TakenBack::Summary => relay::completion(env, trace, &run, 1).await,
        TakenBack::Poisoned => {
            close::close(planner, &run, slot, &format!("its messages became dead letters too often, the last one: {reason}"))
                .await?;
        }
        TakenBack::Dispatch | TakenBack::Kept => dispatch::dispatch(planner, trace, &run, token).await?,
    }
    Ok(())
}

/// What a letter was, if it can be read at all.
enum Letter {
    Objective(RunId, Box<ObjectiveMessage>),
    /// A message that lets somebody work on a slot.
    Of(RunId, Slot),
    Report(RunId),
    Foreign,
}

fn letter(envelope: &Envelope) -> Letter {
    let body = &envelope.body;
    let read = match envelope.kind.as_str() {
        "step" => message::parse::<StepMessage>(body).ok().map(|m| Letter::Of(m.run_id, Slot::Step(m.step_number))),
        "completion" => message::parse::<CompletionMessage>(body).ok().map(|m| Letter::Of(m.run_id, Slot::Summary)),
        "report" => message::parse::<ReportMessage>(body).ok().map(|m| Letter::Report(m.run_id)),
        _objective => message::parse::<ObjectiveMessage>(body).ok().and_then(|mut message| {
            let run = message.run_id.take().or_else(|| RunId::parse(&envelope.message_id).ok())?;
            Some(Letter::Objective(run, Box::new(message)))
        }),
    };
    read.unwrap_or(Letter::Foreign)
}
