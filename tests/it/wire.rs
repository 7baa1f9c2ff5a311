//! The wire: golden files of every message, and every reason to refuse one.

use std::fmt::Debug;
use std::path::PathBuf;

use common::limits::{MESSAGE_BYTES_MAX, OBJECTIVE_BYTES_MAX};
use common::message::{
    Body, CompletionMessage, ControlMessage, ControlReply, ObjectiveMessage, ReportMessage, StepMessage, parse,
};
use common::run::RunDocument;
use serde::Serialize;
use serde_json::{Value, json};

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

/// Expects the bytes to be refused as an objective, with a reason that contains `reason`.
fn refused(bytes: &[u8], reason: &str) {
    let refusal = parse::<ObjectiveMessage>(bytes).expect_err(reason).to_string();
    assert!(refusal.contains(reason), "{reason:?} not in {refusal:?}");
}

#[test]
fn bad_messages_are_refused_with_a_reason() {
    let objective = |value: Value| serde_json::to_vec(&value).unwrap();
    refused(b"", "body is not JSON");
    refused(b"\xff\xfe{}", "body is not UTF-8");
    refused("\u{feff}{\"objective\":\"x\"}".as_bytes(), "body is not JSON");
    refused(b"{\"objective\":\"x\"", "body is not JSON");
    refused(b"{\"objective\":\"x\"} trailing", "body is not JSON");
    refused(b"[1]", "body is not a JSON object");
    refused(b"null", "body is not a JSON object");
    refused("[".repeat(100_000).as_bytes(), "body is not JSON");
    refused(&vec![b' '; MESSAGE_BYTES_MAX + 1], "body has 1048577 bytes, the limit is 1048576");
    refused(b"{}", "missing field `objective`");
    refused(&objective(json!({"objective": 1})), "body does not fit");
    refused(&objective(json!({"objective": "  "})), "objective is empty");
    refused(&objective(json!({"objective": "x".repeat(OBJECTIVE_BYTES_MAX + 1)})), "objective has 65537 bytes");
    for version in [json!(0), json!(2), json!(-1), json!("1"), json!(1.5), json!(null)] {
        refused(&objective(json!({"objective": "x", "version": version})), "is not supported, this service speaks version 1");
    }
    for id in ["", "a b", "a{b}", "*", "../x", "a\nb", "a\u{0}b", &"x".repeat(129)] {
        refused(&objective(json!({"objective": "x", "run_id": id})), "run_id must be 1 to 128 characters");
    }
    refused(&objective(json!({"objective": "x", "options": {"respond": "poem"}})), "unknown variant `poem`");
    refused(&objective(json!({"objective": "x", "options": {"max_parallel_steps": -1}})), "body does not fit");
}

#[test]
fn options_beyond_reason_are_refused() {
    for (options, reason) in [
        (json!({"replan": "sometimes"}), "unknown variant `sometimes`"),
        (json!({"approve": "steps"}), "unknown variant `steps`"),
        (json!({"max_replans": 21}), "options.max_replans must be a whole number from 0 to 20, got 21"),
        (json!({"max_parallel_steps": 0}), "options.max_parallel_steps must be a whole number from 1"),
        (json!({"approval_timeout_secs": 0}), "options.approval_timeout_secs must be a whole number from 1 to 2592000, got 0"),
        (json!({"deadline_secs": 0}), "options.deadline_secs must be a whole number from 1 to 2592000, got 0"),
        (json!({"deadline": 0}), "options.deadline_secs must be a whole number from 1 to 2592000, got 0"),
        (json!({"max_tokens": 0}), "options.max_tokens must be a whole number from 1"),
        (json!({"max_model_calls": 0}), "options.max_model_calls must be a whole number from 1"),
        (json!({"max_tool_calls": -1}), "body does not fit"),
        (json!({"max_cost": 0}), "options.max_cost must be a number above 0 and at most 1000000, got 0"),
        (json!({"max_cost": "1"}), "body does not fit"),
    ] {
        refused(&serde_json::to_vec(&json!({"objective": "x", "options": options})).unwrap(), reason);
    }
}

#[test]
fn commands_that_cannot_be_meant_are_refused() {
    for (command, reason) in [
        (json!({"command": "cancel"}), "missing field `run_id`"),
        (json!({"run_id": "r"}), "missing field `command`"),
        (json!({"run_id": "r", "command": "explode"}), "unknown variant `explode`"),
        (json!({"run_id": "r r", "command": "cancel"}), "run_id must be 1 to 128 characters"),
        (json!({"run_id": "r", "command": "reject"}), "reject needs feedback"),
        (json!({"run_id": "r", "command": "reject", "feedback": "  "}), "reject needs feedback"),
        (json!({"run_id": "r", "command": "edit"}), "edit needs a plan"),
        (json!({"run_id": "r", "command": "cancel", "by": "x".repeat(5_000)}), "by has 5000 bytes, the limit is 4096"),
        (json!({"run_id": "r", "command": "cancel", "reason": "x".repeat(5_000)}), "reason has 5000 bytes"),
        (json!({"run_id": "r", "command": "cancel", "version": 2}), "version 2 is not supported"),
    ] {
        let refusal = parse::<ControlMessage>(&serde_json::to_vec(&command).unwrap()).expect_err(reason).to_string();
        assert!(refusal.contains(reason), "{reason:?} not in {refusal:?}");
    }
}

#[test]
fn step_numbers_beyond_reason_are_refused() {
    for number in [json!(-1), json!(1u64 << 63), json!("1"), json!(1.5)] {
        let step = json!({"run_id": "r", "revision": 1, "step_number": number, "attempt": 1, "description": "x"});
        assert!(parse::<StepMessage>(&serde_json::to_vec(&step).unwrap()).is_err());
    }
}
