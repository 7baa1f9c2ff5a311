use common::limits::EXPRESSION_BYTES_MAX;

use super::*;

/// Expects `expression` to be worth `expected`, and that to be good input for another calculation.
async fn check(expression: &str, expected: &str) {
    assert_eq!(calculate(expression).await.as_deref(), Ok(expected), "{expression}");
    assert!(calculate(expected).await.is_ok(), "{expected} again");
}

/// Expects `expression` to be refused with a text that contains `expected`.
async fn refused(expression: &str, expected: &str) {
    let why = calculate(expression).await.expect_err(expression);
    assert!(why.contains(expected), "{expression}: {expected:?} not in {why:?}");
}

#[tokio::test]
async fn expressions_have_the_value_people_mean() {
    for (expression, expected) in [
        ("15% of 240", "36"),
        ("25 percent of 80", "20"),
        ("2 km in miles", "1.2427423845 miles"),
        ("3.5 GiB to bytes", "3758096384 bytes"),
        ("2^200", "1606938044258990275541962092341162602522202993782792835301376"),
        ("2**10", "1024"),
        ("17!", "355687428096000"),
        ("1/3", "0.3333333333"),
        ("-1/3", "-0.3333333333"),
        ("1/3 to fraction", "1/3"),
        ("0.1 + 0.2", "0.3"),
        ("log10 1000", "3"),
        ("1/3000000000000", "0.0000000000003333333333"),
        ("-2 / 3000000", "-0.0000006666666667"),
        ("1 mm in miles", "0.0000006213711922 miles"),
        ("1/3000 to 5 dp", "0.00033"),
        ("1,234 * 2", "2468"),
        ("1,234,567.5 + 0.5", "1234568"),
        ("2 × 3 ÷ 4 − 1", "0.5"),
        ("３ + 4 =", "7"),
        ("√16 + 9", "13"),
        ("$1,200 * 1.5", "1800"),
        ("10 mod 3", "1"),
        ("5 + 10 % 3", "6"),
        ("20% + 5%", "25%"),
        ("100% - 15%", "85%"),
        ("100 + 15% of 200", "130"),
        ("20 C to F", "68 °F"),
        ("90 km/h to m/s", "25 m / s"),
        ("5'10\" to cm", "177.8 cm"),
        ("0x1d6 + 1", "0x1d7"),
        ("1e400 / 1e399", "10"),
        ("12 * 7 == 84", "true"),
    ] {
        check(expression, expected).await;
    }
}

#[tokio::test]
async fn what_would_be_misread_is_refused() {
    for (expression, expected) in [
        ("", "empty"),
        (" = ", "empty"),
        ("1/0", "division by zero"),
        ("0/0", "division by zero"),
        ("mean(1,2,3)", "use the tool analyze"),
        ("mean(100,200,300)", "use the tool analyze"),
        ("max(1, 2)", "use the tool analyze"),
        ("sum(3)", "use the tool analyze"),
        ("12,34 * 2", "only separate thousands"),
        ("1234,567", "only separate thousands"),
        ("1,2345", "only separate thousands"),
        ("0.123,456", "only separate thousands"),
        (",5", "only separate thousands"),
        ("7 // 2", "floor(7 / 2)"),
        ("200 + 15%", "ambiguous"),
        ("(5% of 20) - 15 %", "ambiguous"),
        ("2026-03-01 - 2026-01-01", "dates are not supported"),
        ("@2026-03-01", "dates are not supported"),
        ("(2 + 3", "not closed"),
        ("2 + 3)", "no opening"),
        ("2 sqrt 16", "function"),
        ("sqrt", "function"),
        ("5 USD to EUR", "leave the currency out"),
        ("$5 + €5", "mixes currencies"),
        ("today", "date is not known"),
        ("roll d6", "dice"),
        ("1000000000d1000000000", "dice"),
        ("x = 3", "variables"),
        ("a = 3; a * 2", "one expression"),
        ("version", "not supported"),
        ("half of 10", "only after a percentage"),
        ("1 000 * 2", "unexpected input"),
        ("three apples", "unknown identifier"),
        ("\0", "unexpected character"),
    ] {
        refused(expression, expected).await;
    }
}

#[tokio::test]
async fn hostile_expressions_end() {
    // At once: each runs into the time-out.
    let long = [("10^10^10", "too large"), ("(10^9)!", "too large"), ("1e1000000000", "too large"), ("fib(10^9)", "too large")];
    futures::future::join_all(long.map(|(expression, expected)| refused(expression, expected))).await;
    for (expression, expected) in [
        ("2^100000", "ask for log10"),
        ("1/3 to 100000 dp", "ask for log10"),
        ("2 << 10^9", "shifts"),
        (r"(\x. x x)(\x. x x)", "functions of your own"),
        ("(f: f f)(f: f f)", "functions of your own"),
        (&"9".repeat(64 << 10), "the limit is 1000"),
        (&"\u{202e}{[`".repeat(100), "unexpected character"),
    ] {
        refused(expression, expected).await;
    }
}

/// The deepest recursion that the limits allow must fit the stack; too little of it would end the test process.
#[tokio::test]
async fn nesting_never_overflows_the_stack() {
    let limit = EXPRESSION_BYTES_MAX;
    let mut expressions = Vec::new();
    for (unit, tail) in [
        ("-", "1"),
        ("+", "1"),
        ("sin ", "1"),
        ("sqrt ", "1"),
        ("not ", "true"),
        ("kg ", ""),
        ("1+", "1"),
        ("2^", "1"),
        ("5%", ""),
    ] {
        expressions.extend([SHALLOW_BYTES, limit].map(|length| unit.repeat((length - tail.len()) / unit.len()) + tail));
    }
    for suffix in ["!", " to m", "^1", "/1", "%"] {
        expressions.push(format!("1{}", suffix.repeat((limit - 1) / suffix.len())));
    }
    for function in ["", "sqrt", "exp", "cis", "cbrt"] {
        let shallow = (SHALLOW_BYTES - 1) / (function.len() + 2);
        expressions.extend([100, shallow].map(|n| format!("{}1{}", format!("{function}(").repeat(n), ")".repeat(n))));
    }
    futures::future::join_all(expressions.iter().map(|expression| async move {
        // A value or an error, but an answer: what is refused for its length would test nothing.
        let result = calculate(expression).await;
        assert!(!result.is_err_and(|why| why.contains("limit")), "{expression}");
    }))
    .await;
    refused(&format!("{}1{}", "(".repeat(101), ")".repeat(101)), "nested deeper").await;
    check(&format!("{}1{}", "(".repeat(100), ")".repeat(100)), "1").await;
}
