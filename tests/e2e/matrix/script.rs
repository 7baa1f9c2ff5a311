//! The run of every cell, and the model behind it: a diamond with a model and a tool that has an effect in its middle, and a step
//! that fails at first.

use std::sync::Arc;

use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Request, Script, ScriptedMove};
use support::points::EFFECT_TOOL;
use tokio::sync::Semaphore;

/// The step whose tool has an effect.
pub(super) const EFFECT_STEP: u32 = 3;
/// Steps of the plan.
pub(super) const STEPS: usize = 5;
/// Why the step fails at first.
const NOT_YET: &str = "not warm yet";

/// Step 4 is the last to end: everything else comes before it.
fn plan() -> Value {
    json!({"steps": [
        {"step_number": 1, "description": "begin", "tool_hint": "calculate", "arguments": {"expression": "6*7"}},
        {"step_number": 2, "description": "think about it", "depends_on": [1]},
        {"step_number": EFFECT_STEP, "description": "have an effect", "tool_hint": EFFECT_TOOL,
         "arguments": {"query": "an effect"}, "depends_on": [1]},
        {"step_number": 4, "description": "join", "tool_hint": "calculate", "arguments": {"expression": "1+1"},
         "depends_on": [2, EFFECT_STEP, 5]},
        {"step_number": 5, "description": "warm up"},
    ]})
}

fn act(request: &Request) -> ScriptedMove {
    let prompt = request.prompt();
    if prompt.contains("warm up") {
        // Another attempt is told why the one before it came to nothing.
        if prompt.contains(NOT_YET) {
            return ScriptedMove::Answer("warm".into());
        }
        return ScriptedMove::Fail { why: NOT_YET.into(), retryable: true };
    }
    if request.has_tool_output() {
        ScriptedMove::Answer("thought".into())
    } else {
        ScriptedMove::Call("calculate", json!({"expression": "2^10"}))
    }
}

/// The model. Replies to requests for `held` wait for the gate.
pub(super) async fn model(held: Option<Purpose>) -> (FakeOpenAi, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let script = Script::default().plan(|_| plan()).act(act).answer(|_| "all of it is done".into());
    let inner = gate.clone();
    let fake = FakeOpenAi::start(move |request| {
        let reply = script.respond(request);
        if held == Some(request.purpose()) { Behaviour::Held(inner.clone(), Box::new(reply)) } else { reply }
    })
    .await;
    (fake, gate)
}
