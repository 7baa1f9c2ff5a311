//! Closing a poisoned slot: its messages have died or ended their holders too often, so nobody but the planner touches it.

use common::document::Ending;
use common::ending::end_run;
use common::event::{EventDraft, EventType};
use common::id::{RunId, Slot, StepNumber};
use common::recorded;
use common::relay::{self, Trace};
use common::run::{Outcome, StepRecord};
use common::store::{Account, Claim, ClaimRequest, Claimed, Owed, Reported, StoreError};
use serde_json::json;
use tracing::warn;

use crate::{Planner, dispatch, planning};

/// Ends `slot` as failed for `why`: a step reports, the plan or the summary ends the run.
pub async fn close(planner: &Planner, run: &RunId, slot: Slot, why: &str) -> Result<(), StoreError> {
    let env = &planner.env;
    let id = env.ids.unique();
    let lease = planner.config.lease;
    let request =
        ClaimRequest { slot, message_id: &id, redelivered: false, nonce: &id, attempt: None, lease, worker: &env.worker };
    let claimed = recorded!(env, env.store.claim(run, &request))?;
    env.metrics.claimed(slot, &claimed);
    let claim = match claimed {
        Claimed::Poisoned(claim) | Claimed::Execute(claim) => claim,
        // An earlier try may have died between the end of the run and its reply.
        Claimed::Finished(_) => return relay::reply_again(env, run).await,
        Claimed::Done { .. } | Claimed::Duplicate { .. } | Claimed::Stale { .. } => return Ok(()),
    };
    warn!(slot = %slot, "run {run} slot {slot}: closed as failed, {why}");
    let trace = relay::trace(env, run).await?;
    let trace = trace.as_deref();
    match slot {
        Slot::Step(step) => close_step(planner, trace, run, step, &claim, why).await,
        Slot::Plan => match planning::give_up(planner, run, &claim, why).await? {
            Owed::Summary => {
                relay::completion(env, trace, run, 1).await;
                Ok(())
            }
            Owed::Planner | Owed::Nothing => dispatch::dispatch(planner, trace, run, &env.ids.unique()).await,
        },
        Slot::Summary => close_summary(planner, run, &claim, why).await,
    }
}

async fn close_step(
    planner: &Planner,
    trace: Trace<'_>,
    run: &RunId,
    step: StepNumber,
    claim: &Claim,
    why: &str,
) -> Result<(), StoreError> {
    let env = &planner.env;
    let record =
        StepRecord { worker: Some(env.worker.to_string()), ..StepRecord::without_result(Outcome::Failed, why.to_owned()) };
    let data = json!({"outcome": record.outcome, "error": why, "duration_ms": 0, "worker": &*env.worker});
    let account = Account { events: vec![EventDraft::new(EventType::StepFinished, data)], ..Account::default() };
    let reported = recorded!(env, env.store.report(run, step, claim.epoch, &record, &account))?;
    if matches!(reported, Reported::Recorded(_)) {
        env.metrics.step_ended(&record);
    }
    match reported {
        Reported::Recorded(Owed::Summary) => relay::completion(env, trace, run, 1).await,
        Reported::Recorded(Owed::Planner) => relay::report(env, trace, run, step, Outcome::Failed).await,
        Reported::Recorded(Owed::Nothing) | Reported::Stale | Reported::Finished(_) => {}
    }
    Ok(())
}

async fn close_summary(planner: &Planner, run: &RunId, claim: &Claim, why: &str) -> Result<(), StoreError> {
    let env = &planner.env;
    let Some(snapshot) = recorded!(env, env.store.snapshot(run))? else { return Ok(()) };
    let ending = Ending { error: Some(format!("no answer could be written: {why}")), ..Ending::default() };
    let held = (Slot::Summary, claim.epoch);
    end_run(env, run, held, &snapshot, ending, Account::default(), planner.config.retention).await
}
