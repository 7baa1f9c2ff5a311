//! What the servers and the network may do while runs go on. Every run ends, with one outcome of each step and one answer, soon
//! after the fault is over: each scenario prints how soon.
//!
//! Most scenarios do the same: [`Work::begin`] brings runs to every stage (some of their model calls wait), the fault strikes, the
//! model answers into it, the fault ends, and [`Work::ends`] waits for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::event::{Event, EventType};
use common::id::RunId;
use common::message::Queue;
use common::run::{RunDocument, RunStatus};
use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Request, Script, ScriptedMove};
use support::stack::{Process, Stack};
use tokio::sync::Semaphore;
use tokio::time::Instant;

mod broker;
mod clusters;
mod failover;
mod network;
mod poison;
mod queues;
mod sentinel;
mod stops;
mod store;

/// What [`Stack::with_services`] starts.
const SERVICES: [&str; 4] = ["planner", "executor", "executor", "summarizer"];
/// What to recover from a fault may take before the test has failed. It takes seconds, or half a minute where a time-out of that
/// length must pass first; the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(150);
/// Runs of each kind.
const RUNS_PER_KIND: usize = 2;
/// Kinds of runs that the model holds somewhere.
const KINDS: [(&str, Purpose); 3] =
    [("wait at the plan", Purpose::Plan), ("wait at the step", Purpose::Act), ("wait at the answer", Purpose::Answer)];
/// Steps of a run that needs no model.
const CHAIN: u32 = 20;

/// A model that waits in the middle, and the runs that it keeps waiting.
struct Work {
    fake: FakeOpenAi,
    gate: Arc<Semaphore>,
    /// Requests that have come to wait.
    waiting: Arc<AtomicUsize>,
}

fn waits(request: &Request) -> bool {
    let prompt = request.prompt();
    KINDS.iter().any(|(kind, purpose)| *purpose == request.purpose() && prompt.contains(kind))
}

/// Sums in a chain: as fast as the servers allow.
fn chain() -> Value {
    let steps = (1..=CHAIN).map(|n| {
        json!({"step_number": n, "description": "a sum", "tool_hint": "calculate", "arguments": {"expression": format!("{n}+{n}")},
               "depends_on": if n == 1 { vec![] } else { vec![n - 1] }})
    });
    json!({"objective": "sums", "plan": {"steps": steps.collect::<Vec<_>>()}, "options": {"respond": "results"}})
}

/// Publishes runs that need no model.
async fn sums(stack: &Stack, name: &str) -> Vec<RunId> {
    let mut runs = Vec::new();
    for n in 0..RUNS_PER_KIND {
        runs.push(stack.objective(&format!("{name}-sums-{n}"), chain()).await);
    }
    runs
}

impl Work {
    async fn new() -> Self {
        let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let script = Script::default()
            .plan(|request| {
                let first = if request.prompt().contains(KINDS[1].0) { KINDS[1].0 } else { "first" };
                json!({"steps": [
                    {"step_number": 1, "description": first, "depends_on": []},
                    {"step_number": 2, "description": "second", "depends_on": [1]},
                ]})
            })
            .act(|_| ScriptedMove::Answer("done".into()))
            .answer(|_| "all done".into());
        let (held, came) = (gate.clone(), waiting.clone());
        let fake = FakeOpenAi::start(move |request| {
            let reply = script.respond(request);
            if waits(request) {
                came.fetch_add(1, Ordering::SeqCst);
                Behaviour::Held(held.clone(), Box::new(reply))
            } else {
                reply
            }
        })
        .await;
        Self { fake, gate, waiting }
    }

    /// Services on these servers that ask this model. They may reach the servers another way than the user does (`settings`).
    async fn stack(&self, amqp_url: &str, redis_url: &str, settings: &[(&str, &str)]) -> (Stack, Vec<Process>) {
        let url = self.fake.base_url();
        let model = [("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1")];
        Stack::on(amqp_url, redis_url, &[model.as_slice(), settings].concat()).await.with_services().await
    }

    /// Publishes runs of every kind, and waits until the model holds all that it is to hold. The others are on their way.
    async fn begin(&self, stack: &Stack, name: &str) -> Vec<RunId> {
        self.gate.forget_permits(self.gate.available_permits());
        let before = self.asked();
        let mut runs = Vec::new();
        for (number, (kind, _)) in KINDS.iter().enumerate() {
            for n in 0..RUNS_PER_KIND {
                runs.push(stack.objective(&format!("{name}-{number}-{n}"), json!({"objective": kind})).await);
            }
        }
        self.waits_again(stack, before).await;
        runs.extend(sums(stack, name).await);
        // Before that, the broker has the only copy of an objective.
        for run in &runs {
            stack.until("the run is opened", async || stack.store().status(run).await.is_ok_and(|status| status.is_some())).await;
        }
        runs
    }

    /// Requests so far that had to wait.
    fn asked(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Waits until the model holds the runs of one [`Work::begin`]; `before`: what was asked before.
    async fn waits_again(&self, stack: &Stack, before: usize) {
        let held = KINDS.len() * RUNS_PER_KIND;
        stack.until("the model holds its runs", async || self.asked() - before >= held).await;
    }

    /// The model answers from now on, also what it is asked again.
    fn answer(&self) {
        self.gate.add_permits(10_000);
    }
}

/// Waits until all runs have ended as they should have without the fault, which was over at `since`.
async fn all_end(stack: &Stack, scenario: &str, runs: &[RunId], since: Instant) {
    for run in runs {
        let result = stack.result_within(run, PATIENCE).await;
        complete(&result);
        recorded_once(stack, &result).await;
    }
    #[expect(clippy::print_stdout, reason = "how soon is worth knowing, and no more than that is promised")]
    {
        println!("recovery: {scenario}: {} runs ended within {:.1} s", runs.len(), since.elapsed().as_secs_f64());
    }
}

/// Nothing is left: no message waits, and none became a dead letter.
async fn at_rest(stack: &Stack) {
    for queue in Queue::ALL {
        stack.until("every queue is empty", async || stack.messages(queue).await == Some(0)).await;
    }
    assert_eq!(stack.store().dead_letters(10).await.unwrap(), Vec::<String>::new());
}

/// The audit trails as they are now.
async fn trails(stack: &Stack, runs: &[RunId]) -> Vec<Vec<Event>> {
    let mut trails = Vec::new();
    for run in runs {
        trails.push(stack.store().events(run, "", 10_000).await.unwrap());
    }
    trails
}

fn complete(result: &RunDocument) {
    assert_eq!(result.status, RunStatus::Succeeded, "{result:#?}");
    assert!(result.step_results.iter().all(|step| step.attempts == 1), "a fault of the servers costs no attempt: {result:#?}");
    if result.objective == "sums" {
        let sums: Vec<String> =
            result.step_results.iter().map(|step| step.result.as_str().unwrap_or_default().to_owned()).collect();
        assert_eq!(sums, (1..=CHAIN).map(|n| (n + n).to_string()).collect::<Vec<_>>());
    } else {
        assert_eq!(result.final_response.as_deref(), Some("all done"));
        assert!(result.step_results.iter().all(|step| step.result == "done"), "{result:#?}");
    }
}

/// Exactly one recorded outcome of every step and one end, as the audit trail tells it.
async fn recorded_once(stack: &Stack, result: &RunDocument) {
    let run = &result.run_id;
    let events = stack.store().events(run, "", 10_000).await.unwrap();
    for step in &result.step_results {
        let slot = step.step_number.to_string();
        let ended = events.iter().filter(|e| e.kind == EventType::StepFinished && e.slot.as_deref() == Some(&slot)).count();
        assert_eq!(ended, 1, "run {run} step {slot}");
    }
    assert_eq!(events.iter().filter(|event| event.kind == EventType::RunFinished).count(), 1, "run {run}");
    assert_eq!(events.last().map(|event| event.kind), Some(EventType::RunFinished), "run {run}");
}
