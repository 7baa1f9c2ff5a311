//! What parses as a message is within its limits, and parses the same after it was written again; a refusal is one short sentence.

#![no_main]

use std::fmt::Debug;

use common::id::RunId;
use common::limits::{CONTEXT_BYTES_MAX, MESSAGE_BYTES_MAX, OBJECTIVE_BYTES_MAX, REASON_CHARS_MAX};
use common::message::{
    Body, CompletionMessage, ControlMessage, ObjectiveMessage, ReportMessage, StepMessage, WIRE_VERSION, parse,
};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;

fuzz_target!(|body: &[u8]| {
    if let Some(message) = check::<StepMessage>(body) {
        named(&message.run_id, message.version);
    }
    if let Some(message) = check::<ReportMessage>(body) {
        named(&message.run_id, message.version);
    }
    if let Some(message) = check::<CompletionMessage>(body) {
        named(&message.run_id, message.version);
    }
    if let Some(message) = check::<ControlMessage>(body) {
        named(&message.run_id, message.version);
    }
    if let Some(message) = check::<ObjectiveMessage>(body) {
        objective(message);
    }
});

/// The message, if it is one.
fn check<T: Body + Serialize + PartialEq + Debug>(body: &[u8]) -> Option<T> {
    match parse::<T>(body) {
        Ok(message) => {
            assert!(std::str::from_utf8(body).is_ok() && body.len() <= MESSAGE_BYTES_MAX);
            assert_eq!(parse(&written(&message)).as_ref(), Ok(&message), "written again it is the same");
            Some(message)
        }
        Err(refusal) => {
            let why = refusal.to_string();
            assert!(!why.is_empty() && why.chars().count() <= REASON_CHARS_MAX, "{why}");
            None
        }
    }
}

fn written(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("a message can be written")
}

fn named(run: &RunId, version: u32) {
    assert_eq!(version, WIRE_VERSION);
    // Nothing that could leave the hash tag of a key, a file name or a line.
    assert!(run.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)), "{run}");
    assert!((1..=128).contains(&run.as_str().len()));
}

/// An objective is published again under the longest of ids and must then be the same message.
fn objective(mut message: ObjectiveMessage) {
    assert!(!message.objective.trim().is_empty() && message.objective.len() <= OBJECTIVE_BYTES_MAX);
    assert!(message.context.as_ref().map_or(0, String::len) <= CONTEXT_BYTES_MAX);
    if let Some(run) = &message.run_id {
        named(run, message.version);
    }
    message.run_id = Some(RunId::parse(&"x".repeat(128)).expect("an id"));
    assert_eq!(parse(&written(&message)), Ok(message));
}
