//! Dispatch: publish every step that is ready, up to the run's window.

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
    let ready = recorded!(env, env.store.take_ready(run, token))?;
    if !ready.is_empty() {
        debug!(run_id = %run, steps = ready.len(), "run {run}: dispatching {} steps", ready.len());
        relay::steps(env, trace, run, ready).await;
    }
    Ok(())
}
