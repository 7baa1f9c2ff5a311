use serde_json::json;

use super::*;

fn rules() -> Rules {
    Rules { tools: vec!["calculate".into(), "search".into()], steps_max: 5 }
}

/// Expects `draft` to be refused with a complaint that contains `expected`.
fn refused(draft: Value, expected: &str) {
    let complaints = check(&draft, &rules()).expect_err(expected);
    assert!(complaints.iter().any(|c| c.contains(expected)), "{expected:?} not in {complaints:?}");
}

fn step(number: u32, depends_on: &[u32]) -> Value {
    json!({"step_number": number, "description": "do", "depends_on": depends_on})
}

#[test]
fn good_plans_pass() {
    let plan = check(
        &json!({"steps": [
            {"step_number": 2, "description": " sum ", "tool_hint": "calculate", "depends_on": [1, 1],
             "arguments": {"expression": {"$result": 1}}},
            {"step_number": 1, "description": "find", "tool_hint": "none", "extra": 1},
        ]}),
        &rules(),
    )
    .unwrap();
    assert_eq!(plan.steps.len(), 2);
    assert_eq!(plan.steps[0].tool_hint, None);
    assert_eq!(plan.steps[1].description, "sum");
    assert_eq!(plan.steps[1].depends_on, [StepNumber(1)]);
}

#[test]
fn bad_plans_are_refused_with_reasons() {
    refused(json!([]), "object with an array");
    refused(json!({"steps": {}}), "object with an array");
    refused(json!({"steps": []}), "no steps");
    refused(json!({"steps": [1]}), "entry 1 of steps is not an object");
    refused(json!({"steps": (1..=6).map(|n| step(n, &[])).collect::<Vec<_>>()}), "has 6 steps, at most 5");
    for number in [json!(0), json!(-1), json!("1"), json!(1.5), json!(u64::MAX), json!(null)] {
        refused(json!({"steps": [{"step_number": number, "description": "x"}]}), "step_number must be a whole number from 1");
    }
    refused(json!({"steps": [step(1, &[]), step(1, &[])]}), "step_number 1 is used more than once");
    refused(json!({"steps": [{"step_number": 1, "description": "  "}]}), "step 1: description must be a text");
    refused(
        json!({"steps": [{"step_number": 1, "description": "x", "tool_hint": "Calculate"}]}),
        "\"Calculate\" is not a known tool",
    );
    refused(json!({"steps": [{"step_number": 1, "description": "x", "tool_hint": 3}]}), "tool_hint must be the name");
    refused(json!({"steps": [{"step_number": 1, "description": "x", "arguments": {}}]}), "arguments need a tool_hint");
    refused(
        json!({"steps": [{"step_number": 1, "description": "x", "tool_hint": "search", "arguments": 1}]}),
        "arguments must be an object",
    );
    refused(json!({"steps": [{"step_number": 1, "description": "x", "depends_on": "1"}]}), "depends_on must be an array");
    refused(json!({"steps": [{"step_number": 1, "description": "x", "depends_on": ["1"]}]}), "depends_on must hold step numbers");
    refused(json!({"steps": [step(1, &[1])]}), "step 1 depends on itself");
    refused(json!({"steps": [step(1, &[9])]}), "step 1 depends on step 9, which does not exist");
}

#[test]
fn cycles_are_named() {
    refused(json!({"steps": [step(1, &[2]), step(2, &[3]), step(3, &[2])]}), "circle: 2 -> 3 -> 2");
    refused(json!({"steps": [step(1, &[2]), step(2, &[1])]}), "circle");
}

#[test]
fn references_must_be_declared() {
    let with = |arguments: Value| json!({"steps": [step(1, &[]), {"step_number": 2, "description": "x", "tool_hint": "search", "arguments": arguments}]});
    refused(with(json!({"query": {"$result": 1}})), "refers to the result of step 1, add 1 to its depends_on");
    refused(with(json!({"query": {"$result": "1"}})), "$result must be a step number");
    refused(with(json!({"query": {"$result": 1, "pointer": "a"}})), "pointer must be empty or start with /");
    refused(with(json!({"query": {"$result": 1, "more": 2}})), "no field but pointer");
}

#[test]
fn complaints_are_bounded() {
    let rules = Rules { tools: vec![], steps_max: 10_000 };
    let steps: Vec<Value> = (0..10_000).map(|_| json!({"step_number": 0})).collect();
    assert_eq!(check(&json!({"steps": steps}), &rules).unwrap_err().len(), PLAN_COMPLAINTS_MAX);
}

#[test]
fn a_long_chain_is_checked_without_recursion() {
    let rules = Rules { tools: vec![], steps_max: 10_000 };
    let steps: Vec<Value> =
        (1..=10_000u32).map(|n| step(n, if n == 1 { &[] } else { std::slice::from_ref(Box::leak(Box::new(n - 1))) })).collect();
    assert_eq!(check(&json!({"steps": steps}), &rules).unwrap().steps.len(), 10_000);
}

/// Reads the one step of a plan that has `fields` beside its number and description.
fn with(fields: Value) -> Value {
    let mut step = json!({"step_number": 1, "description": "x"});
    for (key, value) in fields.as_object().unwrap() {
        step[key] = value.clone();
    }
    json!({"steps": [step]})
}

#[test]
fn what_done_means_is_read() {
    let done_when = |value: Value| check(&with(json!({"done_when": value})), &rules()).unwrap().steps[0].done_when.clone();
    assert_eq!(done_when(json!(" there is a total ")).as_deref(), Some("there is a total"));
    for none in [json!(null), json!(""), json!("  ")] {
        assert_eq!(done_when(none), None);
    }
    refused(with(json!({"done_when": 3})), "step 1: done_when must be a text, got 3");
    refused(with(json!({"done_when": "x".repeat(8193)})), "step 1: done_when has 8193 bytes, the limit is 8192");
}

#[test]
fn checks_on_results_are_read() {
    let read = |value: Value| check(&with(json!({"check": value})), &rules()).unwrap().steps[0].check.clone();
    let equals = |pointer: &str, equals: Value| Some(Check::Equals { pointer: pointer.into(), equals });
    assert_eq!(read(json!(null)), None);
    assert_eq!(read(json!({"equals": 36})), equals("", json!(36)));
    assert_eq!(read(json!({"pointer": "/a", "equals": null})), equals("/a", json!(null)));
    assert_eq!(read(json!({"pointer": null, "equals": 1, "schema": null})), equals("", json!(1)));
    assert_eq!(read(json!({"pointer": null, "equals": null, "schema": null})), None);
    let schema = json!({"type": "number"});
    assert_eq!(
        read(json!({"equals": null, "schema": schema})),
        Some(Check::Schema { pointer: String::new(), schema: schema.clone() })
    );
    for bad in [json!({}), json!(36), json!({"pointer": "/a"}), json!({"schema": null}), json!({"equals": 1, "schema": schema})] {
        refused(with(json!({"check": bad})), "step 1: a check looks like {\"pointer\"");
    }
    refused(with(json!({"check": {"pointer": 1, "equals": 1}})), "a check looks like");
    refused(with(json!({"check": {"pointer": "a", "equals": 1}})), "step 1: the pointer of a check is empty or starts with /");
    refused(with(json!({"check": {"schema": {"type": "text"}}})), "step 1: the schema of a check is no JSON Schema");
}

#[test]
fn what_follows_a_failed_dependency_is_read() {
    let read =
        |value: Value| check(&with(json!({"on_failed_dependency": value})), &rules()).unwrap().steps[0].on_failed_dependency;
    for skip in [json!(null), json!("skip")] {
        assert_eq!(read(skip), OnFailedDependency::Skip);
    }
    assert_eq!(read(json!("run_anyway")), OnFailedDependency::RunAnyway);
    for bad in [json!("run"), json!(1), json!(["skip"]), json!("")] {
        refused(with(json!({"on_failed_dependency": bad})), "must be \"skip\" or \"run_anyway\", got");
    }
}

#[test]
fn a_long_circle_is_named_in_part() {
    let rules = Rules { tools: vec![], steps_max: 10_000 };
    let steps: Vec<Value> = (1..=10_000u32)
        .map(|n| json!({"step_number": n, "description": "do", "depends_on": [if n == 1 { 10_000 } else { n - 1 }]}))
        .collect();
    let complaints = check(&json!({"steps": steps}), &rules).unwrap_err();
    assert!(complaints[0].starts_with("steps wait for each other in a circle: 1 -> 10000 -> 9999"), "{complaints:?}");
    assert!(complaints[0].ends_with(" -> …") && complaints[0].len() < 200, "{complaints:?}");
}
