//! Reads what models write around what was asked for: reasoning, fences, prose. Pure, and linear in hostile text.

use serde_json::Value;

/// Places in a reply where an object may start before the search is given up; each try may read the rest of the reply.
const STARTS_MAX: usize = 32;

/// Marks that some models put around their reasoning.
const REASONING: [(&str, &str); 4] =
    [("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>"), ("<thought>", "</thought>")];

/// `reply` without reasoning marks and what stands between them, trimmed.
pub fn without_reasoning(reply: &str) -> &str {
    let mut rest = reply.trim();
    // The harmony format of gpt-oss, when a server leaves it in.
    if let Some((_, last)) = rest.rsplit_once("<|channel|>final<|message|>") {
        rest = last.split("<|").next().unwrap_or_default().trim();
    }
    for (open, close) in REASONING {
        while let Some(inside) = rest.strip_prefix(open) {
            // Reasoning that never ends is all there is.
            rest = inside.split_once(close).map_or("", |(_, after)| after).trim_start();
        }
        // Templates may put the opening mark into the prompt, so that only the closing one comes back.
        if let Some((before, after)) = rest.split_once(close)
            && !before.contains(open)
        {
            rest = after.trim_start();
        }
    }
    rest.trim()
}

/// The JSON object in `reply`: all of it, or in fences, or the first balanced one among prose that has one of the `wanted`
/// keys, else the first one, unless it lies within something that is broken. An array of objects counts like an object.
///
/// Fails with one sentence that a model can act on.
pub fn object(reply: &str, wanted: &[&str]) -> Result<Value, String> {
    let text = without_reasoning(reply);
    let mut first = None;
    let mut broken = None;
    let mut at = 0;
    for _ in 0..STARTS_MAX {
        let Some(start) = text[at..].find(['{', '[']).map(|found| at + found) else { break };
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                at = start + values.byte_offset();
                if wanted.iter().any(|key| value.get(key).is_some()) {
                    return Ok(value);
                }
                let objects =
                    value.is_object() || value.as_array().is_some_and(|items| items.first().is_some_and(Value::is_object));
                if objects && first.is_none() && broken.is_none() {
                    first = Some(value);
                }
            }
            Some(Err(error)) if error.is_eof() => return Err("the JSON in the reply is cut off".into()),
            Some(Err(error)) => {
                broken.get_or_insert(error);
                at = start + 1;
            }
            None => break,
        }
    }
    match (first, broken) {
        (Some(value), _) => Ok(value),
        (None, Some(error)) => Err(format!("the reply is not valid JSON: {error}")),
        (None, None) => Err("the reply holds no JSON object".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasoning_goes() {
        let cases = [
            ("<think>a</think>b", "b"),
            ("  <think>a\n</think>\n<think>c</think> b ", "b"),
            ("a</think>b", "b"),
            ("<think>never ends", ""),
            ("<thinking>x</thinking>y", "y"),
            ("The tag <think> opens and </think> closes.", "The tag <think> opens and </think> closes."),
            ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>done<|return|>", "done"),
            ("plain", "plain"),
        ];
        for (reply, expected) in cases {
            assert_eq!(without_reasoning(reply), expected, "{reply:?}");
        }
    }

    #[test]
    fn objects_are_found() {
        let plan = json!({"steps": []});
        for reply in [
            r#"{"steps": []}"#,
            "```json\n{\"steps\": []}\n```",
            "Here is the plan {you asked for}:\n{\"steps\": []}\nGood luck {}!",
            "<think>{\"steps\": [1]}</think>{\"steps\": []}",
            r#"{"note": 1} {"steps": []}"#,
            r#"As in {"example": {"steps": [9]}}: {"steps": []}"#,
        ] {
            assert_eq!(object(reply, &["steps"]), Ok(plan.clone()), "{reply:?}");
        }
        assert_eq!(object(r#"x {"a": 1} {"b": 2}"#, &["steps"]), Ok(json!({"a": 1})));
        assert_eq!(object("[{\"a\": 1}]", &["steps"]), Ok(json!([{"a": 1}])));
        for (reply, why) in [
            ("", "holds no JSON object"),
            ("no", "holds no JSON object"),
            ("12", "holds no JSON object"),
            ("{", "cut off"),
            (r#"{"steps": [{"a": 1}, {"a""#, "cut off"),
            ("{'a': 1}", "not valid JSON"),
            (r#"{"steps": [{"a": 1},]}"#, "not valid JSON: trailing comma"),
            (r#"{"steps": [{"a": NaN}, {"b": 1}]}"#, "not valid JSON"),
        ] {
            let error = object(reply, &["steps"]).unwrap_err();
            assert!(error.contains(why), "{reply:?}: {error}");
        }
    }

    #[test]
    fn hostile_texts_end_soon() {
        for part in ["{", "[", "{\"a\":", "{\"a\": \"", "[{", "<think>", "{} ", "[1] "] {
            let found = object(&part.repeat((4 << 20) / part.len()), &["steps"]);
            assert!(found.is_err() || found == Ok(json!({})), "{part:?}");
        }
    }
}
