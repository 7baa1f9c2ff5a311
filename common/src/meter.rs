//! What a run may still spend: asked before every call of a model or a tool, settled with the next thing that is recorded.
//!
//! Reservation and settlement are store operations (`reserve`; the account of every other verb), so that executors side by side
//! cannot spend more than what was reserved when the limit was reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::Env;
use crate::id::{RunId, Slot};
use crate::recorded;
use crate::store::{Reserved, StoreError};

/// What one call is expected to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// Requests to models.
    pub model_calls: u64,
    /// Calls of tools.
    pub tool_calls: u64,
    /// Tokens, read and written.
    pub tokens: u64,
    /// Billionths of the unit of the configured prices.
    pub cost_nanos: u64,
}

/// Who pays for calls.
#[derive(Debug, Clone)]
pub enum Meter {
    /// Nothing is limited, and no round trip is spent on it.
    Free,
    /// A run with a budget, for the holder of one of its slots.
    Run {
        /// The world.
        env: Box<Env>,
        /// The run.
        run: RunId,
        /// The slot.
        slot: Slot,
        /// The epoch under which it is held.
        epoch: u64,
        /// Reservations so far under this claim: a repeated one is told apart from the next.
        count: Arc<AtomicU64>,
    },
}

/// Why a call may not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The budget is used up; the run ends with what there is.
    #[error("{0}")]
    Exhausted(String),
    /// The slot is somebody else's, or the run has ended.
    #[error("the work is somebody else's now, or no longer wanted")]
    Lost,
    /// The store gave no usable answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Meter {
    /// The meter of a slot in hand; free where the run has no budget (`limited`).
    pub fn of(env: &Env, run: &RunId, slot: Slot, epoch: u64, limited: bool) -> Self {
        match limited {
            true => Meter::Run { env: Box::new(env.clone()), run: run.clone(), slot, epoch, count: Arc::default() },
            false => Meter::Free,
        }
    }

    /// Reserves what a call needs. Waits for a store that does not answer: a call that is not counted may not be made.
    pub async fn reserve(&self, need: &Need) -> Result<(), Denied> {
        match self {
            Meter::Free => Ok(()),
            Meter::Run { env, run, slot, epoch, count } => {
                let number = count.fetch_add(1, Ordering::Relaxed);
                match recorded!(env, env.store.reserve(run, *slot, *epoch, number, need))? {
                    Reserved::Granted => Ok(()),
                    Reserved::Exhausted { what } => Err(Denied::Exhausted(what)),
                    Reserved::Lost => Err(Denied::Lost),
                }
            }
        }
    }
}
