//! Everything that touches the world, handed to the services as one argument: what makes simulation possible.

use std::sync::Arc;

use crate::broker::Broker;
use crate::clock::Clock;
use crate::ids::Ids;
use crate::llm::Llm;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::telemetry::Traces;

/// The world as a service sees it. A cheap handle.
#[derive(Debug, Clone)]
pub struct Env {
    /// What time it is.
    pub clock: Clock,
    /// Where ids and jitter come from.
    pub ids: Ids,
    /// The message broker.
    pub broker: Broker,
    /// The store.
    pub store: Store,
    /// The model.
    pub llm: Llm,
    /// What is counted for people who watch.
    pub metrics: Metrics,
    /// Where spans go.
    pub traces: Traces,
    /// The name of this process in claims and events: `<service>-<random>`.
    pub worker: Arc<str>,
}
