//! Results as people read them. Pure.

use serde_json::Value;

use crate::llm::text::cut;

/// Passages that are shown of a search.
const PASSAGES_SHOWN: usize = 3;
/// How much of one passage is shown, in bytes.
const PASSAGE_BYTES_MAX: usize = 400;
/// How much of one result stands in a list, in bytes.
const ENTRY_BYTES_MAX: usize = 2 << 10;

/// The statistics that a question may ask for: words of the question, the names a tool may give the field.
const FIELDS: [(&[&str], &[&str]); 14] = [
    (&["unique words", "distinct words", "different words"], &["unique_words", "distinct_words"]),
    (
        &["how many words", "word count", "number of words", "count the words", "count words", "many words"],
        &["words", "word_count"],
    ),
    (
        &["how many characters", "character count", "number of characters", "count the characters", "characters"],
        &["characters", "chars", "character_count"],
    ),
    (&["letters"], &["letters", "letter_count", "characters"]),
    (&["how many sentences", "number of sentences", "count the sentences"], &["sentences", "sentence_count"]),
    (&["how many lines", "number of lines", "count the lines", "line count"], &["lines", "line_count"]),
    (&["how many paragraphs", "number of paragraphs", "count the paragraphs"], &["paragraphs", "paragraph_count"]),
    (&["average", "mean"], &["mean", "average"]),
    (&["median"], &["median"]),
    (&["standard deviation", "stddev", "std dev"], &["standard_deviation", "std_dev", "stddev", "stdev"]),
    (&["variance"], &["variance"]),
    (&["maximum", "largest", "highest", "biggest"], &["max", "maximum"]),
    (&["minimum", "smallest", "lowest"], &["min", "minimum"]),
    (&["sum", "total"], &["sum", "total"]),
];

/// Whether `question` asks for statistics of a text or of numbers.
pub(super) fn asks_statistics(question: &str) -> bool {
    let question = question.to_lowercase();
    FIELDS.iter().any(|(words, _)| words.iter().any(|word| has_words(&question, word)))
}

/// Whether `words` stand in `text` as whole words: "sum" is not in "summarize".
pub(super) fn has_words(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + words.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// The statistics of `object` that `question` asks for, by name.
fn asked<'a>(object: &'a serde_json::Map<String, Value>, question: &str) -> Vec<(&'a String, &'a Value)> {
    let mut question = question.to_lowercase();
    let mut found = Vec::new();
    for (words, names) in FIELDS {
        let Some(word) = words.iter().find(|word| has_words(&question, word)) else { continue };
        // "unique words" must not count as "words" as well.
        question = question.replace(word, "");
        found.extend(names.iter().find_map(|name| object.get_key_value(*name).filter(|(_, v)| !v.is_object() && !v.is_array())));
    }
    found
}

/// A tool's output as the answer to `question`.
pub(super) fn output(value: &Value, question: &str) -> String {
    if let Value::Object(fields) = value {
        match asked(fields, question).as_slice() {
            [] => {}
            [(_, only)] => return text(only),
            several => {
                return several
                    .iter()
                    .map(|(name, value)| format!("{} {}", spaced(name), text(value)))
                    .collect::<Vec<_>>()
                    .join(", ");
            }
        }
    }
    text(value)
}

/// Any result as text.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        // 6.0 is 6 to people.
        Value::Number(number) => {
            let text = number.to_string();
            text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
        }
        Value::Bool(_) => value.to_string(),
        Value::Array(items) if items.is_empty() => "nothing found".into(),
        Value::Array(items) if items.iter().any(|item| item.get("passage").is_some()) => passages(items),
        Value::Array(items) => {
            let flat = items.iter().all(|item| !item.is_object() && !item.is_array());
            items.iter().map(text).collect::<Vec<_>>().join(if flat { ", " } else { "\n" })
        }
        Value::Object(fields) => match fields.values().next() {
            Some(Value::Array(only)) if fields.len() == 1 => text(&Value::Array(only.clone())),
            _ => fields.iter().map(|(name, value)| field(name, value)).collect::<Vec<_>>().join(", "),
        },
    }
}

fn field(name: &str, value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => format!("{} {value}", spaced(name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => format!("{} {}", spaced(name), text(value)),
    }
}

fn spaced(name: &str) -> String {
    name.replace('_', " ")
}

/// The best passages of a search, one a line, each with where it stands.
fn passages(items: &[Value]) -> String {
    let lines = items.iter().take(PASSAGES_SHOWN).map(|item| {
        let passage = cut(&line(&text(&item["passage"])), PASSAGE_BYTES_MAX);
        match (item["path"].as_str(), item["line"].as_u64()) {
            (Some(path), Some(line)) => format!("{passage} ({path}:{line})"),
            (Some(path), None) => format!("{passage} ({path})"),
            (None, _) => passage,
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The first passage of what [`text`] made of a search, without where it stands; any other text as it is.
pub(super) fn bare_passage(text: &str) -> &str {
    let first = text.lines().next().unwrap_or_default();
    let Some((passage, place)) = first.strip_suffix(')').and_then(|line| line.rsplit_once(" (")) else { return text };
    let cited = place.rsplit_once(':').is_some_and(|(path, line)| !path.is_empty() && line.bytes().all(|c| c.is_ascii_digit()));
    if cited { passage } else { text }
}

/// `text` on one line.
pub(super) fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An entry of the answer's list.
pub(super) fn entry(number: usize, description: &str, result: &str) -> String {
    let description = cut(&line(description), PASSAGE_BYTES_MAX);
    let result = cut(result.trim(), ENTRY_BYTES_MAX);
    let mark = format!("{number}. ");
    if result.contains('\n') {
        let indent = " ".repeat(mark.len());
        let lines: Vec<String> = result.lines().map(|line| format!("{indent}{line}")).collect();
        format!("{mark}{description}\n{}", lines.join("\n"))
    } else {
        format!("{mark}{description} → {}", if result.is_empty() { "(empty)" } else { &result })
    }
}
