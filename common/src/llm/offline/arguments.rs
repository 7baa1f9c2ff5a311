//! Which tool a clause needs, and the arguments that stand in its words. Pure.

use serde_json::{Value, json};

use super::expression::{Results, expression};
use super::{readable, split, words};
use crate::llm::text::cut;
use crate::run::{Outcome, StepInput};
use crate::tool::ToolCall;

/// Longest expression, query and text that are taken from a clause, in bytes.
const EXPRESSION_BYTES_MAX: usize = 1 << 10;
const QUERY_BYTES_MAX: usize = 400;
const TEXT_BYTES_MAX: usize = 48 << 10;
/// Most numbers for statistics.
const NUMBERS_MAX: usize = 1_000;
/// Clauses longer than this are no arithmetic, in bytes.
const CALCULATION_BYTES_MAX: usize = 4 << 10;

const SEARCHES: [&str; 16] = [
    "find",
    "search",
    "look up",
    "lookup",
    "look for",
    "look in",
    "look through",
    "retrieve",
    "fetch",
    "according to",
    "what do the docs",
    "what does the doc",
    "in the docs",
    "in the documents",
    "in the documentation",
    "in the files",
];

/// The tool for `clause`, among the offered ones.
pub(super) fn tool_for(clause: &str, has_results: bool, offered: &[&str]) -> Option<&'static str> {
    let can = |tool: &str| offered.contains(&tool);
    let lower = unquoted(clause).to_lowercase();
    let statistics = can("analyze") && readable::asks_statistics(clause);
    let numbers = numbers_in(clause).len();
    let text_counts = ["words", "word count", "characters", "sentences", "lines", "letters", "paragraphs"];
    let counts_text = text_counts.iter().any(|word| readable::has_words(&lower, word));
    let simple_sum = ["sum", "total"].iter().any(|word| readable::has_words(&lower, word)) && !lower.contains("statistics");
    if statistics && numbers >= 2 && !simple_sum && !counts_text && !lower.contains('%') {
        return Some("analyze");
    }
    let results = Planned(has_results);
    if can("calculate") && clause.len() <= CALCULATION_BYTES_MAX && expression(clause, &results).is_some() {
        return Some("calculate");
    }
    let counting = counts_text && (lower.contains("how many") || lower.contains("count") || lower.contains("number of"));
    if can("analyze") && counting && !lower.starts_with("find ") && !lower.starts_with("search ") {
        return Some("analyze");
    }
    let wants = |list: &[&str]| list.iter().any(|word| readable::has_words(&lower, word));
    if can("search") && wants(&SEARCHES) {
        return Some("search");
    }
    let analyses =
        wants(&["analyze", "analyse", "statistics"]) || (statistics && has_results && !split::quotes(clause).is_empty());
    // What nothing else can answer may stand in the documents.
    let question = ["who", "what", "when", "where", "which", "how", "why", "whose"].iter().any(|word| lower.starts_with(word));
    let over_results = statistics && has_results && words::references(clause) != words::References::default();
    if can("analyze") && (analyses || over_results) {
        return Some("analyze");
    }
    (question && can("search")).then_some("search")
}

/// Whether `clause` asks for statistics of something that it does not hold itself ("count the words").
pub(super) fn lacks_text(clause: &str) -> bool {
    let held = [": ", " in ", " of "].iter().any(|mark| clause.contains(mark));
    !held && split::quotes(clause).is_empty() && numbers_in(clause).len() < 2
}

/// Whether `clause` speaks of everything before it without naming it ("finally, summarize").
pub(super) fn gathers(clause: &str, after: bool) -> bool {
    let lower = clause.to_lowercase();
    let first = lower.split(' ').next().unwrap_or_default();
    let verb = matches!(first, "summarize" | "summarise" | "combine" | "compare" | "conclude" | "report" | "list");
    verb && (after || lower.split_whitespace().count() <= 2)
}

/// "What is 15% of 240 and 20% of 50?" asks twice: one clause for each, if every part is arithmetic of its own.
pub(super) fn split_sums(clauses: Vec<split::Clause>, offered: &[&str]) -> Vec<split::Clause> {
    let mut all = Vec::with_capacity(clauses.len());
    for clause in clauses {
        let verb = ["What is ", "What's ", "What are ", "Calculate ", "Compute ", "Convert ", "Work out ", "Evaluate "]
            .into_iter()
            .find(|verb| clause.text.starts_with(verb));
        let parts: Vec<String> = match verb {
            Some(verb) if offered.contains(&"calculate") && clause.text.len() <= CALCULATION_BYTES_MAX => clause.text
                [verb.len()..]
                .trim_end_matches('?')
                .replace(", and ", " and ")
                .split(" and ")
                .map(|part| format!("{verb}{}{}", part.trim(), if clause.text.ends_with('?') { "?" } else { "" }))
                .collect(),
            _ => Vec::new(),
        };
        // A bare number after "and" ends a list: "the mean of 3, 5 and 8".
        let is_number =
            |part: &String| verb.is_some_and(|verb| part[verb.len()..].trim_end_matches('?').trim().parse::<f64>().is_ok());
        if parts.len() > 1 && !parts.iter().any(is_number) && parts.iter().all(|part| expression(part, &Planned(false)).is_some())
        {
            all.extend(parts.into_iter().map(|text| split::Clause { text, after: clause.after }));
        } else {
            all.push(clause);
        }
    }
    all
}

/// What references mean while planning: something, if there is a step before.
struct Planned(bool);

impl Results for Planned {
    fn one(&self, _: Option<u32>) -> Option<String> {
        self.0.then(|| "1".into())
    }

    fn all(&self) -> Vec<String> {
        if self.0 { vec!["1".into(), "1".into()] } else { Vec::new() }
    }
}

/// What references mean while acting.
struct Given<'a>(&'a [StepInput]);

impl Results for Given<'_> {
    fn one(&self, step: Option<u32>) -> Option<String> {
        let input = match step {
            Some(number) => self.0.iter().find(|input| input.step_number.0 == number)?,
            None => self.0.iter().max_by_key(|input| input.step_number)?,
        };
        operand(input)
    }

    fn all(&self) -> Vec<String> {
        self.0.iter().filter_map(operand).collect()
    }
}

/// The number, with its unit, in a result.
fn operand(input: &StepInput) -> Option<String> {
    let text = readable::output(&input.result, &input.description);
    let text = text.trim().trim_start_matches("approx. ").trim_start_matches("approximately ");
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let negative = text[..start].ends_with('-') && !text[..start].ends_with("--");
    let from = &text[start..];
    let end = from.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ',')).unwrap_or(from.len());
    let number = from[..end].trim_end_matches(['.', ',']).replace(',', "");
    let unit = from[end..].trim();
    let whole = start == usize::from(negative);
    match (whole && words::is_unit(&unit.to_lowercase()), negative) {
        (true, false) => Some(format!("({number} {unit})")),
        (true, true) => Some(format!("(-{number} {unit})")),
        (false, false) => Some(number),
        (false, true) => Some(format!("(-{number})")),
    }
}

/// The call of `tool` that `description` asks for.
pub(super) fn call(tool: &str, description: &str, inputs: &[StepInput]) -> ToolCall {
    let arguments = match tool {
        "calculate" => json!({"expression": calculation(description, inputs)}),
        "search" => json!({"query": query(description, inputs)}),
        "analyze" => analysis(description, inputs),
        _ => json!({}),
    };
    ToolCall { tool: tool.to_owned(), arguments }
}

fn calculation(description: &str, inputs: &[StepInput]) -> String {
    let found = (description.len() <= CALCULATION_BYTES_MAX).then(|| expression(description, &Given(inputs))).flatten();
    let text = found.unwrap_or_else(|| {
        // Nothing that the rules can read: the tool will say what is wrong with it.
        let bare = description.trim_end_matches(['?', '.', '!']);
        let known = ["Calculate ", "Compute ", "What is ", "Work out ", "Evaluate "];
        known.iter().find_map(|verb| bare.strip_prefix(verb)).unwrap_or(bare).to_owned()
    });
    cut(&text, EXPRESSION_BYTES_MAX)
}

/// Words of a request that are no part of what is looked for.
const ASKING: [&str; 38] = [
    "please",
    "find out",
    "find",
    "search for",
    "search",
    "look up",
    "lookup",
    "look for",
    "look in",
    "look through",
    "retrieve",
    "fetch",
    "tell me",
    "in the documentation",
    "in the documents",
    "in the docs",
    "in the files",
    "the documentation for",
    "the documents for",
    "the docs for",
    "the documentation",
    "the documents",
    "the docs",
    "the files",
    "what do the docs say about",
    "what does the documentation say about",
    "what do the documents say about",
    "according to",
    "for",
    "about",
    "information on",
    "who",
    "what",
    "where",
    "when",
    "which",
    "in",
    "me",
];

fn query(description: &str, inputs: &[StepInput]) -> String {
    let quotes = split::quotes(description);
    if let Some((start, end)) = quotes.first() {
        return cut(&description[*start..*end], QUERY_BYTES_MAX);
    }
    let mut rest = description.trim().trim_end_matches(['?', '.', '!']);
    while let Some(asking) = ASKING.iter().find(|asking| {
        rest.get(..asking.len()).is_some_and(|start| start.eq_ignore_ascii_case(asking))
            && rest[asking.len()..].starts_with([' ', ',', ':'])
    }) {
        rest = rest[asking.len()..].trim_start_matches([' ', ',', ':']);
    }
    for place in [" in the documentation", " in the documents", " in the docs", " in the files"] {
        rest = rest.strip_suffix(place).unwrap_or(rest);
    }
    let query = if rest.is_empty() { description } else { rest };
    let refers = words::references(description) != words::References::default();
    let more = if refers { inputs.last().map(input_text).unwrap_or_default() } else { String::new() };
    cut(format!("{query} {}", readable::line(&more)).trim(), QUERY_BYTES_MAX)
}

/// What an input says: for a search, its best passage.
fn input_text(input: &StepInput) -> String {
    if input.outcome != Outcome::Succeeded {
        return String::new();
    }
    readable::bare_passage(&readable::text(&input.result)).to_owned()
}

fn analysis(description: &str, inputs: &[StepInput]) -> Value {
    let lower = description.to_lowercase();
    let of_text =
        ["word", "character", "letter", "sentence", "line", "paragraph", "text"].iter().any(|word| lower.contains(word));
    let numbers = numbers_in(description);
    if !of_text && numbers.len() >= 2 {
        return json!({"numbers": numbers});
    }
    let texts: Vec<String> = inputs.iter().map(input_text).filter(|text| !text.is_empty()).collect();
    if let Some((start, end)) = split::quotes(description).first() {
        return json!({"text": cut(&description[*start..*end], TEXT_BYTES_MAX)});
    }
    if !of_text && !texts.is_empty() {
        let numbers: Vec<Value> = texts.iter().flat_map(|text| numbers_in(text)).take(NUMBERS_MAX).collect();
        if numbers.len() >= 2 {
            return json!({"numbers": numbers});
        }
    }
    if !texts.is_empty() {
        let text = texts.join("\n");
        // A text that a step before only states stands in its quotes.
        let quoted = split::quotes(&text).first().map(|(start, end)| text[*start..*end].to_owned());
        return json!({"text": cut(&quoted.unwrap_or(text), TEXT_BYTES_MAX)});
    }
    let after = [": ", " are there in ", " are in ", " in ", " of "].iter().find_map(|mark| description.split_once(mark));
    let text = after.map_or(description, |(_, text)| text).trim_end_matches('?');
    json!({"text": cut(text, TEXT_BYTES_MAX)})
}

/// `text` with spaces in place of what stands in quotes.
fn unquoted(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut at = 0;
    for (start, end) in split::quotes(text) {
        plain.push_str(&text[at..start]);
        plain.push(' ');
        at = end;
    }
    plain.push_str(&text[at..]);
    plain
}

/// The numbers in `text` outside quotes, in order.
fn numbers_in(text: &str) -> Vec<Value> {
    unquoted(text)
        .split(|c: char| c.is_whitespace() || ",;()[]{}".contains(c))
        .map(|word| word.trim_end_matches(['.', '?', '!', ':', '%']))
        .filter(|word| word.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.'))
        .filter_map(|word| match word.parse::<i64>() {
            Ok(whole) => Some(Value::from(whole)),
            Err(_) => word.parse::<f64>().ok().filter(|n| n.is_finite()).map(Value::from),
        })
        .take(NUMBERS_MAX)
        .collect()
}
