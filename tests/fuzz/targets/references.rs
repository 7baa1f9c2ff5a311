//! References yield what they name and nothing else: every part of what comes out came in, and there is never much of it.

#![no_main]

use std::collections::BTreeSet;

use common::id::StepNumber;
use common::limits::ARGUMENTS_BYTES_MAX;
use common::reference::{references, resolve, rewrite};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    // `[arguments, the result of step 1, of step 2, …]`
    let Ok(Value::Array(values)) = serde_json::from_slice(text) else { return };
    let Some((arguments, results)) = values.split_first() else { return };
    let result_of = |StepNumber(number): StepNumber| results.get(usize::try_from(number).ok()?.checked_sub(1)?);
    let found = references(arguments);
    match resolve(arguments, &result_of) {
        Ok(resolved) => {
            let found = found.as_ref().expect("what resolves is well-formed");
            assert!(found.iter().all(|reference| result_of(reference.step).is_some()));
            let known: BTreeSet<String> = values.iter().flat_map(leaves).collect();
            assert!(leaves(&resolved).iter().all(|leaf| known.contains(leaf)), "{resolved}");
            assert!(resolved.to_string().len() <= arguments.to_string().len() + ARGUMENTS_BYTES_MAX);
            assert!(!found.is_empty() || resolved == *arguments, "without references nothing changes");
        }
        Err(why) => assert!(!why.is_empty() && why.len() < 1_000, "{why}"),
    }
    let (one, seven) = (StepNumber(1), StepNumber(7));
    assert_eq!(rewrite(arguments, one, one), *arguments);
    if let Ok(found) = found {
        let renamed = references(&rewrite(arguments, one, seven)).expect("a reference stays one");
        assert_eq!(renamed.len(), found.len());
        for (before, after) in found.iter().zip(&renamed) {
            let expected = if before.step == one { seven } else { before.step };
            assert_eq!((after.step, &after.pointer), (expected, &before.pointer));
        }
    }
});

/// Every scalar, empty collection and key in `value`.
fn leaves(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) if !items.is_empty() => items.iter().flat_map(leaves).collect(),
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().flat_map(|(key, field)| [format!("{key:?}:")].into_iter().chain(leaves(field))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            vec![value.to_string()]
        }
    }
}
