//! What ends a step before it is done, or in spite of it: its owner's cancel between two calls, its time, the size of its result.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::event::EventType;
use common::limits::RESULT_BYTES_MAX;
use common::llm::Llm;
use common::message::Answer;
use common::run::{Outcome, RunStatus};
use common::tool::ToolSpec;
use executor::tool::{CallContext, Tool, ToolError, Toolbox};
use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Script, ScriptedMove};
use support::plans::{exact, step};
use support::stack::PATIENCE;
use support::world::{Backend, World, config, llm_config};
use tokio::sync::watch;

use super::obedience::{on_both, outcomes, with};

/// Stands in for `calculate`: notes what it is asked for, and gives it back as the result once the gate is open.
struct Gated {
    asked: Asked,
    open: watch::Receiver<bool>,
}

/// What a [`Gated`] tool was asked for.
type Asked = Arc<Mutex<Vec<Value>>>;

/// The expression with which a [`Gated`] tool waits for its gate.
const HELD: &str = "held";

impl Tool for Gated {
    fn spec(&self) -> ToolSpec {
        common::tool::builtin(false).into_iter().find(|spec| spec.name == "calculate").unwrap()
    }

    fn call<'a>(
        &'a self,
        arguments: Value,
        _ctx: &'a CallContext,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ToolError>> + Send + 'a>> {
        let expression = arguments["expression"].clone();
        self.asked.lock().unwrap().push(expression.clone());
        let mut open = self.open.clone();
        Box::pin(async move {
            if expression == HELD {
                open.wait_for(|open| *open).await.map_err(|_closed| ToolError("the test has ended".to_owned()))?;
            }
            Ok(expression)
        })
    }
}

/// A toolbox of a [`Gated`] tool, its notes, and its gate.
fn gated() -> (Toolbox, Asked, watch::Sender<bool>) {
    let (asked, gate) = (Asked::default(), watch::Sender::new(false));
    let tool = Gated { asked: asked.clone(), open: gate.subscribe() };
    (Toolbox::new(vec![Box::new(tool)]).unwrap(), asked, gate)
}

/// The model wants two calls in one turn. The run is cancelled while the first is made: that one ends, the second never begins.
#[tokio::test]
async fn a_call_after_a_cancel_is_not_made() {
    on_both(async |backend| {
        let call = |expression| json!({"expression": expression}).to_string();
        let fake = FakeOpenAi::start(move |request| match request.purpose() {
            Purpose::Act => Behaviour::tool_calls(&[("calculate", &call(HELD)), ("calculate", &call("never"))]),
            Purpose::Plan | Purpose::Replan | Purpose::Answer => Script::default().respond(request),
        })
        .await;
        let (tools, asked, gate) = gated();
        let llm = Llm::from_config(&llm_config(&fake.base_url())).unwrap();
        let world = World::with_tools(backend, llm, &config(), tools).await;
        let run = world.submit(json!({"objective": "x", "plan": {"steps": [step(1, "two sums", &[])]}})).await;
        world.until(&run, "the first call is made", |_| !asked.lock().unwrap().is_empty()).await;
        assert_eq!(world.control(&run, json!({"command": "cancel"})).await.answer, Answer::Accepted);
        gate.send_replace(true);
        let result = world.client.wait(&run, PATIENCE).await.expect("the run ends");
        assert_eq!((result.status, outcomes(&result)), (RunStatus::Cancelled, vec![Outcome::Cancelled]), "{result:#?}");
        // The executor's handler has come to its end when the world stops.
        world.stop().await;
        assert_eq!(*asked.lock().unwrap(), [HELD]);
    })
    .await;
}

/// A step that hangs beyond its time has failed at once: what took so long once would do so again. Its neighbours do not wait.
#[tokio::test(start_paused = true)]
async fn a_step_that_takes_too_long_fails_without_another_try() {
    let (tools, asked, _gate) = gated();
    let mut config = config();
    // Shorter than the time of a single call, which is the tool's own affair.
    config.run.step_timeout = Duration::from_secs(20);
    let world = World::with_tools(Backend::Memory, Llm::Offline, &config, tools).await;
    let plan = json!({"steps": [exact(1, HELD, &[]), exact(2, "two", &[]), exact(3, "three", &[1]), exact(4, "four", &[2])]});
    let options = json!({"respond": "results", "replan": "never"});
    let result = world.run(json!({"objective": "x", "plan": plan, "options": options})).await;
    let expected = [Outcome::Failed, Outcome::Succeeded, Outcome::Skipped, Outcome::Succeeded];
    assert_eq!((result.status, outcomes(&result)), (RunStatus::Partial, expected.to_vec()), "{result:#?}");
    let slow = &result.step_results[0];
    assert_eq!((slow.error.as_deref(), slow.attempts), (Some("the step did not end within 20s"), 1));
    assert_eq!(slow.duration_ms, 20_000);
    assert_eq!(asked.lock().unwrap().iter().filter(|expression| **expression == HELD).count(), 1);
    let events = world.events(&result.run_id).await;
    let ended = events.iter().filter(|event| event.kind == EventType::StepFinished).filter_map(|event| event.slot.as_deref());
    assert_eq!(ended.collect::<Vec<_>>(), ["2", "4", "1"], "the slow step holds up nobody but who waits for it");
    world.stop().await;
}

/// Control characters take six bytes each in JSON: what the model wrote within its limit is too large to keep.
#[tokio::test]
async fn a_result_that_is_too_large_fails_without_another_try() {
    on_both(async |backend| {
        let written = "\u{1}".repeat(RESULT_BYTES_MAX / 6 + 100);
        let bytes = serde_json::to_string(&written).unwrap().len();
        let script = Script::default().act(move |_| ScriptedMove::Answer(written.clone()));
        let fake = FakeOpenAi::scripted(script).await;
        let world = with(backend, &fake).await;
        let plan = json!({"steps": [step(1, "say a lot", &[])]});
        let options = json!({"respond": "results", "replan": "never"});
        let result = world.run(json!({"objective": "x", "plan": plan, "options": options})).await;
        let large = &result.step_results[0];
        let why = format!("the result has {bytes} bytes, the limit is {RESULT_BYTES_MAX}");
        assert_eq!((large.outcome, large.error.as_ref(), large.attempts), (Outcome::Failed, Some(&why), 1));
        assert_eq!((&large.result, fake.calls()), (&Value::Null, 1));
        world.stop().await;
    })
    .await;
}
