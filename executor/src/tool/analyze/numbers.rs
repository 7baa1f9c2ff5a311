//! Statistics of a list of numbers. Pure.

use serde_json::{Value, json};

use crate::tool::cut;

/// Largest number of decimal places that are added exactly; i128 then still holds 38 - 18 digits before the point.
const SCALE_MAX: usize = 18;

/// A number as given: exact where it has few enough digits, and as a float.
struct Entry {
    /// The value times 10^[`SCALE_MAX`].
    exact: Option<i128>,
    float: f64,
    /// As it is written in the result.
    value: Value,
}

/// Statistics of a list that is not empty.
pub(super) fn describe(numbers: &[Value]) -> Result<Value, String> {
    let mut entries = numbers.iter().enumerate().map(|(at, value)| read(value, at + 1)).collect::<Result<Vec<_>, _>>()?;
    let exact = entries.iter().try_fold(0i128, |sum, entry| sum.checked_add(entry.exact?));
    let count = entries.len() as f64;
    let sum = exact.map_or_else(|| careful_sum(entries.iter().map(|entry| entry.float)), float);
    let mean = sum / count;
    // Relative to the largest distance: the square of a large one would overflow.
    let farthest = entries.iter().map(|entry| (entry.float - mean).abs()).fold(0.0, f64::max);
    let squares = careful_sum(entries.iter().map(|entry| ((entry.float - mean) / farthest).powi(2)));
    let deviation = if farthest == 0.0 { 0.0 } else { farthest * (squares / count).sqrt() };
    entries.sort_by(|a, b| a.float.total_cmp(&b.float).then(a.exact.cmp(&b.exact)));
    let (Some(min), Some(max)) = (entries.first(), entries.last()) else {
        return Err("numbers is empty: there is nothing to analyze".into());
    };
    let range = match (max.exact, min.exact) {
        (Some(max), Some(min)) => max.checked_sub(min).map_or(f64::INFINITY, float),
        (Some(_), None) | (None, Some(_)) | (None, None) => max.float - min.float,
    };
    let (low, high) = (&entries[(entries.len() - 1) / 2], &entries[entries.len() / 2]);
    let between = low.exact.zip(high.exact).and_then(|(low, high)| low.checked_add(high)).map(|both| float(both) / 2.0);
    let median =
        if entries.len() % 2 == 1 { low.value.clone() } else { number(between.unwrap_or(low.float / 2.0 + high.float / 2.0)) };
    if ![sum, mean, deviation, range].iter().all(|value| value.is_finite()) {
        return Err("the numbers are too large for their statistics".into());
    }
    Ok(json!({
        "count": entries.len(),
        "sum": exact.map_or_else(|| number(sum), exact_number),
        "mean": number(mean),
        "median": median,
        "min": min.value,
        "max": max.value,
        "range": number(range),
        "standard_deviation": number(deviation),
    }))
}

/// Reads entry `position` (from 1): a JSON number, or a text as `calculate` returns it.
fn read(value: &Value, position: usize) -> Result<Entry, String> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().trim_start_matches("approx. ").trim_start_matches('+').to_owned(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
    };
    let plain = without_thousands(&text);
    // Only digits, sign, point and exponent: Rust would also read "inf" and "nan".
    let clean = plain.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let Some(float) = plain.parse::<f64>().ok().filter(|float| clean && float.is_finite()) else {
        let given = cut::quoted_json(value);
        return Err(format!("entry {position} of numbers, {given}, is not a number; give plain numbers without units"));
    };
    let exact = read_exact(&plain);
    let whole = exact.filter(|exact| exact % one() == 0);
    Ok(Entry { exact, float, value: whole.map_or_else(|| number(float), exact_number) })
}

/// `1,234,567.5` without its commas; a text whose commas do not separate thousands is left as it is, and so refused.
fn without_thousands(text: &str) -> String {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut groups = whole.trim_start_matches('-').split(',');
    let leads = groups.next().is_some_and(|first| (1..=3).contains(&first.len()));
    if !whole.contains(',') || !leads || !groups.all(|group| group.len() == 3) {
        return text.to_owned();
    }
    let joined = whole.replace(',', "");
    fraction.map_or(joined.clone(), |fraction| format!("{joined}.{fraction}"))
}

/// 10^[`SCALE_MAX`].
fn one() -> i128 {
    10i128.pow(SCALE_MAX as u32)
}

/// Reads a decimal without exponent into units of 10^-[`SCALE_MAX`].
fn read_exact(plain: &str) -> Option<i128> {
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let digits = fraction.trim_end_matches('0');
    if digits.len() > SCALE_MAX {
        return None;
    }
    format!("{whole}{digits:0<SCALE_MAX$}").parse().ok()
}

/// A value in units of 10^-[`SCALE_MAX`] as the nearest float.
fn float(exact: i128) -> f64 {
    decimal(exact).parse().unwrap_or(f64::NAN)
}

/// A value in units of 10^-[`SCALE_MAX`] as a decimal.
fn decimal(exact: i128) -> String {
    let sign = if exact < 0 { "-" } else { "" };
    let (whole, fraction) = (exact.unsigned_abs() / one().unsigned_abs(), exact.unsigned_abs() % one().unsigned_abs());
    let digits = format!("{fraction:0>SCALE_MAX$}");
    match digits.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        digits => format!("{sign}{whole}.{digits}"),
    }
}

/// A value in units of 10^-[`SCALE_MAX`]: a JSON number where one can hold it, else its digits as a text.
fn exact_number(exact: i128) -> Value {
    if exact % one() != 0 {
        return number(float(exact));
    }
    let whole = exact / one();
    i64::try_from(whole)
        .map(Value::from)
        .or_else(|_| u64::try_from(whole).map(Value::from))
        .unwrap_or_else(|_| Value::String(whole.to_string()))
}

/// A float as JSON: without `.0` where it is whole.
pub(super) fn number(value: f64) -> Value {
    // Up to 2^53 every whole float is exactly one integer.
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 { Value::from(value as i64) } else { Value::from(value) }
}

/// Neumaier's sum: what a plain sum rounds away is kept aside.
fn careful_sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut rest) = (0.0f64, 0.0f64);
    for value in values {
        let next = sum + value;
        rest += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
    }
    sum + rest
}
