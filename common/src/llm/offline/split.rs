//! Splits an objective into clauses: list entries, sentences, and commands or questions joined by "and", "then" or commas. Pure.
//!
//! What stands in quotes or brackets is never split. One pass over the text: 64 KiB of anything is fine.

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    /// Its text: starts with a capital letter, questions end with `?`.
    pub(super) text: String,
    /// Whether the wording puts it after the clause before ("then", "finally").
    pub(super) after: bool,
}

const QUESTIONS: [&str; 11] = ["what", "what's", "whats", "who", "who's", "when", "where", "which", "why", "how", "whose"];
/// Verbs that start a clause wherever they follow a comma or "and".
const VERBS: [&str; 42] = [
    "calculate",
    "compute",
    "find",
    "search",
    "look",
    "count",
    "tell",
    "give",
    "write",
    "summarize",
    "summarise",
    "explain",
    "describe",
    "analyze",
    "analyse",
    "compare",
    "convert",
    "add",
    "subtract",
    "multiply",
    "divide",
    "double",
    "halve",
    "triple",
    "determine",
    "check",
    "draft",
    "translate",
    "identify",
    "combine",
    "evaluate",
    "estimate",
    "solve",
    "list",
    "say",
    "sum",
    "increase",
    "reduce",
    "decrease",
    "fetch",
    "retrieve",
    "work",
];
/// Verbs that are as often nouns: they start a clause only before a word such as "the" or "it".
const WEAK_VERBS: [&str; 10] = ["report", "name", "show", "state", "answer", "use", "square", "cube", "get", "print"];
const DETERMINERS: [&str; 21] = [
    "it", "that", "this", "the", "a", "an", "all", "them", "these", "those", "both", "your", "my", "its", "how", "what", "which",
    "who", "me", "each", "every",
];
const ABBREVIATIONS: [&str; 15] =
    ["e.g", "i.e", "etc", "vs", "mr", "mrs", "ms", "dr", "prof", "st", "no", "approx", "fig", "inc", "cf"];
/// Words at the start of a clause that say nothing, and whether they put it after the clause before.
const LEADS: [(&str, bool); 20] = [
    ("and then ", true),
    ("then, ", true),
    ("then ", true),
    ("after that, ", true),
    ("after that ", true),
    ("afterwards, ", true),
    ("afterwards ", true),
    ("next, ", true),
    ("finally, ", true),
    ("finally ", true),
    ("lastly, ", true),
    ("first, ", false),
    ("first of all, ", false),
    ("firstly, ", false),
    ("second, ", false),
    ("secondly, ", false),
    ("and ", false),
    ("also, ", false),
    ("also ", false),
    ("please ", false),
];
/// What joins two clauses, longest first, and whether it puts the second after the first.
const JOINTS: [(&str, bool); 14] = [
    (", and then ", true),
    (" and then ", true),
    (", then ", true),
    (", and afterwards ", true),
    (" and afterwards ", true),
    (", afterwards ", true),
    (", and finally ", true),
    (" and finally ", true),
    (", finally ", true),
    (", and also ", false),
    (" and also ", false),
    (", and ", false),
    (" and ", false),
    (", ", false),
];

/// How far after `1)` a `2)` is looked for.
const LIST_ENTRY_BYTES_MAX: usize = 512;

/// The clauses of `text`; empty when it holds no letter and no digit.
pub(super) fn clauses(text: &str) -> Vec<Clause> {
    let masked = mask(text);
    let mut found = Vec::new();
    let numbered = entry_mark(&masked, 1);
    let mut at = numbered.unwrap_or(0);
    let mut piece = Piece { start: at, after: false, entry: if numbered.is_some() { 2 } else { 1 } };
    while at < masked.len() {
        match end_of_piece(text, &masked, &piece, at) {
            Some(end) => {
                push(text, &masked, piece.start..end.keep, piece.after, &mut found);
                piece = Piece { start: end.next, after: end.after, entry: end.entry };
                at = end.next;
            }
            None => at += 1,
        }
    }
    push(text, &masked, piece.start..masked.len(), piece.after, &mut found);
    found
}

/// The clause being read.
struct Piece {
    start: usize,
    after: bool,
    /// The number that would make a list entry here.
    entry: u32,
}

/// Where a clause ends and the next one starts, in bytes.
struct End {
    keep: usize,
    next: usize,
    after: bool,
    entry: u32,
}

fn end_of_piece(text: &str, masked: &[u8], piece: &Piece, at: usize) -> Option<End> {
    let rest = &masked[at..];
    let cut = |keep: usize, next: usize| Some(End { keep, next, after: false, entry: piece.entry });
    match rest[0] {
        b'\n' | b';' => cut(at, at + 1),
        b'?' | b'!' if rest.get(1).is_none_or(u8::is_ascii_whitespace) => cut(at + 1, at + 1),
        b'.' if ends_sentence(text, masked, piece.start, at) => cut(at, at + 1),
        b' ' | b',' => {
            if rest[0] == b' '
                && let Some(length) = entry_mark(&rest[1..], piece.entry)
                && (piece.entry > 1 || contains(&rest[..rest.len().min(LIST_ENTRY_BYTES_MAX)], &[b' ', b'2', rest[length], b' ']))
            {
                return Some(End { keep: at, next: at + 1 + length, after: false, entry: piece.entry + 1 });
            }
            joint(masked, piece.start, at).map(|(next, after)| End { keep: at, next, after, entry: piece.entry })
        }
        _ => None,
    }
}

/// Whether a full stop at `at` ends a sentence rather than an abbreviation, a list number or a part of a name.
fn ends_sentence(text: &str, masked: &[u8], start: usize, at: usize) -> bool {
    if masked.get(at + 1).is_some_and(|c| !c.is_ascii_whitespace()) {
        return false;
    }
    let next = text.get(at + 1..).and_then(|rest| rest.trim_start().chars().next());
    if next.is_some_and(char::is_lowercase) {
        return false;
    }
    // The longest abbreviation is shorter than this; a text without spaces must not be read again at every stop.
    let from = at.saturating_sub(12).max(start);
    let word = masked[from..at].rsplit(|c| matches!(c, b' ' | b'\n' | b'(')).next().unwrap_or_default();
    let entry = word.iter().all(u8::is_ascii_digit) && masked[start..at].trim_ascii_start().len() == word.len();
    let initial = word.len() == 1 && word[0].is_ascii_alphabetic() && next.is_some();
    !entry && !initial && !ABBREVIATIONS.iter().any(|a| a.as_bytes() == word)
}

/// The length of a list mark such as `2) ` or `2. ` with that number at the start of `rest`, without the space.
fn entry_mark(rest: &[u8], number: u32) -> Option<usize> {
    let digits = number.to_string();
    let mark = rest.strip_prefix(digits.as_bytes())?;
    (matches!(mark.first()?, b')' | b'.') && mark.get(1) == Some(&b' ')).then_some(digits.len() + 1)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// If a clause ends at `at` because another one is joined to it: where that one starts, and whether it comes after.
fn joint(masked: &[u8], start: usize, at: usize) -> Option<(usize, bool)> {
    let rest = &masked[at..];
    if rest.starts_with(b" then ") && starts_clause(&rest[6..]) && !masked[start..at].trim_ascii_start().starts_with(b"if ") {
        return Some((at + 6, true));
    }
    let (joint, after) = JOINTS.iter().find(|(joint, _)| rest.starts_with(joint.as_bytes()))?;
    let next = &rest[joint.len()..];
    if *after {
        return Some((at + joint.len(), true));
    }
    let left = masked[start..at].trim_ascii_start();
    let explains = ["explain", "describe", "discuss"].iter().any(|verb| left.starts_with(verb.as_bytes()));
    let question = QUESTIONS.iter().any(|word| first_word(next) == word.as_bytes());
    let two_words = left.split(|c| *c == b' ').filter(|word| !word.is_empty()).take(2).count() == 2;
    let lead = LEADS.iter().any(|(lead, after)| *after && next.starts_with(lead.as_bytes()));
    (two_words && (starts_clause(next) || lead) && !(explains && question)).then_some((at + joint.len(), false))
}

fn first_word(text: &[u8]) -> &[u8] {
    text.split(|c| matches!(c, b' ' | b',' | b'\n' | b':' | b'?')).next().unwrap_or_default()
}

/// Whether lower-case `text` starts with a question or a command.
fn starts_clause(text: &[u8]) -> bool {
    let first = first_word(text);
    let known = |words: &[&str]| words.iter().any(|word| word.as_bytes() == first);
    let more = text.get(first.len() + 1..).unwrap_or_default().trim_ascii_start();
    let second = first_word(more);
    if known(&QUESTIONS) || known(&VERBS) {
        return !second.is_empty();
    }
    known(&WEAK_VERBS) && DETERMINERS.iter().any(|word| word.as_bytes() == second)
}

/// Whether `text` asks or commands; otherwise it states something.
pub(super) fn asks(text: &str) -> bool {
    let lower = text.to_lowercase();
    let first = first_word(lower.as_bytes());
    let known = |words: &[&str]| words.iter().any(|word| word.as_bytes() == first);
    lower.ends_with('?') || known(&QUESTIONS) || known(&VERBS) || known(&WEAK_VERBS)
}

/// Tidies the clause at `range` and adds it, unless nothing is left.
fn push(text: &str, masked: &[u8], range: std::ops::Range<usize>, mut after: bool, found: &mut Vec<Clause>) {
    let Some(raw) = text.get(range.clone()) else { return };
    let heading = raw.trim_end().ends_with(':') && masked.get(range.end) == Some(&b'\n') && raw.split(' ').count() <= 12;
    let mut piece = strip_mark(raw.trim());
    while let Some((lead, later)) =
        LEADS.iter().find(|(lead, _)| piece.get(..lead.len()).is_some_and(|start| start.eq_ignore_ascii_case(lead)))
    {
        after |= later;
        piece = piece[lead.len()..].trim_start();
    }
    let piece = piece.trim_end_matches(|c: char| c.is_whitespace() || ".;,:".contains(c));
    if heading || !piece.contains(char::is_alphanumeric) {
        return;
    }
    let mut chars = piece.chars();
    let mut text: String = chars.next().map(char::to_uppercase).into_iter().flatten().chain(chars).collect();
    if QUESTIONS.iter().any(|word| first_word(text.to_lowercase().as_bytes()) == word.as_bytes()) && !text.ends_with('?') {
        text.push('?');
    }
    found.push(Clause { text, after });
}

/// `line` without a bullet or list number at its start.
fn strip_mark(line: &str) -> &str {
    let bare = line.trim_start_matches(['-', '*', '•', '–', '+', '#']);
    if bare.len() < line.len() && bare.starts_with(' ') {
        return bare.trim_start();
    }
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    if digits.len() < line.len() && (digits.starts_with(") ") || digits.starts_with(". ")) {
        return digits[2..].trim_start();
    }
    line
}

/// `text` in lower case (ASCII), byte for byte, with 1 in place of everything in quotes or brackets.
pub(super) fn mask(text: &str) -> Vec<u8> {
    let mut masked = text.to_ascii_lowercase().into_bytes();
    for (start, end) in quotes(text) {
        masked[start..end].fill(1);
    }
    let mut open = Vec::new();
    let mut closed: Vec<(usize, usize)> = Vec::new();
    for (at, byte) in masked.iter().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => open.push(at),
            b')' | b']' | b'}' => {
                if let Some(start) = open.pop() {
                    // Only the outermost pairs matter, and filling nested ones again and again would take quadratic time.
                    while closed.last().is_some_and(|(inner, _)| *inner > start) {
                        closed.pop();
                    }
                    closed.push((start + 1, at));
                }
            }
            _ => {}
        }
    }
    for (start, end) in closed {
        masked[start..end].fill(1);
    }
    masked
}

/// The insides of quotes in `text`, as byte ranges in order. An apostrophe within a word is none.
pub(super) fn quotes(text: &str) -> Vec<(usize, usize)> {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let mut found = Vec::new();
    let mut hopeless = String::new();
    let mut at = 0;
    while at < chars.len() {
        let (start, open) = chars[at];
        let close = match open {
            '"' | '`' | '\'' => open,
            '“' | '„' => '”',
            '‘' => '’',
            '«' => '»',
            _ => '\0',
        };
        let inside_word = |index: usize| chars.get(index).is_some_and(|(_, c)| c.is_alphanumeric());
        let opens = close != '\0'
            && !hopeless.contains(close)
            && (open != '\'' || at == 0 || !inside_word(at - 1))
            && chars.get(at + 1).is_some_and(|(_, c)| !c.is_whitespace());
        if opens {
            let end = (at + 1..chars.len()).find(|i| chars[*i].1 == close && !(close == '\'' && inside_word(i + 1)));
            match end {
                Some(end) => {
                    found.push((start + open.len_utf8(), chars[end].0));
                    at = end;
                }
                // None closes later ones either.
                None => hopeless.push(close),
            }
        }
        at += 1;
    }
    found
}
