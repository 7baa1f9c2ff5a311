//! The word lists of the rules: references back, units, numbers in words. Pure.

use super::split;

/// Nouns that with "the" mean the result before ("the mean"), unless "of" follows ("the mean of 3 and 5").
const RESULT_NOUNS: [&str; 24] = [
    "result",
    "answer",
    "sum",
    "total",
    "mean",
    "average",
    "median",
    "number",
    "value",
    "output",
    "sentence",
    "text",
    "passage",
    "product",
    "difference",
    "quotient",
    "amount",
    "figure",
    "outcome",
    "count",
    "finding",
    "line",
    "paragraph",
    "quote",
];
const RESULT_PLURALS: [&str; 10] =
    ["results", "answers", "numbers", "values", "findings", "totals", "outputs", "passages", "figures", "sums"];
const PRONOUNS: [&str; 9] = ["it", "its", "this", "he", "she", "his", "her", "him", "their"];
const PLURAL_PRONOUNS: [&str; 5] = ["them", "they", "these", "those", "both"];
/// Words after "that" that show it stands for a thing: "double that by 3", not "the service that bills".
const AFTER_THAT: [&str; 12] = ["by", "with", "to", "in", "from", "and", "for", "into", "as", "plus", "minus", "times"];

/// `clause` in lower case, with references back written as `@`, `@7` (step 7) and `@*` (all); quotes are left alone.
pub(super) fn with_references(clause: &str) -> String {
    // An @ of the clause's own is no reference.
    let original = clause.to_ascii_lowercase().replace('@', "#");
    let quotes = split::quotes(&original);
    let mut out = String::new();
    let mut words = Words { text: &original, at: 0 };
    while let Some((gap, word, at)) = words.next() {
        out.push_str(gap);
        let quoted = quotes.get(quotes.partition_point(|(_, end)| *end <= at)).is_some_and(|(start, _)| *start <= at);
        match if quoted { None } else { reference(word, &words) } {
            Some((text, skipped)) => {
                out.push_str(&text);
                for _ in 0..skipped {
                    words.next();
                }
            }
            None => out.push_str(word),
        }
    }
    out.push_str(&original[words.at..]);
    out
}

/// If `word` refers back: its mark, and how many of the words after it belong to the reference.
fn reference(word: &str, after: &Words<'_>) -> Option<(String, usize)> {
    let mut ahead = after.clone();
    let next = ahead.next().map_or("", |(_, word, _)| word);
    let of_next = ahead.clone().next().is_some_and(|(_, word, _)| word == "of");
    match word {
        "the" if matches!(next, "previous" | "last") => Some((String::new(), 0)),
        "the" | "that" | "this" | "previous" | "last" if RESULT_NOUNS.contains(&next) && !of_next => Some(("@".into(), 1)),
        "the" | "these" | "those" | "both" | "all" | "previous" if RESULT_PLURALS.contains(&next) && !of_next => {
            Some(("@*".into(), 1))
        }
        "result" | "results" | "answer" | "output" if next == "of" => {
            let (_, number, _) = if ahead.next()?.1 == "step" { ahead.next()? } else { return None };
            number.parse::<u32>().ok().map(|n| (format!("@{n}"), 3))
        }
        "that" if next.is_empty() || AFTER_THAT.contains(&next) => Some(("@".to_owned(), 0)),
        "step" => next.parse::<u32>().ok().map(|n| (format!("@{n}"), 1)),
        _ if PRONOUNS.contains(&word) => Some(("@".into(), 0)),
        _ if PLURAL_PRONOUNS.contains(&word) => Some(("@*".into(), 0)),
        _ => None,
    }
}

/// The words of a text, each with the gap before it and where it starts.
#[derive(Clone)]
struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<(&'a str, &'a str, usize)> {
        let rest = &self.text[self.at..];
        let start = rest.find(char::is_alphanumeric)?;
        let word = &rest[start..];
        let length = word.find(|c: char| !(c.is_alphanumeric() || c == '\'')).unwrap_or(word.len());
        let found = (&rest[..start], &word[..length], self.at + start);
        self.at += start + length;
        Some(found)
    }
}

/// The steps before that `clause` refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct References {
    /// The step right before.
    pub(super) previous: bool,
    /// Every step before.
    pub(super) all: bool,
    /// Steps by number.
    pub(super) numbered: Vec<u32>,
}

/// Reads the references back in `clause`.
pub(super) fn references(clause: &str) -> References {
    let text = with_references(clause);
    let mut found = References::default();
    for (at, _) in text.match_indices('@') {
        let after = &text[at + 1..];
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        match after[..digits].parse() {
            Ok(number) => found.numbered.push(number),
            Err(_) if after.starts_with('*') => found.all = true,
            Err(_) => found.previous = true,
        }
    }
    found
}

/// A small number in words as digits.
pub(super) fn number(word: &str) -> Option<&'static str> {
    const NUMBERS: [(&str, &str); 17] = [
        ("zero", "0"),
        ("one", "1"),
        ("two", "2"),
        ("three", "3"),
        ("four", "4"),
        ("five", "5"),
        ("six", "6"),
        ("seven", "7"),
        ("eight", "8"),
        ("nine", "9"),
        ("ten", "10"),
        ("eleven", "11"),
        ("twelve", "12"),
        ("twenty", "20"),
        ("hundred", "100"),
        ("thousand", "1000"),
        ("million", "1000000"),
    ];
    NUMBERS.iter().find(|(name, _)| *name == word).map(|(_, digits)| *digits)
}

/// Whether `word` names a unit that calculators know.
pub(super) fn is_unit(word: &str) -> bool {
    const UNITS: &str = " km m cm mm nm mile miles mi yard yards yd foot feet ft inch inches kg g mg gram grams kilogram kilograms \
        milligram milligrams lb lbs pound pounds oz ounce ounces stone ton tons tonne tonnes l liter liters litre litres ml \
        milliliter milliliters millilitre millilitres gallon gallons pint pints quart quarts cup cups s sec second seconds min minute minutes h hr hrs \
        hour hours day days week weeks month months year years celsius fahrenheit kelvin °c °f c f k meter meters metre metres \
        kilometer kilometers kilometre kilometres centimeter centimeters centimetre centimetres millimeter millimeters millimetre \
        millimetres mph kph kmh knot knots byte bytes bit bits kb mb gb tb pb kib mib gib tib joule joules calorie calories kcal \
        kwh wh watt watts kw mw volt volts amp amps hz khz mhz ghz bar psi pa kpa acre acres hectare hectares radian radians \
        degree degrees nanometer nanometers micrometer micrometers lightyear lightyears binary hex decimal octal ";
    UNITS.split_whitespace().any(|unit| unit == word)
}
