//! Planning: under the run's plan lease, get a plan that passes the validator, store it, and dispatch its first steps.

use std::time::Duration;

use common::broker::{Envelope, backoff};
use common::clock::millis;
use common::document::Ending;
use common::ending::end_run;
use common::event::{EventDraft, EventType};
use common::id::{RunId, Slot};
use common::lease::{self, Ended};
use common::limits::{CLAIMS_MAX, PARKS_MAX, PLAN_REPAIRS_MAX, RETRY_BACKOFF_MAX, RETRY_BACKOFF_MIN};
use common::llm::{LlmError, PlanDraft, PlanTask, RefusedPlan};
use common::message::ObjectiveMessage;
use common::plan::{Plan, check};
use common::recorded;
use common::relay;
use common::store::{Account, Again, Claim, ClaimRequest, Claimed, Held, StoreError};
use common::worker::Outcome;
use serde_json::json;
use tracing::{debug, info};

use crate::{Planner, dispatch};

/// Why there is no plan.
#[derive(Debug)]
enum Failure {
    Llm(LlmError),
    /// The run fails with this.
    Refused(String),
    /// Somebody else plans.
    Lost,
    Store(StoreError),
}

/// Plans the run unless that is done or being done, then publishes what is ready. `envelope` is the message in hand.
pub async fn plan_and_dispatch(
    planner: &Planner,
    run: &RunId,
    envelope: &Envelope,
    redelivered: bool,
) -> Result<Outcome, StoreError> {
    let env = &planner.env;
    let nonce = env.ids.unique();
    let message_id = &envelope.message_id;
    let lease = planner.config.lease;
    let request =
        ClaimRequest { slot: Slot::Plan, message_id, redelivered, nonce: &nonce, attempt: None, lease, worker: &env.worker };
    match recorded!(env, env.store.claim(run, &request))? {
        Claimed::Execute(claim) => {
            let mut account = Account::default();
            let work = make_plan(planner, run, &claim, &mut account);
            let ended = lease::hold(env, run, Slot::Plan, claim.epoch, lease, &planner.drain, work).await;
            match ended {
                Ended::Done(Ok(plan)) => store_plan(planner, run, &claim, &plan, account).await?,
                Ended::Done(Err(failure)) => fail(planner, run, &claim, failure, account).await?,
                Ended::Lost => return Ok(Outcome::Done),
                Ended::Released => return Ok(Outcome::Retry { after: Duration::ZERO, why: "the planner stops".to_owned() }),
            }
        }
        Claimed::Poisoned(claim) => {
            let why = format!("{CLAIMS_MAX} planners ended while they planned this run");
            fail(planner, run, &claim, Failure::Refused(why), Account::default()).await?;
        }
        Claimed::Done { .. } => {}
        Claimed::Finished(_) if redelivered => {
            // The first delivery may have died between the end of the run and its reply.
            relay::reply_again(env, run).await?;
            return Ok(Outcome::Done);
        }
        Claimed::Duplicate { .. } | Claimed::Stale { .. } | Claimed::Finished(_) => return Ok(Outcome::Done),
    }
    dispatch::dispatch(planner, envelope.traceparent.as_deref(), run, message_id).await?;
    Ok(Outcome::Done)
}

/// The objective's own plan, or a model's, repaired with the validator's complaints at most [`PLAN_REPAIRS_MAX`] times.
async fn make_plan(planner: &Planner, run: &RunId, claim: &Claim, account: &mut Account) -> Result<Plan, Failure> {
    let request: ObjectiveMessage = serde_json::from_str(&claim.text)
        .map_err(|error| Failure::Refused(format!("the stored objective cannot be read: {error}")))?;
    let rules = planner.rules();
    if let Some(own) = &request.plan {
        return check(own, &rules).map_err(|complaints| Failure::Refused(refusal("the objective's own plan", &complaints)));
    }
    let mut refused: Option<(String, Vec<String>)> = None;
    for round in 0..=PLAN_REPAIRS_MAX {
        let task = PlanTask {
            objective: &request.objective,
            context: request.context.as_deref(),
            tools: &planner.tools,
            steps_max: planner.config.plan_steps_max,
            refused: refused.as_ref().map(|(reply, complaints)| RefusedPlan { reply, complaints }),
        };
        let draft = ask(planner, run, claim, round as usize, &task, account).await?;
        let complaints = match draft.plan.map_err(|why| vec![why]).and_then(|plan| check(&plan, &rules)) {
            Ok(plan) => return Ok(plan),
            Err(complaints) => complaints,
        };
        info!(run_id = %run, round, "run {run}: plan refused, {} complaints", complaints.len());
        account.events.push(EventDraft::new(EventType::PlanRefused, json!({"complaints": complaints, "round": round})));
        refused = Some((draft.reply, complaints));
    }
    let (_, complaints) = refused.unwrap_or_default();
    Err(Failure::Refused(refusal("the model's plan", &complaints)))
}

/// One draft: from the journal if this round was paid for already, else from the model, journaled before it is looked at.
async fn ask(
    planner: &Planner,
    run: &RunId,
    claim: &Claim,
    round: usize,
    task: &PlanTask<'_>,
    account: &mut Account,
) -> Result<PlanDraft, Failure> {
    if let Some(draft) = claim.journal.get(round).and_then(|entry| serde_json::from_str(entry).ok()) {
        return Ok(draft);
    }
    let env = &planner.env;
    let reply = env.llm.plan(task).await.map_err(Failure::Llm)?;
    for call in &reply.calls {
        account.usage += call.usage;
        account.events.push(call.event("plan"));
    }
    let paid = std::mem::take(account);
    let entry = serde_json::to_string(&reply.value).unwrap_or_default();
    let journaled = recorded!(env, env.store.journal(run, Slot::Plan, claim.epoch, round, &entry, &paid));
    match journaled.map_err(Failure::Store)? {
        Held::Kept => Ok(reply.value),
        Held::Lost | Held::Ended => Err(Failure::Lost),
    }
}

fn refusal(what: &str, complaints: &[String]) -> String {
    format!("{what} was refused: {}", complaints.join("; "))
}

async fn store_plan(planner: &Planner, run: &RunId, claim: &Claim, plan: &Plan, mut account: Account) -> Result<(), StoreError> {
    let env = &planner.env;
    let outline: Vec<_> = plan
        .steps
        .iter()
        .map(|step| {
            json!({
                "step_number": step.step_number,
                "description": step.description,
                "tool_hint": step.tool_hint,
                "depends_on": step.depends_on,
            })
        })
        .collect();
    let data = json!({"revision": 1, "steps": plan.steps.len(), "reason": "first plan", "plan": outline});
    account.events.push(EventDraft::new(EventType::PlanStored, data));
    let stored = recorded!(env, env.store.put_plan(run, claim.epoch, 0, plan, "first plan", &account))?;
    match stored {
        Held::Kept => info!(run_id = %run, steps = plan.steps.len(), "run {run}: plan with {} steps", plan.steps.len()),
        Held::Lost | Held::Ended => debug!(run_id = %run, "run {run}: another planner's plan stands"),
    }
    Ok(())
}

/// No plan for now, or for good.
async fn fail(planner: &Planner, run: &RunId, claim: &Claim, failure: Failure, mut account: Account) -> Result<(), StoreError> {
    let env = &planner.env;
    let attempts = planner.config.step_attempts;
    let (again, after, why) = match failure {
        Failure::Lost => return Ok(()),
        Failure::Store(error) => return Err(error),
        Failure::Llm(LlmError::Transient(why)) if claim.attempt < attempts => {
            let after = backoff(claim.attempt - 1, RETRY_BACKOFF_MIN, RETRY_BACKOFF_MAX, env.ids.fraction());
            (Again::Retry, after, why)
        }
        Failure::Llm(LlmError::RateLimited { why, after }) if claim.parks < PARKS_MAX => (Again::Park, after, why),
        Failure::Llm(error) => return end(planner, run, claim, format!("no plan could be made: {error}"), account).await,
        Failure::Refused(why) => return end(planner, run, claim, why, account).await,
    };
    let kind = match again {
        Again::Retry => EventType::StepRetried,
        Again::Park => EventType::Parked,
    };
    account.events.push(EventDraft::new(kind, json!({"error": why, "after_ms": millis(after)})));
    recorded!(env, env.store.retry(run, Slot::Plan, claim.epoch, again, after, &account))?;
    info!(run_id = %run, "run {run}: planning again in {after:?}: {why}");
    Ok(())
}

/// The run fails without a plan.
pub(crate) async fn end(
    planner: &Planner,
    run: &RunId,
    claim: &Claim,
    error: String,
    account: Account,
) -> Result<(), StoreError> {
    let env = &planner.env;
    let Some(snapshot) = recorded!(env, env.store.snapshot(run))? else { return Ok(()) };
    let ending = Ending { error: Some(error), ..Ending::default() };
    end_run(env, run, (Slot::Plan, claim.epoch), &snapshot, ending, account, planner.config.retention).await
}
