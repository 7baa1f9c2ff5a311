//! What models do to verdicts: nothing counts as a success that was not called one.

use super::*;
use Verdict::{Failed as NotDone, Impossible};

fn verdict(outcome: &str, result: &str, retryable: bool) -> String {
    json!({"learned": "", "outcome": outcome, "result": result, "retryable": retryable}).to_string()
}

#[tokio::test]
async fn verdicts_in_disguise() {
    let done = verdict("succeeded", "It is 2.", false);
    check("plain", Conclude, text(done.clone()), Says("It is 2.")).await;
    check("fenced", Conclude, text(format!("```json\n{done}\n```")), Says("It is 2.")).await;
    check("prose around", Last, text(format!("Let me {{judge}}:\n{done}\nThat is all {{}}.")), Says("It is 2.")).await;
    check("reasoning first", Last, text(format!("<think>{{\"outcome\": \"failed\"}}</think>{done}")), Says("It is 2.")).await;
    check("another object first", Conclude, text(format!("{{\"thought\": 1}} {done}")), Says("It is 2.")).await;
    check("in a list", Last, text(format!("[{done}]")), Says("It is 2.")).await;
    check("parsed content", Conclude, message(json!({"content": {"outcome": "succeeded", "result": "2"}}), "stop"), Says("2"))
        .await;
    check("in a call", Conclude, always(Behaviour::tool_calls(&[("verdict", &done)])), Says("It is 2.")).await;
    check("shouted", Last, text("{\"outcome\": \"SUCCEEDED\", \"result\": \"2\"}"), Says("2")).await;
    check("a synonym", Last, text("{\"outcome\": \"success\", \"result\": \"2\"}"), Says("2")).await;
    check("a number as the result", Last, text("{\"outcome\": \"succeeded\", \"result\": 2}"), Says("2")).await;
    check("an object as the result", Last, text("{\"outcome\": \"succeeded\", \"result\": {\"a\": 2}}"), Says("{\"a\":2}")).await;
    check("called answer", Last, text("{\"outcome\": \"succeeded\", \"answer\": \"2\"}"), Says("2")).await;
    check("retryable success", Last, text(verdict("succeeded", "2", true)), Says("2")).await;
    check("failed", Conclude, text(verdict("failed", "no such file", false)), Ends(NotDone, false, "no such file")).await;
    check("failed for now", LastFailed, text(verdict("failed", "no power", true)), Ends(NotDone, true, "no power")).await;
    check("impossible", Last, text(verdict("impossible", "a circle", true)), Ends(Impossible, false, "a circle")).await;
    check(
        "retryable as text",
        Last,
        text("{\"outcome\": \"failed\", \"result\": \"x\", \"retryable\": \"true\"}"),
        Ends(NotDone, true, "x"),
    )
    .await;
    check(
        "retryable as a number",
        Last,
        text("{\"outcome\": \"failed\", \"result\": \"x\", \"retryable\": 1}"),
        Ends(NotDone, false, "x"),
    )
    .await;
    check("no reason", Last, text("{\"outcome\": \"failed\"}"), Ends(NotDone, false, "gave no reason")).await;
    check("the reason elsewhere", Last, text("{\"outcome\": \"failed\", \"reason\": \"broke\"}"), Ends(NotDone, false, "broke"))
        .await;
    check("action that failed", Act, text("{\"answer\": \"no file\", \"outcome\": \"failed\"}"), Ends(NotDone, false, "no file"))
        .await;
}

#[tokio::test]
async fn verdicts_that_are_none() {
    let outcome = || Unusable("\"outcome\" must be one of");
    check("unknown outcome", Conclude, text(verdict("maybe", "2", false)), outcome()).await;
    check("empty outcome", Last, text(verdict("", "2", false)), outcome()).await;
    check("outcome missing", Last, text("{\"result\": \"2\"}"), outcome()).await;
    check("outcome null", Conclude, text("{\"outcome\": null, \"result\": \"2\"}"), outcome()).await;
    check("outcome true", Last, text("{\"outcome\": true, \"result\": \"2\"}"), outcome()).await;
    check("outcome a list", Last, text("{\"outcome\": [\"succeeded\"], \"result\": \"2\"}"), outcome()).await;
    check("every outcome", Last, text("{\"outcome\": \"succeeded|failed|impossible\", \"result\": \"2\"}"), outcome()).await;
    check("an empty object", Conclude, text("{}"), outcome()).await;
    let long = json!({"outcome": "x".repeat(100_000)}).to_string();
    check("an endless outcome", Last, text(long), outcome()).await;
    let echo = json!({"type": "object", "properties": {"outcome": {"enum": ["succeeded", "failed"]}}, "required": ["outcome"]});
    check("the schema itself", Conclude, text(echo.to_string()), outcome()).await;
    check("the schema's properties", Last, text(echo["properties"].to_string()), outcome()).await;
    check("success without a result", Conclude, text("{\"outcome\": \"succeeded\"}"), Unusable("\"result\" must be")).await;
    check("success with an empty result", Last, text(verdict("succeeded", " \n ", false)), Unusable("\"result\" must be")).await;
    check("more where nothing more can be", Last, text(verdict("more", "", false)), Unusable("no tool")).await;
    check("cut off", Conclude, message(json!({"content": "{\"outcome\": \"succ"}), "length"), Unusable("cut off")).await;
    check("cut off, says stop", Last, text("{\"outcome\": \"succeeded\", \"result\": \"2"), Unusable("cut off")).await;
    check("cut off in words", Last, message(json!({"content": "It is"}), "length"), Unusable("cut off")).await;
    check("single quotes", Last, text("{'outcome': 'succeeded'}"), Unusable("not valid JSON")).await;
    check(
        "refusal",
        Conclude,
        message(json!({"content": null, "refusal": "I cannot judge."}), "stop"),
        Unusable("refused: I cannot"),
    )
    .await;
    check("content filter", Last, message(json!({"content": ""}), "content_filter"), Unusable("content filter")).await;
    check("nothing", Conclude, text(""), Unusable("empty")).await;
    check("only reasoning", Last, text("<think>for ever"), Unusable("")).await;
    check("an unknown tool", Conclude, text("{\"tool\": \"rm\", \"arguments\": {}}"), outcome()).await;
}

#[tokio::test]
async fn words_in_place_of_a_verdict() {
    check("words", Conclude, text("It is 2."), Says("It is 2.")).await;
    check("words after a failed call", LastFailed, text("It is 2."), Ends(NotDone, false, "It is 2.")).await;
    check("words that begin with the outcome", Conclude, text("**Failed**: no such file."), Ends(NotDone, false, "no such file"))
        .await;
    check("an impossible one", Last, text("Impossible, a circle has no corner."), Ends(Impossible, false, "no corner")).await;
    check("words that are judged well", Act, text("Failed to find it."), Ends(NotDone, false, "Failed to find it")).await;
    let fake = FakeOpenAi::start(text("It is 2.")).await;
    let llm = llm(&fake);
    for expected in [4, 5] {
        asked(&llm, Conclude, &[]).await.0.unwrap();
        assert_eq!(fake.calls(), expected, "a model that writes no objects is asked once from then on");
    }
}

#[tokio::test]
async fn what_is_said_in_words_is_judged_and_not_retold() {
    let says = |verdict: String| {
        move |request: &Request| match request.rung() {
            "tools" => Behaviour::text("Two, </output> I say."),
            _ if !request.prompt().contains("The reply to the step:\n<output>\nTwo, <\\/output> I say.\n</output>") => {
                Behaviour::text("?")
            }
            _ => Behaviour::text(&verdict),
        }
    };
    let calls = check("done", Act, says(verdict("succeeded", "It said two.", false)), Says("Two, </output> I say.")).await;
    assert_eq!(calls.iter().map(|call| call.rung).collect::<Vec<_>>(), ["tool_call", "json_schema"]);
    check("not done", Act, says(verdict("failed", "that is no sum", true)), Ends(NotDone, true, "no sum")).await;
    let both = verdict("succeeded", "2", false);
    let calls = check("judged at once", Act, text(both), Says("2")).await;
    assert_eq!(calls.len(), 1, "a verdict costs no request of its own");
}

#[tokio::test]
async fn a_missing_call_is_made_at_once() {
    let sum = r#"{"expression": "1 + 1"}"#;
    check("as an action", Conclude, text(format!("{{\"tool\": \"calculate\", \"arguments\": {sum}}}")), Call("1 + 1")).await;
    check("natively", Conclude, always(Behaviour::tool_calls(&[("calculate", sum)])), Call("1 + 1")).await;
}

#[tokio::test]
async fn results_and_lessons_are_bounded() {
    let huge = json!({"learned": "l".repeat(1 << 20), "outcome": "failed", "result": "r".repeat(1 << 20)}).to_string();
    let fake = FakeOpenAi::start(text(huge)).await;
    let (got, _) = asked(&llm(&fake), Last, &[]).await;
    let Ok(Got::Move(Move::Conclude(judged))) = got else { panic!("{got:.300?}") };
    assert!(judged.result.len() <= common::limits::TOOL_OUTPUT_BYTES_MAX, "{}", judged.result.len());
    assert!(judged.learned.is_some_and(|learned| learned.len() <= common::limits::LEARNED_BYTES_MAX));
}

#[tokio::test]
async fn what_done_means_and_what_failed_before_is_shown() {
    let fake = FakeOpenAi::scripted(Script::default()).await;
    let (llm, tools, lessons) = (llm(&fake), tools(), ["the </attempt> well was dry".to_owned()]);
    let (done_when, meter) = (Some("the sum is known"), &Meter::Free);
    let task = StepTask {
        objective: "o",
        description: "Add",
        tool_hint: Some("calculate"),
        tools: &tools,
        inputs: &[],
        done_when,
        lessons: &lessons,
        meter,
        turns: &[],
        last: false,
    };
    llm.act(&task).await.unwrap();
    llm.act(&StepTask { turns: &called(Ok(json!("2"))), ..task.clone() }).await.unwrap();
    llm.act(&StepTask { tool_hint: None, ..task }).await.unwrap();
    let prompts: Vec<String> = fake.requests().iter().map(Request::prompt).collect();
    assert!(prompts.iter().all(|prompt| prompt.contains("The step is done when: the sum is known")), "{prompts:?}");
    let lessons: Vec<bool> = prompts.iter().map(|prompt| prompt.contains("<attempt>\nthe <\\/attempt> well was dry")).collect();
    assert_eq!(lessons, [true, false, true], "arguments, verdict, native");
}

#[tokio::test]
async fn an_answered_request_is_counted_when_the_next_one_fails() {
    let fake = FakeOpenAi::start(|request| match request.number {
        0 => Behaviour::text("It is 2."),
        _ => Behaviour::error(503, "overloaded", "later"),
    })
    .await;
    let (got, calls) = asked(&llm(&fake), Act, &[]).await;
    assert!(matches!(&got, Err(LlmError::Transient(why)) if why.contains("later")), "{got:?}");
    assert_eq!(calls.len(), 1, "the native reply was paid for");
}
