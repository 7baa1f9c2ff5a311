//! The metrics and labels that a PromQL expression names. Whether it is PromQL at all is for Prometheus' own parser to say.

/// Words that are no metrics: operators, modifiers and aggregations.
const WORDS: &[&str] =
    &["and", "or", "unless", "offset", "bool", "sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile", "stddev"];
/// Words that a list of labels follows.
const GROUPING: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];

/// What an expression names.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Named {
    /// Metrics, each with its matchers.
    pub(super) metrics: Vec<(String, Vec<Matcher>)>,
    /// Labels that are grouped by or matched on.
    pub(super) grouped: Vec<String>,
}

/// A label, and the values that it is compared with.
#[derive(Debug, PartialEq)]
pub(super) struct Matcher {
    pub(super) label: String,
    pub(super) operator: String,
    pub(super) value: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Number,
    Text(String),
    /// `=`, `!=`, `=~`, `!~`, `(`, …
    Sign(String),
}

/// What `expression` names.
pub(super) fn named(expression: &str) -> Named {
    let tokens = tokens(expression);
    let mut named = Named::default();
    let mut rest = tokens.as_slice();
    while let [token, after @ ..] = rest {
        rest = after;
        let Token::Word(word) = token else {
            assert_ne!(*token, sign("{"), "name the metric: {expression}");
            continue;
        };
        if GROUPING.contains(&word.as_str()) {
            named.grouped.extend(labels(&mut rest));
        } else if !WORDS.contains(&word.as_str()) && rest.first() != Some(&sign("(")) {
            named.metrics.push((word.clone(), matchers(&mut rest)));
        }
    }
    named
}

/// `(job, queue)`.
fn labels(rest: &mut &[Token]) -> Vec<String> {
    if rest.first() != Some(&sign("(")) {
        return Vec::new();
    }
    let end = rest.iter().position(|token| *token == sign(")")).expect("a closing bracket");
    let (list, after) = rest.split_at(end);
    *rest = after;
    let word = |token: &Token| if let Token::Word(word) = token { Some(word.clone()) } else { None };
    list.iter().filter_map(word).collect()
}

/// `{status="failed", job=~"$job"}`, or nothing.
fn matchers(rest: &mut &[Token]) -> Vec<Matcher> {
    if rest.first() != Some(&sign("{")) {
        return Vec::new();
    }
    let end = rest.iter().position(|token| *token == sign("}")).expect("a closing brace");
    let (list, after) = rest.split_at(end);
    *rest = after;
    let matcher = |part: &[Token]| match part {
        [Token::Word(label), Token::Sign(operator), Token::Text(value)] => {
            Matcher { label: label.clone(), operator: operator.clone(), value: value.clone() }
        }
        other => panic!("not a matcher: {other:?}"),
    };
    list[1..].split(|token| *token == sign(",")).filter(|part| !part.is_empty()).map(matcher).collect()
}

fn sign(text: &str) -> Token {
    Token::Sign(text.to_owned())
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = if first.is_ascii_digit() {
            (Token::Number, span(rest, |c| c.is_ascii_alphanumeric() || c == '.'))
        } else if first.is_ascii_alphabetic() || first == '_' {
            let length = span(rest, |c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
            (Token::Word(rest[..length].to_owned()), length)
        } else if first == '"' {
            let length = 1 + rest[1..].find('"').expect("a closing quote");
            (Token::Text(rest[1..length].to_owned()), length + 1)
        } else {
            let two = ["=~", "!~", "!=", "==", ">=", "<="].into_iter().find(|two| rest.starts_with(two));
            assert!(two.is_some() || "(){}[],+-*/=<>".contains(first), "{first:?} in {expression}");
            let text = two.map_or_else(|| first.to_string(), str::to_owned);
            let length = text.len();
            (Token::Sign(text), length)
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// How many bytes at the beginning of `text` are of that kind.
fn span(text: &str, kind: impl Fn(char) -> bool) -> usize {
    text.find(|c: char| !kind(c)).unwrap_or(text.len())
}

#[test]
fn metrics_and_labels_are_found() {
    let found = named(
        r#"60 * sum by (queue, le) (rate(a_bucket{x!="1",y=~"$y"}[5m])) / on(z) group_left c > 0.5 and absent(d offset 15m) == 1e3"#,
    );
    let matcher = |label: &str, operator: &str, value: &str| Matcher {
        label: label.into(),
        operator: operator.into(),
        value: value.into(),
    };
    let metrics = [
        ("a_bucket".to_owned(), vec![matcher("x", "!=", "1"), matcher("y", "=~", "$y")]),
        ("c".to_owned(), vec![]),
        ("d".to_owned(), vec![]),
    ];
    assert_eq!(found.metrics, metrics);
    assert_eq!(found.grouped, ["queue", "le", "z"]);
}
