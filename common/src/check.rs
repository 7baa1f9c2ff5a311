//! Checks on a step's result: a part of it has a value, or fits a JSON Schema. Pure.

use jsonschema::PatternOptions;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::limits::CHECK_BYTES_MAX;
use crate::plan::{cut, short};

/// Longest sentence about why a schema does not fit, in characters.
const MISFIT_CHARS_MAX: usize = 200;

/// What a step's result must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Check {
    /// The part has this value. Numbers are equal by value: 36 is 36.0. A number also equals a text that writes exactly it, since
    /// `calculate` returns texts: 36 is "36", and not "36 km" or "about 36".
    Equals {
        /// The part of the result (JSON Pointer, RFC 6901); empty for all of it.
        #[serde(default)]
        pointer: String,
        /// The value.
        equals: Value,
    },
    /// The part fits this JSON Schema.
    Schema {
        /// The part of the result (JSON Pointer, RFC 6901); empty for all of it.
        #[serde(default)]
        pointer: String,
        /// The schema. It stands alone: references (`$ref`) are refused, to files and URLs for safety, within it because a circle of
        /// them would never end.
        schema: Value,
    },
}

impl Check {
    /// Why nothing can be checked with it, in one sentence.
    pub fn complaint(&self) -> Option<String> {
        let (Check::Equals { pointer, equals: wanted } | Check::Schema { pointer, schema: wanted }) = self;
        if !is_pointer(pointer) {
            let got = short(&Value::from(pointer.as_str()));
            return Some(format!(
                "the pointer of a check is empty or starts with / and has ~0 for ~ and ~1 for / in names (RFC 6901), got {got}"
            ));
        }
        let bytes = pointer.len() + wanted.to_string().len();
        if bytes > CHECK_BYTES_MAX {
            return Some(format!("the check has {bytes} bytes, the limit is {CHECK_BYTES_MAX}"));
        }
        match self {
            Check::Equals { .. } => None,
            Check::Schema { schema, .. } => compile(schema).err(),
        }
    }

    /// Whether the result of a step is as it must be; if not, one sentence that says where, what was expected and what is there.
    pub fn holds(&self, result: &Value) -> Result<(), String> {
        let (Check::Equals { pointer, .. } | Check::Schema { pointer, .. }) = self;
        let at = if pointer.is_empty() { "the result".to_owned() } else { format!("the result at {}", cut(pointer, 100)) };
        let Some(part) = result.pointer(pointer) else {
            let expected = match self {
                Check::Equals { equals, .. } => short(equals),
                Check::Schema { schema, .. } => format!("something that fits {}", short(schema)),
            };
            return Err(format!("{at} must be {expected}, but there is nothing; the result is {}", short(result)));
        };
        match self {
            Check::Equals { equals, .. } if same(equals, part) => Ok(()),
            Check::Equals { equals, .. } => Err(format!("{at} must be {}, got {}", short(equals), short(part))),
            Check::Schema { schema, .. } => compile(schema)?.validate(part).map_err(|misfit| {
                let within = match misfit.instance_path().as_str() {
                    "" => String::new(),
                    path => format!(" at {}", cut(path, 100)),
                };
                let why = misfit.masked_with(short(misfit.instance())).to_string();
                format!("{at} does not fit its schema{within}: {}", cut(&why, MISFIT_CHARS_MAX))
            }),
        }
    }
}

/// Whether `pointer` is a JSON Pointer.
fn is_pointer(pointer: &str) -> bool {
    let escapes_are_right = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    (pointer.is_empty() || pointer.starts_with('/')) && escapes_are_right
}

/// Compiles a schema. Its patterns run in linear time, whatever they are.
fn compile(schema: &Value) -> Result<jsonschema::Validator, String> {
    if !schema.is_object() {
        return Err(format!("the schema of a check must be a JSON Schema object, got {}", short(schema)));
    }
    if let Some(keyword) = reference_in(schema) {
        return Err(format!("the schema of a check must not use {keyword}, write out what it stands for"));
    }
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    options.build(schema).map_err(|error| {
        let why = error.masked_with(short(error.instance())).to_string();
        format!("the schema of a check is no JSON Schema: {}", cut(&why, MISFIT_CHARS_MAX))
    })
}

/// The first keyword that refers to another schema.
fn reference_in(schema: &Value) -> Option<&'static str> {
    match schema {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        Value::Array(items) => items.iter().find_map(reference_in),
        Value::Object(fields) => ["$ref", "$dynamicRef", "$recursiveRef"]
            .into_iter()
            .find(|keyword| fields.get(*keyword).is_some_and(Value::is_string))
            .or_else(|| fields.values().find_map(reference_in)),
    }
}

/// Whether `got` is what is `wanted`.
fn same(wanted: &Value, got: &Value) -> bool {
    match (wanted, got) {
        (Value::Number(wanted), Value::Number(got)) => same_number(wanted, &got.to_string()),
        (Value::Number(wanted), Value::String(got)) => same_number(wanted, got),
        (Value::Array(wanted), Value::Array(got)) => {
            wanted.len() == got.len() && wanted.iter().zip(got).all(|(wanted, got)| same(wanted, got))
        }
        (Value::Object(wanted), Value::Object(got)) => {
            wanted.len() == got.len() && wanted.iter().all(|(key, wanted)| got.get(key).is_some_and(|got| same(wanted, got)))
        }
        _ => wanted == got,
    }
}

fn same_number(wanted: &Number, got: &str) -> bool {
    decimal(&wanted.to_string()).is_some_and(|wanted| decimal(got) == Some(wanted))
}

/// A number that is written out, exactly: whether it is negative, its digits without zeros at either end, and the power of ten
/// of the last one. `None` for everything that is not a number as JSON writes it.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    let power = i64::from(exponent) - i64::try_from(fraction.len()).ok()? + dropped;
    Some((negative, significant.to_owned(), power))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(check: Value) -> Check {
        serde_json::from_value(check).unwrap()
    }

    /// Expects `result` to pass (`expected` is empty), or to fail with exactly this sentence.
    fn check(check: Value, result: Value, expected: &str) {
        let check = read(check);
        assert_eq!(check.complaint(), None, "{check:?}");
        assert_eq!(check.holds(&result).err().unwrap_or_default(), expected, "{check:?} of {result}");
    }

    #[test]
    fn values_are_equal_by_value() {
        for (wanted, got) in [
            (json!(36), json!(36)),
            (json!(36), json!(36.0)),
            (json!(36.0), json!(36)),
            (json!(36), json!("36")),
            (json!(36), json!("36.00")),
            (json!(0.1), json!("0.1")),
            (json!(0.5), json!("5e-1")),
            (json!(-0.5), json!("-0.50")),
            (json!(0), json!("-0.0")),
            (json!(1200), json!("1.2e3")),
            (json!(1e300), json!("1e300")),
            (json!(u64::MAX), json!("18446744073709551615")),
            (json!({"a": [1, null]}), json!({"a": ["1.0", null]})),
            (json!("yes"), json!("yes")),
            (json!(null), json!(null)),
        ] {
            check(json!({"equals": wanted}), got, "");
        }
        for (wanted, got) in [
            (json!(36), json!(37)),
            (json!(36), json!("36 km")),
            (json!(36), json!(" 36")),
            (json!(36), json!("approx. 36")),
            (json!(36), json!("")),
            (json!(36), json!("36.")),
            (json!(36), json!("3_6")),
            (json!(1), json!("1e99999999999999999999")),
            (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992.0)),
            (json!("36"), json!(36)),
            (json!(1), json!(true)),
            (json!([1]), json!([1, 2])),
            (json!({"a": 1}), json!({"a": 1, "b": 2})),
        ] {
            assert!(read(json!({"equals": wanted})).holds(&got).is_err(), "{wanted} is not {got}");
        }
    }

    #[test]
    fn what_does_not_hold_is_said_in_one_sentence() {
        let result = json!({"sum": "37", "list": [1, "x"]});
        check(json!({"pointer": "/sum", "equals": 36}), result.clone(), "the result at /sum must be 36, got \"37\"");
        check(
            json!({"pointer": "/total", "equals": 36}),
            result.clone(),
            "the result at /total must be 36, but there is nothing; the result is {\"list\":[1,\"x\"],\"sum\":\"37\"}",
        );
        check(json!({"equals": "37"}), json!("38"), "the result must be \"37\", got \"38\"");
        let numbers = json!({"type": "array", "items": {"type": "number"}});
        check(json!({"pointer": "/list", "schema": numbers}), json!({"list": [1, 2.5]}), "");
        check(
            json!({"pointer": "/list", "schema": numbers}),
            result,
            "the result at /list does not fit its schema at /1: \"x\" is not of type \"number\"",
        );
        let long = read(json!({"schema": {"type": "number"}})).holds(&json!("x".repeat(100_000))).unwrap_err();
        assert!(long.len() < 400 && long.ends_with("is not of type \"number\""), "{long}");
    }

    /// Expects `check` to be refused with a complaint that contains `expected`.
    fn refused(check: Value, expected: &str) {
        let complaint = read(check).complaint().expect(expected);
        assert!(complaint.contains(expected) && complaint.len() < 600, "{expected:?} not in {complaint:?}");
    }

    #[test]
    fn bad_checks_are_refused() {
        refused(json!({"pointer": "a", "equals": 1}), "starts with /");
        refused(json!({"pointer": "/a~2", "equals": 1}), "~1 for /");
        refused(json!({"pointer": "/a~", "schema": {}}), "~1 for /");
        refused(json!({"schema": "number"}), "must be a JSON Schema object");
        refused(json!({"schema": {"type": "decimal"}}), "no JSON Schema");
        refused(json!({"schema": {"type": 1}}), "no JSON Schema");
        refused(json!({"schema": {"pattern": "("}}), "no JSON Schema");
        refused(json!({"schema": {"pattern": "(a{1000}){1000}{1000}"}}), "no JSON Schema");
        refused(json!({"schema": {"$ref": "file:///etc/passwd"}}), "must not use $ref");
        refused(json!({"schema": {"$ref": "https://example.com/s.json"}}), "must not use $ref");
        refused(json!({"schema": {"anyOf": [{"not": {"$ref": "#"}}]}}), "must not use $ref");
        refused(json!({"schema": {"$dynamicRef": "#x"}}), "must not use $dynamicRef");
        refused(json!({"schema": {"$schema": "https://example.com/unknown"}}), "no JSON Schema");
        refused(json!({"equals": "x".repeat(CHECK_BYTES_MAX)}), "the limit is");
    }

    #[test]
    fn patterns_run_in_linear_time() {
        let evil = read(json!({"schema": {"pattern": "^(a+)+$"}}));
        assert!(evil.holds(&json!(format!("{}!", "a".repeat(50_000)))).is_err());
    }
}
