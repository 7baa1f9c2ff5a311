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
