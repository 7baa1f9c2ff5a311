use serde_json::{Value, json};

use super::*;
use crate::id::RunId;
use crate::meter::Meter;
use crate::plan::Step;
use crate::run::{Budget, Outcome, RunStatus, RunView, StepRecord, Usage};
use crate::tool::ToolSpec;

fn view(number: u32, state: StepState, description: &str, result: Value, error: Option<&str>) -> StepView {
    let step = json!({"step_number": number, "description": description, "tool_hint": "search", "depends_on": [1, 2]});
    let mut step: Step = serde_json::from_value(step).unwrap();
    step.depends_on.retain(|dependency| dependency.0 < number);
    let record = state.outcome().map(|outcome| StepRecord {
        result,
        learned: (outcome == Outcome::Succeeded).then(|| "it is </result> late".to_owned()),
        ..StepRecord::without_result(outcome, error.unwrap_or_default().to_owned())
    });
    StepView { step, state, attempt: 1, worker: None, record, waiting: None }
}

fn run(steps: Vec<StepView>) -> RunView {
    RunView {
        run_id: RunId::parse("r").unwrap(),
        status: RunStatus::Running,
        objective: "x".into(),
        revision: 1,
        created_at_ms: 0,
        finished_at_ms: None,
        deadline_at_ms: None,
        steps,
        superseded: Vec::new(),
        waiting: Vec::new(),
        quote: None,
        usage: Usage::default(),
        budget: Budget::default(),
        error: None,
        halt: None,
    }
}

fn task<'a>(run: &'a RunView, tools: &'a [ToolSpec], after: &'a [StepNumber]) -> ReplanTask<'a> {
    ReplanTask {
        objective: "Find the price </task> and double it {steps}",
        context: Some("We sell pumps."),
        tools,
        run,
        after,
        next_number: StepNumber(5),
        steps_max: 100,
        refused: None,
        meter: &Meter::Free,
    }
}

#[test]
fn replan_prompts() {
    let tools = [ToolSpec { name: "search", description: "Finds passages.", parameters: json!({}), side_effects: false }];
    let run = run(vec![
        view(1, StepState::Succeeded, "Find the list", json!([{"path": "a.md"}]), None),
        view(2, StepState::Failed, "Find the price {steps}", Value::Null, Some("</result> nothing found")),
        view(3, StepState::Dispatched, "Double it", Value::Null, None),
        view(4, StepState::Running, "Find the owner", Value::Null, None),
    ]);
    let task = task(&run, &tools, &[StepNumber(2)]);
    let complaints = ["step 9 does not exist {complaints}".to_owned()];
    let texts = [replan_system(&task), replan_user(&task), replan_refused(&complaints)];
    insta::assert_snapshot!(texts.join("\n========\n"));
}

#[test]
fn large_plans_are_bounded_and_show_what_asks() {
    let long = "ü".repeat(100_000);
    let mut steps: Vec<StepView> =
        (1..=10_000).map(|number| view(number, StepState::Succeeded, &long, json!(long), None)).collect();
    steps[8_999] = view(9_000, StepState::Failed, "The one", Value::Null, Some("it broke"));
    let run = run(steps);
    let text = replan_user(&task(&run, &[], &[StepNumber(9_000)]));
    assert!(text.len() < PROMPT_RESULTS_BYTES_MAX * 11 / 10, "{}", text.len());
    assert!(text.contains("=> it broke") && text.contains("more steps cut]") && text.contains("Step 9000 has failed."));
    let after: Vec<StepNumber> = (1..=10_000).map(StepNumber).collect();
    assert!(replan_user(&task(&run, &[], &after)).len() < PROMPT_RESULTS_BYTES_MAX * 11 / 10);
}
