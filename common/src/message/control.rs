//! The wire of commands: what somebody wants of a run, and what became of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Body, Refusal, wire_version};
use crate::id::RunId;
use crate::limits::{CONTROL_TEXT_BYTES_MAX, OBJECTIVE_BYTES_MAX};
use crate::run::RunStatus;

/// What somebody wants of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Stop it: what runs is aborted, results so far stay readable.
    Cancel,
    /// Start no further step; what runs goes on.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Run the plan that waits for approval.
    Approve,
    /// Make another plan with `feedback`.
    Reject,
    /// Run `plan` in place of the one that waits for approval.
    Edit,
    /// Run a failed or partial run again from its failed steps.
    Retry,
}

impl Command {
    /// Every command.
    pub const ALL: [Command; 7] =
        [Command::Cancel, Command::Pause, Command::Resume, Command::Approve, Command::Reject, Command::Edit, Command::Retry];

    /// The command as it stands in messages, Redis and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Command::Cancel => "cancel",
            Command::Pause => "pause",
            Command::Resume => "resume",
            Command::Approve => "approve",
            Command::Reject => "reject",
            Command::Edit => "edit",
            Command::Retry => "retry",
        }
    }
}

/// Body on `controls`: do this with the run. The answer is published to `reply_to`, and stands in the run's audit trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ControlMessage {
    /// The version of this shape; absent means 1.
    #[serde(default = "wire_version")]
    pub version: u32,
    /// The run.
    pub run_id: RunId,
    /// What is wanted.
    pub command: Command,
    /// Who wants it, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For `reject`: what another plan should do better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<String>,
    /// For `edit`: the plan to run, `{"steps": […]}`. It is checked like any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Value>,
    /// For `approve`, `reject` and `edit`: the revision that was looked at; refused when another one is current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
}

/// What became of a command: what `reply_to` gets, and the data of a `controlled` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ControlReply {
    /// The version of this shape; 1.
    pub version: u32,
    /// The run.
    pub run_id: RunId,
    /// What was wanted.
    pub command: Command,
    /// Whether it was done.
    pub answer: Answer,
    /// What was decided, by whom and why, in one sentence.
    pub message: String,
    /// Where the run stands; null when there is no such run.
    pub status: Option<RunStatus>,
}

/// Whether a command was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was.
    Accepted,
    /// The same had been decided before; nothing changed.
    Repeated,
    /// It cannot be done, or something else had been decided before.
    Refused,
}

impl Body for ControlMessage {
    fn check(&self) -> Result<(), Refusal> {
        for (name, text) in [("by", &self.by), ("reason", &self.reason)] {
            let bytes = text.as_ref().map_or(0, String::len);
            if bytes > CONTROL_TEXT_BYTES_MAX {
                return Err(Refusal(format!("{name} has {bytes} bytes, the limit is {CONTROL_TEXT_BYTES_MAX}")));
            }
        }
        let feedback = self.feedback.as_deref().map_or("", str::trim);
        if feedback.len() > OBJECTIVE_BYTES_MAX {
            return Err(Refusal(format!("feedback has {} bytes, the limit is {OBJECTIVE_BYTES_MAX}", feedback.len())));
        }
        if self.command == Command::Reject && feedback.is_empty() {
            return Err(Refusal("reject needs feedback: what another plan should do better".into()));
        }
        if self.command == Command::Edit && self.plan.is_none() {
            return Err(Refusal("edit needs a plan".into()));
        }
        Ok(())
    }
}
