//! The end of a run, whoever brings it about: document, final status, audit entry, time to live, reply.

use std::time::Duration;

use serde_json::json;
use tracing::{debug, info};

use crate::document::{Ending, document};
use crate::env::Env;
use crate::event::{EventDraft, EventType};
use crate::id::{RunId, Slot};
use crate::recorded;
use crate::relay;
use crate::store::{Account, Finish, Held, Snapshot, StoreError};

/// Ends the run as the holder of a slot (the plan or the summary, with its epoch), keeps it for `retention`, and replies to whoever
/// asked for that. Changes nothing when the slot is lost or the run has ended. Usage and time of `ending` are filled in here.
pub async fn end_run(
    env: &Env,
    run: &RunId,
    (slot, epoch): (Slot, u64),
    snapshot: &Snapshot,
    ending: Ending,
    mut account: Account,
    retention: Duration,
) -> Result<(), StoreError> {
    let error = ending.error.clone();
    let document = document(run, snapshot, Ending { usage: account.usage, now_ms: env.clock.now_ms(), ..ending });
    let status = document.status;
    let text = serde_json::to_string(&document).unwrap_or_default();
    account.events.push(EventDraft::new(EventType::RunFinished, json!({"status": status, "error": error})));
    let end = Finish { status, error: error.clone(), document: text.clone(), retention };
    if recorded!(env, env.store.finish(run, slot, epoch, &end, &account))? == Held::Kept {
        env.metrics.run_ended(status, Duration::from_millis(document.duration_ms));
        info!(status = status.as_str(), "run {run}: {}", status.as_str());
        if let Some(error) = error {
            // It may quote what a model wrote.
            debug!("run {run}: {error}");
        }
        env.traces.run_ended(run, snapshot, &document);
        relay::reply(env, run, snapshot, text).await;
    }
    Ok(())
}
