//! Wake-ups: every planner looks at live runs whose time has come and does what they owe. One mechanism for back-off, rate
//! limits, expired leases, and messages that were lost.

use common::id::RunId;
use common::limits::{WAKEUP_POLL, WAKEUPS_PER_POLL_MAX};
use common::relay;
use common::store::{Advance, StoreError};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{Planner, dispatch};

/// Looks for due runs until `stop`.
pub async fn poll(planner: &Planner, stop: CancellationToken) {
    loop {
        // Replicas should not look all at the same moment.
        let pause = WAKEUP_POLL.mul_f64(0.5 + planner.env.ids.fraction());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if let Err(error) = wake_due(planner).await {
            warn!("wake-ups wait for the store: {error}");
        }
    }
}

async fn wake_due(planner: &Planner) -> Result<(), StoreError> {
    for run in planner.env.store.due(WAKEUPS_PER_POLL_MAX).await? {
        if let Err(error) = advance(planner, &run).await {
            warn!(run_id = %run, "run {run}: not advanced, {error}");
        }
    }
    Ok(())
}

/// Does what the run owes now, and sets its next wake-up.
pub async fn advance(planner: &Planner, run: &RunId) -> Result<(), StoreError> {
    let env = &planner.env;
    match env.store.advance(run).await? {
        Advance::Gone => env.store.settle(run).await,
        Advance::Live { next_look, plan, dispatch, summary } => {
            if plan {
                // Planning takes its time: it belongs to a message, which is bounded and comes back if this process dies.
                relay::report(env, run, None).await;
            }
            if dispatch {
                dispatch::dispatch(planner, run, &env.ids.unique()).await?;
            }
            if summary {
                relay::completion(env, run, 1).await;
            }
            env.store.wake(run, next_look).await
        }
    }
}
