//! Wake-ups: every planner looks at live runs whose time has come and does what they owe. One mechanism for back-off, rate
//! limits, expired leases, and messages that were lost.

use common::id::RunId;
use common::limits::{SWEEP_INTERVAL, SWEEP_RUNS_MAX, WAKEUP_INTERVAL_MAX, WAKEUP_POLL, WAKEUPS_PER_POLL_MAX};
use common::relay;
use common::store::{Advance, StoreError};
use common::telemetry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{Planner, dispatch};

/// Looks for due runs until `stop`, and now and then for runs whose wake-up has been lost.
pub async fn poll(planner: &Planner, stop: CancellationToken) {
    let (mut sweep_at, mut offset) = (Instant::now() + SWEEP_INTERVAL, 0);
    loop {
        // Replicas should not look all at the same moment.
        let pause = WAKEUP_POLL.mul_f64(0.5 + planner.env.ids.fraction());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        // Dropped at the stop wherever it is: every run it has taken is due again soon.
        if let Some(Err(error)) = stop.run_until_cancelled(wake_due(planner)).await {
            warn!("wake-ups wait for the store: {error}");
        }
        if Instant::now() >= sweep_at {
            sweep_at = Instant::now() + SWEEP_INTERVAL;
            match stop.run_until_cancelled(sweep(planner, offset)).await {
                Some(Ok(next)) => offset = next,
                Some(Err(error)) => warn!("the sweep waits for the store: {error}"),
                None => return,
            }
        }
    }
}

/// Hints again at some live runs, beginning with the one at `offset` of the list; gives where to go on. Hints live apart from
/// their runs, so they can be lost alone; one that is there already is not put off by this.
async fn sweep(planner: &Planner, offset: usize) -> Result<usize, StoreError> {
    let store = &planner.env.store;
    let lines = store.list(offset, SWEEP_RUNS_MAX).await?;
    for line in lines.iter().filter(|line| !line.status.is_final()) {
        store.wake(&line.run_id, WAKEUP_INTERVAL_MAX).await?;
    }
    Ok(if lines.is_empty() { 0 } else { offset + SWEEP_RUNS_MAX })
}

async fn wake_due(planner: &Planner) -> Result<(), StoreError> {
    for run in planner.env.store.due(WAKEUPS_PER_POLL_MAX).await? {
        if let Err(error) = telemetry::work(advance(planner, &run)).await {
            warn!(run_id = %run, "run {run}: not advanced, {error}");
        }
    }
    Ok(())
}

/// Does what the run owes now, and sets its next wake-up.
pub async fn advance(planner: &Planner, run: &RunId) -> Result<(), StoreError> {
    let env = &planner.env;
    telemetry::about(run, None, None);
    match env.store.advance(run).await? {
        Advance::Gone => env.store.settle(run).await,
        Advance::Live { next_look, plan, dispatch, summary } => {
            env.metrics.looked(plan || dispatch || summary);
            if plan {
                // Planning takes its time: it belongs to a message, which is bounded and comes back if this process dies.
                relay::objective(env, run).await?;
            }
            let trace = if dispatch || summary { relay::trace(env, run).await? } else { None };
            let trace = trace.as_deref();
            if dispatch {
                dispatch::dispatch(planner, trace, run, &env.ids.unique()).await?;
            }
            if summary {
                relay::completion(env, trace, run, 1).await;
            }
            env.store.looked(run, next_look).await
        }
    }
}
