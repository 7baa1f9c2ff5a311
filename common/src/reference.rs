//! References from a step's exact arguments to earlier results: `{"$result": 2}` or `{"$result": 2, "pointer": "/a/b"}`. Pure.
//!
//! The pointer is a JSON Pointer (RFC 6901). A reference stands for the whole value in its place, never for part of a text.

use serde_json::Value;

use crate::id::StepNumber;
use crate::limits::ARGUMENTS_BYTES_MAX;
use crate::plan::cut;

/// What a complaint shows of a pointer, in characters.
const POINTER_CHARS_SHOWN: usize = 100;

/// A reference found in arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The step whose result is meant.
    pub step: StepNumber,
    /// The part of the result; empty for all of it.
    pub pointer: String,
}

/// Every reference in `arguments`, in order of appearance, or why one of them is malformed.
pub fn references(arguments: &Value) -> Result<Vec<Reference>, String> {
    let mut found = Vec::new();
    collect(arguments, &mut found)?;
    Ok(found)
}

fn collect(value: &Value, found: &mut Vec<Reference>) -> Result<(), String> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        Value::Array(items) => items.iter().try_for_each(|item| collect(item, found))?,
        Value::Object(fields) => match read(value)? {
            Some(reference) => found.push(reference),
            None => fields.values().try_for_each(|field| collect(field, found))?,
        },
    }
    Ok(())
}

/// Reads `value` as a reference; `None` when it is not meant as one.
fn read(value: &Value) -> Result<Option<Reference>, String> {
    let Some(step) = value.get("$result") else { return Ok(None) };
    let Some(step) = step.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0) else {
        return Err("$result must be a step number".into());
    };
    let fields = value.as_object().map_or(0, serde_json::Map::len);
    let pointer = match value.get("pointer") {
        None if fields == 1 => "",
        Some(Value::String(pointer)) if fields == 2 => pointer,
        _ => return Err("a reference has $result, a textual pointer, and no field but pointer beside it".into()),
    };
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err("a reference's pointer must be empty or start with / (RFC 6901)".into());
    }
    Ok(Some(Reference { step: StepNumber(step), pointer: pointer.to_owned() }))
}

/// `arguments` with every reference replaced by what it means. `result_of` gives the result of a step.
///
/// Fails with one sentence when a result or the part of it does not exist, or when the parts together have more than
/// [`ARGUMENTS_BYTES_MAX`] bytes: a thousand references to one large result must not become a thousand copies of it.
pub fn resolve<'a>(arguments: &Value, result_of: &impl Fn(StepNumber) -> Option<&'a Value>) -> Result<Value, String> {
    let mut room = ARGUMENTS_BYTES_MAX;
    replace(arguments, result_of, &mut room)
}

/// Does it, taking the bytes of every part off `room`.
fn replace<'a>(
    arguments: &Value,
    result_of: &impl Fn(StepNumber) -> Option<&'a Value>,
    room: &mut usize,
) -> Result<Value, String> {
    Ok(match arguments {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => arguments.clone(),
        Value::Array(items) => Value::Array(items.iter().map(|item| replace(item, result_of, room)).collect::<Result<_, _>>()?),
        Value::Object(fields) => match read(arguments)? {
            Some(Reference { step, pointer }) => {
                let result = result_of(step).ok_or_else(|| format!("step {step} has no result to refer to"))?;
                let part = result.pointer(&pointer).ok_or_else(|| {
                    format!("the result of step {step} has nothing at {:?}", cut(&pointer, POINTER_CHARS_SHOWN))
                })?;
                *room = room.checked_sub(part.to_string().len()).ok_or_else(|| {
                    format!("the results that the arguments refer to have more than {ARGUMENTS_BYTES_MAX} bytes together")
                })?;
                part.clone()
            }
            None => Value::Object(
                fields
                    .iter()
                    .map(|(key, field)| Ok((key.clone(), replace(field, result_of, room)?)))
                    .collect::<Result<_, String>>()?,
            ),
        },
    })
}

/// `arguments` with every reference to `from` made one to `to`. What is malformed stays as it is.
pub fn rewrite(arguments: &Value, from: StepNumber, to: StepNumber) -> Value {
    match arguments {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => arguments.clone(),
        Value::Array(items) => Value::Array(items.iter().map(|item| rewrite(item, from, to)).collect()),
        Value::Object(fields) => match read(arguments) {
            Ok(Some(reference)) => {
                let mut renamed = fields.clone();
                if reference.step == from {
                    renamed.insert("$result".to_owned(), Value::from(to.0));
                }
                Value::Object(renamed)
            }
            Ok(None) => Value::Object(fields.iter().map(|(key, field)| (key.clone(), rewrite(field, from, to))).collect()),
            Err(_) => arguments.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_resolve() {
        let one = json!({"a": [10, 20]});
        let result_of = |n: StepNumber| (n == StepNumber(1)).then_some(&one);
        let arguments = json!({"whole": {"$result": 1}, "deep": [{"x": {"$result": 1, "pointer": "/a/1"}}], "plain": "$result"});
        assert_eq!(
            resolve(&arguments, &result_of).unwrap(),
            json!({"whole": {"a": [10, 20]}, "deep": [{"x": 20}], "plain": "$result"})
        );
        assert_eq!(references(&arguments).unwrap().len(), 2);
        let missing = resolve(&json!({"$result": 1, "pointer": "/b"}), &result_of).unwrap_err();
        assert_eq!(missing, "the result of step 1 has nothing at \"/b\"");
        assert!(resolve(&json!({"$result": 2}), &result_of).is_err());
    }

    #[test]
    fn many_references_to_a_large_result_are_refused() {
        let large = json!("x".repeat(60_000));
        let result_of = |_: StepNumber| Some(&large);
        assert!(resolve(&json!({"text": {"$result": 1}}), &result_of).is_ok());
        let many = json!({"numbers": vec![json!({"$result": 1}); 4_000]});
        let why = resolve(&many, &result_of).unwrap_err();
        assert_eq!(why, "the results that the arguments refer to have more than 65536 bytes together");
    }

    #[test]
    fn references_are_rewritten() {
        let cases = [
            (json!({"a": {"$result": 2}}), json!({"a": {"$result": 5}})),
            (json!([{"x": [{"$result": 2, "pointer": "/2"}]}]), json!([{"x": [{"$result": 5, "pointer": "/2"}]}])),
            (json!({"a": {"$result": 3}, "b": 2, "c": "$result"}), json!({"a": {"$result": 3}, "b": 2, "c": "$result"})),
            // Not a reference: something stands beside it, or its number is a text.
            (json!({"$result": 2, "more": 1}), json!({"$result": 2, "more": 1})),
            (json!({"$result": "2"}), json!({"$result": "2"})),
            (json!(null), json!(null)),
        ];
        for (before, after) in cases {
            assert_eq!(rewrite(&before, StepNumber(2), StepNumber(5)), after, "{before}");
        }
    }
}
