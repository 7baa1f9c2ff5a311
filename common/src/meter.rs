//! What a run may still spend: asked before every call of a model or a tool, settled with the next thing that is recorded.
//!
//! Reservation and settlement are store operations (`reserve`; the account of every other verb), so that executors side by side
//! cannot spend more than what was reserved when the limit was reached.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Price;
use crate::env::Env;
use crate::id::{RunId, Slot};
use crate::limits::REPLY_TOKENS_ESTIMATE;
use crate::recorded;
use crate::run::{Budget, Usage};
use crate::store::{Reserved, StoreError};

/// What calls take, or are expected to take at the most.
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

impl Need {
    /// One call of a tool.
    pub const TOOL_CALL: Need = Need { model_calls: 0, tool_calls: 1, tokens: 0, cost_nanos: 0 };

    /// The need as usage that nobody has counted.
    pub fn estimated(self) -> Usage {
        let Need { model_calls, tool_calls, tokens, cost_nanos } = self;
        Usage { model_calls, tool_calls, input_tokens: tokens, output_tokens: 0, estimated: true, cost_nanos }
    }
}

impl From<Usage> for Need {
    fn from(usage: Usage) -> Self {
        let Usage { model_calls, tool_calls, input_tokens, output_tokens, estimated: _, cost_nanos } = usage;
        Self { model_calls, tool_calls, tokens: input_tokens + output_tokens, cost_nanos }
    }
}

impl std::ops::AddAssign for Need {
    fn add_assign(&mut self, more: Self) {
        self.model_calls += more.model_calls;
        self.tool_calls += more.tool_calls;
        self.tokens += more.tokens;
        self.cost_nanos += more.cost_nanos;
    }
}

/// Who pays for calls. A cheap handle.
#[derive(Debug, Clone)]
pub enum Meter {
    /// Nothing is limited, and no round trip is spent on it.
    Free,
    /// A run with a budget, for the holder of one of its slots.
    Run(Arc<Tab>),
}

/// What the holder of a slot has reserved.
#[derive(Debug)]
pub struct Tab {
    env: Env,
    run: RunId,
    slot: Slot,
    epoch: u64,
    budget: Budget,
    /// Reservations so far under this claim: a repeated one is told apart from the next.
    count: AtomicU64,
    /// What is reserved for a call that has not come back.
    pending: Mutex<Option<Need>>,
}

/// Why a call may not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Not now: what is left is reserved by other calls, which may give some of it back.
    #[error("other calls of the run have reserved the rest of its {0}")]
    Busy(String),
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
    /// The meter of a slot in hand; free where the run has no budget.
    pub fn of(env: &Env, run: &RunId, slot: Slot, epoch: u64, budget: Budget) -> Self {
        if !budget.is_limited() {
            return Meter::Free;
        }
        let (count, pending) = (AtomicU64::default(), Mutex::default());
        Meter::Run(Arc::new(Tab { env: env.clone(), run: run.clone(), slot, epoch, budget, count, pending }))
    }

    /// Reserves what the holder has used since it last recorded something, and the next call at the most. Waits for a store that does
    /// not answer: a call that is not counted may not be made.
    pub async fn reserve(&self, need: &Need) -> Result<(), Denied> {
        let Meter::Run(tab) = self else { return Ok(()) };
        let number = tab.count.fetch_add(1, Ordering::Relaxed);
        let env = &tab.env;
        match recorded!(env, env.store.reserve(&tab.run, tab.slot, tab.epoch, number, need))? {
            Reserved::Granted => {
                *tab.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(*need);
                Ok(())
            }
            Reserved::Busy { what } => Err(Denied::Busy(what)),
            Reserved::Exhausted { what } => Err(Denied::Exhausted(what)),
            Reserved::Lost => Err(Denied::Lost),
        }
    }

    /// The call has come back; what it took is for the caller to count.
    pub fn came_back(&self) {
        let _counted_by_the_caller = self.unanswered();
    }

    /// What is reserved for a call that was dropped: nobody knows what it took.
    pub fn unanswered(&self) -> Option<Need> {
        match self {
            Meter::Free => None,
            Meter::Run(tab) => tab.pending.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }

    /// Whether calls are counted at all.
    pub fn is_limited(&self) -> bool {
        matches!(self, Meter::Run(_))
    }

    /// Most tokens of one reply: what the caller would allow, but no more than an eighth of what the run may spend in all, so that steps side by
    /// side have room, and a reservation is what the call can take at the most.
    pub fn reply_tokens_max(&self, allowed: u64, price: Option<Price>) -> u64 {
        let Meter::Run(tab) = self else { return allowed };
        let by_cost = tab.budget.cost_nanos.zip(price).filter(|(_, price)| price.output_nanos > 0).map(|(most, price)| {
            u64::try_from(u128::from(most) * 1_000_000 / u128::from(price.output_nanos)).unwrap_or(u64::MAX)
        });
        let most = [tab.budget.tokens, by_cost].into_iter().flatten().min();
        most.map_or(allowed, |most| allowed.min((most / 8).max(REPLY_TOKENS_ESTIMATE)))
    }
}
