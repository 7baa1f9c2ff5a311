//! Messages on every queue: whatever comes, it is used or becomes a dead letter with its reason, no other run changes by it, and a good
//! objective right behind it is answered.

use std::time::Duration;

use common::client::Client;
use common::id::RunId;
use common::llm::Llm;
use common::message::Queue;
use serde_json::{Value, json};
use support::world::{Backend, World, config};
use tokio::time::{Instant, sleep};

use self::publish::Publisher;
use super::{Surprises, cases, name};

mod publish;

/// The runs that messages speak of.
const BYSTANDERS: [&str; 3] = ["finished", "waiting", "decided"];
/// What the ids of good runs end with.
const HEALTHY: &str = "-healthy";
/// How often to look whether the outcome is there.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long an outcome may take.
const OUTCOME_WAIT: Duration = Duration::from_secs(10);
/// Letters that a test can tell apart; the store keeps the newest thousand.
const LETTERS_MAX: usize = 1_000;

#[tokio::test(start_paused = true)]
async fn bad_messages_in_memory() {
    bad_messages(Backend::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_messages_on_servers() {
    bad_messages(Backend::Servers).await;
}

async fn bad_messages(backend: Backend) {
    let mut config = config();
    config.run.concurrency = 4;
    let world = World::on(backend, Llm::Offline, &config).await;
    let publisher = Publisher::new(backend).await;
    let bystanders = Bystanders::new(&world).await;
    let mut surprises = Surprises::default();
    let mut seen = Seen::default();
    let cases = cases("messages");
    // One after another a letter is surely this case's; on servers, where waiting takes time, many at once and all their letters.
    let at_once = if backend == Backend::Memory { 1 } else { 70 };
    for chunk in cases.chunks(at_once) {
        for case in chunk {
            publisher.publish(&world, case).await;
            world.submit(good(&healthy(case))).await;
        }
        for case in chunk {
            let answered = world.client.wait(&RunId::parse(&healthy(case)).unwrap(), OUTCOME_WAIT).await;
            assert!(answered.is_ok_and(|document| document.error.is_none()), "{}: no answer to the run behind it", name(case));
        }
        surprises.compare_all(chunk, &seen.outcome(&world, chunk).await);
    }
    assert_eq!(seen.news(&world, &[]).await, News::new(), "something came late");
    bystanders.are_as_they_were(&world).await;
    world.stop().await;
}

/// The id of the good run behind a case.
fn healthy(case: &Value) -> String {
    let letters = name(case).chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '.' });
    letters.take(100).collect::<String>() + HEALTHY
}

/// An objective that needs no model.
fn good(run_id: &str) -> Value {
    let step = json!({"step_number": 1, "description": "x", "tool_hint": "calculate", "arguments": {"expression": "6*7"}});
    json!({"objective": "x", "run_id": run_id, "plan": {"steps": [step]}, "options": {"respond": "results"}})
}

/// Runs that messages of the corpus speak of. `finished` has ended, `waiting` waits for approval and nothing may change it; `decided` waits,
/// too, and commands about it are refused.
struct Bystanders {
    waiting: Value,
    finished: Value,
}

impl Bystanders {
    async fn new(world: &World) -> Self {
        world.run(good("finished")).await;
        for run_id in ["waiting", "decided"] {
            let steps = [
                json!({"step_number": 1, "description": "x", "tool_hint": "calculate", "arguments": {"expression": "1"}}),
                json!({"step_number": 2, "description": "y", "tool_hint": "calculate", "arguments": {"expression": "2"}, "depends_on": [1]}),
            ];
            let options = json!({"respond": "results", "approve": "plan"});
            let run =
                world.submit(json!({"objective": "x", "run_id": run_id, "plan": {"steps": steps}, "options": options})).await;
            world.until(&run, "it waits for approval", |view| view.status.as_str() == "awaiting_approval").await;
        }
        Self { waiting: waiting(world).await, finished: finished(&world.client).await }
    }

    async fn are_as_they_were(&self, world: &World) {
        assert_eq!(waiting(world).await, self.waiting);
        assert_eq!(finished(&world.client).await, self.finished);
    }
}

/// The run with its audit trail.
async fn waiting(world: &World) -> Value {
    let run = RunId::parse("waiting").unwrap();
    json!([world.client.show(&run).await.unwrap(), world.events(&run).await])
}

/// The result document: commands about the run stand in its audit trail, but change nothing.
async fn finished(client: &Client) -> Value {
    json!(client.result(&RunId::parse("finished").unwrap()).await.unwrap())
}

/// What came, each as JSON: `dead_letters` (queue and reason), `run` (how it ended), `reply` (to a command).
type News = Vec<String>;

/// What is expected of a case, likewise.
fn expected(case: &Value) -> News {
    let outcome = &case["expected"];
    let mut news: News = outcome["dead_letters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|letter| json!({"dead_letter": letter}).to_string())
        .collect();
    if let Some(run) = outcome.get("run") {
        news.push(json!({"run": run}).to_string());
    }
    if let Some(reply) = outcome.get("reply") {
        news.push(json!({"reply": reply, "to": name(case)}).to_string());
    }
    assert_ne!(news.is_empty(), outcome != "nothing", "{}: what is expected?", name(case));
    news.sort();
    news
}

impl Surprises {
    fn compare_all(&mut self, cases: &[Value], came: &News) {
        let mut unexpected = came.clone();
        for case in cases {
            for item in expected(case) {
                match unexpected.iter().position(|other| *other == item) {
                    Some(at) => drop(unexpected.remove(at)),
                    None => self.0.push(format!("{}\n  expected {item:.2000}\n  came     not", name(case))),
                }
            }
        }
        let names = || cases.iter().map(name).collect::<Vec<_>>().join(", ");
        self.0.extend(unexpected.iter().map(|item| format!("of {}\n  came     {item:.2000}", names())));
    }
}

/// What earlier cases have left.
#[derive(Default)]
struct Seen {
    runs: Vec<RunId>,
    letters: usize,
}

impl Seen {
    /// What came of the cases: as soon as it is what is expected, or what there is after a while.
    async fn outcome(&mut self, world: &World, cases: &[Value]) -> News {
        let deadline = Instant::now() + OUTCOME_WAIT;
        let mut wanted: News = cases.iter().flat_map(expected).collect();
        wanted.sort();
        let mut came = self.news(world, cases).await;
        while came != wanted && Instant::now() < deadline {
            sleep(LOOK_INTERVAL).await;
            came = self.news(world, cases).await;
        }
        self.letters = world.env.store.dead_letters(LETTERS_MAX).await.unwrap().len();
        self.runs.extend(world.client.list(LETTERS_MAX).await.unwrap().into_iter().map(|line| line.run_id));
        came
    }

    /// What there is that earlier cases have not left.
    async fn news(&self, world: &World, cases: &[Value]) -> News {
        let letters = world.env.store.dead_letters(LETTERS_MAX).await.unwrap();
        let fresh = letters.iter().rev().skip(self.letters);
        let mut news: News = fresh.map(|letter| json!({"dead_letter": letter_of(world, letter)}).to_string()).collect();
        for line in world.client.list(LETTERS_MAX).await.unwrap() {
            let run = line.run_id;
            if self.runs.contains(&run) || run.as_str().ends_with(HEALTHY) || BYSTANDERS.contains(&run.as_str()) {
                continue;
            }
            let document = world.client.result(&run).await.unwrap();
            let ended = document.map(|d| json!({"id": d.run_id, "status": d.status, "error": d.error, "steps": errors(&d)}));
            news.push(json!({"run": ended.unwrap_or_else(|| json!({"id": run, "status": "live"}))}).to_string());
        }
        for case in cases {
            if let Some(reply) = reply(world, case).await {
                news.push(json!({"reply": reply, "to": name(case)}).to_string());
            }
        }
        news.sort();
        news
    }
}

/// The queue that a letter comes from, and why it is one.
fn letter_of(world: &World, letter: &str) -> Value {
    let letter: Value = serde_json::from_str(letter).unwrap();
    let queue = letter["queue"].as_str().unwrap();
    let queue = Queue::ALL.iter().find(|known| known.name(world.prefix()) == queue).map_or(queue, |known| known.role());
    json!([queue, letter["reason"]])
}

/// The errors of a run's steps.
fn errors(document: &common::run::RunDocument) -> Vec<&str> {
    document.step_results.iter().filter_map(|result| result.error.as_deref()).collect()
}

/// What became of a command, where it was looked at.
async fn reply(world: &World, case: &Value) -> Option<Value> {
    let (id, body) = (case["message_id"].as_str()?, case["body"].get("json")?);
    let run = RunId::parse(body.get("run_id")?.as_str()?).ok().filter(|_| case["queue"] == "controls")?;
    let reply = world.env.store.control_reply(&run, id).await.unwrap()?;
    Some(json!({"answer": reply.answer, "message": reply.message, "status": reply.status}))
}
