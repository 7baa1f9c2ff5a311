//! What models do to verdicts: nothing counts as a success that was not called one.

use super::*;
use Verdict::Failed as NotDone;

fn verdict(outcome: &str, result: &str, retryable: bool) -> String {
    json!({"learned": "", "outcome": outcome, "result": result, "retryable": retryable}).to_string()
}

#[tokio::test]
async fn words_in_place_of_a_verdict_are_expected_from_then_on() {
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
