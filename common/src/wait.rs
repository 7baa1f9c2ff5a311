//! Why something does not go on: the answer of `planrelay explain`. Pure.

use serde::{Deserialize, Serialize};

use crate::id::StepNumber;

/// What a step, the plan, the answer or the run as a whole waits for. Times in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum Wait {
    /// For the plan, which is being made.
    Plan,
    /// For these steps, which have not ended.
    Steps {
        /// The steps.
        steps: Vec<StepNumber>,
    },
    /// For the planner's decision after these steps, which have ended.
    Replan {
        /// The steps.
        after: Vec<StepNumber>,
    },
    /// For one of the run's steps in flight to end.
    Window {
        /// Steps in flight.
        in_flight: u64,
        /// Most steps of the run in flight at once.
        window: u64,
    },
    /// It is ready; a planner publishes it with the next report, or at its next look at the latest.
    Dispatch {
        /// Ready since then.
        since_ms: u64,
    },
    /// For its next attempt, after a failure.
    Retry {
        /// The attempt it will be.
        attempt: u32,
        /// When it may start.
        at_ms: u64,
    },
    /// For a rate limit to pass.
    RateLimit {
        /// When it is over.
        at_ms: u64,
    },
    /// Its message is published, and nobody has claimed it yet.
    Claim {
        /// Published then.
        since_ms: u64,
        /// Published again then.
        again_at_ms: u64,
    },
    /// Somebody works on it.
    Running {
        /// Who.
        worker: String,
        /// Since when.
        since_ms: u64,
        /// How long its lease holds; it is renewed while the work goes on.
        lease_until_ms: u64,
    },
    /// For somebody to resume the run.
    Resume {
        /// Who paused it.
        by: String,
    },
    /// For somebody to approve the plan.
    Approval {
        /// What is done then, if nobody has decided.
        otherwise: String,
        /// When.
        until_ms: u64,
    },
}
