//! What happened to a run, in order: the entries of the stream `planrelay:{<run_id>}:events`. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What can happen. `data` of each is a JSON object with the fields named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// The run exists. `objective_bytes`.
    RunOpened,
    /// A process holds a slot (plan, step or summary). `worker`.
    Claimed,
    /// A model answered. `purpose`, `model`, `rung`, `duration_ms`, `input_tokens`, `output_tokens`, `estimated`.
    ModelCalled,
    /// A plan was refused by the validator. `complaints`, `round`.
    PlanRefused,
    /// A revision of the plan is stored. `revision`, `steps`, `reason`, `plan` (an outline), `diff` (of a re-plan).
    PlanStored,
    /// A step's message is about to be published.
    StepDispatched,
    /// A tool was called. `tool`, `arguments_bytes`, `result_bytes`, `duration_ms`, `ok`, `error`.
    ToolCalled,
    /// A step ended. `outcome`, `error`, `duration_ms`, `worker`.
    StepFinished,
    /// A step failed for now and will be tried again. `error`, `after_ms`.
    StepRetried,
    /// A slot waits for a rate limit and has lost no attempt. `error`, `after_ms`.
    Parked,
    /// A step will never run because `because` did not succeed.
    StepSkipped,
    /// A lease ran out or a message went unclaimed, and the slot was taken back. `why`.
    TakenBack,
    /// The planner is to look at the plan again. `after`: the step whose end asks for it; `why`.
    ReplanOwed,
    /// A re-plan changed nothing. `reason`, `after`.
    PlanKept,
    /// The plan waits for approval. `revision`, `until_ms`, `otherwise`, `quote`.
    ApprovalAwaited,
    /// Somebody, or a time-out, wanted something of the run. `id`, `command`, `by`, `reason`, `feedback`, `answer`, `message`.
    Controlled,
    /// Something ended the run early. `kind`, `reason`, `cancelled` (steps).
    Halted,
    /// Every step has reported.
    Drained,
    /// The run has ended. `status`, `error`.
    RunFinished,
}

impl EventType {
    /// The type as it stands in Redis and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::RunOpened => "run_opened",
            EventType::Claimed => "claimed",
            EventType::ModelCalled => "model_called",
            EventType::PlanRefused => "plan_refused",
            EventType::PlanStored => "plan_stored",
            EventType::StepDispatched => "step_dispatched",
            EventType::ToolCalled => "tool_called",
            EventType::StepFinished => "step_finished",
            EventType::StepRetried => "step_retried",
            EventType::Parked => "parked",
            EventType::StepSkipped => "step_skipped",
            EventType::TakenBack => "taken_back",
            EventType::ReplanOwed => "replan_owed",
            EventType::PlanKept => "plan_kept",
            EventType::ApprovalAwaited => "approval_awaited",
            EventType::Controlled => "controlled",
            EventType::Halted => "halted",
            EventType::Drained => "drained",
            EventType::RunFinished => "run_finished",
        }
    }
}

/// An entry of the audit trail, as `watch -o jsonl` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The stream id, `<milliseconds>-<sequence>`: strictly increasing within a run; resume after it.
    pub id: String,
    /// When, in milliseconds since 1970, by the store's clock.
    pub at_ms: u64,
    /// What.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// The slot it concerns: `plan`, a step number, `summary`; absent for the run as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// The attempt of that slot, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The fencing epoch under which it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The rest, see [`EventType`].
    pub data: Value,
}

/// An entry that a process hands to a store verb; the store adds id, time, slot, attempt and epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EventDraft {
    /// What.
    pub kind: EventType,
    /// The rest, see [`EventType`].
    pub data: Value,
}

impl EventDraft {
    /// An entry with `data`.
    pub fn new(kind: EventType, data: Value) -> Self {
        Self { kind, data }
    }
}
