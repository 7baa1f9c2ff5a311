//! What models do to moves within a step: calls and answers in disguise.

use super::*;

#[tokio::test]
async fn moves_in_disguise() {
    let sum = r#"{"expression": "1 + 1"}"#;
    check("native call", Act, always(Behaviour::tool_calls(&[("calculate", sum)])), Call("1 + 1")).await;
    check("prefixed name", Act, always(Behaviour::tool_calls(&[("functions.calculate", sum)])), Call("1 + 1")).await;
    let function = |function: Value| message(json!({"content": "", "tool_calls": [{"function": function}]}), "stop");
    check("object arguments", Act, function(json!({"name": "calculate", "arguments": {"expression": "1 + 1"}})), Call("1 + 1"))
        .await;
    check(
        "fenced arguments",
        Act,
        function(json!({"name": "calculate", "arguments": format!("```json\n{sum}\n```")})),
        Call("1 + 1"),
    )
    .await;
    check(
        "legacy call",
        Act,
        message(json!({"function_call": {"name": "calculate", "arguments": sum}}), "function_call"),
        Call("1 + 1"),
    )
    .await;
    check("call as text", Act, text(format!("```json\n{{\"name\": \"calculate\", \"arguments\": {sum}}}\n```")), Call("1 + 1"))
        .await;
    check("action as text", Act, text(format!("{{\"tool\": \"calculate\", \"arguments\": {sum}}}")), Call("1 + 1")).await;
    check("answer as JSON", Act, text("{\"answer\": \"2\", \"outcome\": \"succeeded\"}"), Says("2")).await;
    check("answer as a number", Act, text("{\"answer\": 2, \"outcome\": \"succeeded\"}"), Says("2")).await;
    check("answer that is never judged", Act, text("{\"answer\": \"2\"}"), Unusable("\"outcome\" must be one of")).await;
    check("answer in words", Act, text("<think>1+1</think> It is 2."), Says("It is 2.")).await;
    let sum_and_verdict = |request: &Request| match request.rung() {
        "tools" => Behaviour::text("{\"sum\": 2}"),
        _ => Behaviour::text("{\"outcome\": \"succeeded\", \"result\": \"\"}"),
    };
    check("JSON asked for", Act, sum_and_verdict, Says("{\"sum\": 2}")).await;
    check("broken arguments", Act, always(Behaviour::tool_calls(&[("calculate", "{\"expression\": ")])), Unusable("")).await;
    check("only reasoning", Act, text("<think>for ever"), Unusable("")).await;
    check("cut off", Act, message(json!({"content": "It is"}), "length"), Unusable("cut off")).await;
    let huge = json!({"expression": "1".repeat(100_000)}).to_string();
    check("huge arguments", Act, always(Behaviour::tool_calls(&[("calculate", &huge)])), Unusable("the limit is 65536")).await;
    let tags = "<tool_call>\n{\"name\": \"calculate\", \"arguments\": {\"expression\": \"1 + 1\"}}\n</tool_call>";
    check("hinted: arguments", Hinted, text(sum), Call("1 + 1")).await;
    check("hinted: fenced", Hinted, text(format!("Here:\n```json\n{sum}\n```")), Call("1 + 1")).await;
    check("hinted: the whole call", Hinted, text(format!("{{\"name\": \"calculate\", \"arguments\": {sum}}}")), Call("1 + 1"))
        .await;
    check("hinted: wrapped", Hinted, text(format!("{{\"arguments\": {sum}}}")), Call("1 + 1")).await;
    check("hinted: a native call", Hinted, always(Behaviour::tool_calls(&[("calculate", sum)])), Call("1 + 1")).await;
    check("hinted: null arguments", Hinted, text("{\"expression\": \"1 + 1\", \"limit\": null}"), Call("1 + 1")).await;
    check("hinted: words", Hinted, text("I would add them."), Unusable("no JSON")).await;
    check("hinted: a list", Hinted, text("[{\"expression\": \"1 + 1\"}]"), Unusable("must be an object")).await;
    check("hinted: cut off", Hinted, message(json!({"content": "{\"expression\": \"1"}), "length"), Unusable("cut off")).await;
    check("call in tags", Act, text(tags), Call("1 + 1")).await;
    check("call in the last turn", Last, text(format!("{{\"tool\": \"calculate\", \"arguments\": {sum}}}")), Unusable("no tool"))
        .await;
    check("native call in the last turn", Last, always(Behaviour::tool_calls(&[("calculate", sum)])), Unusable("no tool")).await;
    check("answer in the last turn", Last, text("2"), Says("2")).await;
    check("empty last turn", Last, text(""), Unusable("empty")).await;
}

#[tokio::test]
async fn many_calls_are_cut() {
    let calls: Vec<(&str, &str)> = (0..1000).map(|_| ("calculate", "{}")).collect();
    let fake = FakeOpenAi::start(always(Behaviour::tool_calls(&calls))).await;
    let (got, _) = asked(&llm(&fake), Act, &[]).await;
    assert!(matches!(&got, Ok(Got::Move(Move::Call(calls))) if calls.len() == 8), "{got:.300?}");
}
