//! The tokens of arithmetic: reading, checking and writing them. Pure.

use super::expression::Results;
use super::words;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A number, a constant or a result.
    Operand(String),
    /// `+ - * / ^ of mod`.
    Infix(String),
    /// `in`, `to`, `as`: a unit must follow.
    Into(String),
    /// `% !`.
    Postfix(char),
    /// `sqrt` and the like.
    Function(String),
    Unit(String),
    Open,
    Close,
    /// Anything else: not arithmetic.
    Other,
}

const FUNCTIONS: [&str; 14] =
    ["sqrt", "cbrt", "sin", "cos", "tan", "asin", "acos", "atan", "ln", "log", "log10", "log2", "exp", "abs"];

/// The tokens of `text`; `None` when a reference means nothing.
pub(super) fn lex(text: &str, results: &dyn Results) -> Option<Vec<Token>> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let from = at;
        at += 1;
        let mut take = |keep: &dyn Fn(usize, char) -> bool| {
            while at < chars.len() && keep(at, chars[at]) {
                at += 1;
            }
            chars[from..at].iter().collect::<String>()
        };
        if c.is_whitespace() {
            continue;
        } else if c.is_ascii_digit() || (c == '.' && chars.get(from + 1).is_some_and(char::is_ascii_digit)) {
            let digit_at = |i: usize| chars.get(i).is_some_and(char::is_ascii_digit);
            // A comma belongs to the number only before exactly three digits: "1,500", not "3,5".
            let thousands = |i: usize| digit_at(i + 1) && digit_at(i + 2) && digit_at(i + 3) && !digit_at(i + 4);
            let number = take(&|i, c| c.is_ascii_digit() || (c == '.' && digit_at(i + 1)) || (c == ',' && thousands(i)));
            tokens.push(Token::Operand(number.replace(',', "")));
        } else if c == '@' {
            let step = take(&|_, c| c.is_ascii_digit());
            let all = chars.get(at) == Some(&'*') && step.len() == 1;
            if all {
                at += 1;
            }
            let operand = if all {
                Some(results.all()).filter(|all| !all.is_empty()).map(|all| format!("({})", all.join(" + ")))
            } else {
                results.one(step[1..].parse().ok())
            };
            tokens.push(Token::Operand(operand?));
        } else if c.is_alphabetic() || c == '°' {
            tokens.push(word(&take(&|_, c| c.is_alphanumeric() || c == '°'), tokens.last()));
        } else {
            tokens.push(match c {
                '+' | '-' | '*' | '/' | '^' => Token::Infix(c.to_string()),
                '%' | '!' => Token::Postfix(c),
                '(' => Token::Open,
                ')' => Token::Close,
                _ => Token::Other,
            });
        }
    }
    Some(tokens)
}

/// Short units as `clause` spells them (`MB` is not `mb`), and degrees with their sign.
pub(super) fn spell_units(mut tokens: Vec<Token>, clause: &str) -> Vec<Token> {
    for token in &mut tokens {
        if let Token::Unit(unit) = token
            && unit.len() <= 3
        {
            let mut words = clause.split(|c: char| !(c.is_alphanumeric() || c == '°'));
            let written = words.find(|w| w.trim_start_matches(|c: char| c.is_ascii_digit()).eq_ignore_ascii_case(unit));
            let written = written.map_or("", |w| w.trim_start_matches(|c: char| c.is_ascii_digit()));
            *unit = match unit.as_str() {
                "f" | "°f" => "°F".into(),
                "c" | "°c" => "°C".into(),
                _ if written.is_empty() => unit.clone(),
                _ => written.to_owned(),
            };
        }
    }
    tokens
}

/// `100 km / 2 h` as `100 km / (2 h)`: calculators bind a unit to all that stands before it.
pub(super) fn divide_by_quantities(tokens: Vec<Token>) -> Vec<Token> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let divides = token == Token::Infix("/".into());
        out.push(token);
        if divides && matches!(tokens.peek(), Some(Token::Operand(_))) {
            let operand = tokens.next();
            if let Some(unit) = tokens.next_if(|token| matches!(token, Token::Unit(_))) {
                out.push(Token::Open);
                out.extend(operand);
                out.extend([unit, Token::Close]);
            } else {
                out.extend(operand);
            }
        }
    }
    out
}

fn word(text: &str, before: Option<&Token>) -> Token {
    let operand_before = matches!(before, Some(Token::Operand(_) | Token::Close | Token::Unit(_) | Token::Postfix(_)));
    if let Some(number) = words::number(text) {
        return Token::Operand(number.to_owned());
    }
    match text {
        "x" if operand_before => Token::Infix("*".into()),
        "of" | "mod" => Token::Infix(text.into()),
        "per" => Token::Infix("/".into()),
        "in" | "to" | "as" => Token::Into(text.into()),
        "pi" | "π" | "e" | "tau" if !operand_before => Token::Operand(text.into()),
        _ if FUNCTIONS.contains(&text) => Token::Function(text.into()),
        _ if words::is_unit(text) => Token::Unit(text.into()),
        _ => Token::Other,
    }
}

/// The number of operations in `tokens` if they are one whole expression.
pub(super) fn check(tokens: &[Token]) -> Option<usize> {
    let mut operations = 0;
    let mut depth = 0_usize;
    let mut operand_next = true;
    let mut unit_next = false;
    for (at, token) in tokens.iter().enumerate() {
        if unit_next && !matches!(token, Token::Unit(_)) {
            return None;
        }
        match token {
            Token::Operand(_) if operand_next => operand_next = false,
            Token::Function(_) if operand_next => operations += 1,
            Token::Open if operand_next => depth += 1,
            Token::Infix(sign) if operand_next && sign == "-" => {}
            Token::Infix(sign) if !operand_next => {
                // "of" multiplies only shares: "15% of 240".
                if sign == "of" && tokens.get(at.wrapping_sub(1)) != Some(&Token::Postfix('%')) {
                    return None;
                }
                operations += 1;
                operand_next = true;
            }
            Token::Into(_) if !operand_next => {
                operations += 1;
                unit_next = true;
            }
            Token::Unit(_) if unit_next => unit_next = false,
            Token::Unit(_) if !operand_next => {}
            Token::Unit(_) if matches!(tokens.get(at.wrapping_sub(1)), Some(Token::Infix(sign)) if sign == "/") => {
                operand_next = false
            }
            Token::Postfix(_) if !operand_next => operations += usize::from(*token == Token::Postfix('!')),
            Token::Close if !operand_next && depth > 0 => depth -= 1,
            Token::Operand(_)
            | Token::Infix(_)
            | Token::Into(_)
            | Token::Postfix(_)
            | Token::Function(_)
            | Token::Unit(_)
            | Token::Open
            | Token::Close
            | Token::Other => return None,
        }
    }
    (depth == 0 && !operand_next && !unit_next).then_some(operations)
}

/// How many tokens the longest part may have that is looked for in a clause of words.
const RUN_TOKENS_MAX: usize = 64;

/// The longest part of `tokens` that is an expression with an operation.
pub(super) fn longest_run(tokens: &[Token]) -> Option<&[Token]> {
    tokens
        .split(|token| *token == Token::Other)
        .filter(|run| run.len() <= RUN_TOKENS_MAX)
        .filter_map(|run| {
            (0..run.len())
                .flat_map(|from| (from + 1..=run.len()).map(move |to| &run[from..to]))
                .filter(|part| check(part).is_some_and(|operations| operations > 0))
                .max_by_key(|part| part.len())
        })
        .max_by_key(|part| part.len())
}

/// `tokens` as a calculator reads them.
pub(super) fn render(tokens: &[Token]) -> String {
    let mut text = String::new();
    let mut function_open = false;
    for (at, token) in tokens.iter().enumerate() {
        let tight = match token {
            Token::Close | Token::Postfix(_) => true,
            Token::Infix(sign) => sign == "^",
            Token::Operand(_) | Token::Into(_) | Token::Function(_) | Token::Unit(_) | Token::Open | Token::Other => false,
        };
        let before = at.checked_sub(1).map(|i| &tokens[i]);
        let after_tight = match before {
            None | Some(Token::Open | Token::Function(_)) => true,
            Some(Token::Infix(sign)) => {
                sign == "^" || (sign == "-" && matches!(at.checked_sub(2).map(|i| &tokens[i]), None | Some(Token::Open)))
            }
            Some(_) => false,
        };
        if !tight && !after_tight {
            text.push(' ');
        }
        match token {
            Token::Operand(word) | Token::Infix(word) | Token::Into(word) | Token::Unit(word) => text.push_str(word),
            Token::Function(name) => {
                text.push_str(name);
                function_open = !matches!(tokens.get(at + 1), Some(Token::Open));
                if function_open {
                    text.push('(');
                }
                continue;
            }
            Token::Postfix(c) => text.push(*c),
            Token::Open => text.push('('),
            Token::Close => text.push(')'),
            Token::Other => {}
        }
        if function_open && matches!(token, Token::Operand(_)) {
            text.push(')');
            function_open = false;
        }
    }
    simplify(&text)
}

/// `(36) + (5)` reads better as `36 + 5`: brackets around a lone number go.
fn simplify(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('(') {
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        let inside = &from[1..];
        let end = inside.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(inside.len());
        let function = before.ends_with(|c: char| c.is_alphanumeric());
        if end > 0 && inside[end..].starts_with(')') && !function {
            out.push_str(&inside[..end]);
            rest = &inside[end + 1..];
        } else {
            out.push('(');
            rest = inside;
        }
    }
    out.push_str(rest);
    out
}
