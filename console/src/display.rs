//! Progress on stderr: a picture that is kept up to date on a terminal, a line per change anywhere else, or nothing.

use std::env;
use std::io::{self, IsTerminal, Write};

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Globals;
use crate::frame::{Paper, frame};
use crate::output::Format;
use crate::progress::{Change, Progress};
use crate::text::{cut, for_terminal};

/// Who is told of progress, and how.
#[derive(Debug)]
pub(crate) enum Display {
    /// Nobody: `-q`, or stdout gets the events anyway.
    Silent,
    /// One line per change.
    Plain,
    /// A picture.
    Picture(Picture),
}

impl Display {
    /// What these options, this stderr and this environment ask for.
    pub(crate) fn new(globals: &Globals) -> Self {
        if globals.quiet || globals.output == Format::Jsonl {
            return Display::Silent;
        }
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if io::stderr().is_terminal() && !no_colour && !dumb { Display::Picture(Picture::new()) } else { Display::Plain }
    }

    /// Whether the picture must be drawn again from time to time.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Display::Silent | Display::Plain => false,
            Display::Picture(_) => true,
        }
    }

    /// Says something once.
    pub(crate) fn note(&self, note: &str) {
        match self {
            Display::Silent => {}
            Display::Plain => say(note),
            Display::Picture(picture) => picture.note(note),
        }
    }

    /// Tells what an event changed. The picture follows with the next [`Display::draw`].
    pub(crate) fn show(&self, progress: &Progress, changes: &[Change]) {
        for change in changes {
            match (self, change) {
                (_, Change::Note(note)) => self.note(note),
                (Display::Plain, Change::Step(number)) => say(&progress.line(*number)),
                // The picture itself shows what the run is busy with.
                (Display::Silent | Display::Picture(_), Change::Step(_) | Change::Phase(_)) => {}
                (Display::Plain, Change::Phase(phase)) => say(phase),
            }
        }
    }

    /// Draws the picture as it is at `now_ms`.
    pub(crate) fn draw(&mut self, progress: &Progress, now_ms: u64) {
        match self {
            Display::Silent | Display::Plain => {}
            Display::Picture(picture) => picture.draw(progress, now_ms),
        }
    }

    /// Takes the picture away for what is to be said and asked now; the next [`Display::draw`] brings it back below.
    pub(crate) fn clear(&mut self) {
        match self {
            Display::Silent | Display::Plain => {}
            Display::Picture(picture) => picture.clear(),
        }
    }

    /// Draws the picture for the last time and leaves it where it is; what is said from now on stands below it.
    pub(crate) fn close(&mut self, progress: &Progress, now_ms: u64) {
        match self {
            Display::Silent | Display::Plain => {}
            Display::Picture(picture) => picture.close(progress, now_ms),
        }
    }

    /// Leaves the picture as it is after Ctrl-C: the terminal has echoed `^C` into it, so that it cannot be drawn over any more.
    pub(crate) fn freeze(&mut self) {
        match self {
            Display::Silent | Display::Plain => {}
            Display::Picture(picture) => picture.freeze(),
        }
    }
}

/// A line on stderr. With stderr gone there is nobody left to tell.
pub(crate) fn say(line: &str) {
    let _gone = writeln!(io::stderr().lock(), "{}", for_terminal(line));
}

/// Lines at the bottom of the terminal, one bar of `indicatif` each: it knows how to draw over what it drew.
#[derive(Debug)]
pub(crate) struct Picture {
    term: Term,
    bars: MultiProgress,
    lines: Vec<ProgressBar>,
    closed: bool,
}

impl Picture {
    fn new() -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(30));
        Self { term: Term::stderr(), bars, lines: Vec::new(), closed: false }
    }

    fn paper(&self) -> Paper {
        let (lines, columns) = self.term.size();
        Paper { columns: usize::from(columns).saturating_sub(1), lines: usize::from(lines), colour: true }
    }

    fn note(&self, note: &str) {
        if self.closed {
            return say(note);
        }
        // A terminal that is gone cannot be told.
        let _gone = self.bars.println(for_terminal(note));
    }

    fn draw(&mut self, progress: &Progress, now_ms: u64) {
        let paper = self.paper();
        let picture = frame(progress, now_ms, paper);
        while self.lines.len() > picture.len()
            && let Some(line) = self.lines.pop()
        {
            self.bars.remove(&line);
        }
        for (index, text) in picture.into_iter().enumerate() {
            // Descriptions are cut by the picture; a terminal that shrank since then must not wrap.
            let text = cut(&text, paper.columns);
            match self.lines.get(index) {
                Some(line) => line.set_message(text),
                None => {
                    let line = self.bars.add(ProgressBar::no_length());
                    line.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_bad| ProgressStyle::default_spinner()));
                    line.set_message(text);
                    self.lines.push(line);
                }
            }
        }
    }

    fn close(&mut self, progress: &Progress, now_ms: u64) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.draw(progress, now_ms);
        for line in &self.lines {
            line.abandon();
        }
    }

    fn clear(&mut self) {
        for line in self.lines.drain(..) {
            self.bars.remove(&line);
        }
        // A terminal that is gone needs no clearing.
        let _gone = self.bars.clear();
    }

    fn freeze(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
        for line in &self.lines {
            line.abandon();
        }
        say("");
    }
}
