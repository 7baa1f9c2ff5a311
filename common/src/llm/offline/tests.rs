use serde_json::json;

use super::*;
use crate::id::StepNumber;
use crate::meter::Meter;
use crate::plan::{Rules, check};
use crate::run::Verdict;
use crate::tool::ToolSpec;

fn tools(names: &[&'static str]) -> Vec<ToolSpec> {
    names.iter().map(|name| ToolSpec { name, description: "", parameters: json!({}), side_effects: false }).collect()
}

fn all_tools() -> Vec<ToolSpec> {
    tools(&["calculate", "search", "analyze"])
}

fn planned(objective: &str, tools: &[ToolSpec], steps_max: usize) -> crate::plan::Plan {
    let task = PlanTask { objective, context: None, tools, steps_max, refused: None, feedback: None, meter: &Meter::Free };
    let draft = plan(&task).value.plan.unwrap();
    let names = tools.iter().map(|tool| tool.name.to_owned()).collect();
    check(&draft, &Rules { tools: names, steps_max }).unwrap_or_else(|why| panic!("{why:?} for {:.80}", objective))
}

/// One line per step: `number tool[dependencies] description`.
fn outline(objective: &str) -> String {
    let steps = planned(objective, &all_tools(), 100).steps;
    let line = |step: &crate::plan::Step| {
        let after: Vec<String> = step.depends_on.iter().map(ToString::to_string).collect();
        format!("{} {}[{}] {}", step.step_number, step.tool_hint.as_deref().unwrap_or("-"), after.join(","), step.description)
    };
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn objectives_become_plans() {
    let objectives = include_str!("tests/objectives.txt").split("\n---\n");
    let outlines: Vec<String> = objectives.map(|text| format!("{}\n{}\n", text.trim_end(), indent(&outline(text)))).collect();
    insta::assert_snapshot!(outlines.join("\n"));
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[test]
fn any_text_becomes_a_valid_plan() {
    let long = |part: &str| part.repeat((64 << 10) / part.len());
    let hostile = [
        String::new(),
        " \n\t ".into(),
        "?".into(),
        "…".into(),
        "\0\u{1}\u{2}".into(),
        "\u{202e}\u{200b}".into(),
        "((((".into(),
        "'''".into(),
        "1".into(),
        "then".into(),
        "and then ".into(),
        "@ @* @1 step 99".into(),
        "{\"steps\": []}".into(),
        long("a"),
        long("find "),
        long(", find"),
        long("find x. "),
        long("' "),
        long("'a"),
        long("'a' "),
        long("(a) "),
        long("words in 'a' and count "),
        long("(["),
        long(")("),
        long("1) "),
        long(" 1. x"),
        long(". "),
        long("1+"),
        long("what is 1 and "),
        long("it "),
        long("\n- x"),
        long("ü"),
        long("double it, then "),
        long("1,"),
        long("the result of "),
        long("e.g. "),
        long("; "),
        long("- "),
        long("\u{1F600}"),
        long("What is 1+1? "),
        (0..65536_u32).filter_map(char::from_u32).take(20_000).collect(),
    ];
    for text in &hostile {
        for steps_max in [1, 3, 100] {
            let steps = planned(text, &all_tools(), steps_max).steps;
            assert!(!steps.is_empty() && steps.len() <= steps_max);
        }
        assert!(planned(text, &[], 5).steps.iter().all(|step| step.tool_hint.is_none()), "only offered tools");
    }
}

fn input(step: u32, description: &str, result: Value) -> StepInput {
    StepInput { step_number: StepNumber(step), description: description.into(), outcome: Outcome::Succeeded, result, error: None }
}

fn acted(tool: Option<&'static str>, description: &str, inputs: &[StepInput], turns: &[Turn], last: bool) -> Move {
    let tools = all_tools();
    let task = StepTask {
        objective: "",
        description,
        tool_hint: tool,
        tools: &tools,
        inputs,
        done_when: None,
        lessons: &[],
        meter: &Meter::Free,
        turns,
        last,
    };
    act(&task).value
}

fn done(result: &str) -> Move {
    Move::Conclude(Judged::succeeded(result.into()))
}

/// Expects the arguments of the first call.
fn calls(tool: &'static str, description: &str, inputs: &[StepInput], expected: Value) {
    let made = acted(Some(tool), description, inputs, &[], false);
    assert_eq!(made, Move::Call(vec![crate::tool::ToolCall { tool: tool.into(), arguments: expected }]), "{description}");
}

#[test]
fn expressions_are_read_from_words() {
    let before = [input(1, "Count", json!(30)), input(2, "Compute", json!("approx. 6"))];
    let cases = [
        ("What is 15% of 240?", "15% of 240"),
        ("Calculate 15% of 240", "15% of 240"),
        ("Please calculate the sum of 3, 5 and 10.", "3 + 5 + 10"),
        ("What's 2 + 2 * (3 - 1)?", "2 + 2 * (3 - 1)"),
        ("What is two plus two?", "2 + 2"),
        ("What is 12 divided by 4", "12 / 4"),
        ("How much is 3 x 4?", "3 * 4"),
        ("What is 2 km in miles?", "2 km in miles"),
        ("Convert 100 MB to GB", "100 MB to GB"),
        ("Convert 98.6 F to C", "98.6 °F to °C"),
        ("Convert 100 degrees fahrenheit into celsius", "100 fahrenheit in celsius"),
        ("How many miles are in 10 km?", "10 km in miles"),
        ("How many hours are there in 3 days?", "3 days in hours"),
        ("What is the square root of 144?", "sqrt(144)"),
        ("What is sqrt(2) * 2?", "sqrt(2) * 2"),
        ("What is 2 to the power of 10?", "2^10"),
        ("What is 5 squared?", "5^2"),
        ("Compute 1,500 * 3", "1500 * 3"),
        ("Double it", "2 * 6"),
        ("Halve that", "6 / 2"),
        ("Add 5", "6 + 5"),
        ("Add 5 to it", "6 + 5"),
        ("Subtract 4 from the result", "6 - 4"),
        ("Multiply the result of step 1 by 3", "30 * 3"),
        ("Divide it by 3", "6 / 3"),
        ("Increase it by 10%", "6 * (1 + 10%)"),
        ("Reduce 200 by 15 percent", "200 * (1 - 15%)"),
        ("Add the results", "30 + 6"),
        ("Multiply them", "30 * 6"),
        ("What is 20% of that?", "20% of 6"),
        ("Calculate the tip of 15% of 240 for the waiter", "15% of 240"),
        ("Calculate half of 30", "0.5 * 30"),
        ("What is 7!", "7!"),
        ("What is -3 + 5?", "-3 + 5"),
        ("What is 100 km / 2 h in mph?", "100 km / (2 h) in mph"),
    ];
    for (description, expected) in cases {
        calls("calculate", description, &before, json!({"expression": expected}));
    }
    calls(
        "calculate",
        "Convert it to km",
        &[input(1, "x", json!("approx. 3.1 miles"))],
        json!({"expression": "(3.1 miles) to km"}),
    );
    calls(
        "calculate",
        "Double it",
        &[input(1, "Find the mean", json!({"count": 3, "mean": 6.5}))],
        json!({"expression": "2 * 6.5"}),
    );
    calls("calculate", "Double it", &[input(1, "x", json!("-4"))], json!({"expression": "2 * (-4)"}));
    calls("calculate", "Calculate the meaning of life", &[], json!({"expression": "the meaning of life"}));
}

#[test]
fn texts_numbers_and_queries_are_read_from_words() {
    let found = [input(1, "Find it", json!("Ann owns billing. (team.md:3)\nOther (x.md:1)"))];
    calls("analyze", "How many words are in 'to be or not to be'?", &[], json!({"text": "to be or not to be"}));
    calls("analyze", "Count the words in to be or not", &[], json!({"text": "to be or not"}));
    calls("analyze", "Compute the mean of 3, 5, 10", &[], json!({"numbers": [3, 5, 10]}));
    calls("analyze", "Say how many words the sentence has", &found, json!({"text": "Ann owns billing."}));
    calls("analyze", "Analyze the values", &[input(1, "x", json!([1, 2, 6]))], json!({"numbers": [1, 2, 6]}));
    calls(
        "search",
        "Find in the documents who maintains the billing service",
        &[],
        json!({"query": "maintains the billing service"}),
    );
    calls("search", "Search for 'dead letters' in the docs", &[], json!({"query": "dead letters"}));
    calls("search", "What do the docs say about leases?", &[], json!({"query": "leases"}));
    calls("search", "Look it up", &found, json!({"query": "Look it up Ann owns billing."}));
}

#[test]
fn a_tool_is_called_once_and_its_output_is_the_answer() {
    let turns = |output| {
        let call = Move::Call(vec![crate::tool::ToolCall { tool: "calculate".into(), arguments: json!({}) }]);
        [Turn::Moved(call), Turn::Returned { index: 0, output }]
    };
    assert_eq!(acted(Some("calculate"), "x", &[], &turns(Ok(json!("36"))), false), done("36"));
    assert_eq!(
        acted(Some("calculate"), "x", &[], &turns(Err("division by zero".into())), true),
        Move::Conclude(Judged::failed("calculate: division by zero".into()))
    );
    let statistics = json!({"words": 6, "characters": 18});
    assert_eq!(acted(Some("analyze"), "How many words?", &[], &turns(Ok(statistics.clone())), false), done("6"));
    assert_eq!(acted(Some("analyze"), "Analyze it", &[], &turns(Ok(statistics)), false), done("characters 18, words 6"));
    let hits = json!([{"path": "a.md", "line": 3, "passage": "Ann\nowns it.", "score": 1.0}]);
    assert_eq!(acted(Some("search"), "Find", &[], &turns(Ok(hits)), false), done("Ann owns it. (a.md:3)"));
    assert_eq!(acted(Some("search"), "Find", &[], &turns(Ok(json!([]))), false), done("nothing found"));
}

#[test]
fn without_a_tool_it_says_what_it_has() {
    let inputs = [input(1, "a", json!("36")), input(2, "b", json!(6))];
    assert_eq!(acted(None, "Combine them", &inputs, &[], false), done("36; 6"));
    assert_eq!(acted(None, "The sky is blue", &[], &[], false), done("The sky is blue"));
    let Move::Conclude(judged) = acted(None, "Who wrote Hamlet?", &[], &[], true) else { panic!("no verdict") };
    assert_eq!((judged.verdict, judged.retryable), (Verdict::Failed, false));
    assert!(judged.result.contains("needs a language model") && judged.result.ends_with("Who wrote Hamlet?"), "{judged:?}");
    assert!(!matches!(acted(Some("unknown"), "Go", &[], &[], false), Move::Call(_)), "a tool that is not there is not called");
    assert!(!matches!(acted(Some("calculate"), "1 + 1", &[], &[], true), Move::Call(_)), "no call in the last turn");
}

#[test]
fn answers_are_lists() {
    let mut steps = vec![
        input(1, "What is 15% of 240?", json!("36")),
        input(2, "How many words are in 'to be or not to be'?", json!("6")),
        input(3, "Find it", json!("first line\nsecond line")),
    ];
    for (outcome, error) in [(Outcome::Failed, Some("no such file")), (Outcome::Skipped, None)] {
        let number = StepNumber(u32::try_from(steps.len()).unwrap() + 1);
        let error = error.map(str::to_owned);
        steps.push(StepInput { step_number: number, description: "Read it".into(), outcome, result: Value::Null, error });
    }
    let answered = |steps: &[StepInput]| answer(&AnswerTask { objective: "", steps, halted: None, meter: &Meter::Free }).value;
    insta::assert_snapshot!(answered(&steps), @"
    1. What is 15% of 240? → 36
    2. How many words are in 'to be or not to be'? → 6
    3. Find it
       first line
       second line
    4. Read it → failed: no such file
    5. Read it → skipped
    ");
    assert_eq!(answered(&steps[..1]), "36");
    assert_eq!(answered(&[input(1, "x", json!(""))]), "The result is empty.");
    assert!(!answered(&[]).is_empty());
    let many: Vec<StepInput> = (1..=10_000).map(|n| input(n, "x", json!("y".repeat(100)))).collect();
    assert!(answered(&many).ends_with("… and 9800 more steps"));
}
