//! The lines of the log: what is said, then what it is about. A line within a handler says its run and its step without naming
//! them, by the task that it is done in.

use std::cell::RefCell;
use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// What is said, in order.
#[derive(Debug, Default)]
struct Said(Vec<(&'static str, Value)>);

impl Said {
    fn put(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }
}

tokio::task_local! {
    /// What the work of this task is about. A span would say the same, and cost every poll of it ten times as much.
    static ABOUT: RefCell<Said>;
}

/// Does `work`; its lines say what it is about, once [`about`] is told.
pub(super) fn work<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    ABOUT.scope(RefCell::default(), work)
}

/// The work at hand is about this.
pub(super) fn about(name: &'static str, value: impl Into<Value>) {
    let _nobody_asked_for_lines = ABOUT.try_with(|said| said.borrow_mut().put(name, value.into()));
}

/// One line per event.
pub(super) struct Lines(pub(super) LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        // What the line says itself holds.
        let _about_nothing = ABOUT.try_with(|about| {
            for (name, value) in &about.borrow().0 {
                if !said.has(name) {
                    said.0.push((name, value.clone()));
                }
            }
        });
        match self.0 {
            LogFormat::Text => text(writer, event, &said),
            LogFormat::Json => json(writer, event, said),
        }
    }
}

/// `2026-01-31T09:00:00.000000Z  INFO planner::objective: run r1: opened run_id=r1`
fn text(mut writer: Writer<'_>, event: &Event<'_>, said: &Said) -> fmt::Result {
    let (level, target) = (*event.metadata().level(), event.metadata().target());
    let colour = writer.has_ansi_escapes();
    let dim = |writer: &mut Writer<'_>, on: bool| {
        if colour { writer.write_str(if on { "\x1b[2m" } else { "\x1b[0m" }) } else { Ok(()) }
    };
    dim(&mut writer, true)?;
    SystemTime.format_time(&mut writer)?;
    dim(&mut writer, false)?;
    match colour {
        true => write!(writer, " \x1b[{}m{level:>5}\x1b[0m ", code(level))?,
        false => write!(writer, " {level:>5} ")?,
    }
    dim(&mut writer, true)?;
    write!(writer, "{target}:")?;
    dim(&mut writer, false)?;
    if let Some((_, message)) = said.0.iter().find(|(name, _)| *name == MESSAGE) {
        writer.write_char(' ')?;
        escaped(&mut writer, message.as_str().unwrap_or_default())?;
    }
    for (name, value) in said.0.iter().filter(|(name, _)| *name != MESSAGE) {
        match value {
            // One word needs no quotes; what could be taken for the next field does.
            Value::String(word) if is_word(word) => write!(writer, " {name}={word}")?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                write!(writer, " {name}={value}")?;
            }
        }
    }
    writeln!(writer)
}

/// Text as it is, but for what would begin a line of its own or speak to a terminal: messages quote foreign names and reasons.
fn escaped(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|character| match character.is_control() {
        true => write!(writer, "{}", character.escape_default()),
        false => writer.write_char(character),
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '='))
}

fn code(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// One flat object: `timestamp`, `level`, `target`, `message`, and the fields by their names.
fn json(mut writer: Writer<'_>, event: &Event<'_>, said: Said) -> fmt::Result {
    let mut timestamp = String::new();
    SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
    let mut line = Map::new();
    line.insert("timestamp".to_owned(), timestamp.into());
    line.insert("level".to_owned(), event.metadata().level().as_str().into());
    line.insert("target".to_owned(), event.metadata().target().into());
    for (name, value) in said.0 {
        line.entry(name).or_insert(value);
    }
    writeln!(writer, "{}", Value::Object(line))
}

/// The field that holds the text.
const MESSAGE: &str = "message";
