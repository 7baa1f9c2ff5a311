//! Reads the arithmetic out of a clause: "What is 15% of 240?" is `15% of 240`, "double it" is `2 * 36`. Pure.
//!
//! In the working text `@` stands for the result before, `@7` for the result of step 7, and `@*` for every result.

use super::tokens::{check, divide_by_quantities, lex, longest_run, render, spell_units};
use super::words;

/// What references in a clause mean.
pub(super) trait Results {
    /// The operand that stands for the result of `step`, or of the step before.
    fn one(&self, step: Option<u32>) -> Option<String>;
    /// The operands of every result.
    fn all(&self) -> Vec<String>;
}

/// The expression that `clause` asks to be worked out; `None` when it is no arithmetic.
pub(super) fn expression(clause: &str, results: &dyn Results) -> Option<String> {
    let text = words::with_references(clause);
    let (text, asked) = strip_lead(&text);
    let text = rewrite_symbols(text);
    let built = command(&text, results).unwrap_or(text);
    let tokens = divide_by_quantities(spell_units(lex(&built, results)?, clause));
    let all = check(&tokens);
    if let Some(operations) = all
        && (operations > 0 || asked)
    {
        return Some(render(&tokens));
    }
    if !asked {
        return None;
    }
    let run = longest_run(&tokens)?;
    Some(render(run))
}

const LEADS: [&str; 34] = [
    "please",
    "can you",
    "could you",
    "tell me",
    "say",
    "first",
    "then",
    "finally",
    "next",
    "also",
    "and",
    "now",
    "what is",
    "what's",
    "whats",
    "what are",
    "what will be",
    "what would be",
    "calculate",
    "compute",
    "work out",
    "evaluate",
    "solve",
    "how much is",
    "how much are",
    "how many are",
    "find",
    "determine",
    "give me",
    "give",
    "the value of",
    "the result of",
    "express",
    "the",
];

/// `text` without the words that introduce a calculation, and whether there were any.
fn strip_lead(text: &str) -> (&str, bool) {
    let mut rest = text.trim();
    let mut asked = false;
    while let Some(lead) =
        LEADS.iter().find(|lead| rest.strip_prefix(**lead).is_some_and(|more| more.starts_with([' ', ':', ','])))
    {
        asked |= !["the", "and", "please", "first", "then", "find", "say", "also", "now", "next", "finally"].contains(lead);
        rest = rest[lead.len()..].trim_start_matches([' ', ':', ',']);
    }
    (rest, asked || rest.starts_with(|c: char| c.is_ascii_digit() || "(@-√".contains(c)) || rest.starts_with("how many "))
}

/// Words for operators, in the order of replacement.
const REPLACED: [(&str, &str); 27] = [
    (" to the power of ", " ^ "),
    (" multiplied by ", " * "),
    (" multiplied with ", " * "),
    (" divided by ", " / "),
    (" plus ", " + "),
    (" minus ", " - "),
    (" times ", " * "),
    (" over ", " / "),
    (" modulo ", " mod "),
    (" squared ", " ^2 "),
    (" cubed ", " ^3 "),
    (" percent ", "% "),
    (" per cent ", "% "),
    (" of the way ", " "),
    (" half of ", " 0.5 * "),
    (" a third of ", " 1/3 * "),
    (" a quarter of ", " 1/4 * "),
    (" twice ", " 2 * "),
    (" the square root of ", " sqrt "),
    (" square root of ", " sqrt "),
    (" into ", " in "),
    (" expressed in ", " in "),
    (" converted to ", " to "),
    (" equal to ", " "),
    (" degrees ", " "),
    (" the ", " "),
    (" a ", " "),
];

fn rewrite_symbols(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| match c {
            '×' | '·' | '∙' => '*',
            '÷' => '/',
            '−' | '–' => '-',
            _ => c,
        })
        .collect();
    let plain = plain.replace('√', " sqrt ").replace("**", "^").replace(['=', '?'], " ");
    let plain = plain.trim().trim_end_matches(['.', ':']);
    let shouted = plain.trim_end_matches('!');
    let factorial = shouted.ends_with(|c: char| c.is_ascii_digit() || c == ')');
    let mut padded = format!(" {} ", if factorial { plain } else { shouted }.trim());
    for (from, to) in REPLACED {
        padded = padded.replace(from, to);
    }
    padded.trim().to_owned()
}

/// Commands such as "add 5 to it" as an expression.
fn command(text: &str, results: &dyn Results) -> Option<String> {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    let pair = |word: &str| rest.split_once(word).map(|(a, b)| (a.trim().to_owned(), b.trim().to_owned()));
    let or_result = |part: &str| if part.is_empty() { "@".to_owned() } else { part.to_owned() };
    let after = |word: &str| rest.strip_prefix(word).map(|b| ("@".to_owned(), b.trim().to_owned()));
    let infix = |(a, b): (String, String), operator: char| format!("{} {operator} {}", grouped(&a), grouped(&b));
    Some(match verb {
        "add" | "sum" | "total" => {
            let rest = rest.trim_start_matches("up ").trim_start_matches("of ");
            match pair(" to ") {
                Some((a, b)) => infix((b, list(&a, results).join(" + ")), '+'),
                None => match list(rest, results) {
                    terms if terms.len() > 1 => terms.join(" + "),
                    terms if verb == "add" && !rest.contains('@') => format!("@ + {}", terms.concat()),
                    terms => terms.join(" + "),
                },
            }
        }
        "subtract" => infix(pair(" from ").map_or_else(|| ("@".to_owned(), rest.to_owned()), |(a, b)| (b, a)), '-'),
        "multiply" => match pair(" by ").or_else(|| after("by ")) {
            Some(pair) => infix(pair, '*'),
            None => list(rest, results).join(" * "),
        },
        "product" => list(rest.trim_start_matches("of "), results).join(" * "),
        "divide" => infix(pair(" by ").or_else(|| after("by "))?, '/'),
        "difference" => {
            infix(pair(" and ").map(|(a, b)| (a.trim_start_matches("between ").trim_start_matches("of ").to_owned(), b))?, '-')
        }
        "quotient" => infix(pair(" and ").map(|(a, b)| (a.trim_start_matches("of ").to_owned(), b))?, '/'),
        "double" => format!("2 * {}", grouped(&or_result(rest))),
        "triple" => format!("3 * {}", grouped(&or_result(rest))),
        "halve" => format!("{} / 2", grouped(&or_result(rest))),
        "square" => format!("{}^2", grouped(&or_result(rest))),
        "cube" => format!("{}^3", grouped(&or_result(rest))),
        "raise" => rest.to_owned(),
        "increase" => change(pair(" by ").or_else(|| after("by "))?, '+'),
        "decrease" | "reduce" => change(pair(" by ").or_else(|| after("by "))?, '-'),
        "average" | "mean" => {
            let terms = list(rest.trim_start_matches("of "), results);
            format!("({}) / {}", terms.join(" + "), terms.len().max(1))
        }
        "convert" => rest.to_owned(),
        "how" => {
            // "how many miles are there in 2 km", "how many miles is 2 km"
            let rest = rest.strip_prefix("many ")?;
            let (unit, quantity) = rest.split_once(' ')?;
            let quantity = ["are there in ", "are in ", "are ", "is ", "in ", "make "]
                .iter()
                .find_map(|link| quantity.strip_prefix(link))?;
            format!("{quantity} in {unit}")
        }
        _ => return None,
    })
}

/// `part` in brackets, unless it is a reference: what those stand for needs none.
fn grouped(part: &str) -> String {
    if part.starts_with('@') && !part.contains(' ') { part.to_owned() } else { format!("({part})") }
}

fn change((amount, by): (String, String), operator: char) -> String {
    let amount = grouped(&amount);
    if by.ends_with('%') { format!("{amount} * (1 {operator} {by})") } else { format!("{amount} {operator} {}", grouped(&by)) }
}

/// The entries of "3, 5 and 10"; `@*` gives one entry per result.
fn list(text: &str, results: &dyn Results) -> Vec<String> {
    let text = text.replace(", and ", ",").replace(" and ", ",").replace(" with ", ",");
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .flat_map(|entry| if entry == "@*" { results.all() } else { vec![entry.to_owned()] })
        .collect()
}
