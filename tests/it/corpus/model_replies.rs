//! What a model's endpoint sends back, over real HTTP, and what comes of the question: used, mended, to be tried again, or refused.

use std::time::Duration;

use common::llm::{LlmError, Move};
use futures::StreamExt;
use serde_json::{Value, json};
use support::fake_openai::Behaviour;

use super::{Surprises, cases, input, name};
use crate::llm_hostile::{Ask, Got, answered};

/// Questions at once: some wait for a time-out.
const QUESTIONS_AT_ONCE: usize = 4;

#[tokio::test]
async fn bad_model_replies() {
    let mut surprises = Surprises::default();
    let mut outcomes = futures::stream::iter(cases("model_replies"))
        .map(|case| async {
            let came = check(&case).await;
            (case, came)
        })
        .buffered(QUESTIONS_AT_ONCE);
    while let Some((case, came)) = outcomes.next().await {
        surprises.compare(&case, &as_expected(&case["expected"], came));
    }
}

/// What came of the question.
async fn check(case: &Value) -> Value {
    let behaviour = behaviour(&case["reply"]);
    let timeout = Duration::from_millis(case["timeout_ms"].as_u64().unwrap_or(10_000));
    let (got, _calls) = answered(name(case), ask(case), timeout, move |_| behaviour.clone()).await;
    match got {
        Err(LlmError::Transient(why)) => json!({"transient": why}),
        Err(LlmError::Permanent(why)) => json!({"permanent": why}),
        Err(LlmError::RateLimited { after, .. }) => json!({"rate_limited_ms": after.as_millis()}),
        Err(LlmError::Exhausted(why)) => json!({"exhausted": why}),
        Ok(Got::Plan(Ok(plan))) => json!({"plan": plan}),
        Ok(Got::Plan(Err(why))) => json!({"no_plan": why}),
        Ok(Got::Text(text)) => json!({"says": text}),
        Ok(Got::Move(Move::Call(calls))) => json!({"calls": calls}),
        Ok(Got::Move(Move::Unusable { complaint, .. })) => json!({"unusable": complaint}),
        Ok(Got::Move(Move::Conclude(judged))) => {
            json!({"ends": {"verdict": judged.verdict, "retryable": judged.retryable, "result": judged.result}})
        }
    }
}

/// The sentence of a refusal need only contain what is expected of it: part of it is the system's own words, or the endpoint's.
fn as_expected(expected: &Value, came: Value) -> Value {
    let said = ["transient", "permanent", "no_plan", "unusable"].into_iter().any(|class| {
        let sentences = (expected[class].as_str(), came[class].as_str());
        matches!(sentences, (Some(part), Some(whole)) if whole.contains(part))
    });
    if said { expected.clone() } else { came }
}

fn ask(case: &Value) -> Ask {
    match case["ask"].as_str() {
        Some("plan") => Ask::Plan,
        Some("act") => Ask::Act,
        Some("hinted") => Ask::Hinted,
        Some("conclude") => Ask::Conclude,
        Some("last") => Ask::Last,
        Some("last_failed") => Ask::LastFailed,
        Some("answer") => Ask::Answer,
        Some("replan") => Ask::Replan,
        Some(_) | None => panic!("{}: what is asked?", name(case)),
    }
}

/// What the endpoint does: `text`, `calls` (name and arguments), `message` (with `finish`), `json` in a good response; `status` (with
/// `headers` and `body`); bytes as they are, and then an end (`raw`), a reset (`reset`), or slowly (`drip`); or `"silence"`.
fn behaviour(reply: &Value) -> Behaviour {
    let text = |input: &Value| String::from_utf8(input::bytes(input)).expect("a text");
    if reply == "silence" {
        return Behaviour::Silence;
    }
    let (kind, value) = reply
        .as_object()
        .and_then(|fields| {
            let kinds = ["text", "calls", "message", "json", "status", "raw", "reset", "drip"];
            kinds.into_iter().find_map(|kind| Some((kind, fields.get(kind)?)))
        })
        .expect("a reply");
    match kind {
        "text" => Behaviour::text(&text(value)),
        "calls" => {
            let calls: Vec<(String, String)> =
                value.as_array().unwrap().iter().map(|call| (text(&call[0]), text(&call[1]))).collect();
            Behaviour::tool_calls(&calls.iter().map(|(name, arguments)| (&**name, &**arguments)).collect::<Vec<_>>())
        }
        "message" => Behaviour::message(value.clone(), reply["finish"].as_str().unwrap_or("stop")),
        "json" => Behaviour::json(value.clone()),
        "status" => Behaviour::Reply {
            status: value.as_u64().and_then(|status| u16::try_from(status).ok()).expect("a status"),
            headers: reply["headers"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            body: input::bytes(&reply["body"]),
        },
        "raw" => Behaviour::Raw(input::bytes(value)),
        "reset" => Behaviour::Reset(input::bytes(value)),
        _ => Behaviour::Drip(input::bytes(value)),
    }
}
