//! The wire: golden files of every message. Every reason to refuse one stands in the bad-input corpus.

use std::fmt::Debug;
use std::path::PathBuf;

use common::message::{
    Body, CompletionMessage, ControlMessage, ControlReply, ObjectiveMessage, ReportMessage, StepMessage, parse,
};
use common::run::RunDocument;
use serde::Serialize;
use serde_json::Value;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The golden file is read, and written again says the same: nothing in it is lost, nothing is added.
fn check<T: Body + Serialize + Debug>(name: &str) -> T {
    let bytes = golden(name);
    let message: T = parse(&bytes).unwrap();
    assert_eq!(serde_json::to_value(&message).unwrap(), serde_json::from_slice::<Value>(&bytes).unwrap(), "{name}");
    message
}

#[test]
fn golden_files_are_read_and_written_without_loss() {
    check::<ObjectiveMessage>("objective.json");
    check::<StepMessage>("step.json");
    check::<ReportMessage>("report.json");
    check::<CompletionMessage>("completion.json");
    check::<ControlMessage>("control.json");
    check::<ControlMessage>("control-edit.json");
    let bytes = golden("control-reply.json");
    let reply: ControlReply = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(serde_json::to_value(&reply).unwrap(), serde_json::from_slice::<Value>(&bytes).unwrap());
    let bytes = golden("result.json");
    let document: RunDocument = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(serde_json::to_value(&document).unwrap(), serde_json::from_slice::<Value>(&bytes).unwrap());
}

#[test]
fn an_objective_is_enough() {
    let message: ObjectiveMessage = parse(&golden("objective-minimal.json")).unwrap();
    assert_eq!((message.objective.as_str(), message.run_id, message.plan), ("Say hello", None, None));
}

#[test]
fn unknown_fields_are_ignored() {
    let message: CompletionMessage = parse(br#"{"run_id":"a","revision":1,"invented_later":{"x":1}}"#).unwrap();
    assert_eq!(message.version, 1);
}
