//! The hostile-model corpus: what endpoints and models do wrong, and what comes of it. Every case is one line of data: real
//! HTTP, a real client, one [`check`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::config::{LlmConfig, ModelChoice};
use common::id::StepNumber;
use common::limits::{MODEL_BODY_BYTES_MAX, RETRY_AFTER_DEFAULT, RETRY_AFTER_MAX};
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
enum Ask {
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
enum Expect {
    Transient(&'static str),
    Permanent(&'static str),
    RateLimited(Duration),
    /// The good plan.
    GoodPlan,
    NoPlan(&'static str),
    /// A call of `calculate` with this expression.
    Call(&'static str),
    /// A success with this result, or this answer.
    Says(&'static str),
    /// Another verdict, retryable or not, with this reason.
    Ends(Verdict, bool, &'static str),
    Unusable(&'static str),
}
use Expect::{Call, Ends, GoodPlan, NoPlan, Permanent, RateLimited, Says, Transient, Unusable};

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
enum Got {
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

/// Asks an endpoint that behaves like that, and compares.
async fn check(
    name: &str,
    ask: Ask,
    behave: impl Fn(&Request) -> Behaviour + Send + Sync + 'static,
    expect: Expect,
) -> Vec<ModelCall> {
    let fake = FakeOpenAi::start(behave).await;
    let llm = Llm::from_config(&config(fake.base_url(), Duration::from_millis(300))).expect("a usable configuration");
    let (got, calls) = tokio::time::timeout(Duration::from_secs(20), asked(&llm, ask, &[])).await.expect(name);
    let shown = format!("{got:?} {calls:?} {llm:?}");
    assert!(!shown.contains(KEY) && !shown.contains("very-secret"), "{name}: the key leaks: {shown:.2000}");
    assert!(fake.calls() <= REQUESTS_MAX, "{name}: {} requests", fake.calls());
    if let Err(error) = &got {
        assert!(error.to_string().chars().count() < 450 && !error.to_string().contains('\n'), "{name}: {error}");
    }
    let fits = match (&got, &expect) {
        (Err(LlmError::Transient(why)), Transient(part)) | (Err(LlmError::Permanent(why)), Permanent(part)) => why.contains(part),
        (Err(LlmError::RateLimited { after, .. }), RateLimited(wait)) => after == wait,
        (Ok(Got::Plan(Ok(plan))), GoodPlan) => *plan == if matches!(ask, Replan) { patches::good() } else { good_plan() },
        (Ok(Got::Plan(Err(why))), NoPlan(part)) => why.contains(part),
        (Ok(Got::Move(Move::Call(calls))), Call(expression)) => {
            *calls == [ToolCall { tool: "calculate".into(), arguments: json!({"expression": expression}) }]
        }
        (Ok(Got::Text(text)), Says(expected)) => text == expected,
        (Ok(Got::Move(Move::Conclude(judged))), Says(expected)) => {
            judged.result == *expected && judged.verdict == Verdict::Succeeded && !judged.retryable
        }
        (Ok(Got::Move(Move::Conclude(judged))), Ends(verdict, retryable, why)) => {
            judged.verdict == *verdict && judged.retryable == *retryable && judged.result.contains(why)
        }
        (Ok(Got::Move(Move::Unusable { complaint, .. })), Unusable(part)) => complaint.contains(part),
        _ => false,
    };
    assert!(fits, "{name}: got {got:.2000?}");
    for call in &calls {
        assert!(call.usage.model_calls == 1 && call.usage.input_tokens > 0 && call.usage.output_tokens > 0, "{name}: {call:?}");
    }
    calls
}

fn text(content: impl Into<String>) -> impl Fn(&Request) -> Behaviour {
    let content = content.into();
    move |_| Behaviour::text(&content)
}

fn always(behaviour: Behaviour) -> impl Fn(&Request) -> Behaviour {
    move |_| behaviour.clone()
}

fn message(message: Value, finish_reason: &'static str) -> impl Fn(&Request) -> Behaviour {
    move |_| Behaviour::message(message.clone(), finish_reason)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn statuses_are_sorted() {
    let error = |status| always(Behaviour::error(status, "some_code", "because"));
    check("400 on every rung", Plan, error(400), Permanent("answered 400: because")).await;
    check("422 on every rung", Act, error(422), Permanent("422")).await;
    check("400 for words", Answer, error(400), Permanent("400")).await;
    for status in [401, 402, 403, 404, 405, 413, 451] {
        check(&format!("{status}"), Plan, error(status), Permanent("because")).await;
    }
    for status in [408, 409, 425, 500, 502, 503, 504, 529] {
        check(&format!("{status}"), Plan, error(status), Transient("because")).await;
    }
    check("empty 500", Act, always(Behaviour::status(500, "")), Transient("an empty body")).await;
    let page = "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>";
    check("HTML 502", Answer, always(Behaviour::status(502, page)), Transient("502 Bad Gateway nginx")).await;
    check("HTML 200", Answer, always(Behaviour::status(200, page)), Transient("is not JSON")).await;
    let long = "no ".repeat(1 << 20);
    check("endless error text", Plan, always(Behaviour::status(503, long)), Transient("no no")).await;
    check("text 401", Plan, always(Behaviour::status(401, "nope")), Permanent("nope")).await;
    let quoted = format!("Incorrect API key provided: {KEY}");
    check("an error that quotes the key", Plan, always(Behaviour::error(401, "invalid_api_key", &quoted)), Permanent("[key]"))
        .await;
    let too_long = "This model's maximum context length is 8192 tokens";
    let calls = AtomicUsize::new(0);
    let behave = move |_: &Request| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Behaviour::error(400, "context_length_exceeded", too_long),
        _ => Behaviour::text("a second request"),
    };
    check("a prompt too long is not asked for in another way", Plan, behave, Permanent("maximum context")).await;
}

#[tokio::test]
async fn rate_limits_say_how_long() {
    let limited = |after: Option<&str>| always(Behaviour::rate_limited(after));
    check("429", Plan, limited(None), RateLimited(RETRY_AFTER_DEFAULT)).await;
    check("429 with seconds", Act, limited(Some("17")), RateLimited(seconds(17))).await;
    check("429 with nonsense", Answer, limited(Some("later")), RateLimited(RETRY_AFTER_DEFAULT)).await;
    check("429 with a year", Plan, limited(Some("31536000")), RateLimited(RETRY_AFTER_MAX)).await;
    let dated = Behaviour::rate_limited(Some("Sun, 06 Nov 1994 08:50:07 GMT")).header("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    check("429 with a date", Plan, always(dated), RateLimited(seconds(30))).await;
    let ms = Behaviour::rate_limited(None).header("retry-after-ms", "1500");
    check("429 with milliseconds", Plan, always(ms), RateLimited(Duration::from_millis(1500))).await;
    let plain = Behaviour::status(429, "Too many requests").header("retry-after", "3");
    check("429 in plain text", Plan, always(plain), RateLimited(seconds(3))).await;
    let quota = Behaviour::error(429, "insufficient_quota", "You exceeded your current quota");
    check("429 for an exhausted quota", Plan, always(quota), Permanent("current quota")).await;
}

#[tokio::test]
async fn errors_in_other_dialects() {
    let body = |body: Value| always(Behaviour::json(body));
    check("200 with an error", Plan, body(json!({"error": {"message": "upstream died"}})), Transient("upstream died")).await;
    check("200 with code 429", Plan, body(json!({"error": {"message": "m", "code": 429}})), RateLimited(RETRY_AFTER_DEFAULT))
        .await;
    check("200 with code 402", Plan, body(json!({"error": {"message": "pay", "code": 402}})), Permanent("pay")).await;
    check(
        "200 with a named code",
        Act,
        body(json!({"error": {"message": "m", "code": "rate_limit_exceeded"}})),
        RateLimited(RETRY_AFTER_DEFAULT),
    )
    .await;
    check("200 with an error text", Answer, body(json!({"error": "model is loading"})), Transient("model is loading")).await;
    let odd = |status, body: Value| always(Behaviour::status(status, body.to_string()));
    check(
        "integer code",
        Plan,
        odd(403, json!({"error": {"message": "m1", "code": 403, "metadata": {"a": []}}})),
        Permanent("m1"),
    )
    .await;
    check("array of errors", Plan, odd(403, json!([{"error": {"message": "gemini", "status": "DENIED"}}])), Permanent("gemini"))
        .await;
    check("error as text", Plan, odd(404, json!({"error": "model 'x' not found"})), Permanent("model 'x' not found")).await;
    check("detail", Answer, odd(404, json!({"detail": [{"msg": "no such"}]})), Permanent("no such")).await;
    check("null error", Answer, odd(500, json!({"error": null})), Transient("500")).await;
    check("JSON, but a number", Answer, odd(200, json!(7)), Transient("no choices")).await;
}

#[tokio::test]
async fn connections_break() {
    let partial = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"choices\": [".to_vec();
    check("reset before a byte", Plan, always(Behaviour::Reset(Vec::new())), Transient("")).await;
    check("reset in the body", Plan, always(Behaviour::Reset(partial.clone())), Transient("broke")).await;
    check("end in the body", Act, always(Behaviour::Raw(partial)), Transient("broke")).await;
    check("not HTTP", Act, always(Behaviour::Raw(b"220 smtp ready\r\n".to_vec())), Transient("")).await;
    check("no answer", Answer, always(Behaviour::Silence), Transient("no answer within 300ms")).await;
    let drip = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{\"choices\": []}".to_vec();
    check("drip", Plan, always(Behaviour::Drip(drip)), Transient("no answer within 300ms")).await;
    check("truncated JSON", Plan, always(Behaviour::status(200, "{\"choices\": [{\"mess")), Transient("not JSON")).await;
    check("empty 200", Plan, always(Behaviour::status(200, "")), Transient("not JSON")).await;
    let nested = "[".repeat(100_000);
    check("nested without end", Plan, always(Behaviour::status(200, nested)), Transient("not JSON")).await;
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
async fn replies_without_what_is_needed() {
    check("no choices", Plan, always(Behaviour::json(json!({"choices": []}))), Transient("no choices")).await;
    check("null choices", Answer, always(Behaviour::json(json!({"choices": null}))), Transient("no choices")).await;
    let null = || message(json!({"role": "assistant", "content": null}), "stop");
    check("null content: plan", Plan, null(), NoPlan("empty")).await;
    check("null content: act", Act, null(), Unusable("empty")).await;
    check("null content: answer", Answer, null(), Transient("empty")).await;
    check("white space", Answer, text(" \n "), Transient("empty")).await;
    check("no message", Act, always(Behaviour::json(json!({"choices": [{}]}))), Unusable("empty")).await;
    let refusal = || message(json!({"content": null, "refusal": "I cannot help with that."}), "stop");
    check("refusal: plan", Plan, refusal(), NoPlan("refused: I cannot help")).await;
    check("refusal: act", Act, refusal(), Unusable("refused: I cannot help")).await;
    check("refusal: answer", Answer, refusal(), Permanent("refused to answer: I cannot help")).await;
    check("content filter", Plan, message(json!({"content": ""}), "content_filter"), NoPlan("content filter")).await;
    check("unknown finish reason", Answer, message(json!({"content": "fine"}), "because_i_said_so"), Says("fine")).await;
    let bare = json!({"choices": [{"message": {"content": "fine"}}]});
    let calls = check("no usage, id, created, role", Answer, always(Behaviour::json(bare)), Says("fine")).await;
    assert!(calls[0].usage.estimated, "{calls:?}");
    let odd = json!({"choices": [{"message": {"content": "fine"}}], "usage": {"prompt_tokens": -1, "completion_tokens": null}});
    let calls = check("negative usage", Answer, always(Behaviour::json(odd)), Says("fine")).await;
    assert!(calls[0].usage.estimated && calls[0].model == "test-model", "{calls:?}");
    let parts = json!({"content": [{"type": "text", "text": "fi"}, {"type": "image"}, {"type": "text", "text": "ne"}]});
    let calls = check("content in parts", Answer, message(parts, "stop"), Says("fine")).await;
    assert!(!calls[0].usage.estimated && calls[0].usage.input_tokens == 11 && calls[0].model == "fake-model", "{calls:?}");
    check("legacy text", Answer, always(Behaviour::json(json!({"choices": [{"text": "fine"}]}))), Says("fine")).await;
}

#[tokio::test]
async fn plans_in_disguise() {
    let plan = good_plan().to_string();
    check("plain", Plan, text(plan.clone()), GoodPlan).await;
    check("reasoning first", Plan, text(format!("<think>{{\"steps\": [1]}} hm</think>\n{plan}")), GoodPlan).await;
    check("fenced", Plan, text(format!("```json\n{plan}\n```")), GoodPlan).await;
    check("prose around", Plan, text(format!("Sure {{as you like}}!\n{plan}\nGood luck {{}}.")), GoodPlan).await;
    check("two objects", Plan, text(format!("{{\"thought\": 1}}\n{plan}")), GoodPlan).await;
    check("bare list", Plan, text(good_plan()["steps"].to_string()), GoodPlan).await;
    check("parsed content", Plan, message(json!({"content": good_plan()}), "stop"), GoodPlan).await;
    check("in a call", Plan, always(Behaviour::tool_calls(&[("plan", &plan)])), GoodPlan).await;
    check("in an unknown call", Plan, always(Behaviour::tool_calls(&[("other", &plan), ("plan", "x")])), GoodPlan).await;
    let cut = plan[..plan.len() - 4].to_owned();
    check("cut off", Plan, message(json!({"content": cut}), "length"), NoPlan("cut off")).await;
    check("cut off, says stop", Plan, text(cut.clone()), NoPlan("cut off")).await;
    check("single quotes", Plan, text(plan.replace('"', "'")), NoPlan("not valid JSON")).await;
    check("NaN", Plan, text("{\"steps\": [{\"step_number\": NaN}]}"), NoPlan("not valid JSON")).await;
    check("words", Plan, text("I would first add, then rest."), NoPlan("no JSON")).await;
    check("call with broken arguments", Plan, always(Behaviour::tool_calls(&[("plan", "{\"steps\": [")])), NoPlan("cut off"))
        .await;
    check(
        "call with array arguments",
        Plan,
        message(json!({"tool_calls": [{"function": {"name": "plan", "arguments": [1]}}]}), "x"),
        NoPlan(""),
    )
    .await;
}
