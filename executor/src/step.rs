//! A `steps` message: claim → run → store the outcome → tell who must act → acknowledge.

use std::time::Duration;

use common::broker::{Envelope, backoff};
use common::clock::millis;
use common::event::{EventDraft, EventType};
use common::id::Slot;
use common::lease::{self, Ended};
use common::limits::{CLAIMS_MAX, PARKS_MAX, RESULT_BYTES_MAX, RETRY_BACKOFF_MAX, RETRY_BACKOFF_MIN};
use common::message::{self, Queue, StepMessage};
use common::metrics::AttemptEnd;
use common::recorded;
use common::relay::{self, Trace};
use common::run::{Outcome as StepOutcome, StepRecord, Usage};
use common::store::{Account, Again, Claim, ClaimRequest, Claimed, Held, Owed, Reported, StoreError};
use common::telemetry::{names, traces};
use common::worker::Outcome;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::Executor;
use crate::attempt::{Attempt, Done, Failure};

/// The message in hand.
struct InHand<'a> {
    message: &'a StepMessage,
    trace: Trace<'a>,
}

/// Handles one message of the steps queue.
pub async fn handle(executor: &Executor, envelope: &Envelope, redelivered: bool) -> Outcome {
    let arrival = executor.env.traces.arrival();
    let message: StepMessage = match message::parse(&envelope.body) {
        Ok(message) => message,
        Err(refusal) => return Outcome::Park { why: refusal.to_string() },
    };
    let (run, trace) = (&message.run_id, envelope.traceparent.as_deref());
    let span = executor.env.traces.handling((Queue::Steps, envelope, arrival), run, Some(message.step_number), trace);
    span.says(names::STEP_ATTEMPT, i64::from(message.attempt));
    match span.around(claim_and_run(executor, envelope, &message, redelivered)).await {
        Ok(outcome) => outcome,
        Err(error) => error.into(),
    }
}

async fn claim_and_run(
    executor: &Executor,
    envelope: &Envelope,
    message: &StepMessage,
    redelivered: bool,
) -> Result<Outcome, StoreError> {
    let env = &executor.env;
    let run = &message.run_id;
    let hand = InHand { message, trace: envelope.traceparent.as_deref() };
    let nonce = env.ids.unique();
    let request = ClaimRequest {
        slot: Slot::Step(message.step_number),
        message_id: &envelope.message_id,
        redelivered,
        nonce: &nonce,
        attempt: Some(message.attempt),
        lease: executor.config.lease,
        worker: &env.worker,
    };
    let claimed = recorded!(env, env.store.claim(run, &request))?;
    env.metrics.claimed(request.slot, &claimed);
    match claimed {
        Claimed::Execute(claim) => run_claimed(executor, &hand, *claim).await,
        Claimed::Poisoned(claim) => {
            let why = format!("{CLAIMS_MAX} executors ended while they ran this step");
            let work = Work { result: Err(Failure::Permanent(why)), ..Work::default() };
            conclude(executor, &hand, &claim, work).await?;
            Ok(Outcome::Done)
        }
        Claimed::Done { owed, state } => {
            traces::here(names::OUTCOME, "done");
            tell(executor, &hand, state.outcome().unwrap_or(StepOutcome::Failed), owed).await;
            Ok(Outcome::Done)
        }
        Claimed::Duplicate { worker } => {
            traces::here(names::OUTCOME, "duplicate");
            debug!("run {run} step {}: runs on {worker}, duplicate dropped", message.step_number);
            Ok(Outcome::Done)
        }
        Claimed::Stale { why } => {
            traces::here(names::OUTCOME, "stale");
            debug!("run {run} step {}: stale message dropped, {why}", message.step_number);
            Ok(Outcome::Done)
        }
        Claimed::Finished(_status) => {
            traces::here(names::OUTCOME, "finished");
            Ok(Outcome::Done)
        }
    }
}

async fn run_claimed(executor: &Executor, hand: &InHand<'_>, claim: Claim) -> Result<Outcome, StoreError> {
    let env = &executor.env;
    let (run, slot) = (&hand.message.run_id, Slot::Step(hand.message.step_number));
    let started = Instant::now();
    traces::here(names::STEP_ATTEMPT, i64::from(claim.attempt));
    traces::here(names::STEP_EPOCH, i64::try_from(claim.epoch).unwrap_or(i64::MAX));
    let mut attempt = Attempt::new(executor, hand.message, &claim);
    let ended = lease::hold(env, run, slot, claim.epoch, executor.config.lease, &executor.drain, attempt.run()).await;
    match ended {
        Ended::Done(result) => {
            let anew = match &result {
                Err(Failure::Judged { why, learned, .. }) => attempt.lesson(why, learned.as_deref()),
                Ok(_) | Err(_) => String::new(),
            };
            let Attempt { usage, account, tool, .. } = attempt;
            let work = Work { result, anew, usage, account, tool, duration: started.elapsed() };
            conclude(executor, hand, &claim, work).await?;
            Ok(Outcome::Done)
        }
        // Whoever holds the step now has a message of its own, or this very one came back to it.
        Ended::Lost => {
            env.metrics.attempted(AttemptEnd::Lost);
            traces::here(names::OUTCOME, "lost");
            Ok(Outcome::Done)
        }
        Ended::Released => {
            env.metrics.attempted(AttemptEnd::Released);
            traces::here(names::OUTCOME, "released");
            Ok(Outcome::Retry { after: Duration::ZERO, why: "the executor stops".to_owned() })
        }
    }
}

/// What an attempt came to.
struct Work {
    result: Result<Done, Failure>,
    /// The journal with which another attempt would begin from nothing.
    anew: String,
    /// All that the attempt used.
    usage: Usage,
    /// The part of it that the store does not know yet.
    account: Account,
    tool: Option<String>,
    duration: Duration,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            result: Ok(Done::default()),
            anew: String::new(),
            usage: Usage::default(),
            account: Account::default(),
            tool: None,
            duration: Duration::ZERO,
        }
    }
}

/// Stores what the attempt came to, then tells who must act.
async fn conclude(executor: &Executor, hand: &InHand<'_>, claim: &Claim, work: Work) -> Result<(), StoreError> {
    let attempts = executor.config.step_attempts;
    let more = claim.attempt < attempts;
    let backed_off = || backoff(claim.attempt - 1, RETRY_BACKOFF_MIN, RETRY_BACKOFF_MAX, executor.env.ids.fraction());
    let tried = |why: &str| format!("{why} (attempt {} of {attempts})", claim.attempt);
    let failed = work.result.as_ref().map_or_else(Failure::kind, |_| "oversized");
    let (again, after, why) = match &work.result {
        Ok(done) => {
            let oversized = oversized(&done.result);
            return end(executor, hand, claim, work, oversized).await;
        }
        Err(Failure::Lost) => {
            executor.env.metrics.attempted(AttemptEnd::Lost);
            return Ok(());
        }
        Err(Failure::Transient(why) | Failure::Unjudged(why)) if more => (Again::Retry, backed_off(), why.clone()),
        Err(Failure::Judged { retryable: true, why, .. }) if more => (Again::Anew(work.anew), backed_off(), why.clone()),
        Err(Failure::RateLimited { after, why }) if claim.parks < PARKS_MAX => {
            // Not all who were told the same time should come back at the same moment.
            (Again::Park, after.mul_f64(1.0 + executor.env.ids.fraction() / 4.0), why.clone())
        }
        Err(Failure::Transient(why) | Failure::Unjudged(why) | Failure::Judged { retryable: true, why, .. }) => {
            let why = tried(why);
            return end(executor, hand, claim, work, Some(why)).await;
        }
        Err(Failure::RateLimited { why, .. }) => {
            let why = format!("{why} (after {PARKS_MAX} waits)");
            return end(executor, hand, claim, work, Some(why)).await;
        }
        Err(Failure::Permanent(why) | Failure::Judged { why, .. } | Failure::Exhausted(why)) => {
            let why = why.clone();
            return end(executor, hand, claim, work, Some(why)).await;
        }
    };
    traces::here_failed(failed);
    give_back(executor, hand, claim, work.account, (again, after, why, failed)).await
}

/// Why a result cannot be stored, if it is too large.
fn oversized(result: &Value) -> Option<String> {
    let bytes = result.to_string().len();
    (bytes > RESULT_BYTES_MAX).then(|| format!("the result has {bytes} bytes, the limit is {RESULT_BYTES_MAX}"))
}

/// What is recorded of a step that ended: as its attempt says, or not succeeded for `error`.
fn record(executor: &Executor, work: &Work, error: Option<String>) -> StepRecord {
    let (outcome, verdict, learned) = match (&work.result, &error) {
        (Ok(done), None) => (StepOutcome::Succeeded, done.verdict, done.learned.clone()),
        (Err(Failure::Judged { verdict, learned, .. }), _) => (StepOutcome::Failed, Some(*verdict), learned.clone()),
        (Err(Failure::Exhausted(_)), _) => (StepOutcome::Cancelled, None, None),
        (Ok(_) | Err(_), _) => (StepOutcome::Failed, None, None),
    };
    let result = match (&work.result, outcome) {
        (Ok(done), StepOutcome::Succeeded) => done.result.clone(),
        (Ok(_) | Err(_), _) => Value::Null,
    };
    let (tool, worker) = (work.tool.clone(), Some(executor.env.worker.to_string()));
    StepRecord { outcome, result, error, tool, usage: work.usage, duration_ms: millis(work.duration), worker, verdict, learned }
}

/// Reports the step's outcome: not succeeded for `error`, if there is one.
async fn end(executor: &Executor, hand: &InHand<'_>, claim: &Claim, work: Work, error: Option<String>) -> Result<(), StoreError> {
    let env = &executor.env;
    let (run, step) = (&hand.message.run_id, hand.message.step_number);
    let record = record(executor, &work, error.clone());
    let (outcome, duration_ms) = (record.outcome, record.duration_ms);
    let why = work.result.as_ref().map_or_else(Failure::kind, |_| "oversized");
    let mut account = work.account;
    let data = json!({"outcome": outcome, "error": error, "duration_ms": duration_ms, "worker": &*env.worker, "tool": work.tool, "verdict": record.verdict, "learned": record.learned});
    account.events.push(EventDraft::new(EventType::StepFinished, data));
    match recorded!(env, env.store.report(run, step, claim.epoch, &record, &account))? {
        Reported::Recorded(owed) => {
            env.metrics.attempted(AttemptEnd::Reported);
            env.metrics.step_ended(&record);
            traces::here(names::OUTCOME, outcome.as_str());
            if outcome != StepOutcome::Succeeded {
                traces::here_failed(why);
            }
            info!(outcome = outcome.as_str(), duration_ms, "run {run} step {step}: {}", outcome.as_str());
            tell(executor, hand, outcome, owed).await;
        }
        Reported::Stale => {
            env.metrics.attempted(AttemptEnd::Lost);
            traces::here(names::OUTCOME, "lost");
            debug!("run {run} step {step}: lost to another executor, outcome dropped")
        }
        Reported::Finished(status) => {
            env.metrics.attempted(AttemptEnd::Lost);
            traces::here(names::OUTCOME, "finished");
            debug!("run {run} step {step}: run is {}, outcome dropped", status.as_str())
        }
    }
    Ok(())
}

/// Gives the step back until `after`: nothing waits in this process.
async fn give_back(
    executor: &Executor,
    hand: &InHand<'_>,
    claim: &Claim,
    mut account: Account,
    (again, after, why, failed): (Again, Duration, String, &'static str),
) -> Result<(), StoreError> {
    let env = &executor.env;
    let (run, step) = (&hand.message.run_id, hand.message.step_number);
    let kind = match again {
        Again::Retry | Again::Anew(_) => EventType::StepRetried,
        Again::Park => EventType::Parked,
    };
    account.events.push(EventDraft::new(kind, json!({"error": why, "after_ms": millis(after)})));
    traces::here(names::OUTCOME, if again == Again::Park { "parked" } else { "again" });
    let slot = Slot::Step(step);
    let retried = recorded!(env, env.store.retry(run, slot, claim.epoch, again.clone(), after, &account))?;
    // What a model said of its own work, or wrote that could not be used, is none of an operator's business.
    if matches!(failed, "judged" | "unjudged") {
        info!(attempt = claim.attempt, "run {run} step {step}: again in {after:?}: {failed}");
        debug!("run {run} step {step}: again in {after:?}: {why}");
    } else {
        info!(attempt = claim.attempt, "run {run} step {step}: again in {after:?}: {why}");
    }
    let (held, owed) = retried;
    env.metrics.attempted(if held == Held::Kept { (&again).into() } else { AttemptEnd::Lost });
    if held == Held::Kept {
        tell(executor, hand, StepOutcome::Failed, owed).await;
    }
    Ok(())
}

/// Publishes what the store said is owed, and waits for the confirm.
async fn tell(executor: &Executor, hand: &InHand<'_>, outcome: StepOutcome, owed: Owed) {
    let (env, run) = (&executor.env, &hand.message.run_id);
    match owed {
        Owed::Nothing => {}
        Owed::Planner => relay::report(env, hand.trace, run, hand.message.step_number, outcome).await,
        Owed::Summary => relay::completion(env, hand.trace, run, hand.message.revision).await,
    }
}
