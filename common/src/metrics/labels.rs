//! The labels of metrics: closed, so that every metric has few values.

use crate::store::Again;

/// The name of a model's purpose, as it stands in the audit trail too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A first plan.
    Plan,
    /// What becomes of a plan.
    Replan,
    /// A move within a step.
    Act,
    /// The final answer.
    Answer,
}

impl Purpose {
    /// The name as it stands in labels and in the audit trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Plan => "plan",
            Purpose::Replan => "replan",
            Purpose::Act => "act",
            Purpose::Answer => "answer",
        }
    }
}

/// What became of a plan slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanKind {
    /// The run's first plan.
    First,
    /// A later revision.
    Revision,
    /// The plan stays as it is.
    Kept,
}

impl PlanKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            PlanKind::First => "first",
            PlanKind::Revision => "revision",
            PlanKind::Kept => "kept",
        }
    }
}

/// How an attempt of a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// With the step's outcome.
    Reported,
    /// With another attempt to come.
    Retried,
    /// The endpoint asks for patience.
    RateLimited,
    /// The process stops; the step goes on elsewhere.
    Released,
    /// Somebody else has the step, or nobody wants it any more.
    Lost,
}

impl AttemptEnd {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            AttemptEnd::Reported => "reported",
            AttemptEnd::Retried => "retried",
            AttemptEnd::RateLimited => "rate_limited",
            AttemptEnd::Released => "released",
            AttemptEnd::Lost => "lost",
        }
    }
}

impl From<&Again> for AttemptEnd {
    fn from(again: &Again) -> Self {
        match again {
            Again::Retry | Again::Anew(_) => AttemptEnd::Retried,
            Again::Park => AttemptEnd::RateLimited,
        }
    }
}

/// What became of a message in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Acknowledged.
    Done,
    /// A dead letter.
    Parked,
    /// Handled again, in this process.
    Retried,
    /// Given back to the broker.
    Returned,
}

impl Settled {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Settled::Done => "done",
            Settled::Parked => "parked",
            Settled::Retried => "retried",
            Settled::Returned => "returned",
        }
    }
}

/// A server that connections are made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// RabbitMQ.
    Broker,
    /// Redis.
    Store,
}

impl Server {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Server::Broker => "broker",
            Server::Store => "store",
        }
    }
}
