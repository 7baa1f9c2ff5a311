//! What the next release may add without asking, done to a whole load while services of this release work on it: unknown fields, headers,
//! types of messages, unknown fields of every hash, entries of the audit trail. Everything still comes out right.
//!
//! A consumer on every queue takes its share of the messages and publishes them again as a newer release might have; a writer adds to the
//! keys of every run whatever it finds there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use common::id::RunId;
use common::llm::Llm;
use common::message::Queue;
use common::run::{Outcome, RunDocument, RunStatus};
use futures::StreamExt;
use futures::future::join_all;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use lapin::{Connection, ConnectionProperties};
use redis::{AsyncTypedCommands, Script as Lua};
use serde_json::{Value, json};
use support::fake_openai::{FakeOpenAi, Request, Script, ScriptedMove};
use support::plans::{exact, step};
use support::stack::amqp_url;
use support::stores;
use support::world::{Backend, World, config, llm_config};
use tokio::time::sleep;

/// The field that nobody knows today.
const LATER: &str = "invented_later";
/// Runs of each kind.
const EACH: usize = 4;

/// Takes messages of `queue` for ever, and publishes each as a newer release might have. Counts them.
async fn modernize(prefix: &str, queue: Queue, counts: &Mutex<BTreeMap<Queue, usize>>) {
    let connection = Connection::connect(&amqp_url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    let name = queue.name(prefix);
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = channel.basic_consume(name.as_str().into(), "".into(), options, arguments).await.unwrap();
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery.unwrap();
        let body = match serde_json::from_slice::<Value>(&delivery.data) {
            Ok(mut body) if body.is_object() => {
                body[LATER] = json!({"deep": [1, null, {"er": true}]});
                if body["options"].is_object() {
                    body["options"][LATER] = json!(["x"]);
                }
                body.to_string().into_bytes()
            }
            Ok(_) | Err(_) => delivery.data.clone(),
        };
        let mut headers = delivery.properties.headers().clone().unwrap_or_default();
        headers.insert(LATER.into(), AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Boolean(true)])));
        headers.insert("tracestate".into(), AMQPValue::LongLongInt(-1));
        let properties = delivery.properties.clone().with_headers(headers).with_type("of_tomorrow".into());
        let properties =
            properties.with_app_id("planrelay/9".into()).with_priority(3).with_content_type("application/cbor".into());
        let published =
            channel.basic_publish("".into(), name.as_str().into(), BasicPublishOptions::default(), &body, properties).await;
        published.unwrap().await.unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        *counts.lock().unwrap().entry(queue).or_default() += 1;
    }
}

/// Adds to every key of every run what a newer release might keep there, again and again.
async fn enrich(prefix: &str, runs: &[RunId]) {
    let mut connection = stores::connection().await;
    // A value that has changed meanwhile is left alone: a newer release would write both in one verb.
    let replace =
        Lua::new("if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end");
    let trail = Lua::new(
        "if redis.call('EXISTS', KEYS[1]) == 1 then \
         redis.call('XADD', KEYS[1], '*', 'type', 'pondered', 'slot', 'review', 'data', '[1]', 'mood', 'good') end",
    );
    let add = Lua::new("if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], unpack(ARGV)) end");
    loop {
        for run in runs {
            let key = |name: &str| format!("{prefix}:{{{run}}}:{name}");
            let fields = [LATER, "x", "held_joules", "9", "max_joules", "100"];
            let () = add.key(key("run")).arg(&fields).invoke_async(&mut connection).await.unwrap();
            let fields =
                ["1:mood", "good", "plan:mood", "bad", "summary:mood", "", "review:state", "musing", "review:since", "1"];
            let () = add.key(key("steps")).arg(&fields).invoke_async(&mut connection).await.unwrap();
            let () = trail.key(key("events")).invoke_async(&mut connection).await.unwrap();
            for name in ["results", "specs", "plan"] {
                let all = connection.hgetall(key(name)).await.unwrap();
                for (field, old) in all.iter().filter(|(_, text)| !text.contains(LATER)) {
                    let mut new: Value = serde_json::from_str(old).unwrap();
                    new[LATER] = json!({"x": 1});
                    let call = &mut replace.key(key(name));
                    let () = call.arg(field).arg(old).arg(new.to_string()).invoke_async(&mut connection).await.unwrap();
                }
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Does what the words say.
fn acted(request: &Request) -> ScriptedMove {
    let prompt = request.prompt();
    match prompt {
        _ if prompt.contains("please fail") => ScriptedMove::Fail { why: "the source is gone".into(), retryable: false },
        _ if prompt.contains("please look up") && !request.has_tool_output() => {
            ScriptedMove::Call("calculate", json!({"expression": "6*7"}))
        }
        _ => ScriptedMove::Answer("did it".into()),
    }
}

fn revised(_: &Request) -> Value {
    let mut new = step(9, "please do it another way", &[]);
    new["replaces"] = 2.into();
    json!({"decision": "revise", "reason": "there is another way", "steps": [new], "drop": []})
}

/// One of each kind: what is submitted, and what is told to it afterwards.
fn kinds() -> Vec<(&'static str, Value)> {
    let sums = [exact(1, "2*3", &[]), exact(2, "6*7", &[1]), exact(3, "1+1", &[1, 2])];
    let failing = [exact(1, "2*3", &[]), step(2, "please fail", &[1]), step(3, "please compare", &[1, 2])];
    let slow = [exact(1, "2*3", &[]), step(2, "please look up", &[1])];
    let of = |plan: &[Value], options: Value| json!({"objective": "x", "plan": {"steps": plan}, "options": options});
    vec![
        ("exact", of(&sums, json!({"respond": "results"}))),
        ("modelled", json!({"objective": "x"})),
        ("revised", of(&failing, json!({"respond": "results"}))),
        ("partial", of(&failing, json!({"respond": "results", "replan": "never"}))),
        ("approved", of(&sums, json!({"respond": "results", "approve": "plan"}))),
        ("paused", of(&slow, json!({"respond": "results", "max_parallel_steps": 1}))),
        ("cancelled", of(&sums, json!({"respond": "results", "approve": "plan"}))),
        ("budgeted", of(&sums, json!({"respond": "results", "max_tool_calls": 2, "max_parallel_steps": 1}))),
    ]
}

async fn tell(world: &World, kind: &str, run: &RunId) {
    match kind {
        "approved" | "cancelled" => {
            world.until(run, "a plan that waits", |view| view.status == RunStatus::AwaitingApproval).await;
            let command = if kind == "approved" { "approve" } else { "cancel" };
            world.control(run, json!({"command": command, "by": "ann"})).await;
        }
        "paused" => {
            world.until(run, "a run", |_| true).await;
            world.control(run, json!({"command": "pause"})).await;
            world.control(run, json!({"command": "resume"})).await;
        }
        _ => {}
    }
}

#[track_caller]
fn judge(kind: &str, document: &RunDocument) {
    let outcomes: Vec<(u32, Outcome)> = document.step_results.iter().map(|step| (step.step_number.0, step.outcome)).collect();
    let (all, answer) = ([1, 2, 3].map(|n| (n, Outcome::Succeeded)).to_vec(), document.final_response.as_deref());
    match kind {
        "exact" | "approved" => {
            assert_eq!((document.status, outcomes), (RunStatus::Succeeded, all), "{document:#?}");
            assert_eq!(answer, Some(r#"{"1":"6","2":"42","3":"2"}"#));
        }
        "modelled" => {
            assert_eq!((document.status, answer), (RunStatus::Succeeded, Some("the answer")), "{document:#?}");
            assert_eq!((document.usage.model_calls, document.usage.tool_calls), (4, 1), "nothing is paid for twice");
        }
        "revised" => {
            let steps = [1, 3, 9].map(|n| (n, Outcome::Succeeded));
            assert_eq!((document.status, document.revision, &*outcomes), (RunStatus::Succeeded, 2, &steps[..]), "{document:#?}");
        }
        "partial" => {
            let steps = [(1, Outcome::Succeeded), (2, Outcome::Failed), (3, Outcome::Skipped)];
            assert_eq!((document.status, &*outcomes), (RunStatus::Partial, &steps[..]), "{document:#?}");
        }
        "paused" => assert_eq!((document.status, document.usage.tool_calls), (RunStatus::Succeeded, 2), "{document:#?}"),
        "cancelled" => assert_eq!(document.status, RunStatus::Cancelled, "{document:#?}"),
        "budgeted" => assert_eq!((document.status, document.usage.tool_calls), (RunStatus::Partial, 2), "{document:#?}"),
        other => panic!("no kind {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_of_today_work_with_what_tomorrow_adds() {
    let plan = json!({"steps": [step(1, "please look up", &[])], LATER: 1});
    let script = Script::default().plan(move |_| plan.clone()).act(acted).replan(revised);
    let fake = FakeOpenAi::scripted(script).await;
    let world = World::on(Backend::Servers, Llm::from_config(&llm_config(&fake.base_url())).unwrap(), &config()).await;
    let prefix = world.prefix();
    let mut load = Vec::new();
    for (n, (kind, mut objective)) in (0..EACH).flat_map(|_| kinds()).enumerate() {
        objective["run_id"] = format!("{kind}-{n}").into();
        load.push((kind, RunId::parse(&format!("{kind}-{n}")).unwrap(), objective));
    }
    let runs: Vec<RunId> = load.iter().map(|(_, run, _)| run.clone()).collect();
    let counts = Mutex::default();
    let queues = [Queue::Objectives, Queue::Steps, Queue::Reports, Queue::Completions, Queue::Controls];
    let tomorrow = async {
        tokio::join!(join_all(queues.map(|queue| modernize(prefix, queue, &counts))), enrich(prefix, &runs));
    };
    let today = join_all(load.iter().map(async |(kind, run, objective)| {
        world.submit(objective.clone()).await;
        tell(&world, kind, run).await;
        let document = world.client.wait(run, support::stack::PATIENCE).await.unwrap();
        judge(kind, &document);
        // Readers, too.
        let view = world.client.show(run).await.unwrap().unwrap();
        assert_eq!(view.status, document.status);
        assert!(world.events(run).await.iter().all(|event| event.kind.as_str() != "pondered"));
    }));
    tokio::select! {
        _ = tomorrow => panic!("tomorrow never ends"),
        _ = today => {}
    }
    let listed: BTreeSet<RunId> = world.client.list(1000).await.unwrap().into_iter().map(|line| line.run_id).collect();
    assert_eq!(listed, runs.iter().cloned().collect());
    assert_eq!(world.env.store.dead_letters(10).await.unwrap(), Vec::<String>::new());
    let counts = counts.into_inner().unwrap();
    assert!(queues.iter().all(|queue| counts.get(queue).is_some_and(|count| *count > 0)), "too few came by: {counts:?}");
    a_document_of_tomorrow_is_read(&world, &runs[0]).await;
    world.stop().await;
}

/// A result document with more in it than this release knows.
async fn a_document_of_tomorrow_is_read(world: &World, run: &RunId) {
    let known = world.client.result(run).await.unwrap().unwrap();
    let mut connection = stores::connection().await;
    let key = format!("{}:{{{run}}}:result", world.prefix());
    let mut document: Value = serde_json::from_str(&connection.get(&key).await.unwrap().unwrap()).unwrap();
    document[LATER] = json!({"x": 1});
    document["usage"][LATER] = 1.into();
    document["step_results"][0][LATER] = json!([]);
    document["plan"]["steps"][0][LATER] = json!("x");
    connection.set(&key, document.to_string()).await.unwrap();
    assert_eq!(world.client.result(run).await.unwrap().unwrap(), known);
}
