//! `analyze {text}` or `analyze {numbers}`: statistics that a model should not guess.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use common::tool::ToolSpec;
use serde_json::{Value, json};

use super::{CallContext, Tool, ToolError};

mod numbers;

/// Most frequent words that are listed.
const TOP_WORDS_MAX: usize = 10;

/// The tool.
pub(super) struct Analyze;

impl Tool for Analyze {
    fn spec(&self) -> ToolSpec {
        common::tool::analyze()
    }

    fn call<'a>(
        &'a self,
        arguments: Value,
        _ctx: &'a CallContext,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ToolError>> + Send + 'a>> {
        // A few passes over at most ARGUMENTS_BYTES_MAX: too short for a thread of its own.
        Box::pin(async move { analyze(&arguments).map_err(ToolError) })
    }
}

fn analyze(arguments: &Value) -> Result<Value, String> {
    let text = arguments.get("text").and_then(Value::as_str);
    let numbers = arguments.get("numbers").and_then(Value::as_array);
    // An empty one beside a full one is how some models say null.
    match (text.filter(|text| !text.trim().is_empty()), numbers.filter(|numbers| !numbers.is_empty())) {
        (Some(_), Some(_)) => Err("give either text or numbers, not both".into()),
        (Some(text), None) => Ok(describe(text)),
        (None, Some(numbers)) => numbers::describe(numbers),
        (None, None) if numbers.is_some() => Err("numbers is empty: there is nothing to analyze".into()),
        (None, None) if text.is_some() => Err("text is empty: there is nothing to analyze".into()),
        (None, None) => Err("give text or numbers".into()),
    }
}

/// Statistics of a text. A word is what stands between spaces, without the punctuation around it, in lower case where words
/// are compared.
fn describe(text: &str) -> Value {
    let words: Vec<&str> =
        text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric())).filter(|w| !w.is_empty()).collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for word in &words {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let unique = counts.len();
    // By count, then by the alphabet: the map's order, which the stable sort keeps.
    let mut top: Vec<(String, usize)> = counts.into_iter().collect();
    top.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    top.truncate(TOP_WORDS_MAX);
    let letters: usize = words.iter().map(|word| word.chars().count()).sum();
    // The first of the longest.
    let longest = words.iter().rev().max_by_key(|word| word.chars().count()).copied().unwrap_or_default();
    json!({
        "characters": text.chars().count(),
        "words": words.len(),
        "unique_words": unique,
        "sentences": sentences(text),
        "lines": text.lines().count(),
        "longest_word": longest,
        "top_words": top.into_iter().map(|(word, count)| json!({"word": word, "count": count})).collect::<Vec<_>>(),
        "average_word_length": numbers::number(rounded(letters, words.len())),
    })
}

/// `sum / count` to two decimals; 0 of nothing.
fn rounded(sum: usize, count: usize) -> f64 {
    if count == 0 { 0.0 } else { (sum as f64 / count as f64 * 100.0).round() / 100.0 }
}

/// Sentences end with `.`, `!`, `?`, `…` (and closing marks) before a space, or with `。`, `！`, `？`, or with a paragraph or
/// the text. "3.14" ends none; "e.g. this" does, wrongly.
fn sentences(text: &str) -> usize {
    let closing: BTreeSet<char> = "\"'”’»)]".chars().collect();
    let mut count = 0;
    for paragraph in text.split("\n\n") {
        let mut open = false;
        let mut characters = paragraph.chars().peekable();
        while let Some(character) = characters.next() {
            open |= character.is_alphanumeric();
            let ends = match character {
                '.' | '!' | '?' | '…' => {
                    while characters.next_if(|c| closing.contains(c) || ".!?…".contains(*c)).is_some() {}
                    characters.peek().is_none_or(|next| next.is_whitespace())
                }
                '。' | '！' | '？' => true,
                _ => false,
            };
            if ends && open {
                count += 1;
                open = false;
            }
        }
        count += usize::from(open);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expects the fields of `expected` in the statistics of `arguments`.
    fn check(arguments: Value, expected: Value) {
        let found = analyze(&arguments).unwrap();
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&found[key], value, "{key} of {arguments}");
        }
    }

    fn refused(arguments: Value, expected: &str) {
        let why = analyze(&arguments).expect_err(expected);
        assert!(why.contains(expected), "{arguments}: {expected:?} not in {why:?}");
    }

    #[test]
    fn texts_are_counted() {
        check(
            json!({"text": "The cat saw the dog. \"Don't!\" said it…\n\nPi is 3.14, the end", "numbers": null}),
            json!({
                "characters": 59, "words": 13, "unique_words": 11, "sentences": 4, "lines": 3, "longest_word": "Don't",
                "average_word_length": 3.08,
            }),
        );
        check(
            json!({"text": "b a B c"}),
            json!({"top_words": [{"word": "b", "count": 2}, {"word": "a", "count": 1}, {"word": "c", "count": 1}]}),
        );
        check(
            json!({"text": "Straße ÜBER über", "numbers": []}),
            json!({"characters": 16, "words": 3, "unique_words": 2, "longest_word": "Straße"}),
        );
        check(json!({"text": "你好。再见！"}), json!({"characters": 6, "sentences": 2}));
        check(
            json!({"text": "... !!! ---"}),
            json!({"words": 0, "sentences": 0, "longest_word": "", "top_words": [], "average_word_length": 0}),
        );
        check(json!({"text": "\0\u{202e}".repeat(32 << 10)}), json!({"words": 0, "lines": 1}));
        let many: String = (0..100).map(|n| format!("w{n} ")).collect();
        assert_eq!(analyze(&json!({"text": many})).unwrap()["top_words"].as_array().unwrap().len(), TOP_WORDS_MAX);
    }

    #[test]
    fn numbers_are_summed() {
        check(
            json!({"numbers": [3, "1,000", "4.5", -2, "approx. 0.5"], "text": ""}),
            json!({"count": 5, "sum": 1006, "mean": 201.2, "median": 3, "min": -2, "max": 1000, "range": 1002}),
        );
        check(json!({"numbers": [2, 4, 4, 4, 5, 5, 7, 9]}), json!({"mean": 5, "median": 4.5, "standard_deviation": 2}));
        check(json!({"numbers": [7]}), json!({"count": 1, "mean": 7, "median": 7, "standard_deviation": 0}));
        check(json!({"numbers": [0.1, 0.2]}), json!({"sum": 0.3, "mean": 0.15, "median": 0.15}));
        check(json!({"numbers": ["1e3", "2.5E-1", " +5 "]}), json!({"sum": 1005.25}));
        check(json!({"numbers": [u64::MAX, "1"]}), json!({"sum": "18446744073709551616", "max": u64::MAX}));
        check(json!({"numbers": [9007199254740993u64, 2]}), json!({"sum": 9007199254740995u64, "max": 9007199254740993u64}));
        check(json!({"numbers": [1e300, 1, -1e300]}), json!({"sum": 1, "min": -1e300}));
        check(json!({"numbers": [1e16, 1e16, 1e16]}), json!({"standard_deviation": 0}));
    }

    #[test]
    fn bad_input_is_refused() {
        refused(json!({}), "give text or numbers");
        refused(json!({"text": null, "numbers": null}), "give text or numbers");
        refused(json!({"text": "a", "numbers": [1]}), "not both");
        refused(json!({"numbers": []}), "numbers is empty");
        refused(json!({"text": " \n"}), "text is empty");
        refused(json!({"numbers": [1, "two"]}), "entry 2 of numbers, \"two\", is not a number");
        refused(json!({"numbers": ["NaN"]}), "entry 1");
        refused(json!({"numbers": ["inf"]}), "entry 1");
        refused(json!({"numbers": ["1e999"]}), "entry 1");
        refused(json!({"numbers": ["12,34"]}), "entry 1");
        refused(json!({"numbers": ["25 m / s"]}), "without units");
        refused(json!({"numbers": [1.7e308, 1.7e308]}), "too large");
        refused(json!({"numbers": [1.7e308, -1.7e308]}), "too large");
    }
}
