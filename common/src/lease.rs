//! Working under a lease: renewed at a third of its length, given up when it is lost or the work is no longer wanted, given back
//! when the process stops.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::env::Env;
use crate::id::{RunId, Slot};
use crate::limits::{HANDLE_BACKOFF_MAX, HOLD_POLL, RETRY_BACKOFF_MIN};
use crate::store::{Held, StoreError};

/// The stop signal, and how long running work may go on after it.
#[derive(Debug, Clone)]
pub struct Drain {
    /// Cancelled when the process is to stop.
    pub stop: CancellationToken,
    /// How long running work may go on then.
    pub grace: Duration,
}

impl Drain {
    /// Returns when running work must end now.
    pub async fn over(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(self.grace).await;
    }
}

/// How work under a lease ended.
#[derive(Debug)]
pub enum Ended<T> {
    /// It came to its end; the lease is still held.
    Done(T),
    /// The slot is somebody else's now, or the run has ended. The work was dropped.
    Lost,
    /// The process stops. The work was dropped and the slot given back; the message should come back to somebody.
    Released,
}

/// Does `work` while renewing the lease on `slot`.
pub async fn hold<T>(
    env: &Env,
    run: &RunId,
    slot: Slot,
    epoch: u64,
    lease: Duration,
    drain: &Drain,
    work: impl Future<Output = T>,
) -> Ended<T> {
    tokio::select! {
        biased;
        done = work => Ended::Done(done),
        () = lost(env, run, slot, epoch, lease) => {
            debug!(slot = %slot, epoch, "run {run} slot {slot}: lease lost, work dropped");
            // If the broker gave the message to somebody else because a connection broke, that counts as no death: this process lives.
            let _uncounted_or_not = env.store.release(run, slot, epoch).await;
            Ended::Lost
        }
        () = drain.over() => {
            // Without an answer the lease runs out by itself.
            let _released = env.store.release(run, slot, epoch).await;
            Ended::Released
        }
    }
}

/// Asks for the lease until it is lost: often, so that work nobody wants any more stops soon; the store renews it when a third of it
/// has passed. A store that does not answer loses nothing: it decides when it is back.
async fn lost(env: &Env, run: &RunId, slot: Slot, epoch: u64, lease: Duration) {
    loop {
        tokio::time::sleep(HOLD_POLL.min(lease / 3)).await;
        match env.store.renew(run, slot, epoch, lease).await {
            Ok(Held::Kept) => {}
            // A newer release has taken the run over.
            Ok(Held::Lost | Held::Ended) | Err(StoreError::Newer { .. }) => return,
            Err(error @ (StoreError::Unreachable(_) | StoreError::Unusable(_))) => {
                warn!(slot = %slot, "run {run} slot {slot}: lease not renewed: {error}")
            }
        }
    }
}

/// Repeats a verb until the store answers: what was done must be recorded, and every verb may be repeated.
///
/// Ends only with an answer; an unusable one is the error. (A macro, because an async closure that borrows is not `Send` yet.)
#[macro_export]
macro_rules! recorded {
    ($env:expr, $verb:expr) => {{
        let mut tries = 0u32;
        loop {
            match $verb.await {
                Err($crate::store::StoreError::Unreachable(why)) => $crate::lease::wait_for_store($env, &mut tries, &why).await,
                answer => break answer,
            }
        }
    }};
}

/// The wait between two tries of [`recorded!`].
pub async fn wait_for_store(env: &Env, tries: &mut u32, why: &str) {
    let wait = crate::broker::backoff(*tries, RETRY_BACKOFF_MIN, HANDLE_BACKOFF_MAX, env.ids.fraction());
    warn!("store does not answer, trying again in {wait:?}: {why}");
    tokio::time::sleep(wait).await;
    *tries += 1;
}
