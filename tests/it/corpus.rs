//! The bad-input corpus: named inputs with one expected outcome each, in `tests/fixtures/corpus`. One `check` a class; every case
//! that came out otherwise is shown, not only the first.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

mod authority;
mod input;
mod messages;
mod model_replies;
mod plans;
mod tool_arguments;

/// Every class of the corpus.
const CLASSES: [&str; 4] = ["messages", "model_replies", "plans", "tool_arguments"];
/// Fewest cases of all classes together.
const CASES_MIN: usize = 300;

/// The cases of a class.
fn cases(class: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/corpus").join(format!("{class}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn name(case: &Value) -> &str {
    case["name"].as_str().expect("a case has a name")
}

/// Cases that did not come out as they should.
#[derive(Default)]
struct Surprises(Vec<String>);

impl Surprises {
    /// Compares the whole outcome of a case.
    fn compare(&mut self, case: &Value, came: &Value) {
        let expected = &case["expected"];
        if came != expected {
            self.0.push(format!("{}\n  expected {}\n  came     {}", name(case), shown(expected), shown(came)));
        }
    }
}

impl Drop for Surprises {
    fn drop(&mut self) {
        if !self.0.is_empty() && !std::thread::panicking() {
            panic!("{} cases came out otherwise:\n{}", self.0.len(), self.0.join("\n"));
        }
    }
}

fn shown(outcome: &Value) -> String {
    outcome.to_string().chars().take(2_000).collect()
}

#[test]
fn names_are_unique_and_cases_many() {
    let mut classes: BTreeMap<String, &str> = BTreeMap::new();
    for class in CLASSES {
        for case in cases(class) {
            assert!(!case["expected"].is_null(), "{}: nothing is expected", name(&case));
            let twice = classes.insert(name(&case).to_owned(), class);
            assert_eq!(twice, None, "{class}: the name {:?} is used twice", name(&case));
        }
    }
    assert!(classes.len() >= CASES_MIN, "{} cases", classes.len());
}
