//! Keeping output short: a value that is too long is cut so that it stays JSON, and says that it was cut. Pure.

use std::io::{self, Write};

use serde_json::{Map, Value};

/// The key under which a cut object says what is missing.
const CUT_KEY: &str = "(cut)";
/// Room for a note about what is missing, in bytes.
const NOTE_BYTES: usize = 64;

/// The length of a value as JSON, in bytes, without writing it out.
pub(super) fn json_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Writing to a counter cannot fail; an unwritable value would count as too long.
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}

/// `value`, or as much of it as fits into `max` bytes of JSON, with a note of how much is missing: a text loses its end, a list
/// its last entries, an object its last fields. The first entry or field that does not fit is itself cut when much room is left.
pub(super) fn cut(value: Value, max: usize) -> Value {
    let bytes = json_bytes(&value);
    if bytes <= max {
        return value;
    }
    let room = max.saturating_sub(NOTE_BYTES);
    match value {
        Value::String(full) => Value::String(cut_string(&full, room)),
        Value::Array(items) => cut_list(items, room),
        Value::Object(fields) => cut_object(fields, room),
        Value::Null | Value::Bool(_) | Value::Number(_) => Value::String(format!("[cut: {bytes} bytes]")),
    }
}

fn cut_string(full: &str, room: usize) -> String {
    let mut used = 2;
    let mut end = 0;
    for (at, character) in full.char_indices() {
        used += escaped_bytes(character);
        if used > room {
            break;
        }
        end = at + character.len_utf8();
    }
    format!("{} [cut: {} of {} bytes are missing]", &full[..end], full.len() - end, full.len())
}

/// What a character takes inside a JSON string.
fn escaped_bytes(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => character.len_utf8(),
    }
}

fn cut_list(items: Vec<Value>, room: usize) -> Value {
    let total = items.len();
    let mut kept = Vec::new();
    let mut used = 2;
    for item in items {
        let bytes = json_bytes(&item) + 1;
        if used + bytes > room {
            if let Some(part) = part(item, room.saturating_sub(used)) {
                kept.push(part);
            }
            break;
        }
        used += bytes;
        kept.push(item);
    }
    let missing = total - kept.len();
    if missing > 0 {
        kept.push(Value::String(format!("[cut: {missing} of {total} entries are missing]")));
    }
    Value::Array(kept)
}

fn cut_object(fields: Map<String, Value>, room: usize) -> Value {
    let total = fields.len();
    let mut kept = Map::new();
    let mut used = 2;
    for (key, field) in fields {
        let key_bytes = key.len() * 2 + 4;
        let bytes = json_bytes(&field) + key_bytes;
        if used + bytes > room {
            if let Some(part) = part(field, room.saturating_sub(used + key_bytes)) {
                kept.insert(key, part);
            }
            break;
        }
        used += bytes;
        kept.insert(key, field);
    }
    let missing = total - kept.len();
    if missing > 0 {
        kept.insert(CUT_KEY.to_owned(), Value::String(format!("{missing} of {total} fields are missing")));
    }
    Value::Object(kept)
}

/// The cut form of an entry that does not fit, when there is room for more than the note.
fn part(value: Value, room: usize) -> Option<Value> {
    match value {
        Value::String(_) | Value::Array(_) | Value::Object(_) if room > 4 * NOTE_BYTES => Some(cut(value, room)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A text for people and models, at most about `max` bytes long.
pub(super) fn text(full: &str, max: usize) -> String {
    if full.len() <= max {
        return full.to_owned();
    }
    let end = (0..=max).rev().find(|at| full.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &full[..end])
}

/// A text in quotation marks, short enough for a complaint.
pub(super) fn quoted(full: &str) -> String {
    format!("{:?}", text(full, 60))
}

/// A value as JSON, short enough for a complaint.
pub(super) fn quoted_json(value: &Value) -> String {
    match value {
        Value::Array(items) if items.len() > 3 => format!("a list of {} entries", items.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(full) => quoted(full),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => text(&value.to_string(), 60),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Expects `value` to shrink to at most `max` bytes and to mention `note`.
    fn check(value: Value, max: usize, note: &str) {
        let short = cut(value, max);
        let written = short.to_string();
        assert!(written.len() <= max, "{} > {max}: {written}", written.len());
        assert!(written.contains(note), "{note:?} not in {written}");
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), short);
    }

    #[test]
    fn long_values_are_cut_to_valid_json() {
        check(json!("x".repeat(1_000)), 200, "[cut: 866 of 1000 bytes are missing]");
        check(json!("é".repeat(1_000)), 200, "of 2000 bytes are missing]");
        check(json!("😀\"\n\u{1}".repeat(1_000)), 201, "bytes are missing]");
        check(json!((0..1_000).collect::<Vec<_>>()), 200, "of 1000 entries are missing]");
        check(json!(["x".repeat(5_000), 1]), 1_000, "of 5000 bytes are missing]");
        check(json!([["x".repeat(5_000)]]), 1_000, "of 5000 bytes are missing]");
        check(json!({"a": 1, "b": "x".repeat(5_000)}), 1_000, "of 5000 bytes are missing]");
        check(json!({"a": 1, "b": "x".repeat(500), "c": 2}), 200, "2 of 3 fields are missing");
        check(json!({"\"".repeat(500): 1}), 200, "1 of 1 fields are missing");
    }

    #[test]
    fn short_values_stay() {
        for value in [json!(null), json!("x"), json!([1, "é"]), json!({"a": "\u{1}\n"})] {
            assert_eq!(json_bytes(&value), value.to_string().len());
            assert_eq!(cut(value.clone(), value.to_string().len()), value);
        }
    }
}
