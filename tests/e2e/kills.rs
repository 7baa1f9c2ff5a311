//! Processes die in the middle; nothing is lost, nothing is done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::event::EventType;
use common::id::RunId;
use common::limits::CLAIMS_MAX;
use common::message::Queue;
use common::run::RunStatus;
use lapin::BasicProperties;
use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Purpose, Request, Script, ScriptedMove};
use support::stack::Stack;
use tokio::sync::Semaphore;

/// A model that plans two parallel steps and a third that needs both, and does every step with one `calculate` call.
fn script() -> Script {
    Script::default()
        .plan(|_| {
            json!({"steps": [
                {"step_number": 1, "description": "work out 6*7", "tool_hint": "calculate", "depends_on": []},
                {"step_number": 2, "description": "work out 2^10", "tool_hint": "calculate", "depends_on": []},
                {"step_number": 3, "description": "work out 1+1", "tool_hint": "calculate", "depends_on": [1, 2]},
            ]})
        })
        .act(|request| {
            let prompt = request.prompt();
            // The step's own description stands after those of the steps it depends on.
            let (_, expression) = [("6*7", "6*7"), ("2^10", "2^10"), ("1+1", "1+1")]
                .into_iter()
                .filter_map(|(mark, expression)| Some((prompt.rfind(&format!("work out {mark}"))?, expression)))
                .max()
                .expect("a step that was planned");
            if request.has_tool_output() {
                ScriptedMove::Answer(format!("{expression} is done"))
            } else {
                ScriptedMove::Call("calculate", json!({"expression": expression}))
            }
        })
        .answer(|_| "all three done".into())
}

/// The script behind a gate: requests that `held` picks wait for a permit.
async fn gated(held: impl Fn(&Request) -> bool + Send + Sync + 'static) -> (FakeOpenAi, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let (script, inner) = (script(), gate.clone());
    let fake = FakeOpenAi::start(move |request| {
        let reply = script.respond(request);
        if held(request) { Behaviour::Held(inner.clone(), Box::new(reply)) } else { reply }
    })
    .await;
    (fake, gate)
}

fn complete(result: &common::run::RunDocument) {
    assert_eq!(result.status, RunStatus::Succeeded, "{result:#?}");
    let results: Vec<&Value> = result.step_results.iter().map(|step| &step.result).collect();
    assert_eq!(results, ["6*7 is done", "2^10 is done", "1+1 is done"]);
    assert_eq!(result.final_response.as_deref(), Some("all three done"));
}

/// Exactly one recorded outcome per step and one end, as the audit trail tells it.
async fn recorded_once(stack: &Stack, run: &RunId) {
    let events = stack.store().events(run, "", 10_000).await.unwrap();
    for step in ["1", "2", "3"] {
        let ended = events.iter().filter(|e| e.kind == EventType::StepFinished && e.slot.as_deref() == Some(step)).count();
        assert_eq!(ended, 1, "run {run} step {step}");
    }
    assert_eq!(events.iter().filter(|event| event.kind == EventType::RunFinished).count(), 1);
    assert_eq!(events.last().map(|event| event.kind), Some(EventType::RunFinished));
}

/// Issue 2's own scenario: ten objectives at once from a plain AMQP client, two executors, one of them killed in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_runs_survive_an_executor() {
    // Until the gate opens, every first turn of a step waits in the model: both executors are busy when one dies.
    let (fake, gate) = gated(|request| request.purpose() == Purpose::Act && !request.has_tool_output()).await;
    let url = fake.base_url();
    let settings = [("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1"), ("PLANRELAY_CONCURRENCY", "4")];
    let stack = Stack::new(&settings).await;
    let (_planner, _summarizer) = (stack.start("planner"), stack.start("summarizer"));
    let (mut doomed, _survivor) = (stack.start("executor"), stack.start("executor"));
    stack.queues_exist().await;
    let mut runs = Vec::new();
    for n in 0..10 {
        runs.push(stack.objective(&format!("ten-{n}"), json!({"objective": format!("three sums, number {n}")})).await);
    }
    // Ten plans, and both executors hold as many steps as they take.
    tokio::time::timeout(support::stack::PATIENCE, fake.wait_for_calls(10 + 8)).await.unwrap();
    doomed.kill();
    gate.add_permits(10_000);
    for run in &runs {
        complete(&stack.result(run).await);
        recorded_once(&stack, run).await;
    }
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_executor_pays_no_turn_twice() {
    // The second turn of step 1 waits; the first one is paid and journaled.
    let first = Arc::new(AtomicBool::new(true));
    let (fake, gate) = gated(move |request| {
        request.purpose() == Purpose::Act
            && request.prompt().contains("6*7")
            && request.has_tool_output()
            && first.swap(false, Ordering::SeqCst)
    })
    .await;
    let url = fake.base_url();
    let stack = Stack::new(&[("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1")]).await;
    let (_planner, _summarizer) = (stack.start("planner"), stack.start("summarizer"));
    let mut doomed = stack.start("executor");
    stack.queues_exist().await;
    let run = stack.objective("paid-once", json!({"objective": "three sums"})).await;
    // The plan, both turns of step 2, and the two of step 1, of which the last one waits.
    tokio::time::timeout(support::stack::PATIENCE, fake.wait_for_calls(5)).await.unwrap();
    doomed.kill();
    let _heir = stack.start("executor");
    let result = stack.result(&run).await;
    complete(&result);
    // The turn that was cut off is the only one that is asked for again.
    let asked = |mark: &str, after: bool| {
        let acts = fake.requests().into_iter().filter(|r| r.purpose() == Purpose::Act && r.has_tool_output() == after);
        acts.filter(|r| r.prompt().contains(mark) && !r.prompt().contains("1+1")).count()
    };
    assert_eq!((asked("6*7", false), asked("6*7", true)), (1, 2));
    assert_eq!(result.step_results[0].attempts, 1, "a crash costs no attempt");
    gate.add_permits(10);
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planner_and_summarizer_may_die_at_work() {
    let (plans, answers) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let (fake, gate) = gated(move |request| match request.purpose() {
        Purpose::Plan => plans.swap(false, Ordering::SeqCst),
        Purpose::Answer => answers.swap(false, Ordering::SeqCst),
        Purpose::Act | Purpose::Replan => false,
    })
    .await;
    let url = fake.base_url();
    let stack = Stack::new(&[("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1")]).await;
    let (mut planner, mut summarizer) = (stack.start("planner"), stack.start("summarizer"));
    let _executor = stack.start("executor");
    stack.queues_exist().await;
    let run = stack.objective("mortal", json!({"objective": "three sums"})).await;
    tokio::time::timeout(support::stack::PATIENCE, fake.wait_for_calls(1)).await.unwrap();
    planner.kill();
    let _planner = stack.start("planner");
    let answered = || fake.requests().iter().any(|request| request.purpose() == Purpose::Answer);
    stack.until("the answer is asked for", async || answered()).await;
    summarizer.kill();
    let _summarizer = stack.start("summarizer");
    complete(&stack.result(&run).await);
    recorded_once(&stack, &run).await;
    gate.add_permits(10);
    stack.clean().await;
}

/// SIGTERM: the step goes to another executor at once, and neither attempt nor claim is counted, however often that happens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_executor_gives_its_steps_back() {
    // Step 1 waits in the model until the last executor has it.
    let (fake, gate) = gated(|request| request.purpose() == Purpose::Act && request.prompt().contains("6*7")).await;
    let asked = || fake.requests().iter().filter(|r| r.purpose() == Purpose::Act && r.prompt().contains("6*7")).count();
    let url = fake.base_url();
    let settings = [("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1"), ("PLANRELAY_SHUTDOWN_GRACE_SECS", "0")];
    let stack = Stack::new(&settings).await;
    let (_planner, _summarizer) = (stack.start("planner"), stack.start("summarizer"));
    let mut executor = stack.start("executor");
    stack.queues_exist().await;
    let run = stack.objective("graceful", json!({"objective": "three sums"})).await;
    for stopped in 0..=CLAIMS_MAX as usize {
        stack.until("step 1 is asked for", async || asked() > stopped).await;
        assert_eq!(executor.stop().await.code(), Some(0), "{}", stack.logs());
        executor = stack.start("executor");
    }
    gate.add_permits(1000);
    let result = stack.result(&run).await;
    complete(&result);
    assert_eq!(result.step_results[0].attempts, 1);
    stack.clean().await;
}

/// Every service twice; each process in turn is killed while the model keeps its service busy, and replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_come_and_go() {
    let busy = Arc::new(std::sync::Mutex::new(None::<Purpose>));
    let held = busy.clone();
    let (fake, gate) = gated(move |request| *held.lock().unwrap() == Some(request.purpose())).await;
    let url = fake.base_url();
    let stack = Stack::new(&[("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1")]).await;
    let services = ["planner", "planner", "executor", "executor", "summarizer", "summarizer"];
    let mut processes: Vec<_> = services.iter().map(|service| stack.start(service)).collect();
    stack.queues_exist().await;
    let mut runs = Vec::new();
    for (round, process) in processes.iter_mut().enumerate() {
        let purpose = [Purpose::Plan, Purpose::Act, Purpose::Answer][round / 2];
        *busy.lock().unwrap() = Some(purpose);
        let before = fake.requests().len();
        for n in 0..3 {
            runs.push(stack.objective(&format!("replica-{round}-{n}"), json!({"objective": "three sums"})).await);
        }
        let asked = || fake.requests()[before..].iter().filter(|request| request.purpose() == purpose).count();
        stack.until("the model keeps three of them busy", async || asked() >= 3).await;
        process.kill();
        *process = stack.start(services[round]);
        *busy.lock().unwrap() = None;
        gate.add_permits(100);
    }
    for run in &runs {
        complete(&stack.result(run).await);
        recorded_once(&stack, run).await;
    }
    stack.clean().await;
}

/// The same id again while the model still plans: one run, one plan, and nobody counts as dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_objective_published_ten_times_is_one_run() {
    let (fake, gate) = gated(|request| request.purpose() == Purpose::Plan).await;
    let url = fake.base_url();
    let (stack, _services) = Stack::running(&[("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1")]).await;
    for _ in 0..10 {
        let id = BasicProperties::default().with_message_id("often".into());
        stack.publish(Queue::Objectives, br#"{"objective":"three sums"}"#, id).await;
    }
    stack.until("the copies are off the queue", async || stack.depth(Queue::Objectives).await == 0).await;
    stack.until("the plan is asked for", async || fake.calls() >= 1).await;
    gate.add_permits(100);
    let run = RunId::parse("often").unwrap();
    complete(&stack.result(&run).await);
    recorded_once(&stack, &run).await;
    let plans = fake.requests().iter().filter(|request| request.purpose() == Purpose::Plan).count();
    assert_eq!(plans, 1, "one plan is paid for");
    stack.clean().await;
}

/// A good message of a live run that lands in the dead queue does not end it: the step is dispatched again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_of_a_live_run_is_dispatched_again() {
    let fake = FakeOpenAi::scripted(script()).await;
    let url = fake.base_url();
    let stack = Stack::new(&[("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1")]).await;
    let (_planner, _summarizer) = (stack.start("planner"), stack.start("summarizer"));
    stack.queues_exist().await;
    let run = stack.objective("undead", json!({"objective": "three sums"})).await;
    // No executor yet: both steps wait in the queue; somebody moves them to the dead queue.
    let steps = Queue::Steps.name(stack.prefix());
    for _ in 0..2 {
        let (body, properties) = stack.receive(&steps).await;
        stack.publish(Queue::Dead, &body, properties).await;
    }
    let _executor = stack.start("executor");
    complete(&stack.result(&run).await);
    recorded_once(&stack, &run).await;
    stack.clean().await;
}
