//! What people and models wrote, in the form that the conventions want (`gen-ai-input-messages.json` and `gen-ai-output-messages.json`), and
//! bounded. Pure.

use serde_json::{Value, json};

use crate::limits::TRACE_CONTENT_BYTES_MAX;

/// The messages of a chat completion request. When they are too long, the newest are said, and the first of all.
pub(super) fn input(body: &Value) -> String {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut room = TRACE_CONTENT_BYTES_MAX;
    let mut said: Vec<(usize, Value)> = Vec::new();
    let newest_first = (1..messages.len()).rev();
    // The instructions come first in the conversation, and keep their place.
    for index in messages.first().map(|_| 0).into_iter().chain(newest_first) {
        if room == 0 {
            break;
        }
        said.push((index, message(&messages[index], &mut room)));
    }
    said.sort_by_key(|(index, _)| *index);
    Value::Array(said.into_iter().map(|(_, message)| message).collect()).to_string()
}

fn message(message: &Value, room: &mut usize) -> Value {
    let role = message["role"].as_str().unwrap_or("user");
    let mut parts = Vec::new();
    let content = text_of(&message["content"]);
    if role == "tool" {
        parts.push(json!({"type": "tool_call_response", "id": message["tool_call_id"], "result": cut(&content, room)}));
    } else if !content.is_empty() {
        parts.push(text(&content, room));
    }
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        parts.push(tool_call(&call["id"], &call["function"]["name"], &call["function"]["arguments"], room));
    }
    json!({"role": role, "parts": parts})
}

/// One choice of a reply: its text, its tool calls, and why it ended.
pub(super) fn output(choice: &Value) -> String {
    let mut room = TRACE_CONTENT_BYTES_MAX;
    let mut said = message(&choice["message"], &mut room);
    said["role"] = "assistant".into();
    said["finish_reason"] = choice["finish_reason"].as_str().unwrap_or("stop").into();
    json!([said]).to_string()
}

/// One message of plain text.
pub(super) fn plain(role: &str, words: &str) -> String {
    let mut room = TRACE_CONTENT_BYTES_MAX;
    json!([{"role": role, "parts": [text(words, &mut room)]}]).to_string()
}

/// Any value, as JSON where it fits.
pub(super) fn value(value: &Value) -> String {
    cut(&value.to_string(), &mut TRACE_CONTENT_BYTES_MAX.clone()).to_owned()
}

fn text(words: &str, room: &mut usize) -> Value {
    json!({"type": "text", "content": cut(words, room)})
}

fn tool_call(id: &Value, name: &Value, arguments: &Value, room: &mut usize) -> Value {
    let written = text_of(arguments);
    // An object where it is one, as the conventions want it.
    let arguments = match serde_json::from_str::<Value>(&written) {
        Ok(object) if written.len() <= *room => {
            *room -= written.len();
            object
        }
        Ok(_) | Err(_) => cut(&written, room).into(),
    };
    json!({"type": "tool_call", "id": id, "name": name, "arguments": arguments})
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// As much of it as there is room for.
fn cut<'t>(text: &'t str, room: &mut usize) -> &'t str {
    let fits = (*room).min(text.len());
    let end = (0..=fits).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    // What is cut has used up the room, also where a character did not fit.
    *room = if end < text.len() { 0 } else { *room - end };
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_has_the_form_of_the_conventions() {
        let body = json!({"messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "6*7?"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "function": {"name": "calculate", "arguments": "{\"x\":1}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ]});
        let said: Value = serde_json::from_str(&input(&body)).unwrap();
        let expected = json!([
            {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
            {"role": "user", "parts": [{"type": "text", "content": "6*7?"}]},
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "calculate", "arguments": {"x": 1}}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "result": "42"}]},
        ]);
        assert_eq!(said, expected);
        let choice = json!({"message": {"content": "42"}, "finish_reason": "length"});
        let said: Value = serde_json::from_str(&output(&choice)).unwrap();
        assert_eq!(said, json!([{"role": "assistant", "parts": [{"type": "text", "content": "42"}], "finish_reason": "length"}]));
        assert_eq!(plain("user", "x"), r#"[{"parts":[{"content":"x","type":"text"}],"role":"user"}]"#);
    }

    #[test]
    fn what_is_too_long_is_cut_and_stays_json() {
        let long = "é".repeat(TRACE_CONTENT_BYTES_MAX);
        let body = json!({"messages": [{"role": "system", "content": "first"}, {"role": "user", "content": long}, {"role": "user", "content": "newest"}]});
        let text = input(&body);
        assert!(text.len() <= TRACE_CONTENT_BYTES_MAX + 1000, "{}", text.len());
        let said: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&said[0]["parts"][0]["content"], &said[2]["parts"][0]["content"]), (&"first".into(), &"newest".into()));
        assert!(value(&json!(long)).len() <= TRACE_CONTENT_BYTES_MAX);
        for nonsense in [json!(null), json!({"messages": "x"}), json!({"messages": [1, {"tool_calls": [2]}]})] {
            serde_json::from_str::<Value>(&input(&nonsense)).unwrap();
            serde_json::from_str::<Value>(&output(&nonsense)).unwrap();
        }
    }
}
