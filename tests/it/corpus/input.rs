//! Inputs as the corpus writes them, which would be unreadable or impossible in JSON otherwise. `tests/fuzz` makes seeds of them.

use serde_json::Value;

/// The bytes that `input` stands for:
/// - a text: its bytes;
/// - `{"hex": "fffe"}`;
/// - `{"json": …}`: the value, written out;
/// - `{"repeat": input, "times": 3, "between": ","}`, where `{n}`, `{n-1}` and `{n+1}` in a text count from 1;
/// - a list of inputs: one after the other.
pub(crate) fn bytes(input: &Value) -> Vec<u8> {
    match input {
        Value::String(text) => text.clone().into_bytes(),
        Value::Array(parts) => parts.iter().flat_map(bytes).collect(),
        Value::Object(fields) if fields.contains_key("hex") => hex(input["hex"].as_str().unwrap_or_default()),
        Value::Object(fields) if fields.contains_key("json") => input["json"].to_string().into_bytes(),
        Value::Object(fields) if fields.contains_key("repeat") => repeated(input),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => panic!("not an input: {input}"),
    }
}

fn hex(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn repeated(input: &Value) -> Vec<u8> {
    let times = input["times"].as_u64().expect("times");
    let unit = bytes(&input["repeat"]);
    let counts = unit.contains(&b'{') && unit.windows(2).any(|pair| pair == b"{n");
    let between = input["between"].as_str().unwrap_or_default().as_bytes();
    let mut all = Vec::new();
    for n in 1..=times {
        if n > 1 {
            all.extend_from_slice(between);
        }
        if counts {
            let text = String::from_utf8_lossy(&unit);
            let numbers = [("{n}", n), ("{n-1}", n - 1), ("{n+1}", n + 1)];
            all.extend(numbers.iter().fold(text.into_owned(), |text, (mark, n)| text.replace(mark, &n.to_string())).bytes());
        } else {
            all.extend_from_slice(&unit);
        }
    }
    all
}
