//! A run's progress: events in, changes out. Pure; drawing is in `display.rs`, the picture for terminals in `frame.rs`.

use std::collections::{BTreeMap, BTreeSet};

use common::event::{Event, EventType};
use common::id::{RunId, Slot, StepNumber};
use common::run::Outcome;
use serde_json::Value;

use crate::text::{columns, count, cut, one_line, pad, span};

mod control;

/// Columns of a description on a plain line.
const PLAIN_DESCRIPTION_COLUMNS: usize = 100;

/// What an event changed, for whoever draws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A step stands elsewhere now.
    Step(StepNumber),
    /// The run as a whole is busy with this now.
    Phase(&'static str),
    /// Something to be said once.
    Note(String),
}

/// What the run as a whole is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing that is worth a line.
    Quiet,
    /// The plan is being made, since then.
    Planning(u64),
    /// The answer is being written, since then.
    Answering(u64),
    /// The plan waits for approval.
    Approving,
    /// Nothing new starts until somebody resumes the run.
    Paused,
}

/// Where a step stands, as a reader is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// For other steps, or for its turn.
    Waiting,
    /// Published.
    Queued,
    Running,
    /// It failed for now.
    Retrying,
    /// An endpoint asked for patience.
    Parked,
    Ended(Outcome),
}

impl Standing {
    fn as_str(self) -> &'static str {
        match self {
            Standing::Waiting => "waiting",
            Standing::Queued => "queued",
            Standing::Running => "running",
            Standing::Retrying => "retrying",
            Standing::Parked => "parked",
            Standing::Ended(outcome) => outcome.as_str(),
        }
    }
}

/// A step as far as the events have told.
#[derive(Debug, Clone)]
pub(crate) struct StepProgress {
    pub(crate) description: String,
    /// The tool of the plan, or the one that was called.
    pub(crate) tool: String,
    pub(crate) standing: Standing,
    pub(crate) attempt: u32,
    /// When it came to stand there, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// How long its last attempt took, once that is over.
    pub(crate) took_ms: Option<u64>,
    /// Why it waits, failed or was skipped.
    pub(crate) why: Option<String>,
}

/// The run so far.
#[derive(Debug)]
pub(crate) struct Progress {
    verbose: bool,
    /// The run, for whoever may decide about it from elsewhere.
    run: Option<RunId>,
    opened_ms: Option<u64>,
    pub(crate) phase: Phase,
    pub(crate) steps: BTreeMap<StepNumber, StepProgress>,
    /// Steps that the plan does not hold any more.
    dropped: BTreeSet<StepNumber>,
    /// What ended the run early.
    pub(crate) halt: Option<String>,
    tool_columns: usize,
}

impl Progress {
    /// The progress of `run`, if it is one that commands from elsewhere reach.
    pub(crate) fn new(verbose: bool, run: Option<RunId>) -> Self {
        let (steps, dropped) = (BTreeMap::new(), BTreeSet::new());
        Self { verbose, run, opened_ms: None, phase: Phase::Quiet, steps, dropped, halt: None, tool_columns: 0 }
    }

    /// Takes the next event in.
    pub(crate) fn apply(&mut self, event: &Event) -> Vec<Change> {
        let data = &event.data;
        let slot = event.slot.as_deref().and_then(Slot::parse);
        match event.kind {
            EventType::RunOpened => {
                self.opened_ms = Some(event.at_ms);
                Vec::new()
            }
            EventType::Claimed => self.claimed(slot, event),
            EventType::ModelCalled => self.aside(model_called(slot, data)),
            EventType::PlanRefused => vec![Change::Note(plan_refused(data))],
            EventType::PlanStored => self.plan_stored(data),
            EventType::StepDispatched => {
                let changes = self.stand(slot, event, Standing::Queued, None);
                if self.verbose { changes } else { Vec::new() }
            }
            EventType::ToolCalled => self.tool_called(slot, data),
            EventType::StepFinished => self.step_finished(slot, event),
            EventType::StepRetried => self.again(slot, event, Standing::Retrying),
            EventType::Parked => self.again(slot, event, Standing::Parked),
            EventType::StepSkipped => {
                let why = format!("step {} did not succeed", word(data, "because"));
                self.stand(slot, event, Standing::Ended(Outcome::Skipped), Some(why))
            }
            EventType::TakenBack => {
                let changes = self.stand(slot, event, Standing::Queued, None);
                let name = slot.map_or_else(String::new, slot_name);
                if changes.is_empty() {
                    self.phase = Phase::Quiet;
                }
                vec![Change::Note(format!("{name} taken back: {}", word(data, "why")))]
            }
            EventType::ReplanOwed => vec![Change::Note(control::replan_owed(data))],
            EventType::PlanKept => {
                self.phase = Phase::Quiet;
                vec![Change::Note(control::plan_kept(data))]
            }
            EventType::ApprovalAwaited => self.approval_awaited(event),
            EventType::Controlled => self.controlled(data),
            EventType::Halted => self.halted(event),
            EventType::Drained => {
                self.phase = Phase::Quiet;
                Vec::new()
            }
            EventType::RunFinished => self.run_finished(event),
        }
    }

    fn claimed(&mut self, slot: Option<Slot>, event: &Event) -> Vec<Change> {
        match slot {
            Some(Slot::Plan) => {
                self.phase = Phase::Planning(event.at_ms);
                vec![Change::Phase("planning")]
            }
            Some(Slot::Summary) => {
                self.phase = Phase::Answering(event.at_ms);
                let cancelled = self.steps.values().any(|step| step.standing == Standing::Ended(Outcome::Cancelled));
                vec![Change::Phase(if cancelled { "writing down what there is" } else { "writing the answer" })]
            }
            Some(Slot::Step(_)) => self.stand(slot, event, Standing::Running, None),
            None => Vec::new(),
        }
    }

    /// A new plan: steps that it keeps stay as they are, others are gone.
    fn plan_stored(&mut self, data: &Value) -> Vec<Change> {
        self.phase = Phase::Quiet;
        let planned = data.get("plan").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut kept = std::mem::take(&mut self.steps);
        for step in planned {
            let Some(number) = number(step, "step_number").and_then(|n| u32::try_from(n).ok()).map(StepNumber) else { continue };
            let mut progress = kept.remove(&number).unwrap_or_else(StepProgress::unknown);
            progress.description = word(step, "description");
            if progress.tool.is_empty() {
                progress.tool = word(step, "tool_hint");
            }
            self.tool_columns = self.tool_columns.max(columns(&progress.tool));
            self.steps.insert(number, progress);
        }
        self.dropped.extend(kept.into_keys());
        self.dropped.retain(|number| !self.steps.contains_key(number));
        let steps = number(data, "steps").and_then(|n| usize::try_from(n).ok()).unwrap_or(self.steps.len());
        let steps = count(steps, "step");
        vec![Change::Note(match (number(data, "revision"), word(data, "reason")) {
            (Some(revision), reason) if revision > 1 && !reason.is_empty() => {
                format!("plan: revision {revision}, {steps} ({reason})")
            }
            (Some(revision), _) if revision > 1 => format!("plan: revision {revision}, {steps}"),
            (_, _) => format!("plan: {steps}"),
        })]
    }

    fn tool_called(&mut self, slot: Option<Slot>, data: &Value) -> Vec<Change> {
        let tool = word(data, "tool");
        let took = span(number(data, "duration_ms").unwrap_or(0));
        let text = match data.get("ok").and_then(Value::as_bool) {
            Some(false) => format!("{tool} failed after {took}: {}", word(data, "error")),
            Some(true) | None => format!("{tool} returned {} bytes in {took}", number(data, "result_bytes").unwrap_or(0)),
        };
        self.uses(slot, tool);
        self.aside(format!("{}: {text}", slot.map_or_else(String::new, slot_name)))
    }

    fn step_finished(&mut self, slot: Option<Slot>, event: &Event) -> Vec<Change> {
        let outcome = match event.data.get("outcome").and_then(Value::as_str) {
            Some("succeeded") => Outcome::Succeeded,
            Some("skipped") => Outcome::Skipped,
            Some("cancelled") => Outcome::Cancelled,
            Some(_) | None => Outcome::Failed,
        };
        let tool = word(&event.data, "tool");
        let took = number(&event.data, "duration_ms");
        if let Some(step) = self.step(slot) {
            step.took_ms = took;
        }
        self.uses(slot, tool);
        let error = word(&event.data, "error");
        self.stand(slot, event, Standing::Ended(outcome), Some(error).filter(|error| !error.is_empty()))
    }

    /// A slot was given back: after a failure, or because an endpoint asked for patience.
    fn again(&mut self, slot: Option<Slot>, event: &Event, standing: Standing) -> Vec<Change> {
        let after = span(number(&event.data, "after_ms").unwrap_or(0));
        let why = format!("again in {after}: {}", word(&event.data, "error"));
        match slot {
            Some(Slot::Step(_)) => self.stand(slot, event, standing, Some(why)),
            Some(slot @ (Slot::Plan | Slot::Summary)) => {
                self.phase = Phase::Quiet;
                vec![Change::Note(format!("{} {} {why}", slot_name(slot), standing.as_str()))]
            }
            None => Vec::new(),
        }
    }

    fn run_finished(&mut self, event: &Event) -> Vec<Change> {
        self.phase = Phase::Quiet;
        let status = word(&event.data, "status");
        let took = self.opened_ms.map(|opened| format!(" in {}", span(event.at_ms.saturating_sub(opened)))).unwrap_or_default();
        let all = self.steps.len();
        let done = self.steps.values().filter(|step| step.standing == Standing::Ended(Outcome::Succeeded)).count();
        let steps = if status == "partial" { format!(": {done} of {} succeeded", count(all, "step")) } else { String::new() };
        vec![Change::Note(format!("run {status}{took}{steps}"))]
    }

    /// Something that only a curious reader wants to know.
    fn aside(&self, note: String) -> Vec<Change> {
        if self.verbose { vec![Change::Note(note)] } else { Vec::new() }
    }

    /// The step of a slot; one that no plan has told of is made up, one that the plan has dropped stays away.
    fn step(&mut self, slot: Option<Slot>) -> Option<&mut StepProgress> {
        match slot {
            Some(Slot::Step(number)) if !self.dropped.contains(&number) => {
                Some(self.steps.entry(number).or_insert_with(StepProgress::unknown))
            }
            Some(Slot::Step(_) | Slot::Plan | Slot::Summary) | None => None,
        }
    }

    /// Notes the tool that a step did use.
    fn uses(&mut self, slot: Option<Slot>, tool: String) {
        if tool.is_empty() {
            return;
        }
        self.tool_columns = self.tool_columns.max(columns(&tool));
        if let Some(step) = self.step(slot) {
            step.tool = tool;
        }
    }

    fn stand(&mut self, slot: Option<Slot>, event: &Event, standing: Standing, why: Option<String>) -> Vec<Change> {
        let (Some(Slot::Step(number)), Some(step)) = (slot, self.step(slot)) else { return Vec::new() };
        step.standing = standing;
        step.since_ms = event.at_ms;
        step.attempt = event.attempt.unwrap_or(step.attempt);
        step.why = why;
        vec![Change::Step(number)]
    }

    /// Where a step stands, as a line of its own: `step 2 succeeded  calculate  12 ms`.
    pub(crate) fn line(&self, number: StepNumber) -> String {
        let Some(step) = self.steps.get(&number) else { return String::new() };
        let digits = self.digits();
        let mut parts = Vec::new();
        match step.standing {
            Standing::Waiting | Standing::Queued | Standing::Running => {
                parts.push(cut(&step.description, PLAIN_DESCRIPTION_COLUMNS));
                parts.retain(|part| !part.is_empty());
            }
            Standing::Retrying | Standing::Parked => {}
            Standing::Ended(_) => parts.extend(step.took_ms.map(span)),
        }
        if step.attempt > 1 {
            parts.push(format!("attempt {}", step.attempt));
        }
        parts.extend(step.why.clone());
        let tool = if self.tool_columns == 0 { String::new() } else { format!("{}  ", pad(&step.tool, self.tool_columns)) };
        format!("step {:>digits$} {:<9} {tool}{}", number.0, step.standing.as_str(), parts.join("  ")).trim_end().to_owned()
    }

    /// The columns that step numbers take.
    pub(crate) fn digits(&self) -> usize {
        self.steps.last_key_value().map_or(1, |(number, _)| number.to_string().len())
    }

    /// The columns that tool names take.
    pub(crate) fn tool_columns(&self) -> usize {
        self.tool_columns
    }
}

impl StepProgress {
    /// A step of which only the number is known.
    fn unknown() -> Self {
        Self {
            description: String::new(),
            tool: String::new(),
            standing: Standing::Waiting,
            attempt: 0,
            since_ms: 0,
            took_ms: None,
            why: None,
        }
    }
}

fn slot_name(slot: Slot) -> String {
    match slot {
        Slot::Plan => "plan".to_owned(),
        Slot::Summary => "answer".to_owned(),
        Slot::Step(number) => format!("step {number}"),
    }
}

fn model_called(slot: Option<Slot>, data: &Value) -> String {
    let name = slot.map_or_else(|| word(data, "purpose"), slot_name);
    let tokens = |field| number(data, field).unwrap_or(0);
    format!(
        "{name}: model {} answered by {} in {}, {} tokens in, {} out",
        word(data, "model"),
        word(data, "rung"),
        span(tokens("duration_ms")),
        tokens("input_tokens"),
        tokens("output_tokens")
    )
}

fn plan_refused(data: &Value) -> String {
    let complaints = data.get("complaints").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let first = complaints.first().and_then(Value::as_str).map(one_line).unwrap_or_default();
    match complaints.len() {
        0 | 1 => format!("plan refused: {first}"),
        more => format!("plan refused: {first} (and {} more)", more - 1),
    }
}

/// A field as one line of text; empty when there is none. Events carry what models and tools wrote.
fn word(data: &Value, field: &str) -> String {
    match data.get(field) {
        Some(Value::String(text)) => one_line(text),
        None | Some(Value::Null) => String::new(),
        Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => one_line(&other.to_string()),
    }
}

fn number(data: &Value, field: &str) -> Option<u64> {
    data.get(field).and_then(Value::as_u64)
}

#[cfg(test)]
pub(crate) mod tests;
