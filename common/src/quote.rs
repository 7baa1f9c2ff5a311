//! What a plan will take, estimated before it runs: what the person who approves it looks at. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::StepNumber;
use crate::limits::{PROMPT_TOKENS_ESTIMATE, REPLY_TOKENS_ESTIMATE};
use crate::message::Respond;
use crate::plan::{Plan, Step, edges};
use crate::tool::ToolSpec;

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

/// Estimates what `plan` will take if every step succeeds at its first attempt.
pub fn quote(plan: &Plan, respond: Respond, tools: &[ToolSpec]) -> Quote {
    let answer = match respond {
        Respond::Answer => 1,
        Respond::Results => 0,
    };
    let model_calls = answer + plan.steps.iter().map(model_calls).sum::<u64>();
    let named: BTreeSet<&str> = plan.steps.iter().filter_map(|step| step.tool_hint.as_deref()).collect();
    let changing: BTreeSet<&str> = tools.iter().filter(|tool| tool.side_effects).map(|tool| tool.name).collect();
    Quote {
        steps: plan.steps.len(),
        model_calls,
        tool_calls: plan.steps.iter().map(|step| u64::from(step.tool_hint.is_some())).sum(),
        tokens: model_calls * (PROMPT_TOKENS_ESTIMATE + REPLY_TOKENS_ESTIMATE),
        tools_with_side_effects: named.intersection(&changing).map(ToString::to_string).collect(),
        critical_path: critical_path(plan),
    }
}

/// A step with exact arguments asks a model only to judge it. Any other one takes two turns: one that calls its tool, or thinks, and
/// one that says what came of it.
fn model_calls(step: &Step) -> u64 {
    match &step.arguments {
        Some(_) => u64::from(step.done_when.is_some()),
        None => 2,
    }
}

/// The longest chain; of several the one with the smallest numbers, the first step's first.
fn critical_path(plan: &Plan) -> Vec<StepNumber> {
    let steps: BTreeMap<StepNumber, &Step> = plan.steps.iter().map(|step| (step.step_number, step)).collect();
    // For every step, how many follow it at most, and the first of those; last steps first.
    let mut chains: BTreeMap<StepNumber, (usize, Option<StepNumber>)> = steps.keys().map(|number| (*number, (0, None))).collect();
    for number in edges::in_order(&steps).unwrap_or_default().into_iter().rev() {
        let length = chains.get(&number).map_or(0, |(following, _)| following + 1);
        for dependency in steps.get(&number).into_iter().flat_map(|step| &step.depends_on) {
            let Some(chain) = chains.get_mut(dependency) else { continue };
            if chain.0 < length || (chain.0 == length && chain.1.is_none_or(|first| number < first)) {
                *chain = (length, Some(number));
            }
        }
    }
    let longest = chains.values().map(|(following, _)| *following).max();
    let mut at = chains.iter().find(|(_, (following, _))| Some(*following) == longest).map(|(number, _)| *number);
    let mut path = Vec::new();
    while let Some(number) = at {
        path.push(number);
        at = chains.get(&number).and_then(|(_, next)| *next);
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tool;

    fn plan(steps: &[Value]) -> Plan {
        let mut steps: Vec<Value> = steps.to_vec();
        for step in &mut steps {
            step["description"] = json!("x");
        }
        serde_json::from_value(json!({"steps": steps})).unwrap()
    }

    /// Expects a plan of one step, whose results are the answer, to take these calls of models and tools.
    fn check(fields: Value, expected: (u64, u64)) {
        let mut step = fields;
        step["step_number"] = json!(1);
        let quote = quote(&plan(std::slice::from_ref(&step)), Respond::Results, &[]);
        assert_eq!((quote.model_calls, quote.tool_calls), expected, "{step}");
        assert_eq!(quote.tokens, 1_000 * expected.0);
    }

    #[test]
    fn calls_are_estimated() {
        check(json!({}), (2, 0));
        check(json!({"done_when": "y"}), (2, 0));
        check(json!({"tool_hint": "search"}), (2, 1));
        check(json!({"tool_hint": "search", "arguments": {}}), (0, 1));
        check(json!({"tool_hint": "search", "arguments": {}, "done_when": "y"}), (1, 1));
        let whole = quote(&plan(&[json!({"step_number": 1}), json!({"step_number": 2})]), Respond::Answer, &[]);
        assert_eq!((whole.steps, whole.model_calls, whole.tokens), (2, 5, 5_000));
        assert_eq!(quote(&Plan::default(), Respond::Results, &[]), Quote::default());
    }

    #[test]
    fn tools_with_side_effects_are_named_once() {
        let changing = |name| ToolSpec { name, side_effects: true, ..tool::search() };
        let tools = [changing("write"), changing("mail"), changing("delete"), tool::search()];
        let names = ["write", "search", "mail", "write"];
        let steps: Vec<Value> = (1..).zip(names).map(|(n, tool)| json!({"step_number": n, "tool_hint": tool})).collect();
        assert_eq!(quote(&plan(&steps), Respond::Answer, &tools).tools_with_side_effects, ["mail", "write"]);
    }

    #[test]
    fn the_longest_chain_is_found() {
        let path = |edges: &[(u32, &[u32])]| {
            let steps: Vec<Value> = edges.iter().map(|(n, deps)| json!({"step_number": n, "depends_on": deps})).collect();
            critical_path(&plan(&steps)).into_iter().map(|number| number.0).collect::<Vec<_>>()
        };
        for (edges, expected) in [
            (vec![], vec![]),
            (vec![(3, &[][..]), (4, &[])], vec![3]),
            (vec![(1, &[]), (2, &[1]), (3, &[]), (4, &[3]), (5, &[4])], vec![3, 4, 5]),
            (vec![(1, &[]), (2, &[1]), (3, &[1]), (4, &[2, 3])], vec![1, 2, 4]),
            (vec![(9, &[]), (2, &[9]), (3, &[9]), (1, &[3])], vec![9, 3, 1]),
            (vec![(1, &[]), (2, &[]), (5, &[1, 2]), (4, &[2])], vec![1, 5]),
            (vec![(1, &[]), (6, &[1]), (3, &[1]), (2, &[6]), (7, &[3])], vec![1, 3, 7]),
            // What a step of an earlier revision depended on is gone.
            (vec![(2, &[1]), (3, &[2])], vec![2, 3]),
        ] {
            assert_eq!(path(&edges), expected, "{edges:?}");
        }
    }

    #[test]
    fn large_plans_are_quoted() {
        let chain: Vec<Value> =
            (1..=10_000u32).map(|n| json!({"step_number": n, "depends_on": if n == 1 { vec![] } else { vec![n - 1] }})).collect();
        assert_eq!(quote(&plan(&chain), Respond::Answer, &[]).critical_path.len(), 10_000);
    }
}
