//! What is found in a model's reply stands there, word for word.

#![no_main]

use common::llm::extract::{object, without_reasoning};
use common::llm::openai::completion::Completion;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Longest text in which every place is tried as the start of an object.
const SEARCHED_BYTES_MAX: usize = 2_000;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    found_in(&text);
    if let Some(completion) = serde_json::from_slice(bytes).ok().and_then(|body: Value| Completion::read(&body)) {
        read(&completion, bytes.len());
    }
});

fn found_in(text: &str) {
    assert!(text.contains(without_reasoning(text)));
    for wanted in [&["steps"][..], &["decision"], &["tool", "answer", "outcome"], &[]] {
        match object(text, wanted) {
            Ok(value) => {
                let first_is_object = value.get(0).is_some_and(Value::is_object);
                assert!(value.is_object() || first_is_object, "{value}");
                assert!(text.len() > SEARCHED_BYTES_MAX || stands_in(text, &value), "{value} is not in {text:?}");
            }
            Err(why) => assert!(!why.is_empty() && why.len() < 300 && !why.contains('\n'), "{why}"),
        }
    }
}

/// Whether `value` begins anywhere in `text`.
fn stands_in(text: &str, value: &Value) -> bool {
    text.match_indices(['{', '[']).any(|(at, _)| {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        values.next().is_some_and(|found| found.is_ok_and(|found| found == *value))
    })
}

/// A reply is not longer than what it was read from, and its price is never nothing, nor beyond reason.
fn read(completion: &Completion, bytes: usize) {
    assert!(completion.text.len() <= bytes);
    assert!(completion.calls.len() <= bytes && completion.calls.iter().all(|call| call.name.len() < 300));
    let usage = completion.usage(400);
    assert!(usage.model_calls == 1 && usage.input_tokens > 0);
    assert!(usage.input_tokens.max(usage.output_tokens) <= 1 << 30);
    found_in(&completion.text);
}
