//! A `dead` message: keep it for people, and see that its run goes on.

use std::time::Duration;

use common::broker::Envelope;
use common::id::{RunId, Slot};
use common::limits::{DEAD_LETTER_CHARS_KEPT, DEAD_LETTER_TRIES_MAX, HANDLE_BACKOFF_MAX, REASON_CHARS_MAX};
use common::message::{self, Body, CompletionMessage, ControlMessage, ObjectiveMessage, Queue, ReportMessage, StepMessage};
use common::recorded;
use common::relay::{self, Trace};
use common::store::{StoreError, TakenBack};
use common::worker::Outcome;
use serde_json::json;
use tracing::{error, warn};

use crate::{Planner, close, control, dispatch, objective};

/// Handles one message of the dead queue.
pub async fn handle(planner: &Planner, envelope: &Envelope) -> Outcome {
    let env = &planner.env;
    let known =
        |text: &Option<String>| -> String { text.as_deref().unwrap_or("unknown").chars().take(REASON_CHARS_MAX).collect() };
    let (reason, origin) = (known(&envelope.reason), known(&envelope.origin));
    let body: String = String::from_utf8_lossy(&envelope.body).chars().take(DEAD_LETTER_CHARS_KEPT).collect();
    if let Some(newer) = of_newer_run(planner, envelope).await {
        return newer.into();
    }
    env.metrics.dead_letter(named(envelope));
    warn!(message_id = envelope.message_id, origin, reason, "dead letter from {origin}: {reason}");
    let letter = json!({
        "at_ms": env.clock.now_ms(),
        "queue": origin,
        "reason": reason,
        "type": envelope.kind,
        "body_bytes": envelope.body.len(),
        "body": body,
    });
    let message_id = &envelope.message_id;
    if let Err(error) = recorded!(env, env.store.keep_dead_letter(&letter.to_string())) {
        error!(message_id, origin, %error, "dead letter {message_id} from {origin} is not kept for people: {error}");
    }
    let mut taken = None;
    let mut tries = 0;
    loop {
        let Err(error) = revive(planner, envelope, &reason, &mut taken).await else { return Outcome::Done };
        tries += 1;
        if tries >= DEAD_LETTER_TRIES_MAX {
            // There is no queue behind this one, and other letters wait.
            error!(message_id, origin, %error, "dead letter {message_id} from {origin} cannot be handled, it is given up: {error}");
            return Outcome::Done;
        }
        tokio::select! {
            biased;
            () = planner.drain.stop.cancelled() => return Outcome::Retry { after: Duration::ZERO, why: error.to_string() },
            () = tokio::time::sleep(HANDLE_BACKOFF_MAX) => {}
        }
    }
}

/// Why the letter is left to a newer planner, if its run is one's: before it is kept for people, since it may come by more than once.
async fn of_newer_run(planner: &Planner, envelope: &Envelope) -> Option<StoreError> {
    let run = match letter(envelope) {
        Letter::Objective(run, _) | Letter::Of(run, _) | Letter::Report(run) => run,
        Letter::Control(message) => message.run_id,
        Letter::Nameless(_) | Letter::Foreign => return None,
    };
    let env = &planner.env;
    match recorded!(env, env.store.status(&run)) {
        Err(error @ StoreError::Newer { .. }) => Some(error),
        // What else ails the store is seen to further on.
        Ok(_) | Err(StoreError::Unreachable(_) | StoreError::Unusable(_)) => None,
    }
}

/// What a redelivery of the letter would do is done here: the slot that it was for is dispatched again (claims count, so this ends), and
/// what the handler that it died with may have owed is published, rather once too often. `taken` is what an earlier try has taken back:
/// one letter counts as one claim.
async fn revive(planner: &Planner, envelope: &Envelope, reason: &str, taken: &mut Option<TakenBack>) -> Result<(), StoreError> {
    let env = &planner.env;
    let arrival = env.traces.arrival();
    let letter = letter(envelope);
    let run = match &letter {
        Letter::Of(run, _) | Letter::Report(run) => run,
        Letter::Objective(run, message) => {
            // Its planner may have died before there was a run: then this is all that is left of it.
            if taken.is_none() && objective::open(planner, envelope, run, message, true).await?.is_none() {
                return Ok(());
            }
            run
        }
        Letter::Control(message) => &message.run_id,
        Letter::Nameless(message) => {
            objective::stamp(planner, envelope, (**message).clone()).await;
            return Ok(());
        }
        Letter::Foreign => return Ok(()),
    };
    let trace = relay::trace(env, run).await?;
    let trace = trace.as_deref();
    let span = env.traces.handling((Queue::Dead, envelope, arrival), run, None, trace);
    // Steps that were taken under the letter's id and may not have been published are taken again.
    let token = &envelope.message_id;
    let slot = match &letter {
        Letter::Of(_, slot) => *slot,
        Letter::Objective(..) => Slot::Plan,
        Letter::Report(run) => return span.around(dispatch::dispatch(planner, trace, run, token)).await,
        Letter::Control(message) => return span.around(control::decide(planner, envelope, message, trace)).await,
        Letter::Nameless(_) | Letter::Foreign => return Ok(()),
    };
    span.around(take_back(planner, trace, run, (slot, token), reason, taken)).await
}

/// Takes the slot back that a letter was for, and publishes what the run owes then.
async fn take_back(
    planner: &Planner,
    trace: Trace<'_>,
    run: &RunId,
    (slot, token): (Slot, &str),
    reason: &str,
    taken: &mut Option<TakenBack>,
) -> Result<(), StoreError> {
    let env = &planner.env;
    let owed = match *taken {
        Some(owed) => owed,
        None => *taken.insert(recorded!(env, env.store.take_back(run, slot, token, reason))?),
    };
    match owed {
        TakenBack::Gone => match slot {
            Slot::Plan | Slot::Summary => relay::reply_again(env, run).await?,
            Slot::Step(_) => {}
        },
        TakenBack::Plan => relay::objective(env, run).await?,
        TakenBack::Summary => relay::completion(env, trace, run, 1).await,
        TakenBack::Poisoned => {
            close::close(planner, run, slot, &format!("its messages became dead letters too often, the last one: {reason}"))
                .await?;
        }
        TakenBack::Dispatch | TakenBack::Kept => dispatch::dispatch(planner, trace, run, token).await?,
    }
    Ok(())
}

/// What a letter was, if it can be read at all.
enum Letter {
    Objective(RunId, Box<ObjectiveMessage>),
    /// An objective that names no run.
    Nameless(Box<ObjectiveMessage>),
    /// A message that lets somebody work on a slot.
    Of(RunId, Slot),
    Report(RunId),
    Control(Box<ControlMessage>),
    Foreign,
}

fn letter(envelope: &Envelope) -> Letter {
    let letter = match queue(envelope) {
        Queue::Objectives => read::<ObjectiveMessage>(envelope).and_then(|mut message| {
            let run = objective::name(envelope, &mut message).ok()?;
            Some(match run {
                Some(run) => Letter::Objective(run, Box::new(message)),
                None => Letter::Nameless(Box::new(message)),
            })
        }),
        Queue::Steps => read::<StepMessage>(envelope).map(|m| Letter::Of(m.run_id, Slot::Step(m.step_number))),
        Queue::Reports => read::<ReportMessage>(envelope).map(|m| Letter::Report(m.run_id)),
        Queue::Completions => read::<CompletionMessage>(envelope).map(|m| Letter::Of(m.run_id, Slot::Summary)),
        Queue::Controls => read::<ControlMessage>(envelope).map(|m| Letter::Control(Box::new(m))),
        Queue::Dead => None,
    };
    letter.unwrap_or(Letter::Foreign)
}

/// The queue that the letter says it comes from, if it is one of ours.
fn named(envelope: &Envelope) -> Option<Queue> {
    let origin = envelope.origin.as_deref().unwrap_or_default();
    Queue::ALL.into_iter().find(|queue| origin.ends_with(&queue.name("")))
}

/// The queue that the letter would come from again: by its name, or else by what is published there.
fn queue(envelope: &Envelope) -> Queue {
    named(envelope).unwrap_or(match envelope.kind.as_str() {
        "step" => Queue::Steps,
        "report" => Queue::Reports,
        "completion" => Queue::Completions,
        "control" => Queue::Controls,
        _objective => Queue::Objectives,
    })
}

fn read<T: Body>(envelope: &Envelope) -> Option<T> {
    message::parse(&envelope.body).ok()
}
