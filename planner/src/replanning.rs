//! Re-planning: steps have ended in a way that the plan did not foresee (or, after each step, in any way), and a model decides what
//! becomes of the plan. Finished work stays; a model's patch is checked against where the steps stand, and fitted again when they
//! have moved meanwhile.

use common::event::{EventDraft, EventType};
use common::id::{RunId, Slot, StepNumber};
use common::limits::{PATCH_TRIES_MAX, PLAN_REPAIRS_MAX};
use common::llm::{RefusedPlan, ReplanTask};
use common::metrics::{PlanKind, Purpose};
use common::patch::{self, Decision, Patch, Revision};
use common::quote::quote;
use common::recorded;
use common::run::{Halt, HaltKind, Outcome};
use common::store::{Account, Claim, Held, Owed, PlanNote, Put, Snapshot, StoreError};
use common::telemetry::{names, traces};
use serde_json::json;
use tracing::{debug, info};

use crate::Planner;
use crate::planning::{Failure, InHand, again, journaled, outline, paid, plan_refused, refusal};

/// What a draft came to.
enum Fitted {
    /// It is stored; this is who must act.
    Done(Owed),
    /// It cannot be used.
    Refused(Vec<String>),
    /// Somebody else decides.
    Lost,
}

/// Decides on the steps whose end asks for it, and says who must act then.
pub(crate) async fn decide(hand: &mut InHand<'_>) -> Result<Owed, StoreError> {
    let mut account = Account::default();
    let failure = match try_to_decide(hand, &mut account).await {
        Ok(owed) => return Ok(owed),
        Err(failure) => failure,
    };
    traces::here_failed(failure.kind());
    match again(hand, failure, account.clone()).await? {
        Ok(owed) => Ok(owed),
        Err(why) => keep(hand.planner, hand.run, hand.claim, &hand.snapshot, &why, account).await,
    }
}

/// Asks the model for a patch, repaired with the complaints about it at most [`PLAN_REPAIRS_MAX`] times.
async fn try_to_decide(hand: &mut InHand<'_>, account: &mut Account) -> Result<Owed, Failure> {
    let mut refused: Option<(String, Vec<String>)> = None;
    for round in 0..=PLAN_REPAIRS_MAX {
        let draft = match journaled(hand, round) {
            Some(draft) => draft,
            None => {
                let task = ReplanTask {
                    objective: &hand.request.objective,
                    context: hand.request.context.as_deref(),
                    tools: &hand.planner.tools,
                    run: &hand.snapshot.view,
                    after: &hand.snapshot.news,
                    next_number: patch::next_number(&hand.snapshot.view),
                    steps_max: hand.planner.config.plan_steps_max,
                    refused: refused.as_ref().map(|(reply, complaints)| RefusedPlan { reply, complaints }),
                    meter: &hand.meter,
                };
                let answered = hand.planner.env.llm.replan(&task).await;
                paid(hand, round, Purpose::Replan, answered, account).await?
            }
        };
        let fitted = match draft.plan {
            Ok(patch) => fit(hand, &patch, account).await?,
            Err(why) => Fitted::Refused(vec![why]),
        };
        let complaints = match fitted {
            Fitted::Done(owed) => return Ok(owed),
            Fitted::Lost => return Err(Failure::Lost),
            Fitted::Refused(complaints) => complaints,
        };
        account.events.push(plan_refused(hand.run, round, &complaints));
        refused = Some((draft.reply, complaints));
    }
    let (_, complaints) = refused.unwrap_or_default();
    Err(Failure::Refused(refusal("the model's patch", &complaints)))
}

/// Checks a draft against where the steps stand and stores what it comes to; again from the start when a step that it changes has
/// moved meanwhile. Nothing is paid for twice.
async fn fit(hand: &mut InHand<'_>, draft: &serde_json::Value, account: &Account) -> Result<Fitted, Failure> {
    let env = hand.planner.env.clone();
    for _ in 0..PATCH_TRIES_MAX {
        let patch = match patch::read(draft, &hand.snapshot.view, &hand.snapshot.news, &hand.planner.rules()) {
            Ok(patch) => patch,
            Err(complaints) => return Ok(Fitted::Refused(complaints)),
        };
        match store(hand, &patch, account.clone()).await.map_err(Failure::Store)? {
            Put::Stored(owed) => {
                info!("run {}: re-plan: {:?}", hand.run, patch.decision);
                debug!("run {}: re-plan: {}", hand.run, patch.reason);
                return Ok(Fitted::Done(owed));
            }
            Put::Lost => return Ok(Fitted::Lost),
            Put::Moved => match recorded!(&env, env.store.snapshot(hand.run)).map_err(Failure::Store)? {
                Some(snapshot) => hand.snapshot = snapshot,
                None => return Ok(Fitted::Lost),
            },
        }
    }
    Ok(Fitted::Refused(vec!["the steps that it changes keep moving; leave alone what runs".to_owned()]))
}

/// Carries out a checked patch.
async fn store(hand: &InHand<'_>, patch: &Patch, account: Account) -> Result<Put, StoreError> {
    match (patch.decision, &patch.revision) {
        (Decision::Revise | Decision::Reached, Some(revision)) => revise(hand, patch, revision, account).await,
        (Decision::Unreachable, _) => halt(hand, patch, account).await,
        (Decision::Keep | Decision::Revise | Decision::Reached, _) => {
            let InHand { planner, run, claim, snapshot, .. } = hand;
            keep(planner, run, claim, snapshot, &patch.reason, account).await.map(Put::Stored)
        }
    }
}

async fn revise(hand: &InHand<'_>, patch: &Patch, revision: &Revision, mut account: Account) -> Result<Put, StoreError> {
    let InHand { planner, run, claim, snapshot, request, .. } = hand;
    let env = &planner.env;
    let (current, steps) = (snapshot.view.revision, revision.plan.steps.len());
    let diff = patch::diff(&snapshot.plan, revision);
    let (plan, reason) = (outline(&revision.plan), &patch.reason);
    let data = json!({"revision": current + 1, "steps": steps, "reason": reason, "plan": plan, "diff": diff});
    account.events.push(EventDraft::new(EventType::PlanStored, data));
    let quote = quote(&revision.plan, request.options.respond, &planner.tools);
    traces::here(names::PLAN_REVISION, i64::from(current + 1));
    let note = PlanNote { reason: reason.clone(), diff: Some(diff), quote: Some(quote) };
    let put = recorded!(env, env.store.put_plan(run, claim.epoch, current, revision, &note, &snapshot.news, &account))?;
    if matches!(put, Put::Stored(_)) {
        env.metrics.planned(PlanKind::Revision);
    }
    Ok(put)
}

/// Nothing more can be done: the run ends with what there is.
async fn halt(hand: &InHand<'_>, patch: &Patch, account: Account) -> Result<Put, StoreError> {
    let InHand { planner, run, claim, .. } = hand;
    let env = &planner.env;
    let halt = Halt { kind: HaltKind::Unreachable, reason: patch.reason.clone() };
    Ok(match recorded!(env, env.store.halt(run, Slot::Plan, claim.epoch, &halt, &account))? {
        Held::Kept => Put::Stored(Owed::Summary),
        Held::Lost | Held::Ended => Put::Lost,
    })
}

/// Leaves the plan as it is, for `reason`: what waits for a failed step goes by its own rule.
pub(crate) async fn keep(
    planner: &Planner,
    run: &RunId,
    claim: &Claim,
    snapshot: &Snapshot,
    reason: &str,
    mut account: Account,
) -> Result<Owed, StoreError> {
    let env = &planner.env;
    let failed = |number: &StepNumber| {
        let step = snapshot.view.steps.iter().find(|step| step.step.step_number == *number);
        step.is_some_and(|step| step.state.outcome() != Some(Outcome::Succeeded))
    };
    let counts = snapshot.news.iter().any(failed);
    account.events.push(EventDraft::new(EventType::PlanKept, json!({"reason": reason, "after": snapshot.news})));
    let (held, owed) = recorded!(env, env.store.keep_plan(run, claim.epoch, &snapshot.news, counts, &account))?;
    if held == Held::Kept {
        env.metrics.planned(PlanKind::Kept);
    }
    info!("run {run}: the plan stays");
    debug!("run {run}: the plan stays: {reason}");
    Ok(owed)
}
