//! What can be asked of Prometheus: the services' own metrics, read from the text that they answer at `/metrics`, and a few of others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::broker::QueueLook;
use common::id::{Slot, StepNumber};
use common::llm::{Failed, LlmError, ModelCall, Reply};
use common::message::Queue;
use common::metrics::{AttemptEnd, Census, Metrics, PlanKind, Purpose, Server, Settled};
use common::run::{Budget, Outcome, RunStatus, StepRecord, StepState, Usage};
use common::store::{Claim, Claimed, Owed};
use common::tool;

use super::expression::{Matcher, named};
use super::text;

/// Labels that Prometheus gives to every target.
const TARGET: [&str; 2] = ["job", "instance"];

/// Of others: Prometheus itself, and RabbitMQ's plugin (its list: deps/rabbitmq_prometheus/metrics.md of rabbitmq/rabbitmq-server).
const OTHERS: &str = r#"
up 1
ALERTS{alertname="*",alertstate="firing",severity="*"} 1
rabbitmq_alarms_memory_used_watermark 0
rabbitmq_alarms_free_disk_space_watermark 0
"#;

/// Every metric, with its labels and their values.
pub(super) struct Exposed(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Exposed {
    /// Everything, each label with every value of a closed set.
    pub(super) fn all() -> Self {
        let mut exposed = Self(BTreeMap::new());
        for text in [services(), fleet(), OTHERS.to_owned()] {
            text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).for_each(|line| exposed.sample(line));
        }
        exposed
    }

    /// `name{label="value",…} 1`
    fn sample(&mut self, line: &str) {
        let (series, _value) = line.rsplit_once(' ').expect("a sample");
        let sample = named(series);
        let [(name, labels)] = sample.metrics.try_into().expect("one metric");
        let known = self.0.entry(name).or_default();
        for Matcher { label, value, .. } in labels {
            known.entry(label).or_default().insert(value);
        }
    }

    /// The first thing in a PromQL expression that nobody exposes.
    pub(super) fn check(&self, expression: &str) -> Result<(), String> {
        let named = named(expression);
        if named.metrics.is_empty() {
            return Err("it names no metric".into());
        }
        let mut usable: BTreeSet<&str> = TARGET.into();
        for (name, matchers) in &named.metrics {
            let labels = self.0.get(name).ok_or_else(|| format!("there is no metric {name}"))?;
            usable.extend(labels.keys().map(String::as_str));
            for matcher in matchers {
                check_matcher(name, labels, matcher)?;
            }
        }
        match named.grouped.iter().find(|label| !usable.contains(label.as_str())) {
            Some(label) => Err(format!("no metric in it has a label {label}")),
            None => Ok(()),
        }
    }
}

fn check_matcher(name: &str, labels: &BTreeMap<String, BTreeSet<String>>, matcher: &Matcher) -> Result<(), String> {
    let Matcher { label, value, .. } = matcher;
    if TARGET.contains(&label.as_str()) {
        return Ok(());
    }
    let values = labels.get(label).ok_or_else(|| format!("{name} has no label {label}"))?;
    let open = values.contains("*") || value.contains(['$', '*', '+']);
    match value.split('|').find(|value| !open && !values.contains(*value)) {
        Some(value) => Err(format!("{label} of {name} is never {value:?}")),
        None => Ok(()),
    }
}

/// The text of a service in which everything has happened.
fn services() -> String {
    let metrics = Metrics::new("*");
    let second = Duration::from_secs(1);
    metrics.run_opened();
    metrics.dispatched(1);
    metrics.publishing_again();
    for status in RunStatus::ALL.into_iter().filter(|status| status.is_final()) {
        metrics.run_ended(status, second);
    }
    [PlanKind::First, PlanKind::Revision, PlanKind::Kept].into_iter().for_each(|kind| metrics.planned(kind));
    use AttemptEnd::{Lost, RateLimited, Released, Reported, Retried};
    [Reported, Retried, RateLimited, Released, Lost].into_iter().for_each(|end| metrics.attempted(end));
    for tool in tool::NAMES.into_iter().chain(["no such tool"]) {
        metrics.tool_called(tool, true);
        metrics.tool_called(tool, false);
        step_ended(&metrics, Some(tool));
    }
    step_ended(&metrics, None);
    for queue in Queue::ALL {
        metrics.waited(queue, second);
        metrics.in_hand(queue, 1);
        metrics.handled(queue, second);
        metrics.consuming(queue, true);
        metrics.dead_letter(Some(queue));
        use Settled::{Done, Parked, Retried, Returned};
        [Done, Parked, Retried, Returned].into_iter().for_each(|settled| metrics.settled(queue, settled));
    }
    [Purpose::Plan, Purpose::Replan, Purpose::Act, Purpose::Answer].into_iter().for_each(|purpose| asked(&metrics, purpose));
    [Slot::Plan, Slot::Step(StepNumber(1)), Slot::Summary].into_iter().for_each(|slot| claimed(&metrics, slot));
    [true, false].into_iter().for_each(|owed| metrics.looked(owed));
    [Server::Broker, Server::Store].into_iter().for_each(|server| metrics.reconnected(server));
    metrics.dead_letter(None);
    metrics.text()
}

fn step_ended(metrics: &Metrics, tool: Option<&str>) {
    for outcome in [Outcome::Succeeded, Outcome::Failed, Outcome::Cancelled] {
        let record = StepRecord::without_result(outcome, String::new());
        metrics.step_ended(&StepRecord { tool: tool.map(str::to_owned), ..record });
    }
}

fn asked(metrics: &Metrics, purpose: Purpose) {
    let usage = Usage { cost_nanos: 1, ..Usage::default() };
    let call = ModelCall { model: "*".into(), rung: "text", usage, duration: Duration::from_secs(1) };
    metrics.asked(purpose, "*", &Ok(Reply { value: (), calls: vec![call] }));
    let after = Duration::from_secs(1);
    for error in [
        LlmError::Transient(String::new()),
        LlmError::RateLimited { why: String::new(), after },
        LlmError::Exhausted(String::new()),
        LlmError::Permanent(String::new()),
    ] {
        metrics.asked::<()>(purpose, "*", &Err(Failed::from(error)));
    }
}

fn claimed(metrics: &Metrics, slot: Slot) {
    let claim = || {
        let (text, budget) = (String::new(), Budget::default());
        Box::new(Claim { epoch: 1, attempt: 1, parks: 0, text, budget, step: None, journal: Vec::new(), inputs: Vec::new() })
    };
    for answer in [
        Claimed::Execute(claim()),
        Claimed::Poisoned(claim()),
        Claimed::Done { owed: Owed::Nothing, state: StepState::Succeeded },
        Claimed::Duplicate { worker: String::new() },
        Claimed::Stale { why: String::new() },
        Claimed::Finished(RunStatus::Succeeded),
    ] {
        metrics.claimed(slot, &answer);
    }
}

/// What the console adds, from its census of the whole stack.
fn fleet() -> String {
    let (metrics, fleet) = Metrics::with_fleet("*");
    let queues = Queue::ALL.map(|queue| (queue, QueueLook { ready: 0, consumers: 0 }));
    fleet.show(&Census { queues: queues.into(), ..Census::default() });
    metrics.text()
}

/// Every family with its labels, and nothing that there is not.
#[test]
fn the_operators_page_lists_every_metric() {
    let mut families: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, labels) in Exposed::all().0.into_iter().filter(|(name, _)| name.starts_with("planrelay_")) {
        let histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|part| name.strip_suffix(part));
        let labels = labels.into_keys().filter(|label| label != "le");
        families.entry(histogram.unwrap_or(&name).to_owned()).or_default().extend(labels);
    }
    assert!(families.len() > 25, "{families:?}");
    let page = text("deploy/monitoring.md");
    for (name, labels) in &families {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{name}` | {} |", labels.join(", "));
        let begins = row.replace("|  |", "| |");
        assert!(page.lines().any(|line| line.starts_with(&begins)), "deploy/monitoring.md has no row {begins}");
    }
    for word in page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("planrelay_")) {
        assert!(families.contains_key(word), "deploy/monitoring.md: nobody exposes {word}");
    }
}

#[test]
fn what_nobody_exposes_is_found() {
    let exposed = Exposed::all();
    for good in [
        r#"sum by (tool) (rate(planrelay_steps_total{outcome="failed"}[5m])) > 0"#,
        r#"histogram_quantile(0.95, sum by (le, model) (rate(planrelay_model_duration_seconds_bucket{model=~"gpt.*"}[5m])))"#,
        r#"planrelay_claims_total{answer!="execute",job="anything"}"#,
    ] {
        assert_eq!(exposed.check(good), Ok(()), "{good}");
    }
    for (bad, why) in [
        ("rate(planrelay_step_total[5m])", "there is no metric planrelay_step_total"),
        ("planrelay_steps", "there is no metric planrelay_steps"),
        ("planrelay_run_duration_seconds", "there is no metric planrelay_run_duration_seconds"),
        (r#"planrelay_steps_total{result="failed"}"#, "planrelay_steps_total has no label result"),
        (r#"planrelay_steps_total{outcome=~"failed|broken"}"#, r#"outcome of planrelay_steps_total is never "broken""#),
        ("sum by (tools) (planrelay_steps_total)", "no metric in it has a label tools"),
        ("vector(0)", "it names no metric"),
    ] {
        assert_eq!(exposed.check(bad), Err(why.to_owned()), "{bad}");
    }
}
