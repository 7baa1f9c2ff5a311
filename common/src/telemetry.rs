//! What a process says of its work: logs, to standard error, as text or JSON (standard output is for data); and traces, to an
//! OpenTelemetry collector, when there is one. The only place that names `tracing-subscriber` and `opentelemetry`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::config::LogConfig;
use crate::id::{RunId, StepNumber};

mod content;
mod context;
mod delivery;
mod lines;
pub mod names;
mod otlp;
pub mod spans;
pub mod traces;

pub use traces::Traces;

/// Libraries that say more than an operator wants, at the level that is kept. What lapin would say, this program says in its own
/// words. A filter that names one of them decides itself.
const QUIET: &str = "async_openai=warn,deadpool=warn,h2=warn,hyper=warn,hyper_util=warn,lapin=off,reqwest=warn,rustls=warn";

/// Why there are no logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read. Exit code 2.
    #[error("PLANRELAY_LOG: {filter:?} is not a filter such as info or info,planner=debug: {why}")]
    Filter {
        /// What was configured.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// A standard variable of OpenTelemetry says something that cannot be used. Exit code 2.
    #[error("{0}")]
    Variable(String),
    /// Somebody else takes the logs of this process already.
    #[error("cannot take the logs of this process: {0}")]
    Taken(String),
}

/// Sends the logs of this process to standard error. In colour when that is a terminal, unless `NO_COLOR` is set to something
/// (<https://no-color.org>) or the terminal is dumb.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let says = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let colour = std::io::stderr().is_terminal() && says("NO_COLOR").is_none() && says("TERM").is_none_or(|term| term != "dumb");
    tracing::subscriber::set_global_default(subscriber(config, colour, std::io::stderr)?)
        .map_err(|why| TelemetryError::Taken(why.to_string()))
}

/// Whoever takes logs as configured, writing to `writer`.
fn subscriber<W>(
    config: &LogConfig,
    colour: bool,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = parse_filter(&config.filter).map_err(|why| TelemetryError::Filter { filter: config.filter.clone(), why })?;
    let lines = tracing_subscriber::fmt::layer().event_format(lines::Lines(config.format)).with_ansi(colour).with_writer(writer);
    Ok(Box::new(tracing_subscriber::registry().with(filter).with(lines)))
}

/// Traces of this process as the standard `OTEL_*` variables ask for them; off unless they name a collector. `prefix` is that of the queues.
/// Needs a Tokio runtime; connects to nothing yet.
pub fn traces(service: &str, worker: &str, prefix: &str) -> Result<Traces, TelemetryError> {
    match otlp::read(|name| std::env::var(name).ok())? {
        None => Ok(Traces::Off),
        Some(otlp) => delivery::traces(&otlp, delivery::Sender { service, worker, prefix }),
    }
}

/// Does `work`; its lines say what it is about, once [`about`] is told.
pub fn work<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    lines::work(work)
}

/// The [`work`] at hand is about this run, and this step.
pub fn about(run: &RunId, step: Option<StepNumber>, trace: Option<&str>) {
    lines::about("run_id", run.as_str());
    if let Some(step) = step {
        lines::about("step", step.0);
    }
    if let Some(trace_id) = trace.and_then(context::trace_id) {
        lines::about("trace_id", trace_id);
    }
}

/// Reads a filter, with [`QUIET`] put before it; or why it cannot be read.
pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(filter).map_err(|why| why.to_string())?;
    // Of two directives for the same target the later one holds.
    EnvFilter::builder().parse(format!("{QUIET},{filter}")).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::LogFormat;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Does it at once.
    fn now(work: impl Future<Output = ()>) {
        futures::FutureExt::now_or_never(work).unwrap();
    }

    /// What is logged of three lines: one of ours, one of lapin, one of lapin in trouble.
    fn logged(filter: &str, format: LogFormat, colour: bool) -> String {
        let page = Page::default();
        let writer = page.clone();
        let config = LogConfig { filter: filter.into(), format };
        tracing::subscriber::with_default(subscriber(&config, colour, move || writer.clone()).unwrap(), || {
            now(work(async {
                about(&RunId::parse("r1").unwrap(), Some(StepNumber(3)), Some(TRACE));
                tracing::info!(steps = 2, why = "two words", "run r1 is planned");
            }));
            tracing::debug!(target: "lapin::channel", "lapin talks");
            tracing::warn!(target: "lapin::channel", "lapin warns");
        });
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn logs_follow_the_configuration() {
        let text = logged("info", LogFormat::Text, false);
        let line = " INFO common::telemetry::tests: run r1 is planned steps=2 why=\"two words\" run_id=r1 step=3 trace_id=0af7651916cd43dd8448eb211c80319c\n";
        assert!(text.ends_with(line) && !text.contains("lapin warns"), "{text}");
        assert!(!text.contains('\u{1b}') && logged("info", LogFormat::Text, true).contains('\u{1b}'));
        let lines = logged("info", LogFormat::Json, true);
        let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        let timestamp = line["timestamp"].clone();
        let expected = serde_json::json!({
            "timestamp": timestamp, "level": "INFO", "target": "common::telemetry::tests", "message": "run r1 is planned", "steps": 2,
            "why": "two words", "run_id": "r1", "step": 3, "trace_id": "0af7651916cd43dd8448eb211c80319c",
        });
        assert_eq!(line, expected);
        assert_eq!(lines.lines().count(), 1, "one line each: {lines}");
        assert_eq!(logged("off", LogFormat::Text, false).matches("run r1").count(), 0);
    }

    #[test]
    fn a_line_says_itself_what_its_work_would() {
        let page = Page::default();
        let writer = page.clone();
        let config = LogConfig { filter: "warn,lapin=off".into(), format: LogFormat::Json };
        tracing::subscriber::with_default(subscriber(&config, false, move || writer.clone()).unwrap(), || {
            now(work(async {
                about(&RunId::parse("r1").unwrap(), None, Some("no trace"));
                tracing::warn!(run_id = "r2", level = "odd", "said\nso");
            }));
            tracing::warn!("about nothing");
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            (&lines[0]["run_id"], &lines[0]["level"], &lines[0]["message"]),
            (&"r2".into(), &"WARN".into(), &"said\nso".into())
        );
        assert!(
            lines[0].get("step").is_none() && lines[0].get("trace_id").is_none() && lines[1].get("run_id").is_none(),
            "{text}"
        );
    }

    #[test]
    fn libraries_are_quiet_unless_named() {
        assert!(!logged("trace", LogFormat::Text, false).contains("lapin talks"));
        assert!(logged("info,lapin=debug", LogFormat::Text, false).contains("lapin talks"));
    }

    #[test]
    fn a_bad_filter_names_its_variable() {
        for filter in ["info,,=", "planner=loud", "[", "a=b=c"] {
            let config = LogConfig { filter: filter.into(), format: LogFormat::Text };
            let why = subscriber(&config, false, std::io::sink).err().unwrap_or_else(|| panic!("{filter}")).to_string();
            assert!(why.starts_with("PLANRELAY_LOG: ") && why.contains(filter), "{why}");
        }
    }
}
