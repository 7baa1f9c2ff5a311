//! The wire: one type per queue, versioned. Bodies are UTF-8 JSON of at most [`MESSAGE_BYTES_MAX`] bytes.
//!
//! Unknown fields are ignored, so that a newer publisher can talk to an older consumer. A `version` other than
//! [`WIRE_VERSION`] is refused: absent means 1. Golden files of every shape stand in `tests/fixtures/v1`.

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::id::{RunId, StepNumber};
use crate::limits::{
    APPROVAL_TIMEOUT_MAX, CONTEXT_BYTES_MAX, DEADLINE_MAX, MESSAGE_BYTES_MAX, OBJECTIVE_BYTES_MAX, REASON_CHARS_MAX, REPLANS_MAX,
    RUN_ID_BYTES_MAX,
};
use crate::run::Outcome;

mod control;

pub use control::{Answer, Command, ControlMessage, ControlReply};

/// What naming the run adds to an objective that does not: `,"run_id":"…"`.
const STAMP_BYTES_MAX: usize = RUN_ID_BYTES_MAX + r#","run_id":"""#.len();

/// The version of every message body.
pub const WIRE_VERSION: u32 = 1;

/// The queues, by role. The name on the broker is `<prefix>.v1.<role>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// Users and the console publish, the planner consumes.
    Objectives,
    /// The planner publishes, executors consume.
    Steps,
    /// Executors publish, the planner consumes.
    Reports,
    /// Executors and the planner publish, the summarizer consumes.
    Completions,
    /// Users and the console publish, the planner consumes.
    Controls,
    /// The broker and every service publish, the planner consumes.
    Dead,
}

impl Queue {
    /// Every queue.
    pub const ALL: [Queue; 6] =
        [Queue::Objectives, Queue::Steps, Queue::Reports, Queue::Completions, Queue::Controls, Queue::Dead];

    /// The role part of the queue's name.
    pub fn role(self) -> &'static str {
        match self {
            Queue::Objectives => "objectives",
            Queue::Steps => "steps",
            Queue::Reports => "reports",
            Queue::Completions => "completions",
            Queue::Controls => "controls",
            Queue::Dead => "dead",
        }
    }

    /// The queue's name on the broker.
    pub fn name(self, prefix: &str) -> String {
        format!("{prefix}.v1.{}", self.role())
    }
}

/// Where the final answer comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Respond {
    /// A model writes it from the results.
    #[default]
    Answer,
    /// It is the list of results; no model is asked.
    Results,
}

/// When the planner looks at the plan again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplanPolicy {
    /// When a step has failed for good.
    #[default]
    OnFailure,
    /// After every step: nothing new starts until it has been looked at; the run may finish early.
    AfterEachStep,
    /// Never.
    Never,
}

impl ReplanPolicy {
    /// The policy as it stands in Redis and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            ReplanPolicy::OnFailure => "on_failure",
            ReplanPolicy::AfterEachStep => "after_each_step",
            ReplanPolicy::Never => "never",
        }
    }
}

/// What needs somebody's approval before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Approve {
    /// The plan as a whole. Later revisions by the planner itself do not wait again.
    Plan,
}

/// What the submitter may decide about one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Options {
    /// Where the final answer comes from.
    pub respond: Respond,
    /// Steps of this run in flight at once; at most what the deployment allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_parallel_steps: Option<u32>,
    /// When the planner looks at the plan again.
    pub replan: ReplanPolicy,
    /// How often the plan may be revised; at most what the deployment allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 20))]
    pub max_replans: Option<u32>,
    /// What waits for somebody's approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approve: Option<Approve>,
    /// How long it waits for that, in seconds; else what the deployment says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub approval_timeout_secs: Option<u64>,
    /// How long steps may run, in seconds from the opening of the run. The answer is then written from what exists.
    #[serde(alias = "deadline", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub deadline_secs: Option<u64>,
    /// Most tokens, read and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
    /// Most requests to models.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_model_calls: Option<u64>,
    /// Most calls of tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tool_calls: Option<u64>,
    /// Most that the model calls may cost, in the unit of the configured prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub max_cost: Option<f64>,
}

impl Options {
    /// Checks what the types alone cannot say.
    fn check(&self) -> Result<(), Refusal> {
        let within = |name: &str, value: Option<u64>, min: u64, max: u64| match value {
            Some(value) if !(min..=max).contains(&value) => {
                Err(Refusal(format!("options.{name} must be a whole number from {min} to {max}, got {value}")))
            }
            Some(_) | None => Ok(()),
        };
        let most = 1 << 50;
        within("max_parallel_steps", self.max_parallel_steps.map(u64::from), 1, u64::from(u32::MAX))?;
        within("max_replans", self.max_replans.map(u64::from), 0, REPLANS_MAX.into())?;
        within("approval_timeout_secs", self.approval_timeout_secs, 1, APPROVAL_TIMEOUT_MAX.as_secs())?;
        within("deadline_secs", self.deadline_secs, 1, DEADLINE_MAX.as_secs())?;
        within("max_tokens", self.max_tokens, 1, most)?;
        within("max_model_calls", self.max_model_calls, 1, most)?;
        within("max_tool_calls", self.max_tool_calls, 0, most)?;
        match self.max_cost {
            Some(cost) if !(cost > 0.0 && cost <= 1e6) => {
                Err(Refusal(format!("options.max_cost must be a number above 0 and at most 1000000, got {cost}")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Body on `objectives`: something to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ObjectiveMessage {
    /// The version of this shape; absent means 1.
    #[serde(default = "wire_version")]
    pub version: u32,
    /// What is to be done, in words.
    pub objective: String,
    /// The run's id. Else the AMQP `message_id`, else the planner stamps one. Same id again: the existing run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// Background that the planner's model gets beside the objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The submitter's own plan: `{"steps": […]}`. Then no model is asked for one; it is checked like any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Value>,
    /// What the submitter decides about this run.
    #[serde(default, deserialize_with = "options")]
    pub options: Options,
}

/// Body on `steps`: run this step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StepMessage {
    /// The version of this shape; absent means 1.
    #[serde(default = "wire_version")]
    pub version: u32,
    /// The run.
    pub run_id: RunId,
    /// The revision of the plan that the step was dispatched from.
    pub revision: u32,
    /// The step.
    pub step_number: StepNumber,
    /// The attempt this message starts, from 1.
    pub attempt: u32,
    /// What the step is to do.
    pub description: String,
    /// The tool that the plan suggests.
    #[serde(default)]
    pub tool_hint: Option<String>,
    /// The steps whose results this one gets.
    #[serde(default)]
    pub depends_on: Vec<StepNumber>,
}

/// Body on `reports`: the planner has something to do for this run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ReportMessage {
    /// The version of this shape; absent means 1.
    #[serde(default = "wire_version")]
    pub version: u32,
    /// The run.
    pub run_id: RunId,
    /// The step that ended.
    pub step_number: StepNumber,
    /// How it ended; of a step that will be tried again: how this attempt did.
    pub outcome: Outcome,
}

/// Body on `completions`: every step has reported, the answer is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CompletionMessage {
    /// The version of this shape; absent means 1.
    #[serde(default = "wire_version")]
    pub version: u32,
    /// The run.
    pub run_id: RunId,
    /// The revision of the plan that is complete.
    pub revision: u32,
}

/// Reads options: an object, where serde would also take a list for the fields in their order.
fn options<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Options, D::Error> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = Options;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Options, A::Error> {
            Options::deserialize(MapAccessDeserializer::new(fields))
        }
    }
    deserializer.deserialize_map(Fields)
}

fn wire_version() -> u32 {
    WIRE_VERSION
}

/// Why a message is refused, in one sentence. It stands in the dead letter's `planrelay-reason` header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// A body that can be read from the wire.
pub trait Body: DeserializeOwned {
    /// Checks what the type alone cannot say.
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Body for StepMessage {}
impl Body for ReportMessage {}
impl Body for CompletionMessage {}
impl Body for ObjectiveMessage {
    fn check(&self) -> Result<(), Refusal> {
        if self.objective.trim().is_empty() {
            return Err(Refusal("objective is empty".into()));
        }
        let too_long = |what: &str, len: usize, max: usize| Refusal(format!("{what} has {len} bytes, the limit is {max}"));
        if self.objective.len() > OBJECTIVE_BYTES_MAX {
            return Err(too_long("objective", self.objective.len(), OBJECTIVE_BYTES_MAX));
        }
        let context = self.context.as_ref().map_or(0, String::len);
        if context > CONTEXT_BYTES_MAX {
            return Err(too_long("context", context, CONTEXT_BYTES_MAX));
        }
        // It is published again, with an id and every default written out, and must not become too large by that: not even with the
        // longest `message_id` as its id. Whatever passes without an id passes with it.
        let written = serde_json::to_vec(self).map_or(usize::MAX, |body| body.len());
        let most = MESSAGE_BYTES_MAX - if self.run_id.is_none() { STAMP_BYTES_MAX } else { 0 };
        if written > most {
            return Err(too_long("the message, with every default written out,", written, most));
        }
        self.options.check()
    }
}

/// Reads a body, or says in one sentence why it is refused.
pub fn parse<T: Body>(body: &[u8]) -> Result<T, Refusal> {
    read(body).map_err(|Refusal(why)| Refusal(why.chars().take(REASON_CHARS_MAX).collect()))
}

fn read<T: Body>(body: &[u8]) -> Result<T, Refusal> {
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(Refusal(format!("body has {} bytes, the limit is {MESSAGE_BYTES_MAX}", body.len())));
    }
    let text = std::str::from_utf8(body).map_err(|e| Refusal(format!("body is not UTF-8: {e}")))?;
    let value: Value = serde_json::from_str(text).map_err(|e| Refusal(format!("body is not JSON: {e}")))?;
    if !value.is_object() {
        return Err(Refusal("body is not a JSON object".into()));
    }
    match value.get("version") {
        None => {}
        Some(version) if version.as_u64() == Some(u64::from(WIRE_VERSION)) => {}
        Some(version) => {
            return Err(Refusal(format!("version {version} is not supported, this service speaks version {WIRE_VERSION}")));
        }
    }
    // Naming the field: what is wrong with an integer is clear only to who knows which one.
    let message: T = serde_path_to_error::deserialize(value).map_err(|e| match e.path().iter().len() {
        0 => Refusal(format!("body does not fit: {}", e.inner())),
        _ => Refusal(format!("body does not fit: {}: {}", e.path(), e.inner())),
    })?;
    message.check()?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An objective of so many bytes that has every field that is always written.
    fn of_bytes(bytes: usize, run_id: Option<&str>) -> Vec<u8> {
        let written = |pad: usize| {
            let message = ObjectiveMessage {
                version: WIRE_VERSION,
                objective: "x".to_owned(),
                run_id: run_id.map(|id| RunId::parse(id).unwrap()),
                context: None,
                plan: Some(Value::String("y".repeat(pad))),
                options: Options::default(),
            };
            serde_json::to_vec(&message).unwrap()
        };
        written(bytes - written(0).len())
    }

    #[test]
    fn an_objective_that_is_accepted_is_accepted_with_its_id() {
        let longest = RunId::parse(&"i".repeat(RUN_ID_BYTES_MAX)).unwrap();
        let most = MESSAGE_BYTES_MAX - STAMP_BYTES_MAX;
        assert!(parse::<ObjectiveMessage>(&of_bytes(most + 1, None)).is_err(), "there is no room for an id");
        let mut message: ObjectiveMessage = parse(&of_bytes(most, None)).unwrap();
        message.run_id = Some(longest.clone());
        let stamped = serde_json::to_vec(&message).unwrap();
        assert_eq!(stamped.len(), MESSAGE_BYTES_MAX, "it takes all the room there is");
        assert_eq!(parse::<ObjectiveMessage>(&stamped), Ok(message));

        let named = of_bytes(MESSAGE_BYTES_MAX, Some("a"));
        let message: ObjectiveMessage = parse(&named).unwrap();
        assert_eq!(serde_json::to_vec(&message).unwrap(), named, "it has its id, and needs no room for one");
    }
}
