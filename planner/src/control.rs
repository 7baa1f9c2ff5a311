//! A `controls` message: somebody wants something of a run. The store decides, once per message; then what the run owes is published.

use common::broker::Envelope;
use common::id::RunId;
use common::message::{self, Command, ControlMessage, ControlReply, Queue, WIRE_VERSION};
use common::plan::check;
use common::recorded;
use common::relay::{self, Trace};
use common::store::{Control, Controlled, StoreError};
use common::worker::Outcome;
use tracing::info;

use crate::{Planner, dispatch};

/// What the audit trail keeps of feedback, in characters; the planner gets all of it.
const FEEDBACK_CHARS_KEPT: usize = 2_000;
/// Who is meant when a message does not say.
const SOMEBODY: &str = "somebody";

/// Handles one message of the controls queue.
pub async fn handle(planner: &Planner, envelope: &Envelope) -> Outcome {
    let message: ControlMessage = match message::parse(&envelope.body) {
        Ok(message) => message,
        Err(refusal) => return Outcome::Park { why: refusal.to_string() },
    };
    match decide_traced(planner, envelope, &message).await {
        Ok(()) => Outcome::Done,
        Err(error) => error.into(),
    }
}

async fn decide_traced(planner: &Planner, envelope: &Envelope, message: &ControlMessage) -> Result<(), StoreError> {
    let (env, run) = (&planner.env, &message.run_id);
    let arrival = env.traces.arrival();
    let trace = relay::trace(env, run).await?;
    let span = env.traces.handling((Queue::Controls, envelope, arrival), run, None, trace.as_deref());
    span.around(decide(planner, envelope, message, trace.as_deref())).await
}

/// Has the store decide, publishes what the run owes then, and answers.
pub(crate) async fn decide(
    planner: &Planner,
    envelope: &Envelope,
    message: &ControlMessage,
    trace: Trace<'_>,
) -> Result<(), StoreError> {
    let env = &planner.env;
    let (run, command) = (&message.run_id, message.command);
    let unnamed = env.ids.unique();
    let id = if envelope.message_id.is_empty() { &unnamed } else { &envelope.message_id };
    let (text, refused) = text(planner, message);
    let feedback: String = message.feedback.as_deref().unwrap_or_default().chars().take(FEEDBACK_CHARS_KEPT).collect();
    let control = Control {
        id,
        command,
        by: message.by.as_deref().map(str::trim).filter(|by| !by.is_empty()).unwrap_or(SOMEBODY),
        reason: message.reason.as_deref().map_or("", str::trim),
        text: &text,
        revision: message.revision,
        feedback: &feedback,
        refused: &refused,
    };
    let controlled = recorded!(env, env.store.control(run, &control))?;
    let Controlled { answer, message: said, status, plan, dispatch, summary } = controlled;
    info!(command = command.as_str(), by = control.by, "run {run}: {} by {}: {said}", command.as_str(), control.by);
    follow_up(planner, trace, run, (plan, dispatch, summary)).await?;
    if let Some(queue) = &envelope.reply_to {
        let reply = ControlReply { version: WIRE_VERSION, run_id: run.clone(), command, answer, message: said, status };
        let body = serde_json::to_vec(&reply).unwrap_or_default();
        relay::answer(env, trace, run, (queue, envelope.correlation_id.as_deref()), ("control_reply", body)).await;
    }
    Ok(())
}

/// The text that goes with the command, and why it cannot be used, if it cannot.
fn text(planner: &Planner, message: &ControlMessage) -> (String, String) {
    match (message.command, &message.plan) {
        (Command::Reject, _) => (message.feedback.clone().unwrap_or_default(), String::new()),
        (Command::Edit, Some(plan)) => match check(plan, &planner.rules()) {
            Ok(plan) => (serde_json::to_string(&plan).unwrap_or_default(), String::new()),
            Err(complaints) => (String::new(), format!("the plan cannot be used: {}", complaints.join("; "))),
        },
        (Command::Edit | Command::Cancel | Command::Pause | Command::Resume | Command::Approve | Command::Retry, _) => {
            (String::new(), String::new())
        }
    }
}

/// Publishes what the run owes now. A planner that dies before that leaves it to the redelivery, which is told the same.
async fn follow_up(
    planner: &Planner,
    trace: Trace<'_>,
    run: &RunId,
    (plan, dispatch, summary): (bool, bool, bool),
) -> Result<(), StoreError> {
    let env = &planner.env;
    if plan {
        relay::objective(env, run).await?;
    }
    if dispatch {
        dispatch::dispatch(planner, trace, run, &env.ids.unique()).await?;
    }
    if summary {
        relay::completion(env, trace, run, 1).await;
    }
    Ok(())
}
