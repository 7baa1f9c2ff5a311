//! Wake-ups: every planner looks at live runs whose time has come and does what they owe. One mechanism for back-off, rate
//! limits, expired leases, and messages that were lost.

use common::id::RunId;
use common::limits::{RETURN_WAIT_MAX, SWEEP_INTERVAL, SWEEP_RUNS_MAX, WAKEUP_INTERVAL_MAX, WAKEUP_POLL, WAKEUPS_PER_POLL_MAX};
use common::relay;
use common::store::{Advance, StoreError};
use common::telemetry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{Planner, dispatch};

/// Looks for due runs until `stop`, and now and then for runs whose wake-up has been lost.
pub async fn poll(planner: &Planner, stop: CancellationToken) {
    let (mut sweep_at, mut offset, mut newer) = (Instant::now() + SWEEP_INTERVAL, 0, false);
    loop {
        // Replicas should not look all at the same moment.
        let pause = WAKEUP_POLL.mul_f64(0.5 + planner.env.ids.fraction());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        // A run in hand is seen to the end, within the grace: a step that was taken and not published would wait to be missed. The others are
        // due again soon.
        let woken = tokio::select! {
            biased;
            woken = wake_due(planner, &stop, &mut newer) => woken,
            () = planner.drain.over() => return,
        };
        if let Err(error) = woken {
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
    for line in lines.iter().filter(|line| !line.status.is_final() && line.newer_schema.is_none()) {
        store.wake(&line.run_id, WAKEUP_INTERVAL_MAX).await?;
    }
    Ok(if lines.is_empty() { 0 } else { offset + SWEEP_RUNS_MAX })
}

/// `newer`: whether a run of a newer release has been met, and said so.
async fn wake_due(planner: &Planner, stop: &CancellationToken, newer: &mut bool) -> Result<(), StoreError> {
    for run in planner.env.store.due(WAKEUPS_PER_POLL_MAX).await? {
        if stop.is_cancelled() {
            return Ok(());
        }
        match telemetry::work(advance(planner, &run)).await {
            Ok(()) => {}
            Err(error @ StoreError::Newer { .. }) => {
                if !std::mem::replace(newer, true) {
                    warn!(run_id = %run, "wake-ups of newer runs are left to newer planners: {error}");
                }
                // It was put off for whoever looks at it: that is somebody else.
                planner.env.store.wake(&run, RETURN_WAIT_MAX).await?;
            }
            Err(error @ (StoreError::Unreachable(_) | StoreError::Unusable(_))) => {
                warn!(run_id = %run, "run {run}: not advanced, {error}");
            }
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
