//! Dispatch: publish every step that is ready, up to the run's window, and ask for the plan where it is owed.

use common::id::RunId;
use common::recorded;
use common::relay::{self, Trace};
use common::store::StoreError;
use tracing::debug;

use crate::Planner;

/// Takes what is ready under `token` and publishes it. The same token again gets its own unclaimed steps again, so a planner
/// that died before the last confirm loses none.
pub async fn dispatch(planner: &Planner, trace: Trace<'_>, run: &RunId, token: &str) -> Result<(), StoreError> {
    let env = &planner.env;
    let taken = recorded!(env, env.store.take_ready(run, token))?;
    if !taken.steps.is_empty() {
        debug!(steps = taken.steps.len(), "run {run}: dispatching {} steps", taken.steps.len());
        let steps = taken.steps.len();
        relay::steps(env, trace, run, taken.steps).await;
        env.metrics.dispatched(steps);
    }
    if taken.plan {
        // Planning takes its time: it belongs to a message of its own, so that dispatch never waits for a model.
        relay::objective(env, run).await?;
    }
    Ok(())
}
