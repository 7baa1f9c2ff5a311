//! What models do to moves within a step: calls and answers in disguise.

use super::*;

#[tokio::test]
async fn an_answer_in_json_is_no_verdict() {
    let sum_and_verdict = |request: &Request| match request.rung() {
        "tools" => Behaviour::text("{\"sum\": 2}"),
        _ => Behaviour::text("{\"outcome\": \"succeeded\", \"result\": \"\"}"),
    };
    check("JSON asked for", Act, sum_and_verdict, Says("{\"sum\": 2}")).await;
}

#[tokio::test]
async fn many_calls_are_cut() {
    let calls: Vec<(&str, &str)> = (0..1000).map(|_| ("calculate", "{}")).collect();
    let fake = FakeOpenAi::start(always(Behaviour::tool_calls(&calls))).await;
    let (got, _) = asked(&llm(&fake), Act, &[]).await;
    assert!(matches!(&got, Ok(Got::Move(Move::Call(calls))) if calls.len() == 8), "{got:.300?}");
}
