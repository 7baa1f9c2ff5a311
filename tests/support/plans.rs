//! Steps of the plans that tests bring along, as JSON.

use serde_json::{Value, json};

/// A step that is the model's to do.
pub fn step(number: u32, description: &str, depends_on: &[u32]) -> Value {
    json!({"step_number": number, "description": description, "tool_hint": null, "depends_on": depends_on})
}

/// A step that is exactly this sum; no model is asked.
pub fn exact(number: u32, expression: &str, depends_on: &[u32]) -> Value {
    let mut step = step(number, expression, depends_on);
    step["tool_hint"] = "calculate".into();
    step["arguments"] = json!({"expression": expression});
    step
}
