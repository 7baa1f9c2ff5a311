//! Gauges over everything that goes on, measured by one process for all: what no single service can know.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::time::Instant;

use super::{Gauges, add};
use crate::broker::QueueLook;
use crate::message::Queue;
use crate::run::RunStatus;

/// What one look at everything has found.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// Live runs by status; `None`: beyond those that were looked at.
    pub live: BTreeMap<Option<RunStatus>, u64>,
    /// Runs in which nothing happens although nobody is waited for.
    pub stuck: u64,
    /// How long the oldest message that nobody has claimed has waited.
    pub backlog: Duration,
    /// By how much the earliest wake-up is late.
    pub late: Duration,
    /// How the queues stand.
    pub queues: Vec<(Queue, QueueLook)>,
    /// Dead letters that are kept for people.
    pub dead_letters: u64,
}

/// The gauges of the last census. A cheap handle.
#[derive(Debug, Clone)]
pub struct Fleet {
    live: Gauges<1>,
    stuck: Gauge,
    backlog: Gauge<f64, AtomicU64>,
    late: Gauge<f64, AtomicU64>,
    ready: Gauges<1>,
    consumers: Gauges<1>,
    dead_letters: Gauge,
    age: Age,
}

impl Fleet {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let r = registry;
        let age = Age::default();
        r.register_collector(Box::new(age.clone()));
        Self {
            live: add(r, "live_runs", "Runs that have not ended, by status", Gauges::default()),
            stuck: add(r, "stuck_runs", "Runs in which nothing happens although nobody is waited for", Gauge::default()),
            backlog: add(r, "backlog_age_seconds", "Age of the oldest message that nobody has claimed", Gauge::default()),
            late: add(r, "overdue_seconds", "By how much the earliest wake-up of a run is late", Gauge::default()),
            ready: add(r, "queue_messages", "Messages ready for delivery", Gauges::default()),
            consumers: add(r, "queue_consumers", "Consumers of a queue", Gauges::default()),
            dead_letters: add(r, "dead_letters_kept", "Dead letters kept for people", Gauge::default()),
            age,
        }
    }

    /// Shows what a census has found, and from now on how old that is.
    pub fn show(&self, census: &Census) {
        let live = RunStatus::ALL.into_iter().filter(|status| !status.is_final()).map(Some);
        for status in live.chain([None]) {
            let label = status.map_or("not_looked_at", RunStatus::as_str);
            self.live.get_or_create(&[("status", label)]).set(gauge(census.live.get(&status).copied().unwrap_or(0)));
        }
        self.stuck.set(gauge(census.stuck));
        self.backlog.set(census.backlog.as_secs_f64());
        self.late.set(census.late.as_secs_f64());
        for (queue, look) in &census.queues {
            self.ready.get_or_create(&[("queue", queue.role())]).set(gauge(look.ready));
            self.consumers.get_or_create(&[("queue", queue.role())]).set(gauge(look.consumers));
        }
        self.dead_letters.set(gauge(census.dead_letters));
        *self.age.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

fn gauge(count: u64) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// How old the census is, at the moment of the scrape; nothing before the first one.
#[derive(Debug, Clone, Default)]
struct Age(Arc<Mutex<Option<Instant>>>);

impl Collector for Age {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(at) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        let age = ConstGauge::new(at.elapsed().as_secs_f64());
        age.encode(encoder.encode_descriptor(
            "census_age_seconds",
            "Age of the gauges over everything",
            None,
            age.metric_type(),
        )?)
    }
}
