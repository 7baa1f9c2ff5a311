//! From text to the terms that are compared. Pure.

/// English words that say nothing about what is looked for; they count only in a query that has nothing else.
const STOP_WORDS: [&str; 50] = [
    "a", "about", "an", "and", "any", "are", "as", "at", "be", "by", "can", "did", "do", "does", "find", "for", "from", "had",
    "has", "have", "how", "i", "in", "is", "it", "me", "of", "on", "or", "our", "should", "that", "the", "their", "there",
    "these", "they", "this", "to", "was", "we", "were", "what", "when", "where", "which", "who", "will", "with", "you",
];

/// The terms of a text, in order: words in lower case, an English plural as its singular. Scripts without spaces between words
/// (Chinese, Japanese, Korean, Thai) give one term per character.
pub(super) fn terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let mut word = String::new();
    let mut end = |word: &mut String| {
        if !word.is_empty() {
            terms.push(singular(std::mem::take(word)));
        }
    };
    for character in text.chars() {
        if stands_alone(character) {
            end(&mut word);
            word.push(character);
            end(&mut word);
        } else if character.is_alphanumeric() {
            word.extend(character.to_lowercase());
        } else {
            end(&mut word);
        }
    }
    end(&mut word);
    terms
}

/// The terms of a query: each once, without stop words where anything is left.
pub(super) fn query_terms(query: &str, max: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for term in terms(query) {
        if !all.contains(&term) {
            all.push(term);
        }
        // Stop words may take up to as many places again.
        if all.len() == max + STOP_WORDS.len() {
            break;
        }
    }
    let telling: Vec<String> = all.iter().filter(|term| !STOP_WORDS.contains(&term.as_str())).cloned().collect();
    let mut terms = if telling.is_empty() { all } else { telling };
    terms.truncate(max);
    terms
}

fn stands_alone(character: char) -> bool {
    matches!(character, '\u{e00}'..='\u{e7f}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// `policies` → `policy`, `refunds` → `refund`; `class`, `bus` and short words stay. The same for text and query, so a wrong
/// singular does no harm.
fn singular(word: String) -> String {
    if word.len() <= 3 || !word.is_ascii() {
        return word;
    }
    if let Some(stem) = word.strip_suffix("ies").filter(|stem| stem.len() > 1) {
        return format!("{stem}y");
    }
    match word.strip_suffix('s') {
        Some(stem) if !stem.ends_with(['s', 'u', 'i']) => stem.to_owned(),
        Some(_) | None => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_terms() {
        for (text, expected) in [
            ("Refunds & POLICIES, bus class!", "refund policy bus class"),
            ("ÄRGER straße 3.5x", "ärger straße 3 5x"),
            ("東京の天気 ok", "東 京 の 天 気 ok"),
            (" \0\u{202e}--- ", ""),
        ] {
            assert_eq!(terms(text).join(" "), expected);
        }
    }

    #[test]
    fn queries_lose_what_says_nothing() {
        assert_eq!(query_terms("What is the refund policy of the refund?", 9), ["refund", "policy"]);
        assert_eq!(query_terms("to be or", 9), ["to", "be", "or"]);
        assert_eq!(query_terms(&"a b c d ".repeat(10_000), 2), ["b", "c"]);
    }
}
