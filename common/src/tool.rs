//! What models and validators know of a tool: its name, what it does, and the JSON schema of its arguments.

use serde_json::{Value, json};

use crate::limits::{SEARCH_RESULTS_DEFAULT, SEARCH_RESULTS_MAX};

/// A tool as a model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Its name: `[a-z0-9_]+`.
    pub name: &'static str,
    /// What it does and what it returns, in one or two sentences for a model.
    pub description: &'static str,
    /// The JSON Schema of its arguments: an object with `additionalProperties: false`.
    pub parameters: Value,
    /// Whether a call changes something outside, so that a person may want to know before a plan runs.
    pub side_effects: bool,
}

/// A call of a tool that somebody asks for; nothing about it is checked yet.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ToolCall {
    /// The name of the tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
}

/// The names of all tools that there are.
pub const NAMES: [&str; 3] = ["calculate", "search", "analyze"];

/// The tools that every executor has; `search` only where a folder to search is configured.
///
/// The schemas are plain on purpose: an object of scalars and one list, no `oneOf`, so that small models and strict structured
/// output can follow them. Every optional property also accepts null and is then as good as absent: an endpoint that wants
/// all properties `required` may be told so without changing what can be said. Rules between properties are checked by the tool.
pub fn builtin(search: bool) -> Vec<ToolSpec> {
    let searches = search.then(self::search);
    [Some(calculate()), searches, Some(analyze())].into_iter().flatten().collect()
}

/// `calculate {expression}`: exact arithmetic.
pub fn calculate() -> ToolSpec {
    ToolSpec {
        name: "calculate",
        side_effects: false,
        description: "Evaluates one arithmetic expression exactly, with percentages and units, and returns the result as text; \
                      what cannot be written out is rounded to 10 digits.",
        parameters: json!({
            "type": "object",
            "properties": {
                "expression": {
                    "type": "string",
                    "description": "The expression, numbers and operators only, for example `(1,250 - 300) * 1.19`, \
                                    `15% of 240`, `2 km in miles` or `sqrt(2) to 3 dp`.",
                },
            },
            "required": ["expression"],
            "additionalProperties": false,
        }),
    }
}

/// `search {query, limit?}`: passages of documents.
pub fn search() -> ToolSpec {
    ToolSpec {
        name: "search",
        side_effects: false,
        description: "Finds passages in the document folder by words and returns a list of path, line, passage and score, \
                      best first; the list is empty when nothing matches.",
        parameters: json!({
            "type": "object",
            "properties": {
                "query": {
                    "type": "string",
                    "minLength": 1,
                    "description": "The words to look for, for example `refund policy digital goods`.",
                },
                "limit": {
                    "type": ["integer", "null"],
                    "minimum": 1,
                    "maximum": SEARCH_RESULTS_MAX,
                    "description": format!(
                        "Most passages to return, from 1 to {SEARCH_RESULTS_MAX}, for example 3; null means {SEARCH_RESULTS_DEFAULT}."
                    ),
                },
            },
            "required": ["query"],
            "additionalProperties": false,
        }),
    }
}

/// `analyze {text}` or `analyze {numbers}`: statistics.
pub fn analyze() -> ToolSpec {
    ToolSpec {
        name: "analyze",
        side_effects: false,
        description: "Returns statistics of either one text (characters, words, sentences, lines, most frequent words) or one \
                      list of numbers (count, sum, mean, median, min, max, population standard deviation).",
        parameters: json!({
            "type": "object",
            "properties": {
                "text": {
                    "type": ["string", "null"],
                    "description": "The text to count, for example `To be or not to be.`; null or absent when numbers are given.",
                },
                "numbers": {
                    "type": ["array", "null"],
                    "items": {"type": ["number", "string"]},
                    "description": "The numbers, without units, for example [3, 4.5, \"1,250\"]; null or absent when a text is given.",
                },
            },
            "additionalProperties": false,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_suit_small_models_and_strict_output() {
        for spec in builtin(true) {
            assert!(spec.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            assert_eq!(spec.parameters["additionalProperties"], false, "{}", spec.name);
            let required = spec.parameters["required"].as_array().cloned().unwrap_or_default();
            for (name, property) in spec.parameters["properties"].as_object().unwrap() {
                assert!(property["description"].as_str().unwrap().contains("for example"), "{name}");
                let nullable = property["type"].as_array().is_some_and(|types| types.contains(&json!("null")));
                assert_ne!(nullable, required.contains(&json!(name)), "{name} is either required or may be null");
            }
        }
    }

    #[test]
    fn search_needs_a_folder() {
        let names = |search| builtin(search).iter().map(|spec| spec.name).collect::<Vec<_>>();
        assert_eq!(names(true), ["calculate", "search", "analyze"]);
        assert_eq!(names(false), ["calculate", "analyze"]);
    }
}
