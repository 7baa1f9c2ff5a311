use std::future::{pending, ready};

use serde_json::json;

use super::*;

/// A tool that does what its argument says.
struct Odd;

impl Tool for Odd {
    fn spec(&self) -> ToolSpec {
        ToolSpec { name: "odd", description: "Behaves badly.", parameters: json!({"type": "object"}), side_effects: false }
    }

    fn call<'a>(
        &'a self,
        arguments: Value,
        ctx: &'a CallContext,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ToolError>> + Send + 'a>> {
        match arguments["how"].as_str().unwrap_or_default() {
            "panic at once" => panic!("as told"),
            "panic later" => Box::pin(async { panic!("as told") }),
            "hang" => Box::pin(pending()),
            "flood" => Box::pin(ready(Ok(json!(["x".repeat(1 << 20)])))),
            "complain at length" => Box::pin(ready(Err(ToolError("é".repeat(1 << 20))))),
            _ => Box::pin(ready(Ok(json!(ctx.idempotency_key)))),
        }
    }
}

fn ctx() -> CallContext {
    CallContext::new(&RunId::parse("run-1").unwrap(), StepNumber(3), 2)
}

async fn call(toolbox: &Toolbox, tool: &str, arguments: Value) -> Called {
    toolbox.call(&ToolCall { tool: tool.to_owned(), arguments }, &ctx()).await
}

/// All built-in tools, over a folder with one document.
fn builtin() -> (tempfile::TempDir, Toolbox) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.md"), "needle ".repeat(100)).unwrap();
    let toolbox = Toolbox::builtin(&ToolConfig { search_dir: Some(folder.path().to_owned()) }).unwrap();
    (folder, toolbox)
}

#[tokio::test]
async fn tools_are_called() {
    let (_folder, toolbox) = builtin();
    assert_eq!(toolbox.specs(), {
        let mut specs = common::tool::builtin(true);
        specs.sort_by_key(|spec| spec.name);
        specs
    });
    let called = call(&toolbox, "calculate", json!({"expression": "6 * 7"})).await;
    assert_eq!((called.output, called.arguments_bytes, called.result_bytes), (Ok(json!("42")), 22, 4));
    let called = call(&toolbox, "search", json!({"query": "needles", "limit": null})).await;
    assert_eq!(called.output.unwrap()[0]["path"], "a.md");
    let called = call(&toolbox, "analyze", json!({"numbers": [1, "2"], "text": null})).await;
    assert_eq!(called.output.unwrap()["mean"], 1.5);
    assert_eq!(Toolbox::builtin(&ToolConfig::default()).unwrap().specs(), {
        let mut specs = common::tool::builtin(false);
        specs.sort_by_key(|spec| spec.name);
        specs
    });
}

#[tokio::test]
async fn bad_calls_are_refused_with_what_would_be_right() {
    let (_folder, toolbox) = builtin();
    for (tool, arguments, expected) in [
        ("Calculate", json!({}), "there is no tool \"Calculate\"; the tools are: analyze, calculate, search"),
        ("", json!({}), "there is no tool \"\""),
        ("calculate", json!({}), "the property \"expression\" is missing"),
        ("calculate", json!(null), "the arguments must be an object, not null"),
        ("calculate", json!("1+1"), "must be an object, not \"1+1\""),
        ("calculate", json!([]), "must be an object, not []"),
        ("calculate", json!({"expression": 5}), "\"expression\" must be a text, not 5"),
        ("calculate", json!({"expression": null}), "\"expression\" must be a text, not null"),
        ("calculate", json!({"expression": "1", "x": 1}), "unknown property \"x\", the properties are: expression"),
        ("calculate", json!({"expression": "1/0"}), "division by zero"),
        ("calculate", json!({"expression": "x".repeat(65 << 10)}), "bytes, the limit is 65536"),
        ("search", json!({"query": ""}), "\"query\" must not be empty"),
        ("search", json!({"query": "a", "limit": 0}), "\"limit\" must be at least 1, not 0"),
        ("search", json!({"query": "a", "limit": 21}), "\"limit\" must be at most 20, not 21"),
        ("search", json!({"query": "a", "limit": 1.5}), "\"limit\" must be a whole number or null, not 1.5"),
        ("search", json!({"query": "a", "limit": "5"}), "\"limit\" must be"),
        ("search", json!({"query": ["a", "b", "c", "d"]}), "\"query\" must be a text, not a list of 4 entries"),
        ("analyze", json!({"numbers": [1, null]}), "\"numbers/1\" must be a number or a text, not null"),
        ("analyze", json!({"numbers": {"$result": 1}}), "\"numbers\" must be a list or null, not an object"),
        ("analyze", json!({}), "give text or numbers"),
        ("analyze", json!({"numbers": [null, null, null, null, null, null]}), "; and more"),
    ] {
        let called = call(&toolbox, tool, arguments.clone()).await;
        let why = called.output.expect_err(expected);
        assert!(why.contains(expected), "{tool} {arguments}: {expected:?} not in {why:?}");
        assert!(why.len() < 600 && called.result_bytes == why.len(), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn odd_tools_do_no_harm() {
    let toolbox = Toolbox::new(vec![Box::new(Odd)]).unwrap();
    for (how, expected) in [
        ("panic at once", "odd broke down on these arguments"),
        ("panic later", "odd broke down on these arguments"),
        ("hang", "odd took longer than 30 s and was stopped"),
        ("complain at length", "é…"),
    ] {
        let why = call(&toolbox, "odd", json!({"how": how})).await.output.expect_err(how);
        assert!(why.ends_with(expected) && why.len() <= ERROR_BYTES_MAX + 3, "{why}");
    }
    let flood = call(&toolbox, "odd", json!({"how": "flood"})).await;
    assert!(flood.result_bytes <= TOOL_OUTPUT_BYTES_MAX && flood.result_bytes > TOOL_OUTPUT_BYTES_MAX / 2);
    assert!(flood.output.unwrap()[0].as_str().unwrap().ends_with(" of 1048576 bytes are missing]"));
    assert_eq!(call(&toolbox, "odd", json!({})).await.output, Ok(json!("run-1:3:2")));
}

#[test]
fn a_toolbox_that_cannot_work_is_refused() {
    let twice = Toolbox::new(vec![Box::new(Odd), Box::new(Odd)]).err().unwrap();
    assert_eq!(twice.to_string(), "two tools are named odd");
    let missing = ToolConfig { search_dir: Some("/does/not/exist".into()) };
    let why = Toolbox::builtin(&missing).err().unwrap().to_string();
    assert!(why.starts_with("PLANRELAY_SEARCH_DIR: cannot read the folder /does/not/exist: "), "{why}");
}
