//! What a plan will take, estimated before it runs: what the person who approves it looks at. Pure.

use serde::{Deserialize, Serialize};

use crate::id::StepNumber;

/// An estimate; only `steps`, `tools_with_side_effects` and `critical_path` are certain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Quote {
    /// Steps in the plan.
    pub steps: usize,
    /// Requests to models, the final answer included.
    pub model_calls: u64,
    /// Calls of tools.
    pub tool_calls: u64,
    /// Tokens read and written.
    pub tokens: u64,
    /// Tools of the plan that change something outside, by name.
    pub tools_with_side_effects: Vec<String>,
    /// The longest chain of steps that wait for each other.
    pub critical_path: Vec<StepNumber>,
}

/// TEMP
pub fn quote(plan: &crate::plan::Plan, _respond: crate::message::Respond, _tools: &[crate::tool::ToolSpec]) -> Quote {
    Quote { steps: plan.steps.len(), ..Quote::default() }
}
