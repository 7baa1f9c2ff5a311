//! What models do to patches of plans. Whether a patch fits the plan is for its checker to say; here it is only found.

use common::id::RunId;
use common::run::{Budget, RunStatus, RunView, StepRecord, StepState, StepView, Usage};

use super::*;

pub(super) fn run() -> RunView {
    let step = json!({"step_number": 1, "description": "Read the file", "tool_hint": null, "depends_on": []});
    let record = StepRecord::without_result(Outcome::Failed, "no such </result> file".into());
    let step = serde_json::from_value(step).unwrap();
    let view = StepView { step, state: StepState::Failed, attempt: 1, worker: None, record: Some(record), waiting: None };
    RunView {
        run_id: RunId::parse("r").unwrap(),
        status: RunStatus::Running,
        objective: "Find the owner".into(),
        revision: 1,
        created_at_ms: 0,
        finished_at_ms: None,
        deadline_at_ms: None,
        steps: vec![view],
        superseded: Vec::new(),
        waiting: Vec::new(),
        quote: None,
        usage: Usage::default(),
        budget: Budget::default(),
        error: None,
        halt: None,
    }
}

pub(super) fn task<'a>(run: &'a RunView, tools: &'a [ToolSpec], meter: &'a Meter) -> ReplanTask<'a> {
    let (objective, after, next_number) = ("Find the owner", &[StepNumber(1)], StepNumber(2));
    ReplanTask { objective, context: None, tools, run, after, next_number, steps_max: 10, refused: None, meter }
}

/// Odd shapes come through as they are, for the checker to refuse; none is mended into another patch.
#[tokio::test]
async fn odd_patches_reach_the_checker_unchanged() {
    for odd in [
        json!({"decision": "restart"}),
        json!({"decision": null, "steps": []}),
        json!({"decision": ["keep"]}),
        json!({"decision": "revise", "steps": {"1": {}}}),
        json!({"decision": "revise", "steps": "none"}),
        json!({"decision": "revise", "steps": [7, null, "x", []]}),
        json!({"decision": "revise", "drop": "all", "steps": []}),
        json!({"decision": "revise", "steps": [{"step_number": "two", "replaces": -1}]}),
        json!({"type": "object", "properties": {"decision": {"enum": ["revise"]}}}),
        json!({}),
    ] {
        let fake = FakeOpenAi::start(text(odd.to_string())).await;
        let (got, calls) = asked(&llm(&fake), Replan, &[]).await;
        assert!(matches!(&got, Ok(Got::Plan(Ok(found))) if *found == odd), "{odd}: {got:?}");
        assert_eq!(calls.len(), 1, "{odd}");
    }
}

#[tokio::test]
async fn refused_patches_go_back_with_the_complaints() {
    let fake = FakeOpenAi::scripted(Script::default()).await;
    let (run, tools, complaints) = (run(), tools(), ["step 9 does not exist".to_owned()]);
    let refused = Some(RefusedPlan { reply: "my old patch", complaints: &complaints });
    let draft = llm(&fake).replan(&ReplanTask { refused, ..task(&run, &tools, &Meter::Free) }).await.unwrap().value;
    assert_eq!(draft.plan, Ok(json!({"decision": "keep", "reason": "nothing better"})));
    let request = &fake.requests()[0];
    let messages = request.body["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 4);
    assert_eq!(messages[2]["content"], "my old patch");
    assert!(messages[3]["content"].as_str().unwrap().contains("- step 9 does not exist"));
    assert!(
        request.prompt().contains("<result step=\"1\" failed tool_hint=\"none\">")
            && request.prompt().contains("no such <\\/result> file")
    );
    assert_eq!(request.body["response_format"]["json_schema"]["strict"], true);
}

#[tokio::test]
async fn feedback_stands_beside_the_plan_it_is_about() {
    let fake = FakeOpenAi::scripted(Script::default()).await;
    let (tools, plan) = (tools(), serde_json::from_value(good_plan()).unwrap());
    let feedback = Some(common::llm::Feedback { plan: &plan, text: "Ask </feedback> Ann first" });
    let complaints = ["there is a circle".to_owned()];
    let refused = Some(RefusedPlan { reply: "my second plan", complaints: &complaints });
    let (objective, meter) = ("Add 1 and 1", &Meter::Free);
    let task = PlanTask { objective, context: None, tools: &tools, steps_max: 10, refused, feedback, meter };
    llm(&fake).plan(&task).await.unwrap();
    let body = &fake.requests()[0].body;
    let texts: Vec<&str> = body["messages"].as_array().unwrap().iter().filter_map(|m| m["content"].as_str()).collect();
    assert_eq!(texts.len(), 6);
    assert!(texts[2].contains("Add 1 and 1") && texts[3].contains("Ask <\\/feedback> Ann first"), "{texts:?}");
    assert!(texts[4] == "my second plan" && texts[5].contains("there is a circle"), "{texts:?}");
}
