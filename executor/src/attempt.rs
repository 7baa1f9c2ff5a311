//! One attempt of a step, under its lease: an exact tool call, or the tool loop with a model. What comes out has been judged.

use std::collections::BTreeMap;
use std::time::Duration;

use common::event::{EventDraft, EventType};
use common::id::{Slot, StepNumber};
use common::limits::BUDGET_BUSY_WAIT;
use common::llm::{Judged, LlmError, ModelCall, Move, Turn};
use common::message::StepMessage;
use common::meter::{Denied, Meter, Need};
use common::metrics::Purpose;
use common::plan::Step;
use common::reference::resolve;
use common::run::{Outcome, Usage, Verdict};
use common::store::{Account, Claim};
use common::telemetry::spans;
use common::tool::ToolCall;
use serde_json::{Value, json};

use crate::Executor;
use crate::tool::{CallContext, Called};

/// Why a journal that this version cannot read ends a step.
const UNREADABLE: &str = "the journal of the step cannot be read";

/// What an attempt came to, when the step is done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Done {
    /// The step's result.
    pub result: Value,
    /// What the model made of it; `None` where no model judged.
    pub verdict: Option<Verdict>,
    /// What was learned on the way.
    pub learned: Option<String>,
}

/// Why an attempt has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Worth another attempt.
    Transient(String),
    /// The model did not say in a form that can be used whether the step is done. Worth another attempt; quotes the model.
    Unjudged(String),
    /// The endpoint asks for patience; costs no attempt.
    RateLimited {
        /// What it said.
        why: String,
        /// How long to wait.
        after: Duration,
    },
    /// Another attempt would end the same.
    Permanent(String),
    /// The model came to an end and judged that the step is not done.
    Judged {
        /// Failed or impossible.
        verdict: Verdict,
        /// Whether another attempt, from the beginning, may succeed.
        retryable: bool,
        /// What is wrong.
        why: String,
        /// What was learned on the way.
        learned: Option<String>,
    },
    /// The run's budget is used up.
    Exhausted(String),
    /// The lease is lost; nothing is to be recorded.
    Lost,
}

impl Failure {
    /// Which kind it is, for traces.
    pub fn kind(&self) -> &'static str {
        match self {
            Failure::Transient(_) => "transient",
            Failure::RateLimited { .. } => "rate_limited",
            Failure::Permanent(_) => "permanent",
            Failure::Judged { .. } => "judged",
            Failure::Unjudged(_) => "unjudged",
            Failure::Exhausted(_) => "exhausted",
            Failure::Lost => "lost",
        }
    }
}

impl From<LlmError> for Failure {
    fn from(error: LlmError) -> Self {
        match error {
            LlmError::Transient(why) => Failure::Transient(why),
            LlmError::RateLimited { why, after } => Failure::RateLimited { why, after },
            LlmError::Exhausted(why) => Failure::Exhausted(why),
            LlmError::Permanent(why) => Failure::Permanent(why),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Busy(_) => Failure::RateLimited { why: denied.to_string(), after: BUDGET_BUSY_WAIT },
            Denied::Exhausted(why) => Failure::Exhausted(why),
            Denied::Lost => Failure::Lost,
            Denied::Store(error) => Failure::Permanent(error.to_string()),
        }
    }
}

impl TryFrom<Judged> for Done {
    type Error = Failure;

    fn try_from(judged: Judged) -> Result<Self, Failure> {
        let Judged { verdict, retryable, result, learned } = judged;
        match verdict {
            Verdict::Succeeded => Ok(Self { result: Value::String(result), verdict: Some(verdict), learned }),
            Verdict::Failed => Err(Failure::Judged { verdict, retryable, why: result, learned }),
            Verdict::Impossible => Err(Failure::Judged { verdict, retryable: false, why: result, learned }),
        }
    }
}

/// An attempt and what it has used so far.
pub struct Attempt<'a> {
    /// What it may use.
    pub(crate) executor: &'a Executor,
    /// The run and the step.
    pub(crate) message: &'a StepMessage,
    /// The claim under which it runs.
    pub(crate) claim: &'a Claim,
    /// Who pays for calls.
    pub(crate) meter: Meter,
    /// Why earlier attempts came to nothing, oldest first.
    pub lessons: Vec<String>,
    /// All that was used for the step, turns replayed from the journal included.
    pub usage: Usage,
    /// Usage and events that the store does not know yet.
    pub account: Account,
    /// The last tool that gave something.
    pub tool: Option<String>,
    /// Tool calls made, over all attempts, for idempotency keys.
    pub(crate) calls: usize,
}

impl<'a> Attempt<'a> {
    /// An attempt that has not begun.
    pub fn new(executor: &'a Executor, message: &'a StepMessage, claim: &'a Claim) -> Self {
        let slot = Slot::Step(message.step_number);
        let meter = Meter::of(&executor.env, &message.run_id, slot, claim.epoch, claim.budget);
        Self {
            executor,
            message,
            claim,
            meter,
            lessons: Vec::new(),
            usage: Usage::default(),
            account: Account::default(),
            tool: None,
            calls: 0,
        }
    }

    /// The slot under which everything is recorded.
    pub(crate) fn slot(&self) -> Slot {
        Slot::Step(self.message.step_number)
    }

    /// The step as it stands in the plan; a message may be older than that.
    pub(crate) fn step(&self) -> Option<&'a Step> {
        self.claim.step.as_ref()
    }

    /// Runs to a result within the step's time. What does not pass the step's own check has failed.
    pub async fn run(&mut self) -> Result<Done, Failure> {
        let limit = self.executor.config.step_timeout;
        let step = self.step();
        let work = async {
            match step.and_then(|step| Some((step, step.tool_hint.as_ref()?, step.arguments.as_ref()?))) {
                Some((step, tool, arguments)) => self.exact(step, tool, arguments).await,
                None => {
                    let span = spans::agent("executor");
                    let ended = span.around(self.turns()).await;
                    if let Err(failure) = &ended {
                        span.failed(failure.kind());
                    }
                    ended
                }
            }
        };
        let done = match tokio::time::timeout(limit, work).await {
            Ok(result) => result?,
            Err(_elapsed) => {
                self.count_unanswered();
                return Err(Failure::Permanent(format!("the step did not end within {limit:?}")));
            }
        };
        match step.and_then(|step| step.check.as_ref()).map_or(Ok(()), |check| check.holds(&done.result)) {
            Ok(()) => Ok(done),
            Err(why) => Err(Failure::Permanent(format!("the check on the result failed: {why}"))),
        }
    }

    /// A call that was dropped on its way counts at its estimate: nobody knows what it took.
    fn count_unanswered(&mut self) {
        if let Some(need) = self.meter.unanswered() {
            self.usage += need.estimated();
            self.account.usage += need.estimated();
        }
    }

    /// Calls the step's tool with exactly its arguments. No model is asked, but to judge the output where the plan says what "done"
    /// means; then the call is journaled first, so that it is not made again when the model has to be asked again.
    async fn exact(&mut self, step: &Step, tool: &str, arguments: &Value) -> Result<Done, Failure> {
        let mut turns = self.replay();
        if turns.is_empty() {
            let results = self.results();
            let arguments = resolve(arguments, &|number| results.get(&number)).map_err(Failure::Permanent)?;
            turns.push(Turn::Moved(Move::Call(vec![ToolCall { tool: tool.to_owned(), arguments }])));
        }
        if turns.len() == 1 {
            let Turn::Moved(Move::Call(calls)) = &turns[0] else { return Err(Failure::Permanent(UNREADABLE.to_owned())) };
            let Some(call) = calls.first().cloned() else { return Err(Failure::Permanent(UNREADABLE.to_owned())) };
            let output = self.call(&call).await?.output.map_err(|why| Failure::Permanent(format!("{tool}: {why}")))?;
            if step.done_when.is_none() {
                // The outcome follows at once.
                return Ok(Done { result: output, ..Done::default() });
            }
            self.record(0, &turns[0].clone()).await?;
            turns.push(Turn::Returned { index: 0, output: Ok(output) });
            self.record(1, &turns[1].clone()).await?;
        }
        let Some(Turn::Returned { output: Ok(output), .. }) = turns.get(1).cloned() else {
            return Err(Failure::Permanent(UNREADABLE.to_owned()));
        };
        match self.ask(&turns[..2], true).await? {
            Move::Conclude(judged) => Ok(Done { result: output, ..Done::try_from(judged)? }),
            Move::Unusable { complaint, .. } => Err(Failure::Unjudged(format!("the result could not be judged: {complaint}"))),
            Move::Call(_) => Err(Failure::Unjudged("the result could not be judged: the model called a tool".to_owned())),
        }
    }

    /// What references stand for: the results of the steps before, or, of one that did not succeed, `{"error": …, "outcome": …}`.
    fn results(&self) -> BTreeMap<StepNumber, Value> {
        let value = |input: &common::run::StepInput| match input.outcome {
            Outcome::Succeeded => input.result.clone(),
            Outcome::Failed | Outcome::Skipped | Outcome::Cancelled => {
                json!({"error": input.error, "outcome": input.outcome})
            }
        };
        self.claim.inputs.iter().map(|input| (input.step_number, value(input))).collect()
    }

    /// Calls a tool, if the run's budget allows it, and takes note of it.
    pub(crate) async fn call(&mut self, call: &ToolCall) -> Result<Called, Failure> {
        self.meter.reserve(&Need::TOOL_CALL).await?;
        let context = CallContext::new(&self.message.run_id, self.message.step_number, self.calls);
        self.calls += 1;
        let span = spans::tool(&call.tool, self.executor.tools.has(&call.tool), &context.idempotency_key, &call.arguments);
        let called = span.around(self.executor.tools.call(call, &context)).await;
        span.returned(&called.output);
        drop(span);
        self.meter.came_back();
        let used = Usage { tool_calls: 1, ..Usage::default() };
        self.usage += used;
        self.account.usage += used;
        let data = json!({
            "tool": call.tool,
            "arguments_bytes": called.arguments_bytes,
            "result_bytes": called.result_bytes,
            "duration_ms": common::clock::millis(called.duration),
            "ok": called.output.is_ok(),
            "error": called.output.as_ref().err(),
        });
        self.account.events.push(EventDraft::new(EventType::ToolCalled, data));
        self.executor.env.metrics.tool_called(&call.tool, called.output.is_ok());
        if called.output.is_ok() {
            self.tool = Some(call.tool.clone());
        }
        Ok(called)
    }

    /// Takes note of answered model requests.
    pub(crate) fn asked(&mut self, calls: &[ModelCall]) {
        for call in calls {
            self.usage += call.usage;
        }
        self.account.add(calls, Purpose::Act.as_str());
    }

    /// Counts a tool call that was replayed from the journal, so that later calls keep their keys.
    pub(crate) fn replayed(&mut self, usage: Usage) {
        self.calls += usize::try_from(usage.tool_calls).unwrap_or(usize::MAX);
        self.usage += usage;
    }
}
