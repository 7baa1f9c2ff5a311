//! What goes to stdout: data, and nothing else.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::text;

/// `-o`: what stdout gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON value, indented.
    Json,
    /// One JSON value per line.
    Jsonl,
}

/// Writes a line, at once: who reads a pipe waits for it.
pub(crate) fn line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// Writes text that a model wrote: as it is into a pipe, without controls onto a terminal.
pub(crate) fn foreign(text: &str) -> io::Result<()> {
    if io::stdout().is_terminal() { line(&text::for_terminal(text)) } else { line(text) }
}

/// Writes a value as JSON: indented, or on one line for [`Format::Jsonl`].
pub(crate) fn json(value: &impl Serialize, format: Format) -> io::Result<()> {
    line(&match format {
        Format::Jsonl => serde_json::to_string(value)?,
        Format::Text | Format::Json => serde_json::to_string_pretty(value)?,
    })
}
