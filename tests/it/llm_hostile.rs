//! What endpoints and models do wrong, and what comes of it: real HTTP, a real client, one [`check`]. Replies that are one body for every
//! request stand in the bad-input corpus (`corpus/model_replies.rs`); here are those that depend on what was asked before.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::config::{LlmConfig, ModelChoice};
use common::id::StepNumber;
use common::limits::MODEL_BODY_BYTES_MAX;
use common::llm::{
    AnswerTask, Failed, Judged, Llm, LlmError, ModelCall, Move, PlanTask, RefusedPlan, ReplanTask, Reply, StepTask, Turn,
};
use common::meter::Meter;
use common::run::{Outcome, StepInput, Verdict};
use common::tool::{ToolCall, ToolSpec};
use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Request, Script, ScriptedMove};

mod conversation;
mod ladder;
mod meter;
mod moves;
mod patches;
mod verdicts;

/// Nothing may show this.
const KEY: &str = "sk-very-secret-0123456789";
/// Requests that one question may cost at most: four rungs, and two parameters left out.
const REQUESTS_MAX: usize = 6;

/// What is asked.
#[derive(Clone, Copy)]
pub(crate) enum Ask {
    Plan,
    /// A move in a step for which the plan names no tool.
    Act,
    /// The same, with a tool named.
    Hinted,
    /// The same, after the tool has given 2.
    Conclude,
    Last,
    /// A verdict on a call that failed.
    LastFailed,
    Answer,
    Replan,
}
use Ask::{Act, Answer, Conclude, Hinted, Last, LastFailed, Plan, Replan};

/// What must come of it. Texts are parts that must be there.
#[derive(Debug)]
enum Expect {
    Permanent(&'static str),
    /// A success with this result, or this answer.
    Says(&'static str),
    /// Another verdict, retryable or not, with this reason.
    Ends(Verdict, bool, &'static str),
}
use Expect::{Ends, Permanent, Says};

fn config(base_url: String, timeout: Duration) -> LlmConfig {
    LlmConfig {
        choice: ModelChoice::Auto,
        api_key: Some(KEY.to_owned().into()),
        base_url,
        model: "test-model".into(),
        planner_model: None,
        executor_model: None,
        summarizer_model: None,
        timeout,
        prices: std::collections::BTreeMap::new(),
        trust: common::trust::Trust::default(),
    }
}

fn llm(fake: &FakeOpenAi) -> Llm {
    Llm::from_config(&config(fake.base_url(), Duration::from_secs(5))).expect("a usable configuration")
}

fn tools() -> Vec<ToolSpec> {
    let object = |name: &str| json!({"type": "object", "properties": {name: {"type": "string"}}, "required": [name], "additionalProperties": false});
    vec![
        ToolSpec { name: "calculate", description: "Calculates.", parameters: object("expression"), side_effects: false },
        ToolSpec { name: "search", description: "Searches.", parameters: object("query"), side_effects: false },
    ]
}

fn good_plan() -> Value {
    json!({"steps": [{"step_number": 1, "description": "Add 1 and 1", "tool_hint": "calculate", "depends_on": []}]})
}

/// What came of a question, in one type.
#[derive(Debug)]
pub(crate) enum Got {
    Plan(Result<Value, String>),
    Move(Move),
    Text(String),
}

async fn asked(llm: &Llm, ask: Ask, turns: &[Turn]) -> (Result<Got, LlmError>, Vec<ModelCall>) {
    asked_on(&Meter::Free, llm, ask, turns).await
}

async fn asked_on(meter: &Meter, llm: &Llm, ask: Ask, turns: &[Turn]) -> (Result<Got, LlmError>, Vec<ModelCall>) {
    let tools = tools();
    let step = StepTask {
        objective: "o",
        description: "Add 1 and 1",
        tool_hint: matches!(ask, Hinted | Conclude).then_some("calculate"),
        tools: &tools,
        inputs: &[],
        done_when: None,
        lessons: &[],
        meter,
        turns,
        last: matches!(ask, Last | LastFailed),
    };
    match ask {
        Plan => {
            let (objective, tools) = ("Add 1 and 1", &tools[..]);
            let task = PlanTask { objective, context: None, tools, steps_max: 10, refused: None, feedback: None, meter };
            parted(llm.plan(&task).await, |draft| Got::Plan(draft.plan))
        }
        Replan => parted(llm.replan(&patches::task(&patches::run(), &tools, meter)).await, |draft| Got::Plan(draft.plan)),
        Act | Hinted | Last => parted(llm.act(&step).await, Got::Move),
        Conclude => parted(llm.act(&StepTask { turns: &called(Ok(json!("2"))), ..step }).await, Got::Move),
        LastFailed => parted(llm.act(&StepTask { turns: &called(Err("no power".into())), ..step }).await, Got::Move),
        Answer => {
            let step_number = StepNumber(1);
            let (description, outcome, result) = ("Add".into(), Outcome::Succeeded, json!("2"));
            let steps = [StepInput { step_number, description, outcome, result, error: None }];
            let task = AnswerTask { objective: "Add", steps: &steps, halted: None, meter };
            parted(llm.answer(&task).await, Got::Text)
        }
    }
}

/// What came of a question, and the requests that were answered either way.
fn parted<T>(reply: Result<Reply<T>, Failed>, got: impl Fn(T) -> Got) -> (Result<Got, LlmError>, Vec<ModelCall>) {
    match reply {
        Ok(reply) => (Ok(got(reply.value)), reply.calls),
        Err(failed) => (Err(failed.error), failed.calls),
    }
}

/// One call of `calculate` and what it gave.
fn called(output: Result<Value, String>) -> Vec<Turn> {
    let call = ToolCall { tool: "calculate".into(), arguments: json!({"expression": "1 + 1"}) };
    vec![Turn::Moved(Move::Call(vec![call])), Turn::Returned { index: 0, output }]
}

/// Asks an endpoint that behaves like that; whatever it does, the key stays here, and questions, words and waits are few.
pub(crate) async fn answered(
    name: &str,
    ask: Ask,
    timeout: Duration,
    behave: impl Fn(&Request) -> Behaviour + Send + Sync + 'static,
) -> (Result<Got, LlmError>, Vec<ModelCall>) {
    let fake = FakeOpenAi::start(behave).await;
    let llm = Llm::from_config(&config(fake.base_url(), timeout)).expect("a usable configuration");
    let (got, calls) = tokio::time::timeout(Duration::from_secs(20), asked(&llm, ask, &[])).await.expect(name);
    let shown = format!("{got:?} {calls:?} {llm:?}");
    assert!(!shown.contains(KEY) && !shown.contains("very-secret"), "{name}: the key leaks: {shown:.2000}");
    assert!(fake.calls() <= REQUESTS_MAX, "{name}: {} requests", fake.calls());
    if let Err(error) = &got {
        assert!(error.to_string().chars().count() < 450 && !error.to_string().contains('\n'), "{name}: {error}");
    }
    for call in &calls {
        assert!(call.usage.model_calls == 1 && call.usage.input_tokens > 0 && call.usage.output_tokens > 0, "{name}: {call:?}");
    }
    (got, calls)
}

/// Asks an endpoint that behaves like that, and compares.
async fn check(
    name: &str,
    ask: Ask,
    behave: impl Fn(&Request) -> Behaviour + Send + Sync + 'static,
    expect: Expect,
) -> Vec<ModelCall> {
    let (got, calls) = answered(name, ask, seconds(5), behave).await;
    let fits = match (&got, &expect) {
        (Err(LlmError::Permanent(why)), Permanent(part)) => why.contains(part),
        (Ok(Got::Text(text)), Says(expected)) => text == expected,
        (Ok(Got::Move(Move::Conclude(judged))), Says(expected)) => {
            judged.result == *expected && judged.verdict == Verdict::Succeeded && !judged.retryable
        }
        (Ok(Got::Move(Move::Conclude(judged))), Ends(verdict, retryable, why)) => {
            judged.verdict == *verdict && judged.retryable == *retryable && judged.result.contains(why)
        }
        _ => false,
    };
    assert!(fits, "{name}: expected {expect:?}, got {got:.2000?}");
    calls
}

fn text(content: impl Into<String>) -> impl Fn(&Request) -> Behaviour {
    let content = content.into();
    move |_| Behaviour::text(&content)
}

fn always(behaviour: Behaviour) -> impl Fn(&Request) -> Behaviour {
    move |_| behaviour.clone()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_prompt_too_long_is_not_asked_for_in_another_way() {
    let too_long = "This model's maximum context length is 8192 tokens";
    let calls = AtomicUsize::new(0);
    let behave = move |_: &Request| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Behaviour::error(400, "context_length_exceeded", too_long),
        _ => Behaviour::text("a second request"),
    };
    check("a prompt too long", Plan, behave, Permanent("maximum context")).await;
}

#[tokio::test]
async fn nobody_listens() {
    let llm =
        Llm::from_config(&config("http://127.0.0.1:9/v1".into(), Duration::from_millis(300))).expect("a usable configuration");
    let (got, _) = asked(&llm, Plan, &[]).await;
    assert!(matches!(&got, Err(LlmError::Transient(why)) if why.contains("cannot connect")), "{got:?}");
}

#[tokio::test]
async fn a_flood_is_not_read() {
    let flood = format!("{{\"choices\": [{{\"message\": {{\"content\": \"{}\"}}}}]}}", "x".repeat(64 << 20));
    let fake = FakeOpenAi::start(always(Behaviour::status(200, flood))).await;
    let (got, _) = asked(&llm(&fake), Answer, &[]).await;
    assert!(matches!(&got, Err(LlmError::Permanent(why)) if why.contains("more than 4194304 bytes")), "{got:?}");
    // What the kernel buffers on both sides comes on top.
    assert!(fake.bytes_sent() < MODEL_BODY_BYTES_MAX as u64 + (32 << 20), "{} bytes were read", fake.bytes_sent());
    let ten = "y".repeat(10 << 20);
    check("10 MiB of error", Plan, always(Behaviour::status(500, ten)), Permanent("more than")).await;
}

#[tokio::test]
async fn the_key_does_not_follow_a_redirect() {
    let thief = FakeOpenAi::start(always(Behaviour::text("caught"))).await;
    let target = format!("{}/chat/completions?token=1", thief.base_url());
    for status in [301, 302, 303, 307, 308] {
        let redirect = Behaviour::status(status, "").header("location", &target);
        check(&format!("{status}"), Plan, always(redirect), Permanent("redirects")).await;
    }
    assert_eq!(thief.calls(), 0);
}

#[tokio::test]
async fn usage_that_is_not_said_or_not_believed_is_estimated() {
    for usage in [
        json!(null),
        json!({"prompt_tokens": -1, "completion_tokens": null}),
        json!({"prompt_tokens": u64::MAX, "completion_tokens": 1_u64 << 31}),
    ] {
        let body = json!({"choices": [{"message": {"content": "fine"}}], "usage": usage});
        let calls = check("odd usage", Answer, always(Behaviour::json(body)), Says("fine")).await;
        let usage = calls[0].usage;
        assert!(
            usage.estimated && usage.input_tokens + usage.output_tokens < 10_000 && calls[0].model == "test-model",
            "{calls:?}"
        );
    }
    let calls = check("usage", Answer, text("fine"), Says("fine")).await;
    assert!(!calls[0].usage.estimated && calls[0].usage.input_tokens == 11 && calls[0].model == "fake-model", "{calls:?}");
}
