//! A `completions` message: claim the summary, write the answer, end the run, reply.

use std::time::Duration;

use common::broker::{Envelope, backoff};
use common::clock::millis;
use common::document::Ending;
use common::ending::end_run;
use common::event::{EventDraft, EventType};
use common::id::{RunId, Slot};
use common::lease::{self, Ended};
use common::limits::{CLAIMS_MAX, PARKS_MAX, RETRY_BACKOFF_MAX, RETRY_BACKOFF_MIN};
use common::llm::{AnswerTask, Failed, LlmError};
use common::message::{self, CompletionMessage, Queue};
use common::meter::Meter;
use common::metrics::Purpose;
use common::recorded;
use common::relay;
use common::run::{Halt, HaltKind};
use common::store::{Account, Again, Claim, ClaimRequest, Claimed, Snapshot, StoreError};
use common::worker::Outcome;
use serde_json::json;
use tracing::{debug, info};

use crate::Summarizer;
use crate::answer::{Answer, answer, inputs, listed};

/// Handles one message of the completions queue.
pub async fn handle(summarizer: &Summarizer, envelope: &Envelope, redelivered: bool) -> Outcome {
    let arrival = summarizer.env.traces.arrival();
    let message: CompletionMessage = match message::parse(&envelope.body) {
        Ok(message) => message,
        Err(refusal) => return Outcome::Park { why: refusal.to_string() },
    };
    let run = &message.run_id;
    let trace = envelope.traceparent.as_deref();
    let span = summarizer.env.traces.handling((Queue::Completions, envelope, arrival), run, None, trace);
    match span.around(summarize(summarizer, run, &envelope.message_id, redelivered)).await {
        Ok(outcome) => outcome,
        Err(error) => error.into(),
    }
}

async fn summarize(summarizer: &Summarizer, run: &RunId, message_id: &str, redelivered: bool) -> Result<Outcome, StoreError> {
    let env = &summarizer.env;
    let nonce = env.ids.unique();
    let lease = summarizer.config.lease;
    let request =
        ClaimRequest { slot: Slot::Summary, message_id, redelivered, nonce: &nonce, attempt: None, lease, worker: &env.worker };
    let claimed = recorded!(env, env.store.claim(run, &request))?;
    env.metrics.claimed(Slot::Summary, &claimed);
    let claim = match claimed {
        Claimed::Execute(claim) => claim,
        Claimed::Poisoned(claim) => {
            let why = format!("{CLAIMS_MAX} summarizers ended while they wrote the answer");
            if let Some(snapshot) = recorded!(env, env.store.snapshot(run))? {
                let answer = Answer { error: Some(why), ..Answer::default() };
                end(summarizer, run, &claim, &snapshot, answer).await?;
            }
            return Ok(Outcome::Done);
        }
        Claimed::Finished(_) if redelivered => {
            // The first delivery may have died between the end of the run and its reply.
            relay::reply_again(env, run).await?;
            return Ok(Outcome::Done);
        }
        Claimed::Finished(_) | Claimed::Done { .. } | Claimed::Duplicate { .. } | Claimed::Stale { .. } => {
            debug!("run {run}: completion dropped, nothing is owed");
            return Ok(Outcome::Done);
        }
    };
    let Some(snapshot) = recorded!(env, env.store.snapshot(run))? else { return Ok(Outcome::Done) };
    let work = answer(env, run, &claim, &snapshot);
    match lease::hold(env, run, Slot::Summary, claim.epoch, lease, &summarizer.drain, work).await {
        Ended::Done(Ok(answer)) => end(summarizer, run, &claim, &snapshot, answer).await?,
        Ended::Done(Err(failed)) => fail(summarizer, run, &claim, &snapshot, failed).await?,
        Ended::Lost => {}
        Ended::Released => return Ok(Outcome::Retry { after: Duration::ZERO, why: "the summarizer stops".to_owned() }),
    }
    Ok(Outcome::Done)
}

/// No answer for now, or for good.
async fn fail(
    summarizer: &Summarizer,
    run: &RunId,
    claim: &Claim,
    snapshot: &Snapshot,
    Failed { error, calls }: Failed,
) -> Result<(), StoreError> {
    let env = &summarizer.env;
    let view = &snapshot.view;
    if view.deadline_at_ms.is_some_and(|deadline| env.clock.now_ms() >= deadline) {
        // Nobody waits for a model beyond the deadline.
        let halt = Halt { kind: HaltKind::Deadline, reason: format!("the deadline has come: {error}") };
        let task = AnswerTask { objective: &view.objective, steps: &inputs(&view.steps), halted: None, meter: &Meter::Free };
        return end(summarizer, run, claim, snapshot, Answer { calls, ..listed(&task, halt) }).await;
    }
    let (again, kind, after) = match &error {
        LlmError::Transient(_) if claim.attempt < summarizer.config.step_attempts => {
            let after = backoff(claim.attempt - 1, RETRY_BACKOFF_MIN, RETRY_BACKOFF_MAX, env.ids.fraction());
            (Again::Retry, EventType::StepRetried, after)
        }
        LlmError::RateLimited { after, .. } if claim.parks < PARKS_MAX => (Again::Park, EventType::Parked, *after),
        LlmError::Transient(_) | LlmError::RateLimited { .. } | LlmError::Exhausted(_) | LlmError::Permanent(_) => {
            let error = Some(format!("no answer could be written: {error}"));
            return end(summarizer, run, claim, snapshot, Answer { error, calls, ..Answer::default() }).await;
        }
    };
    let data = json!({"error": error.to_string(), "after_ms": millis(after)});
    let mut account = Account::default();
    account.add(&calls, Purpose::Answer.as_str());
    account.events.push(EventDraft::new(kind, data));
    recorded!(env, env.store.retry(run, Slot::Summary, claim.epoch, again.clone(), after, &account))?;
    info!("run {run}: answering again in {after:?}: {error}");
    Ok(())
}

/// Ends the run with its answer, once, and replies to whoever asked for that.
async fn end(summarizer: &Summarizer, run: &RunId, claim: &Claim, snapshot: &Snapshot, answer: Answer) -> Result<(), StoreError> {
    let mut account = Account::default();
    account.add(&answer.calls, Purpose::Answer.as_str());
    let Answer { text: final_response, error, model, halt, .. } = answer;
    let ending = Ending { final_response, error, model, halt, ..Ending::default() };
    let held = (Slot::Summary, claim.epoch);
    end_run(&summarizer.env, run, held, snapshot, ending, account, summarizer.config.retention).await
}
