//! From what people and models write to what fend reads as they mean it, or why it cannot. Pure.

use common::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX};

use crate::tool::cut;

/// Currency signs; one kind per expression is read as a plain number.
const CURRENCIES: [char; 4] = ['$', '€', '£', '¥'];

/// Rewrites `expression` for fend, or says what to write instead.
pub(super) fn read(expression: &str) -> Result<String, String> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(format!(
            "the expression has {} bytes, the limit is {EXPRESSION_BYTES_MAX}; for long lists of numbers use the tool analyze",
            expression.len()
        ));
    }
    let plain = plain_signs(expression)?;
    if plain.is_empty() {
        return Err("the expression is empty".into());
    }
    refuse_traps(&plain)?;
    check_brackets(&plain)?;
    check_words(&plain)?;
    check_percentages(&plain)?;
    join_thousands(&plain)
}

/// What fend complained about, with a hint where it has none.
pub(super) fn explain(why: &str) -> String {
    let hint = match why {
        _ if why.contains("unknown identifier") => {
            ": only numbers, units, operators and functions such as sqrt, abs, round, floor, ceil, ln, log10, sin are known; \
             for sum, min, max or mean of a list use the tool analyze"
        }
        _ if why.contains("exchange rates") => ": leave the currency out",
        _ if why.contains("expected an object") => ": `of` works only after a percentage, as in `15% of 240`",
        _ => "",
    };
    format!("{}{hint}", cut::text(why, 200))
}

/// Typographic signs as ASCII, one currency dropped, a trailing `=` dropped.
fn plain_signs(expression: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(expression.len());
    let mut currency = None;
    for character in expression.trim().trim_end_matches(['=', ' ']).chars() {
        match character {
            '×' | '·' | '⋅' | '∗' => plain.push('*'),
            '÷' | '∕' => plain.push('/'),
            '−' | '–' | '—' => plain.push('-'),
            '√' => plain.push_str("sqrt "),
            '\u{a0}' | '\u{2009}' | '\u{202f}' | '\n' | '\r' | '\t' => plain.push(' '),
            '０'..='９' => plain.extend(char::from_u32(u32::from(character) - u32::from('０') + u32::from('0'))),
            _ if CURRENCIES.contains(&character) => {
                if *currency.get_or_insert(character) != character {
                    return Err("the expression mixes currencies and there are no exchange rates here".into());
                }
            }
            _ => plain.push(character),
        }
    }
    // "25 percent of 80" is clear, but fend reads `of` only after the sign. Bytes stay in place for what is not ASCII.
    for word in [" percent ", " Percent "] {
        plain = plain.replace(word, "% ");
    }
    Ok(plain)
}

/// Refuses what fend understands otherwise than meant, and what could make it grow without end.
fn refuse_traps(plain: &str) -> Result<(), String> {
    let traps: [(&[&str], &str); 5] = [
        (&["//"], "`//` is not an operator; write floor(7 / 2) for whole division"),
        (&["<<", ">>"], "shifts are not supported; write 2^n times or divided by"),
        (&["\\", "λ", "=>", ":"], "functions of your own and times of day are not supported; write plain arithmetic"),
        (&[";", "#"], "write one expression only"),
        (&["@"], "dates are not supported"),
    ];
    for (signs, instead) in traps {
        if signs.iter().any(|sign| plain.contains(sign)) {
            return Err(instead.to_owned());
        }
    }
    if plain.replace("==", "").replace("!=", "").contains('=') {
        return Err("variables and equations are not supported; write one expression without `=`".into());
    }
    let digits: String = plain.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if digits.contains("0000-00-00") {
        return Err("dates are not supported: 2026-01-31 would be read as 2026 minus 1 minus 31".into());
    }
    Ok(())
}

/// Brackets must match: fend forgives missing ones, but an expression that was cut off has another value.
fn check_brackets(plain: &str) -> Result<(), String> {
    let mut depth = 0usize;
    for character in plain.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or("a closing bracket has no opening one")?,
            _ => {}
        }
        if depth > EXPRESSION_DEPTH_MAX {
            return Err(format!("brackets are nested deeper than {EXPRESSION_DEPTH_MAX}"));
        }
    }
    if depth > 0 { Err(format!("{depth} opening brackets are not closed")) } else { Ok(()) }
}

/// Refuses words with effects or without a fixed value: dice (`2d6` may also take gigabytes), `roll`, `today`, `version`.
fn check_words(plain: &str) -> Result<(), String> {
    for word in plain.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let lower = word.to_ascii_lowercase();
        let base_prefix = ["0x", "0b", "0o"].iter().any(|prefix| lower.starts_with(prefix));
        let die = lower.split_once('d').is_some_and(|(count, sides)| {
            let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            !base_prefix && digits(count) && digits(sides) && !sides.is_empty()
        });
        if die || ["roll", "sample"].contains(&lower.as_str()) {
            return Err("dice and random numbers are not supported".into());
        }
        if ["today", "tomorrow", "yesterday", "now"].contains(&lower.as_str()) {
            return Err("the current date is not known here".into());
        }
        if ["version", "print", "println", "trans", "roman"].contains(&lower.as_str()) {
            return Err(format!("`{lower}` is not supported"));
        }
    }
    Ok(())
}

/// Refuses `200 + 15%`: fend adds 0.15, most people mean 30. Adding percentages to percentages is clear.
fn check_percentages(plain: &str) -> Result<(), String> {
    for (at, _) in plain.match_indices('%') {
        // `10 % 3` is a remainder, `15% of 200` is clear.
        let after = plain[at + 1..].trim_start();
        let remainder_or_of = after.starts_with(|c: char| c.is_alphanumeric() || c == '(');
        let number = |c: char| c.is_ascii_digit() || ".,_".contains(c);
        let before = plain[..at].trim_end().trim_end_matches(number).trim_end();
        let Some(left) = before.strip_suffix(['+', '-']).map(str::trim_end) else { continue };
        let left_is_value = left.ends_with(|c: char| c.is_alphanumeric() || c == ')');
        if left_is_value && !remainder_or_of {
            let instead = "write 200 * 1.15 for 15% more, or 200 + 0.15";
            return Err(format!("adding or subtracting a percentage is ambiguous; {instead}"));
        }
    }
    Ok(())
}

/// Takes commas out of `1,234,567`, and refuses every other comma: fend would glue `mean(1,2,3)` into `mean(123)`.
fn join_thousands(plain: &str) -> Result<String, String> {
    let characters: Vec<char> = plain.chars().collect();
    let digit = |at: usize| characters.get(at).is_some_and(char::is_ascii_digit);
    let mut joined = String::with_capacity(plain.len());
    // How many opening brackets of function calls, `word(`, are open; commas there separate arguments, as in mean(100,200).
    let mut calls: Vec<bool> = Vec::new();
    for (at, character) in characters.iter().enumerate() {
        match character {
            '(' => calls.push(at > 0 && characters[at - 1].is_ascii_alphabetic()),
            ')' => {
                calls.pop();
            }
            _ => {}
        }
        if *character != ',' {
            joined.push(*character);
            continue;
        }
        if calls.last() == Some(&true) {
            return Err("functions take one number here; for sum, min, max or mean of a list use the tool analyze".into());
        }
        let three_follow = (1..=3).all(|offset| digit(at + offset)) && !digit(at + 4);
        let start = characters[..at].iter().rposition(|c| !c.is_ascii_digit()).map_or(0, |before| before + 1);
        let first = !characters[..start].ends_with(&[',']);
        let leads = if first { (1..=3).contains(&(at - start)) } else { at - start == 3 };
        let fraction = characters[..start].ends_with(&['.']);
        if !three_follow || !leads || fraction {
            return Err("a comma may only separate thousands, as in 1,234; write decimals with a point, as in 12.34".into());
        }
    }
    Ok(joined)
}
