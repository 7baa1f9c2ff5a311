//! Plans, whoever wrote them: accepted, or every complaint.

use common::limits::PLAN_STEPS_DEFAULT;
use common::plan::{Rules, check as validate};
use serde_json::{Value, json};

use super::{Surprises, cases, input};

#[test]
fn bad_plans() {
    let mut surprises = Surprises::default();
    for case in cases("plans") {
        surprises.compare(&case, &check(&case));
    }
}

/// `"accepted"`, `{"not_json": why}`, or the list of complaints.
fn check(case: &Value) -> Value {
    let draft: Value = match serde_json::from_slice(&input::bytes(&case["plan"])) {
        Ok(draft) => draft,
        Err(error) => return json!({"not_json": error.to_string()}),
    };
    let tools = ["calculate", "search", "analyze"].map(str::to_owned).to_vec();
    let steps_max = case["steps_max"].as_u64().map_or(PLAN_STEPS_DEFAULT, |max| max as usize);
    match validate(&draft, &Rules { tools, steps_max }) {
        Ok(_plan) => json!("accepted"),
        Err(complaints) => json!(complaints),
    }
}
