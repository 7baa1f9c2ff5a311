//! Planning: under the run's plan lease, get a plan that passes the validator, store it, and dispatch its first steps. A run that has
//! its plan is [`crate::replanning`]'s.

use std::time::Duration;

use common::broker::{Envelope, backoff};
use common::clock::millis;
use common::document::Ending;
use common::ending::end_run;
use common::event::{EventDraft, EventType};
use common::id::{RunId, Slot};
use common::lease::{self, Ended};
use common::limits::{CLAIMS_MAX, PARKS_MAX, PLAN_REPAIRS_MAX, RETRY_BACKOFF_MAX, RETRY_BACKOFF_MIN};
use common::llm::{Failed, Feedback, LlmError, PlanDraft, PlanTask, RefusedPlan, Reply};
use common::message::ObjectiveMessage;
use common::meter::Meter;
use common::metrics::{PlanKind, Purpose};
use common::patch::Revision;
use common::plan::{Plan, check};
use common::quote::quote;
use common::recorded;
use common::relay::{self, Trace};
use common::run::RunStatus;
use common::store::{Account, Again, Claim, ClaimRequest, Claimed, Held, Owed, PlanNote, Put, Snapshot, StoreError};
use common::telemetry::{names, spans, traces};
use common::worker::Outcome;
use serde_json::json;
use tracing::{debug, info};

use crate::{Planner, dispatch, replanning};

/// Why there is no plan.
#[derive(Debug)]
pub(crate) enum Failure {
    Llm(LlmError),
    /// The run fails with this.
    Refused(String),
    /// Somebody else plans.
    Lost,
    Store(StoreError),
}

impl Failure {
    /// Which kind it is, for traces.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Failure::Llm(error) => error.kind(),
            Failure::Refused(_) => "refused",
            Failure::Lost => "lost",
            Failure::Store(_) => "store",
        }
    }
}

/// A run whose plan slot is in hand.
pub(crate) struct InHand<'a> {
    pub(crate) planner: &'a Planner,
    pub(crate) run: &'a RunId,
    pub(crate) claim: &'a Claim,
    /// The run as it stood after the claim.
    pub(crate) snapshot: Snapshot,
    /// What was asked.
    pub(crate) request: ObjectiveMessage,
    /// Who pays for calls.
    pub(crate) meter: Meter,
}

/// Plans the run, or looks at its plan again, unless that is done or being done; then publishes what is ready. `envelope` is the message
/// in hand; `trace`, what the run's messages carry.
pub async fn plan_and_dispatch(
    planner: &Planner,
    run: &RunId,
    envelope: &Envelope,
    redelivered: bool,
    trace: Trace<'_>,
) -> Result<Outcome, StoreError> {
    let env = &planner.env;
    let nonce = env.ids.unique();
    let message_id = &envelope.message_id;
    let lease = planner.config.lease;
    let request =
        ClaimRequest { slot: Slot::Plan, message_id, redelivered, nonce: &nonce, attempt: None, lease, worker: &env.worker };
    let claimed = recorded!(env, env.store.claim(run, &request))?;
    env.metrics.claimed(Slot::Plan, &claimed);
    let owed = match claimed {
        Claimed::Execute(claim) => match spans::plan().around(work(planner, run, &claim)).await? {
            Ended::Done(owed) => owed,
            // Somebody else's now, or decided under this very claim, with the reply lost: another look at the message tells.
            Ended::Lost => return Ok(Outcome::Retry { after: Duration::ZERO, why: "the plan slot was lost".to_owned() }),
            Ended::Released => return Ok(Outcome::Retry { after: Duration::ZERO, why: "the planner stops".to_owned() }),
        },
        Claimed::Poisoned(claim) => {
            let why = format!("{CLAIMS_MAX} planners ended while they planned this run");
            give_up(planner, run, &claim, &why).await?
        }
        Claimed::Done { owed, .. } => owed,
        Claimed::Finished(_) if redelivered => {
            // The first delivery may have died between the end of the run and its reply.
            relay::reply_again(env, run).await?;
            return Ok(Outcome::Done);
        }
        Claimed::Duplicate { .. } | Claimed::Stale { .. } | Claimed::Finished(_) => return Ok(Outcome::Done),
    };
    match owed {
        Owed::Summary => relay::completion(env, trace, run, 1).await,
        Owed::Planner | Owed::Nothing => dispatch::dispatch(planner, trace, run, message_id).await?,
    }
    Ok(Outcome::Done)
}

/// Makes the plan or looks at it again, under the lease; says who must act then.
async fn work(planner: &Planner, run: &RunId, claim: &Claim) -> Result<Ended<Owed>, StoreError> {
    let env = &planner.env;
    let Some(snapshot) = recorded!(env, env.store.snapshot(run))? else { return Ok(Ended::Lost) };
    let request = serde_json::from_str(&claim.text);
    let request = request.map_err(|error| StoreError::Unusable(format!("stored objective: {error}")))?;
    let meter = Meter::of(env, run, Slot::Plan, claim.epoch, claim.budget);
    let mut hand = InHand { planner, run, claim, snapshot, request, meter };
    let lease = planner.config.lease;
    let mut account = Account::default();
    if hand.snapshot.view.status != RunStatus::Planning {
        let work = replanning::decide(&mut hand);
        return match lease::hold(env, run, Slot::Plan, claim.epoch, lease, &planner.drain, work).await {
            Ended::Done(owed) => owed.map(Ended::Done),
            Ended::Lost => Ok(Ended::Lost),
            Ended::Released => Ok(Ended::Released),
        };
    }
    let work = make_plan(&hand, &mut account);
    Ok(match lease::hold(env, run, Slot::Plan, claim.epoch, lease, &planner.drain, work).await {
        Ended::Done(Ok((plan, reason))) => Ended::Done(store_plan(&hand, plan, reason, account).await?),
        Ended::Done(Err(failure)) => Ended::Done(fail(&hand, failure, account).await?),
        Ended::Lost => Ended::Lost,
        Ended::Released => Ended::Released,
    })
}

/// The plan slot has ended too many planners: without a plan the run fails, else the plan stays as it is.
pub(crate) async fn give_up(planner: &Planner, run: &RunId, claim: &Claim, why: &str) -> Result<Owed, StoreError> {
    let env = &planner.env;
    let Some(snapshot) = recorded!(env, env.store.snapshot(run))? else { return Ok(Owed::Nothing) };
    if snapshot.view.status == RunStatus::Planning {
        end(planner, run, claim, why.to_owned(), Account::default()).await?;
        return Ok(Owed::Nothing);
    }
    replanning::keep(planner, run, claim, &snapshot, why, Account::default()).await
}

/// The objective's own plan, or a person's, or a model's, repaired with the validator's complaints at most [`PLAN_REPAIRS_MAX`] times;
/// and why there is one.
async fn make_plan(hand: &InHand<'_>, account: &mut Account) -> Result<(Plan, &'static str), Failure> {
    let (planner, request, snapshot) = (hand.planner, &hand.request, &hand.snapshot);
    let rules = planner.rules();
    if snapshot.view.budget.cost_nanos.is_some() {
        planner.env.llm.has_prices().map_err(|why| Failure::Refused(format!("max_cost cannot be kept: {why}")))?;
    }
    if let Some(edited) = &snapshot.edited {
        let plan = serde_json::from_str(edited).map_err(|error| Failure::Refused(format!("the stored plan: {error}")))?;
        return Ok((plan, "put in place by a person"));
    }
    let own = request.plan.as_ref().filter(|_| snapshot.feedback.is_none());
    if let Some(own) = own {
        let refused = |complaints: Vec<String>| Failure::Refused(refusal("the objective's own plan", &complaints));
        return check(own, &rules).map(|plan| (plan, "first plan")).map_err(refused);
    }
    let feedback = snapshot.feedback.as_deref().map(|text| Feedback { plan: &snapshot.plan, text });
    let reason = if feedback.is_some() { "another plan after feedback" } else { "first plan" };
    let mut refused: Option<(String, Vec<String>)> = None;
    for round in 0..=PLAN_REPAIRS_MAX {
        let task = PlanTask {
            objective: &request.objective,
            context: request.context.as_deref(),
            tools: &planner.tools,
            steps_max: planner.config.plan_steps_max,
            refused: refused.as_ref().map(|(reply, complaints)| RefusedPlan { reply, complaints }),
            feedback: feedback.clone(),
            meter: &hand.meter,
        };
        let draft = match journaled(hand, round) {
            Some(draft) => draft,
            None => paid(hand, round, Purpose::Plan, planner.env.llm.plan(&task).await, account).await?,
        };
        let complaints = match draft.plan.map_err(|why| vec![why]).and_then(|plan| check(&plan, &rules)) {
            Ok(plan) => return Ok((plan, reason)),
            Err(complaints) => complaints,
        };
        account.events.push(plan_refused(hand.run, round, &complaints));
        refused = Some((draft.reply, complaints));
    }
    let (_, complaints) = refused.unwrap_or_default();
    Err(Failure::Refused(refusal("the model's plan", &complaints)))
}

/// The draft of this round, if it was paid for already.
pub(crate) fn journaled(hand: &InHand<'_>, round: u32) -> Option<PlanDraft> {
    hand.claim.journal.get(round as usize).and_then(|entry| serde_json::from_str(entry).ok())
}

/// A model's draft, journaled with what it cost before anybody looks at it.
pub(crate) async fn paid(
    hand: &InHand<'_>,
    round: u32,
    purpose: Purpose,
    answered: Result<Reply<PlanDraft>, Failed>,
    account: &mut Account,
) -> Result<PlanDraft, Failure> {
    let env = &hand.planner.env;
    env.metrics.asked(purpose, env.llm.name(), &answered);
    let reply = match answered {
        Ok(reply) => reply,
        Err(Failed { error, calls }) => {
            account.add(&calls, purpose.as_str());
            return Err(Failure::Llm(error));
        }
    };
    account.add(&reply.calls, purpose.as_str());
    let paid = std::mem::take(account);
    let entry = serde_json::to_string(&reply.value).unwrap_or_default();
    let (epoch, round) = (hand.claim.epoch, round as usize);
    let journaled = recorded!(env, env.store.journal(hand.run, Slot::Plan, epoch, round, &entry, &paid));
    match journaled.map_err(Failure::Store)? {
        Held::Kept => Ok(reply.value),
        Held::Lost | Held::Ended => Err(Failure::Lost),
    }
}

/// The entry of a draft that cannot be used.
pub(crate) fn plan_refused(run: &RunId, round: u32, complaints: &[String]) -> EventDraft {
    info!(round, "run {run}: plan refused, {} complaints", complaints.len());
    EventDraft::new(EventType::PlanRefused, json!({"complaints": complaints, "round": round}))
}

pub(crate) fn refusal(what: &str, complaints: &[String]) -> String {
    format!("{what} was refused: {}", complaints.join("; "))
}

/// A plan for the audit trail: what its steps are to do, without arguments.
pub(crate) fn outline(plan: &Plan) -> serde_json::Value {
    let step = |step: &common::plan::Step| {
        json!({
            "step_number": step.step_number,
            "description": step.description,
            "tool_hint": step.tool_hint,
            "depends_on": step.depends_on,
            "done_when": step.done_when,
        })
    };
    plan.steps.iter().map(step).collect()
}

async fn store_plan(hand: &InHand<'_>, plan: Plan, reason: &str, mut account: Account) -> Result<Owed, StoreError> {
    let InHand { planner, run, claim, snapshot, request, .. } = hand;
    let env = &planner.env;
    let current = snapshot.view.revision;
    let data = json!({"revision": current + 1, "steps": plan.steps.len(), "reason": reason, "plan": outline(&plan)});
    account.events.push(EventDraft::new(EventType::PlanStored, data));
    let quote = quote(&plan, request.options.respond, &planner.tools);
    let note = PlanNote { reason: reason.to_owned(), diff: None, quote: Some(quote) };
    let revision = Revision::first(plan);
    let put = recorded!(env, env.store.put_plan(run, claim.epoch, current, &revision, &note, &[], &account))?;
    match put {
        Put::Stored(owed) => {
            env.metrics.planned(if current == 0 { PlanKind::First } else { PlanKind::Revision });
            traces::here(names::PLAN_REVISION, i64::from(current + 1));
            info!(steps = revision.plan.steps.len(), "run {run}: plan with {} steps", revision.plan.steps.len());
            if let Some(approval) = snapshot.approval {
                recorded!(env, env.store.wake(run, approval.timeout))?;
            }
            Ok(owed)
        }
        Put::Lost | Put::Moved => {
            debug!("run {run}: another planner's plan stands");
            Ok(Owed::Nothing)
        }
    }
}

/// No plan for now, or for good.
async fn fail(hand: &InHand<'_>, failure: Failure, account: Account) -> Result<Owed, StoreError> {
    traces::here_failed(failure.kind());
    let why = match again(hand, failure, account.clone()).await? {
        Ok(owed) => return Ok(owed),
        Err(why) => format!("no plan could be made: {why}"),
    };
    end(hand.planner, hand.run, hand.claim, why, account).await?;
    Ok(Owed::Nothing)
}

/// Gives the plan slot back if another try may end better, and says who must act; else says why there is none.
pub(crate) async fn again(hand: &InHand<'_>, failure: Failure, mut account: Account) -> Result<Result<Owed, String>, StoreError> {
    let InHand { planner, run, claim, .. } = hand;
    let env = &planner.env;
    let attempts = planner.config.step_attempts;
    let (again, after, why) = match failure {
        Failure::Lost => return Ok(Ok(Owed::Nothing)),
        Failure::Store(error) => return Err(error),
        Failure::Llm(LlmError::Transient(why)) if claim.attempt < attempts => {
            let after = backoff(claim.attempt - 1, RETRY_BACKOFF_MIN, RETRY_BACKOFF_MAX, env.ids.fraction());
            (Again::Retry, after, why)
        }
        Failure::Llm(LlmError::RateLimited { why, after }) if claim.parks < PARKS_MAX => (Again::Park, after, why),
        Failure::Llm(error) => return Ok(Err(error.to_string())),
        Failure::Refused(why) => return Ok(Err(why)),
    };
    let kind = if again == Again::Park { EventType::Parked } else { EventType::StepRetried };
    account.events.push(EventDraft::new(kind, json!({"error": why, "after_ms": millis(after)})));
    let (_, owed) = recorded!(env, env.store.retry(run, Slot::Plan, claim.epoch, again.clone(), after, &account))?;
    info!("run {run}: planning again in {after:?}: {why}");
    Ok(Ok(owed))
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
