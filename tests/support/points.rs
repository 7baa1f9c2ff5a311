//! The named points at which a test may end, stop or disturb a service: what the crash matrix and the binary `crashing` agree on.
//!
//! A point is a place in the calls that pass a service's seam ([`common::seam`]), its model or its tool, and fires once in the life of
//! a process. The process then says so over a line to its test (`C14 reached 2`: with two messages in hand that it has not
//! acknowledged) and waits for one word: `go` or `panic`. A line that has ended means `go`. Some places take two steps: at `prepare`
//! the test may arrange what happens to the call that is about to be made.

use common::message::Queue;

/// Names the point of a `crashing` process.
pub const POINT: &str = "CRASHING_POINT";
/// Names the service that it is.
pub const SERVICE: &str = "CRASHING_SERVICE";
/// Where its test listens, `host:port`.
pub const LINE: &str = "CRASHING_LINE";
/// The file in which the tool with an effect leaves its effects: one idempotency key a line.
pub const EFFECTS: &str = "CRASHING_EFFECTS";
/// The tool with an effect. It stands in for the one built-in tool that is configured, so that planners know of it.
pub const EFFECT_TOOL: &str = "search";

/// A point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// `C1` to `C25`.
    pub name: &'static str,
    /// `planner`, `executor` or `summarizer`.
    pub service: &'static str,
    /// Where it is.
    pub place: Place,
    /// The same in words.
    pub what: &'static str,
}

/// A place in the life of a process. The first of its kind counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before this verb of the store.
    Before(&'static str),
    /// After this verb, when its answer holds all of these words.
    After(&'static str, &'static [&'static str]),
    /// After this verb, whatever the answer. `prepare` comes before it: its reply may be lost.
    AfterFirst(&'static str),
    /// A request to the model is under way.
    Asking,
    /// The model has replied.
    Answered,
    /// The tool has been called and has not had its effect.
    BeforeEffect,
    /// The tool has had its effect and has not returned.
    AfterEffect,
    /// Of a batch of messages of this type, one has been published.
    Between(&'static str),
    /// Messages of this type have been published, not as the first of the process; the confirm has not been seen. `prepare` comes
    /// before: the confirm may be held back.
    Sent(&'static str),
    /// Messages of this type have been published and confirmed.
    Confirmed(&'static str),
    /// Before a message of this queue is acknowledged.
    BeforeAck(Queue),
    /// A message of this queue has just been acknowledged, and nobody knows how far that has come. `prepare` comes before it.
    DuringAck(Queue),
    /// The effect is had, the lease has run out because nothing renewed it (`prepare`: how long that lasts), and the process
    /// goes on to report all the same.
    Zombie,
}

const fn point(name: &'static str, service: &'static str, place: Place, what: &'static str) -> Point {
    Point { name, service, place, what }
}

/// All of them.
pub const POINTS: [Point; 25] = [
    point("C1", "planner", Place::Before("open_run"), "before the run is opened"),
    point("C2", "planner", Place::AfterFirst("claim"), "plan slot claimed, model not asked"),
    point("C3", "planner", Place::Asking, "while the model plans"),
    point("C4", "planner", Place::Answered, "model has planned, plan not stored"),
    point("C5", "planner", Place::AfterFirst("put_plan"), "plan stored, nothing published"),
    point("C6", "planner", Place::Between("step"), "between two steps of a batch"),
    point("C7", "planner", Place::Sent("step"), "steps published, confirms not seen"),
    point("C8", "planner", Place::Confirmed("step"), "steps confirmed"),
    point("C9", "planner", Place::BeforeAck(Queue::Objectives), "before the objective is acknowledged"),
    point("C10", "planner", Place::DuringAck(Queue::Objectives), "while the objective is acknowledged"),
    point("C11", "executor", Place::Before("claim"), "step delivered, not claimed"),
    point("C12", "executor", Place::After("claim", &["Execute", EFFECT_TOOL]), "step claimed, tool not called"),
    point("C13", "executor", Place::BeforeEffect, "in the tool, before its effect"),
    point("C14", "executor", Place::AfterEffect, "in the tool, after its effect"),
    point("C15", "executor", Place::After("report", &["Recorded(Planner)"]), "step reported, planner not told"),
    point("C16", "executor", Place::After("report", &["Recorded(Summary)"]), "last step reported, summarizer not told"),
    point("C17", "executor", Place::Sent("completion"), "completion published, confirm not seen"),
    point("C18", "executor", Place::BeforeAck(Queue::Steps), "before a step is acknowledged"),
    point("C19", "executor", Place::AfterFirst("retry"), "step given back for a retry, not acknowledged"),
    point("C20", "executor", Place::Zombie, "lease run out, about to report"),
    point("C21", "summarizer", Place::Before("claim"), "completion delivered, not claimed"),
    point("C22", "summarizer", Place::Asking, "while the model answers"),
    point("C23", "summarizer", Place::Before("finish"), "model has answered, run not ended"),
    point("C24", "summarizer", Place::AfterFirst("finish"), "run ended, reply not published"),
    point("C25", "planner", Place::AfterFirst("take_back"), "dead letter's step taken back, letter not acknowledged"),
];

/// The point of this name.
pub fn find(name: &str) -> Option<&'static Point> {
    POINTS.iter().find(|point| point.name == name)
}
