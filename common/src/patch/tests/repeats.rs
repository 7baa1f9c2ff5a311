//! The loop guard.

use serde_json::{Value, json};

use super::{check, run_of};

/// 1 found something; 2 asked a model and failed; 3 calculated and failed; 4 waits. In an earlier revision 8 failed and 9 was dropped.
fn tried() -> super::RunView {
    run_of(
        vec![
            json!({"step_number": 1, "state": "succeeded", "description": "Find the prices.", "tool_hint": "search"}),
            json!({"step_number": 2, "state": "failed", "description": "Compare the prices", "depends_on": [1]}),
            json!({"step_number": 3, "state": "failed", "description": "Add up", "tool_hint": "calculate", "depends_on": [1],
                   "arguments": {"expression": {"$result": 1, "pointer": "/a"}, "note": "2 + 2"}}),
            json!({"step_number": 4, "state": "waiting", "description": "Report", "depends_on": [2]}),
        ],
        &[
            json!({"step_number": 8, "state": "failed", "description": "Guess 2 + 3"}),
            json!({"step_number": 9, "state": "cancelled", "description": "Ask somebody", "depends_on": [8]}),
        ],
    )
}

/// Expects a patch with one new step 10 of these fields to be accepted (empty) or refused for this.
fn one(name: &str, fields: Value, expected: &str) {
    let mut step = fields;
    step["step_number"] = json!(10);
    let after = step["depends_on"].get(0).map_or(String::new(), |first| format!("<{first}"));
    let added = format!("1 2<1 3<1 4<2 10{after} | put 10 | retired ");
    check(name, &tried(), &json!({"steps": [step]}), if expected.is_empty() { &added } else { expected });
}

#[test]
fn what_failed_is_not_tried_again() {
    let words = |text: &str| json!({"description": text, "depends_on": [1]});
    let sum = |arguments: Value| json!({"description": "y", "tool_hint": "calculate", "depends_on": [1], "arguments": arguments});
    let find = json!({"description": "find the prices", "tool_hint": "search"});
    for (name, fields, expected) in [
        ("renumbered", words("Compare the prices"), "!step 10 repeats step 2, which failed: do it another way"),
        ("in other letters", words(" compare THE\tprices!"), "!repeats step 2"),
        ("in other quotes", words("“Compare” – the prices…"), "!repeats step 2"),
        ("in other words", words("Compare the prices in a table"), ""),
        ("with a tool", json!({"description": "Compare the prices", "tool_hint": "search", "depends_on": [1]}), ""),
        ("without its input", json!({"description": "Compare the prices"}), ""),
        (
            "judged otherwise",
            json!({"description": "Compare the prices", "done_when": "x", "depends_on": [1]}),
            "!repeats step 2",
        ),
        (
            "the same call in other words",
            sum(json!({"note": "2  +  2", "expression": {"pointer": "/a", "$result": 1}})),
            "!repeats step 3",
        ),
        ("another part", sum(json!({"expression": {"$result": 1, "pointer": "/b"}, "note": "2 + 2"})), ""),
        ("another call", sum(json!({"expression": {"$result": 1, "pointer": "/a"}, "note": "2 - 2"})), ""),
        ("what failed in an earlier revision", json!({"description": "guess 2+3"}), "!step 10 repeats step 8, which failed"),
        ("another sign", json!({"description": "Guess 2 * 3"}), ""),
        ("what succeeded", find, "!step 10 repeats step 1, which has succeeded: leave it out"),
        ("only what was taken out", json!({"description": "ask somebody"}), "!all that is new (step 10) was in the plan before"),
    ] {
        one(name, fields, expected);
    }
}

#[test]
fn patches_that_go_in_circles() {
    for (name, steps, expected) in [
        (
            "a copy of the plan under new numbers",
            json!([
                {"step_number": 10, "description": "Find the prices", "tool_hint": "search"},
                {"step_number": 11, "description": "Compare the prices", "depends_on": [10], "replaces": 2},
            ]),
            "!step 11 repeats step 2",
        ),
        (
            "another input",
            json!([
                {"step_number": 10, "description": "Find the prices elsewhere", "tool_hint": "search"},
                {"step_number": 11, "description": "Compare the prices", "depends_on": [10], "replaces": 2},
            ]),
            "1 3<1 4<11 10 11<10 | put 4,10,11 | retired 2",
        ),
        (
            "what was taken out, beside something new",
            json!([
                {"step_number": 10, "description": "Ask somebody"},
                {"step_number": 11, "description": "Look it up", "replaces": 2},
            ]),
            "1 3<1 4<11 10 11 | put 4,10,11 | retired 2",
        ),
        (
            "a pending step that becomes one that failed",
            json!([{"step_number": 4, "description": "Compare the prices.", "depends_on": [1]}]),
            "!step 4 repeats step 2",
        ),
        (
            "a pending step in other words",
            json!([{"step_number": 4, "description": "Report briefly", "depends_on": [1]}]),
            "1 2<1 3<1 4<1 | put 4 | retired ",
        ),
        (
            "with the failed one among its inputs",
            json!([{"step_number": 10, "description": "Compare the prices", "depends_on": [1, 2], "replaces": 2}]),
            "!step 10 repeats step 2",
        ),
    ] {
        check(name, &tried(), &json!({"steps": steps}), expected);
    }
}

#[test]
fn a_pending_twin_of_a_failed_step_may_be_refined_beside_the_point() {
    let twin = |number: u32, state: &str| json!({"step_number": number, "state": state, "description": "toss a coin"});
    let run = run_of(vec![twin(1, "failed"), twin(2, "waiting")], &[]);
    let draft = json!({"steps": [{"step_number": 2, "done_when": "it is heads"}]});
    check("twin", &run, &draft, "1 2 | put 2 | retired ");
}
