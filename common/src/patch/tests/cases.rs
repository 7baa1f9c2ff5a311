//! The cases.

use serde_json::{Value, json};

use super::{check, run, run_of};

/// A patch of these steps.
fn steps(steps: Value) -> Value {
    json!({"decision": "revise", "steps": steps})
}

/// A step in the place of another one.
fn instead(number: u32, replaces: u32, depends_on: &[u32]) -> Value {
    json!({"step_number": number, "description": format!("another {number}"), "replaces": replaces, "depends_on": depends_on})
}

/// 1 succeeded, 2 failed, 3 and 4 wait for it (4 through 3), 5 runs.
fn halfway() -> super::RunView {
    run(&[(1, "succeeded", &[]), (2, "failed", &[1]), (3, "waiting", &[2]), (4, "waiting", &[1, 3]), (5, "running", &[1])])
}

#[test]
fn decisions() {
    for (name, draft, expected) in [
        ("keep", json!({"decision": "keep"}), "Keep"),
        ("in capitals, with space", json!({"decision": " KEEP "}), "Keep"),
        ("keep ignores the rest", json!({"decision": "keep", "steps": 7, "drop": [1]}), "Keep"),
        ("unreachable", json!({"decision": "unreachable", "steps": [1]}), "Unreachable"),
        ("reached", json!({"decision": "reached", "drop": "x"}), "1 | put  | retired 2,3,4,5"),
        ("none, with drop", json!({"drop": [3, 4]}), "1 2<1 5<1 | put  | retired 3,4"),
        ("null, with drop", json!({"decision": null, "drop": [4]}), "1 2<1 3<2 5<1 | put  | retired 4"),
        ("empty, with drop", json!({"decision": "", "drop": [4]}), "1 2<1 3<2 5<1 | put  | retired 4"),
        ("none at all", json!({}), "!needs a decision"),
        ("none and nothing in it", json!({"steps": [], "drop": null}), "!needs a decision"),
        ("unknown", json!({"decision": "replan"}), "!must be revise, keep, reached or unreachable, got \"replan\""),
        ("not a text", json!({"decision": 1, "drop": [4]}), "!got 1"),
        ("no object", json!([1, 2]), "!must be a JSON object"),
        ("a text", json!("revise"), "!must be a JSON object"),
        ("revise without changes", json!({"decision": "revise"}), "!changes nothing: say keep"),
        ("revise with an echo", steps(json!([{"step_number": 3, "description": "do  3"}])), "!changes nothing"),
        ("steps are no array", steps(json!({"1": 2})), "!steps must be an array, got"),
        ("drop is no array", json!({"decision": "revise", "drop": 4}), "!drop must be an array, got 4"),
    ] {
        check(name, &halfway(), &draft, expected);
    }
    let reached = json!({"decision": "reached"});
    check("reached with nothing", &run(&[(1, "failed", &[]), (2, "waiting", &[1])]), &reached, "!no step has succeeded yet");
    check("reached, all of it", &run(&[(1, "succeeded", &[])]), &reached, "1 | put  | retired ");
    check("reached, after a failure", &run(&[(1, "failed", &[]), (2, "succeeded", &[1])]), &reached, "2<1 | put  | retired 1");
    check("nothing left", &run(&[(1, "failed", &[])]), &json!({"drop": [1]}), "!has no steps: add one, or say unreachable");
}

#[test]
fn entries() {
    let new = |fields: Value| {
        let mut step = json!({"step_number": 6, "description": "x"});
        for (key, value) in fields.as_object().unwrap() {
            step[key] = value.clone();
        }
        steps(json!([step]))
    };
    for number in [json!(0), json!(-3), json!(1.5), json!("6"), json!(u64::MAX), json!(null), json!([6])] {
        let draft = new(json!({"step_number": number}));
        check("number", &halfway(), &draft, "!entry 1 of steps: step_number must be a whole number from 1, got");
    }
    for replaces in [json!(0), json!("2"), json!([2]), json!(-2), json!(1e30), json!(true)] {
        let draft = new(json!({"replaces": replaces}));
        check("replaces", &halfway(), &draft, "!step 6: replaces must be the number of one step");
    }
    let all = "1 2<1 3<2 4<1,3 5<1";
    let last = format!("{all} 4294967295 | put 4294967295 | retired ");
    for (name, draft, expected) in [
        ("not an object", steps(json!([6])), "!entry 1 of steps is not an object"),
        ("no text", steps(json!([{"step_number": 6}])), "!step 6: description must be a text"),
        ("unknown tool", new(json!({"tool_hint": "rm"})), "!\"rm\" is not a known tool"),
        ("bad check", new(json!({"check": {}})), "!step 6: a check looks like"),
        ("drop a text", json!({"drop": ["2"]}), "!drop must hold the numbers of steps, got \"2\""),
        ("drop 0", json!({"drop": [0]}), "!drop must hold the numbers of steps, got 0"),
        ("drop the unknown", json!({"drop": [9]}), "!drop names step 9, which is not in the plan"),
        ("drop twice", json!({"drop": [4, 4]}), "1 2<1 3<2 5<1 | put  | retired 4"),
        ("one number twice", steps(json!([instead(6, 2, &[]), instead(6, 3, &[])])), "!step_number 6 is used more than once"),
        ("more than a plan may have", steps(json!(vec![json!({}); 11])), "!steps has 11 entries, at most 10 are allowed"),
        ("10,000 steps", steps(json!(vec![json!({}); 10_000])), "!steps has 10000 entries"),
        ("a gap", new(json!({"step_number": u32::MAX})), last.as_str()),
        ("unknown dependency", new(json!({"depends_on": [9]})), "!depends on step 9, which does not exist"),
        ("itself", new(json!({"depends_on": [6]})), "!step 6 depends on itself"),
    ] {
        check(name, &halfway(), &draft, expected);
    }
    let superseded = [json!({"step_number": 9, "state": "failed"})];
    let run = run_of(vec![json!({"step_number": 1, "state": "succeeded"})], &superseded);
    let again = new(json!({"step_number": 9}));
    check("a number of before", &run, &again, "!step_number 9 was used before: number new steps from 10");
}

#[test]
fn what_stays() {
    let without_4 = "1 2<1 3<2 5<1 | put  | retired 4";
    let without_5 = "1 2<1 3<2 4<1,3 6 | put 6 | retired 5";
    let tell = |step: Value| json!({"steps": [step], "drop": [4]});
    for (name, draft, expected) in [
        ("a succeeded step, told again", tell(json!({"step_number": 1, "description": " do\n1 ", "tool_hint": "rm"})), without_4),
        (
            "a succeeded step, changed",
            tell(json!({"step_number": 1, "description": "redo"})),
            "!step 1 has succeeded and stays as it is; leave it out, new steps are numbered from 6",
        ),
        ("a succeeded step, dropped", json!({"drop": [1]}), "!drop names step 1, which has succeeded"),
        ("a succeeded step, replaced", steps(json!([instead(6, 1, &[])])), "!step 6 replaces step 1, which has succeeded"),
        (
            "a succeeded step in another's place",
            tell(json!({"step_number": 1, "description": "do 1", "replaces": 2})),
            "!step 1 has succeeded and stays",
        ),
        ("a running step, told again", tell(json!({"step_number": 5, "description": "do 5", "tool_hint": null})), without_4),
        (
            "a running step with another tool",
            tell(json!({"step_number": 5, "description": "do 5", "tool_hint": "search"})),
            "!step 5 has been started and cannot be changed; leave it out, or give the new step the number 6 with \"replaces\": 5",
        ),
        ("a running step, replaced", steps(json!([instead(6, 5, &[])])), without_5),
        (
            "a running step, told again and replaced",
            steps(json!([{"step_number": 5, "description": "do 5"}, instead(6, 5, &[])])),
            without_5,
        ),
        (
            "a failed step, told again",
            tell(json!({"step_number": 2, "description": "do 2"})),
            "!use the number 6 with \"replaces\": 2",
        ),
        ("a failed step in its own place", steps(json!([instead(2, 2, &[])])), "!step 2 has ended (failed)"),
        ("a pending step in its own place", steps(json!([instead(3, 3, &[1])])), "1 2<1 3<1 4<1,3 5<1 | put 3 | retired "),
    ] {
        check(name, &halfway(), &draft, expected);
    }
}

#[test]
fn replacing() {
    let later = json!({"step_number": 7, "description": "y", "depends_on": [2]});
    let three = json!({"step_number": 3, "description": "x"});
    let three_again = json!({"step_number": 3, "description": "do 3", "replaces": 2});
    let with_both = json!({"step_number": 4, "description": "x", "depends_on": [3, 6]});
    let reads_it = json!({"step_number": 6, "description": "x", "replaces": 2, "depends_on": [2], "tool_hint": "search",
        "arguments": {"query": {"$result": 2}}});
    for (name, draft, expected) in [
        ("dependents follow", steps(json!([instead(6, 2, &[1])])), "1 3<6 4<1,3 5<1 6<1 | put 3,6 | retired 2"),
        ("not its own dependency", steps(json!([instead(6, 2, &[1, 2])])), "1 3<6 4<1,3 5<1 6<1 | put 3,6 | retired 2"),
        ("new ones follow", steps(json!([later, instead(6, 2, &[])])), "1 3<6 4<1,3 5<1 6 7<6 | put 3,6,7 | retired 2"),
        (
            "all of them",
            steps(json!([instead(6, 2, &[]), instead(7, 3, &[2]), instead(8, 4, &[3]), instead(9, 5, &[])])),
            "1 6 7<6 8<7 9 | put 6,7,8,9 | retired 2,3,4,5",
        ),
        (
            "a chain of replacements",
            steps(json!([instead(6, 2, &[1]), instead(7, 6, &[1])])),
            "!step 7 replaces step 6, which is not in the plan",
        ),
        ("two for one", steps(json!([instead(6, 2, &[]), instead(7, 2, &[])])), "!steps 6 and 7 both replace step 2"),
        ("replaced and dropped", json!({"steps": [instead(6, 2, &[])], "drop": [2]}), "1 3<6 4<1,3 5<1 6 | put 3,6 | retired 2"),
        ("the unknown", steps(json!([instead(6, 9, &[])])), "!step 6 replaces step 9, which is not in the plan"),
        ("itself", steps(json!([instead(6, 6, &[])])), "!step 6 replaces step 6, which is not in the plan"),
        ("a circle through a kept step", steps(json!([instead(6, 2, &[4])])), "!circle: 3 -> 6 -> 4 -> 3"),
        ("refined and replaced", steps(json!([instead(6, 3, &[]), three])), "!step 3 is in steps and goes"),
        ("refined and dropped", json!({"steps": [three], "drop": [3, 4]}), "!step 3 is in steps and goes"),
        ("a pending step for a failed one", steps(json!([instead(3, 2, &[1])])), "1 3<1 4<1,3 5<1 | put 3 | retired 2"),
        ("which waited for it", steps(json!([three_again])), "1 3 4<1,3 5<1 | put 3 | retired 2"),
        ("and goes itself", steps(json!([three_again, instead(6, 3, &[])])), "!step 3 is in steps and goes"),
        (
            "two dependencies that become one",
            steps(json!([instead(6, 3, &[1]), with_both])),
            "1 2<1 4<6 5<1 6<1 | put 4,6 | retired 3",
        ),
        ("refers to what it replaces", steps(json!([reads_it])), "!step 6 refers to the result of step 2, which it replaces"),
    ] {
        check(name, &halfway(), &draft, expected);
    }
}

#[test]
fn replacing_what_others_ran_without() {
    let anyway = |number: u32, state: &str, deps: &[u32]| json!({"step_number": number, "state": state, "depends_on": deps, "on_failed_dependency": "run_anyway"});
    let run = run_of(
        vec![
            json!({"step_number": 1, "state": "failed"}),
            anyway(2, "running", &[1]),
            anyway(3, "succeeded", &[1]),
            json!({"step_number": 4, "state": "skipped", "depends_on": [1]}),
            anyway(5, "ready", &[1, 3]),
        ],
        &[],
    );
    let replaced = "2<1 3<1 4<1 5<3,6 6 | put 5,6 | retired 1";
    check("started dependents stay as they are", &run, &steps(json!([instead(6, 1, &[])])), replaced);
    let anew = "2<1 3<1 5<3,6 6 7<6 | put 5,6,7 | retired 1,4";
    check("a skipped step is added anew", &run, &steps(json!([instead(6, 1, &[]), instead(7, 4, &[1])])), anew);
    let dropped = json!({"drop": [1], "steps": [{"step_number": 5, "depends_on": [3]}]});
    check("dropped", &run, &dropped, "2<1 3<1 4<1 5<3 | put 5 | retired 1");
    check("dropped, and needed", &run, &json!({"drop": [1]}), "!step 5 depends on step 1, which is dropped");
}

#[test]
fn dropping_and_depending() {
    let new = |deps: &[u32]| json!({"step_number": 6, "description": "x", "depends_on": deps});
    let anyway = json!({"step_number": 6, "description": "x", "depends_on": [2], "on_failed_dependency": "run_anyway"});
    let undeclared = json!({"step_number": 6, "description": "x", "tool_hint": "search", "arguments": {"query": {"$result": 1}}});
    let three = json!({"step_number": 3, "depends_on": [1]});
    let four = json!({"step_number": 4, "description": "x"});
    let all = "1 2<1 3<2 4<1,3 5<1";
    let added = |after: u32| format!("{all} 6<{after} | put 6 | retired ");
    for (name, draft, expected) in [
        ("a dependent is left", json!({"drop": [2]}), "!step 3 depends on step 2, which is dropped: drop step 3 too"),
        ("and its dependents", json!({"drop": [2, 3]}), "!step 4 depends on step 3, which is dropped"),
        ("all of a branch", json!({"drop": [4, 2, 3]}), "1 5<1 | put  | retired 2,3,4"),
        ("a refined dependent", json!({"drop": [2], "steps": [three]}), "1 3<1 4<1,3 5<1 | put 3 | retired 2"),
        ("a new dependent", json!({"drop": [2, 3, 4], "steps": [new(&[2])]}), "!step 6 depends on step 2, which is dropped"),
        ("on what succeeded", steps(json!([new(&[1])])), &added(1)),
        ("on what runs", steps(json!([new(&[5])])), &added(5)),
        ("on what failed", steps(json!([new(&[2])])), "!step 6 depends on step 2, which failed: replace what did not succeed"),
        ("on what failed, anyway", steps(json!([anyway])), &added(2)),
        ("on what will be skipped", steps(json!([new(&[4])])), "!step 6 depends on step 4, which will be skipped"),
        (
            "refined, on what failed",
            steps(json!([{"step_number": 3, "description": "x"}])),
            "!step 3 depends on step 2, which failed",
        ),
        (
            "refined, on what the same patch saves",
            steps(json!([four, instead(6, 2, &[])])),
            "1 3<6 4<1,3 5<1 6 | put 3,4,6 | retired 2",
        ),
        ("undeclared reference", steps(json!([undeclared])), "!step 6 refers to the result of step 1, add 1 to its depends_on"),
        ("a circle of refined steps", steps(json!([{"step_number": 3, "depends_on": [4]}])), "!circle: 3 -> 4 -> 3"),
    ] {
        check(name, &halfway(), &draft, expected);
    }
    let ended = run(&[(1, "skipped", &[]), (2, "cancelled", &[]), (3, "succeeded", &[])]);
    check("on what was skipped", &ended, &steps(json!([new(&[1])])), "!step 6 depends on step 1, which was skipped");
    check("on what was cancelled", &ended, &steps(json!([new(&[2])])), "!step 6 depends on step 2, which was cancelled");
}
