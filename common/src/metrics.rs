//! What a process counts and measures of its work, for Prometheus. No globals: one [`Metrics`] per process, in its [`crate::env::Env`].
//!
//! Every label has few values: closed enums, the tools that exist, and at most [`METRIC_MODELS_MAX`] names of models, since an endpoint may
//! answer with any name. Run ids are never labels. `deploy/monitoring.md` lists all of it and says what to look at,
//! `deploy/prometheus/rules.yaml` what to be woken up for; tests hold both against what is registered here.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::id::Slot;
use crate::limits::METRIC_MODELS_MAX;
use crate::llm::{Failed, LlmError, ModelCall, Reply};
use crate::message::Queue;
use crate::run::{Outcome, RunStatus, StepRecord};
use crate::store::Claimed;
use crate::tool;

mod fleet;
mod labels;

pub use fleet::{Census, Fleet};
pub use labels::{AttemptEnd, PlanKind, Purpose, Server, Settled};

/// Upper bounds of latency buckets, in seconds: from a tool call in memory to the longest step.
const SECONDS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type ModelLabels<const N: usize> = [(&'static str, String); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Histograms<L> = Family<L, Histogram, Buckets>;

/// Makes a latency histogram.
#[derive(Debug, Clone, Copy)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

/// What this process counts. A cheap handle: clones share everything.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    registry: Registry,
    models: Mutex<BTreeSet<String>>,
    runs_opened: Counter,
    runs_ended: Counters<1>,
    run_duration: Histograms<Labels<1>>,
    plans: Counters<1>,
    steps_dispatched: Counter,
    steps: Counters<2>,
    step_attempts: Counters<1>,
    step_duration: Histograms<Labels<1>>,
    tool_calls: Counters<2>,
    queue_wait: Histograms<Labels<1>>,
    handle: Histograms<Labels<1>>,
    messages: Counters<2>,
    in_hand: Gauges<1>,
    consuming: Gauges<1>,
    model_requests: Family<ModelLabels<3>, Counter>,
    model_duration: Histograms<ModelLabels<2>>,
    model_tokens: Family<ModelLabels<3>, Counter>,
    model_cost: Family<ModelLabels<2>, Counter<f64, std::sync::atomic::AtomicU64>>,
    claims: Counters<2>,
    wakeups: Counters<1>,
    reconnects: Counters<1>,
    publish_retries: Counter,
    dead_letters: Counters<1>,
}

impl Metrics {
    /// Nothing counted yet. `service` is what this process is: `planner`, `executor`, …
    pub fn new(service: &str) -> Self {
        Self::build(service, |_registry| ()).0
    }

    /// The same, with what only one process of a fleet measures.
    pub fn with_fleet(service: &str) -> (Self, Fleet) {
        Self::build(service, Fleet::register)
    }

    fn build<T>(service: &str, more: impl FnOnce(&mut Registry) -> T) -> (Self, T) {
        let mut registry = Registry::with_prefix("planrelay");
        let r = &mut registry;
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("service", service.to_owned())];
        r.register("build", "What runs here", Info::new(version.to_vec()));
        let latency = || Family::new_with_constructor(Buckets);
        let families = Families {
            runs_opened: add(r, "runs_opened", "Runs opened", Counter::default()),
            runs_ended: add(r, "runs_ended", "Runs ended, by status", Family::default()),
            run_duration: add(r, "run_duration_seconds", "From the opening of a run to its end", latency()),
            plans: add(r, "plans", "Plans stored (first, revision) or kept as they are", Family::default()),
            steps_dispatched: add(r, "steps_dispatched", "Step messages published", Counter::default()),
            steps: add(r, "steps", "Steps that ran to their end, by outcome and tool", Family::default()),
            step_attempts: add(r, "step_attempts", "Attempts of steps, by how they ended", Family::default()),
            step_duration: add(r, "step_duration_seconds", "The last attempt of a step, by tool", latency()),
            tool_calls: add(r, "tool_calls", "Calls of tools", Family::default()),
            queue_wait: add(r, "queue_wait_seconds", "From publication to first delivery", latency()),
            handle: add(r, "handle_seconds", "From delivery to acknowledgement", latency()),
            messages: add(r, "messages", "Messages taken, by what became of them", Family::default()),
            in_hand: add(r, "messages_in_hand", "Messages being handled", Family::default()),
            consuming: add(r, "consuming", "Whether the broker delivers from the queue to this process", Family::default()),
            model_requests: add(r, "model_requests", "Requests to models", Family::default()),
            model_duration: add(
                r,
                "model_duration_seconds",
                "Answered requests to models",
                Family::new_with_constructor(Buckets),
            ),
            model_tokens: add(r, "model_tokens", "Tokens read (input) and written (output) by models", Family::default()),
            model_cost: add(r, "model_cost_dollars", "What requests cost, where the price is known", Family::default()),
            claims: add(r, "claims", "Claims of slots; all but those answered with execute are refused", Family::default()),
            wakeups: add(r, "wakeups", "Looks at runs whose time had come, by what was found", Family::default()),
            reconnects: add(r, "reconnects", "Connections made again after they were lost", Family::default()),
            publish_retries: add(r, "publish_retries", "Publications repeated for want of a confirm", Counter::default()),
            dead_letters: add(r, "dead_letters", "Dead letters, by the queue they come from", Family::default()),
            models: Mutex::default(),
            registry: Registry::default(),
        };
        let more = more(&mut registry);
        let metrics = Self(Arc::new(Families { registry, ..families }));
        metrics.begin();
        (metrics, more)
    }

    /// Whatever an alert looks for is there from the beginning, as zero: a counter that appears with its first value shows no increase.
    fn begin(&self) {
        for queue in Queue::ALL {
            let label = if queue == Queue::Dead { "unknown" } else { queue.role() };
            self.0.dead_letters.get_or_create(&[("queue", label)]).inc_by(0);
        }
        for server in [Server::Broker, Server::Store] {
            self.0.reconnects.get_or_create(&[("server", server.as_str())]).inc_by(0);
        }
        for status in [RunStatus::Succeeded, RunStatus::Partial, RunStatus::Failed, RunStatus::Cancelled] {
            self.0.runs_ended.get_or_create(&[("status", status.as_str())]).inc_by(0);
        }
    }

    /// Everything, in the text format of OpenMetrics.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // A String takes whatever is written to it.
        let _always_ok = encode(&mut text, &self.0.registry);
        text
    }

    /// A run was opened.
    pub fn run_opened(&self) {
        self.0.runs_opened.inc();
    }

    /// A run has ended.
    pub fn run_ended(&self, status: RunStatus, duration: Duration) {
        let labels = [("status", status.as_str())];
        self.0.runs_ended.get_or_create(&labels).inc();
        self.0.run_duration.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// A plan was stored or kept.
    pub fn planned(&self, kind: PlanKind) {
        self.0.plans.get_or_create(&[("kind", kind.as_str())]).inc();
    }

    /// So many step messages were published.
    pub fn dispatched(&self, steps: usize) {
        self.0.steps_dispatched.inc_by(steps as u64);
    }

    /// An attempt of a step has ended.
    pub fn attempted(&self, end: AttemptEnd) {
        self.0.step_attempts.get_or_create(&[("end", end.as_str())]).inc();
    }

    /// A step's outcome was recorded.
    pub fn step_ended(&self, record: &StepRecord) {
        let tool = record.tool.as_deref().map_or("none", tool_label);
        self.0.steps.get_or_create(&[("outcome", record.outcome.as_str()), ("tool", tool)]).inc();
        let seconds = Duration::from_millis(record.duration_ms).as_secs_f64();
        self.0.step_duration.get_or_create(&[("tool", tool)]).observe(seconds);
        debug_assert!(record.outcome != Outcome::Skipped, "only a step that ran is reported");
    }

    /// A tool was called.
    pub fn tool_called(&self, tool: &str, ok: bool) {
        let outcome = if ok { "ok" } else { "error" };
        self.0.tool_calls.get_or_create(&[("tool", tool_label(tool)), ("outcome", outcome)]).inc();
    }

    /// A message was delivered for the first time, so long after it was published.
    pub fn waited(&self, queue: Queue, wait: Duration) {
        self.0.queue_wait.get_or_create(&[("queue", queue.role())]).observe(wait.as_secs_f64());
    }

    /// A message is in hand (`1`) or not any more (`-1`).
    pub fn in_hand(&self, queue: Queue, change: i64) {
        self.0.in_hand.get_or_create(&[("queue", queue.role())]).inc_by(change);
    }

    /// What became of a message.
    pub fn settled(&self, queue: Queue, settled: Settled) {
        self.0.messages.get_or_create(&[("queue", queue.role()), ("outcome", settled.as_str())]).inc();
    }

    /// A message was handled in so long.
    pub fn handled(&self, queue: Queue, duration: Duration) {
        self.0.handle.get_or_create(&[("queue", queue.role())]).observe(duration.as_secs_f64());
    }

    /// Whether the broker delivers from the queue to this process now.
    pub fn is_consuming(&self, queue: Queue) -> bool {
        self.0.consuming.get_or_create(&[("queue", queue.role())]).get() == 1
    }

    /// The broker begins or ends to deliver from the queue.
    pub fn consuming(&self, queue: Queue, consuming: bool) {
        self.0.consuming.get_or_create(&[("queue", queue.role())]).set(i64::from(consuming));
    }

    /// A model was asked. `name` is what it is called when nothing in the reply tells better.
    pub fn asked<T>(&self, purpose: Purpose, name: &str, answered: &Result<Reply<T>, Failed>) {
        let (calls, error) = match answered {
            Ok(reply) => (&reply.calls, None),
            Err(failed) => (&failed.calls, Some(&failed.error)),
        };
        for call in calls {
            self.answered(purpose, call);
        }
        if let Some(error) = error {
            let outcome = match error {
                LlmError::Transient(_) => "transient",
                LlmError::RateLimited { .. } => "rate_limited",
                LlmError::Exhausted(_) => "exhausted",
                LlmError::Permanent(_) => "permanent",
            };
            self.requested(purpose, &self.model(name), outcome);
        }
    }

    fn answered(&self, purpose: Purpose, call: &ModelCall) {
        let model = self.model(&call.model);
        self.requested(purpose, &model, "ok");
        let purpose = ("purpose", purpose.as_str().to_owned());
        let labels = [purpose.clone(), ("model", model.clone())];
        self.0.model_duration.get_or_create(&labels).observe(call.duration.as_secs_f64());
        let usage = &call.usage;
        for (direction, tokens) in [("input", usage.input_tokens), ("output", usage.output_tokens)] {
            let labels = [("direction", direction.to_owned()), purpose.clone(), ("model", model.clone())];
            self.0.model_tokens.get_or_create(&labels).inc_by(tokens);
        }
        if usage.cost_nanos > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a cost for people")]
            self.0.model_cost.get_or_create(&labels).inc_by(usage.cost_nanos as f64 / 1e9);
        }
    }

    fn requested(&self, purpose: Purpose, model: &str, outcome: &str) {
        let labels = [("purpose", purpose.as_str().to_owned()), ("model", model.to_owned()), ("outcome", outcome.to_owned())];
        self.0.model_requests.get_or_create(&labels).inc();
    }

    /// A model's name as a label: its own, unless there are too many.
    fn model(&self, name: &str) -> String {
        let mut models = self.0.models.lock().unwrap_or_else(PoisonError::into_inner);
        if models.contains(name) || (models.len() < METRIC_MODELS_MAX && models.insert(name.to_owned())) {
            return name.to_owned();
        }
        "other".to_owned()
    }

    /// A slot was asked for.
    pub fn claimed(&self, slot: Slot, claimed: &Claimed) {
        let slot = match slot {
            Slot::Plan => "plan",
            Slot::Step(_) => "step",
            Slot::Summary => "summary",
        };
        let answer = match claimed {
            Claimed::Execute(_) => "execute",
            Claimed::Poisoned(_) => "poisoned",
            Claimed::Done { .. } => "done",
            Claimed::Duplicate { .. } => "duplicate",
            Claimed::Stale { .. } => "stale",
            Claimed::Finished(_) => "finished",
        };
        self.0.claims.get_or_create(&[("slot", slot), ("answer", answer)]).inc();
    }

    /// A run whose time had come was looked at.
    pub fn looked(&self, owed: bool) {
        self.0.wakeups.get_or_create(&[("found", if owed { "owed" } else { "nothing" })]).inc();
    }

    /// A connection was made again after it was lost.
    pub fn reconnected(&self, server: Server) {
        self.0.reconnects.get_or_create(&[("server", server.as_str())]).inc();
    }

    /// A publication is repeated.
    pub fn publishing_again(&self) {
        self.0.publish_retries.inc();
    }

    /// A dead letter came from `queue`; `None`: from one that is not ours.
    pub fn dead_letter(&self, queue: Option<Queue>) {
        let queue = queue.filter(|queue| *queue != Queue::Dead).map_or("unknown", Queue::role);
        self.0.dead_letters.get_or_create(&[("queue", queue)]).inc();
    }
}

/// Registers a metric and gives it back.
fn add<M: prometheus_client::registry::Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// A tool's name as a label: models make up names of tools, too.
fn tool_label(name: &str) -> &'static str {
    tool::NAMES.into_iter().find(|known| *known == name).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Usage;

    fn reply(model: &str) -> Result<Reply<()>, Failed> {
        let usage = Usage { model_calls: 1, input_tokens: 7, output_tokens: 3, cost_nanos: 2_000_000, ..Usage::default() };
        let call = ModelCall { model: model.to_owned(), rung: "text", usage, duration: Duration::from_millis(20) };
        Ok(Reply { value: (), calls: vec![call] })
    }

    fn value(metrics: &Metrics, sample: &str) -> Option<f64> {
        let text = metrics.text();
        text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
    }

    #[test]
    fn an_endpoint_that_makes_up_names_does_not_flood_the_labels() {
        let metrics = Metrics::new("test");
        for n in 0..100 {
            metrics.asked(Purpose::Act, "configured", &reply(&format!("model-{n}")));
        }
        let models = metrics.text().lines().filter(|line| line.starts_with("planrelay_model_requests_total{")).count();
        assert_eq!(models, METRIC_MODELS_MAX + 1);
        let other = "planrelay_model_requests_total{purpose=\"act\",model=\"other\",outcome=\"ok\"}";
        assert_eq!(value(&metrics, other), Some(84.0));
    }

    #[test]
    fn a_request_counts_with_what_it_took() {
        let metrics = Metrics::new("test");
        metrics.asked(Purpose::Plan, "configured", &reply("m"));
        let failed = Failed { error: LlmError::Transient("x".to_owned()), calls: Vec::new() };
        metrics.asked::<()>(Purpose::Plan, "configured", &Err(failed));
        for (sample, expected) in [
            ("planrelay_model_tokens_total{direction=\"input\",purpose=\"plan\",model=\"m\"}", 7.0),
            ("planrelay_model_cost_dollars_total{purpose=\"plan\",model=\"m\"}", 0.002),
            ("planrelay_model_duration_seconds_sum{purpose=\"plan\",model=\"m\"}", 0.02),
            ("planrelay_model_requests_total{purpose=\"plan\",model=\"configured\",outcome=\"transient\"}", 1.0),
            ("planrelay_build_info{version=\"0.1.0\",service=\"test\"}", 1.0),
        ] {
            assert_eq!(value(&metrics, sample), Some(expected), "{sample}");
        }
    }

    #[test]
    fn tools_that_models_make_up_have_one_label() {
        assert_eq!(["search", "rm -rf", ""].map(tool_label), ["search", "other", "other"]);
        assert_eq!(tool::builtin(true).iter().map(|tool| tool.name).collect::<BTreeSet<_>>(), BTreeSet::from(tool::NAMES));
    }
}
