//! The spans that there are, one function each; see [`super::traces`] for how they hang together.

use serde_json::Value;

use super::content;
use super::names::*;
use super::traces::{Array, Kind, Span, Traces, Value as OtelValue, says};
use crate::broker::Envelope;
use crate::id::{RunId, StepNumber};
use crate::message::Queue;
use crate::run::{RunDocument, RunStatus};
use crate::store::Snapshot;

/// When a message came, for a span that begins once its run is known.
#[derive(Debug, Clone, Copy)]
pub struct Arrival(Option<std::time::SystemTime>);

impl Traces {
    /// A message has come.
    pub fn arrival(&self) -> Arrival {
        Arrival(self.now())
    }

    /// A message of a run is handled; of a step, where it is one's. `trace` is what it carries. From here on the lines of the log say
    /// which run and step they are about.
    pub fn handling(
        &self,
        (queue, envelope, arrival): (Queue, &Envelope, Arrival),
        run: &RunId,
        step: Option<StepNumber>,
        trace: Option<&str>,
    ) -> Span {
        super::about(run, step, trace);
        self.child_of(trace, run, Kind::Consumer, arrival.0, |prefix| {
            let destination = queue.name(prefix);
            let name = format!("{PROCESS} {destination}");
            let mut attributes = vec![
                says(MESSAGING_SYSTEM, RABBITMQ),
                says(MESSAGING_OPERATION_NAME, PROCESS),
                says(MESSAGING_OPERATION_TYPE, PROCESS),
                says(MESSAGING_RABBITMQ_ROUTING_KEY, destination.clone()),
                says(MESSAGING_DESTINATION_NAME, destination),
                says(MESSAGING_MESSAGE_ID, envelope.message_id.clone()),
                says(MESSAGING_MESSAGE_BODY_SIZE, count(envelope.body.len())),
                says(RUN_ID, run.to_string()),
            ];
            attributes.extend(step.map(|step| says(STEP_NUMBER, i64::from(step.0))));
            (name, attributes)
        })
    }

    /// A run has ended, by the caller: its own span, from its opening until now.
    pub fn run_ended(&self, run: &RunId, snapshot: &Snapshot, document: &RunDocument) {
        let times = (document.created_at_ms, document.created_at_ms + document.duration_ms);
        let failed = match document.status {
            RunStatus::Failed => Some("failed"),
            RunStatus::Cancelled => Some("cancelled"),
            RunStatus::Planning
            | RunStatus::AwaitingApproval
            | RunStatus::Running
            | RunStatus::Paused
            | RunStatus::Summarizing
            | RunStatus::Succeeded
            | RunStatus::Partial => None,
        };
        self.run_span(run, snapshot.traceparent.as_deref(), times, failed, |quoted| {
            let mut attributes = vec![
                says(GEN_AI_OPERATION_NAME, INVOKE_WORKFLOW),
                says(GEN_AI_WORKFLOW_NAME, WORKFLOW),
                says(GEN_AI_CONVERSATION_ID, run.to_string()),
                says(RUN_ID, run.to_string()),
                says(RUN_STATUS, document.status.as_str()),
                says(RUN_STEPS, count(document.step_results.len())),
                says(PLAN_REVISION, i64::from(document.revision)),
                says(RUN_MODEL_CALLS, number(document.usage.model_calls)),
                says(RUN_TOOL_CALLS, number(document.usage.tool_calls)),
            ];
            if quoted {
                attributes.push(says(GEN_AI_INPUT_MESSAGES, content::plain("user", &document.objective)));
                let answer = document.final_response.as_deref().map(|answer| content::plain("assistant", answer));
                attributes.extend(answer.map(|answer| says(GEN_AI_OUTPUT_MESSAGES, answer)));
            }
            attributes
        });
    }
}

/// A plan is made, or looked at again.
pub fn plan() -> Span {
    Span::child(Kind::Internal, |run| {
        let attributes = vec![
            says(GEN_AI_OPERATION_NAME, PLAN),
            says(GEN_AI_AGENT_NAME, "planner"),
            says(GEN_AI_CONVERSATION_ID, run.to_string()),
            says(RUN_ID, run.to_string()),
        ];
        ("plan planner".into(), attributes)
    })
}

/// A service works on a run with a model.
pub fn agent(name: &'static str) -> Span {
    Span::child(Kind::Internal, |run| {
        let attributes = vec![
            says(GEN_AI_OPERATION_NAME, INVOKE_AGENT),
            says(GEN_AI_AGENT_NAME, name),
            says(GEN_AI_CONVERSATION_ID, run.to_string()),
            says(RUN_ID, run.to_string()),
        ];
        (format!("{INVOKE_AGENT} {name}").into(), attributes)
    })
}

/// A tool is called. `known`: a tool that there is; what a model made up does not become the name of a span.
pub fn tool(name: &str, known: bool, id: &str, arguments: &Value) -> Span {
    let span = Span::child(Kind::Internal, |_run| {
        let name = if known { name } else { "unknown" };
        let attributes = vec![
            says(GEN_AI_OPERATION_NAME, EXECUTE_TOOL),
            says(GEN_AI_TOOL_NAME, name.to_owned()),
            says(GEN_AI_TOOL_TYPE, TOOL_TYPE),
            says(GEN_AI_TOOL_CALL_ID, id.to_owned()),
        ];
        (format!("{EXECUTE_TOOL} {name}").into(), attributes)
    });
    span.quotes(GEN_AI_TOOL_CALL_ARGUMENTS, || content::value(arguments));
    span
}

impl Span {
    /// What a tool gave.
    pub fn returned(&self, output: &Result<Value, String>) {
        match output {
            Ok(value) => self.quotes(GEN_AI_TOOL_CALL_RESULT, || content::value(value)),
            Err(_why) => self.failed("tool_error"),
        }
    }

    /// What a model answered: the body of its reply.
    pub fn answered(&self, reply: &Value) {
        let usage = &reply["usage"];
        let tokens = |value: &Value| value.as_u64().map(number);
        for (name, value) in [
            (GEN_AI_USAGE_INPUT_TOKENS, tokens(&usage["prompt_tokens"]).or_else(|| tokens(&usage["input_tokens"]))),
            (GEN_AI_USAGE_OUTPUT_TOKENS, tokens(&usage["completion_tokens"]).or_else(|| tokens(&usage["output_tokens"]))),
            (GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, tokens(&usage["prompt_tokens_details"]["cached_tokens"])),
            (GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, tokens(&usage["completion_tokens_details"]["reasoning_tokens"])),
        ] {
            if let Some(value) = value {
                self.says(name, value);
            }
        }
        for (name, value) in [(GEN_AI_RESPONSE_MODEL, &reply["model"]), (GEN_AI_RESPONSE_ID, &reply["id"])] {
            if let Some(text) = value.as_str().filter(|text| text.len() <= NAME_BYTES_MAX) {
                self.says(name, text.to_owned());
            }
        }
        let choice = &reply["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str().filter(|text| text.len() <= NAME_BYTES_MAX) {
            self.says(GEN_AI_RESPONSE_FINISH_REASONS, OtelValue::Array(Array::String(vec![reason.to_owned().into()])));
        }
        self.quotes(GEN_AI_OUTPUT_MESSAGES, || content::output(choice));
    }
}

/// Longest name or id of an endpoint's that is believed, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// The model endpoint, as traces name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
}

impl Server {
    /// Of its URL.
    pub fn of(url: &reqwest::Url) -> Self {
        let port = url.port_or_known_default().unwrap_or_default();
        Self { host: url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned(), port }
    }
}

/// One request to a model. `rung`: how the reply is asked for.
pub fn chat(server: &Server, body: &Value, rung: &'static str) -> Span {
    let span = Span::child(Kind::Client, |run| {
        let model = body["model"].as_str().unwrap_or_default();
        let output = if rung == "text" { "text" } else { "json" };
        let mut attributes = vec![
            says(GEN_AI_OPERATION_NAME, CHAT),
            says(GEN_AI_PROVIDER_NAME, provider(&server.host)),
            says(GEN_AI_CONVERSATION_ID, run.to_string()),
            says(GEN_AI_REQUEST_MODEL, model.to_owned()),
            says(GEN_AI_OUTPUT_TYPE, output),
            says(MODEL_RUNG, rung),
            says(SERVER_ADDRESS, server.host.clone()),
            says(SERVER_PORT, i64::from(server.port)),
        ];
        attributes.extend(body["temperature"].as_f64().map(|degree| says(GEN_AI_REQUEST_TEMPERATURE, degree)));
        attributes.extend(body["max_tokens"].as_u64().map(|tokens| says(GEN_AI_REQUEST_MAX_TOKENS, number(tokens))));
        (format!("{CHAT} {model}").into(), attributes)
    });
    span.quotes(GEN_AI_INPUT_MESSAGES, || content::input(body));
    span
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
