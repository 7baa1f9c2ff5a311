//! Looks at everything when it is quiet again: every run against the model, its audit trail, its keys and its replies; queues,
//! dead letters, and what belongs to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use common::event::Event;
use common::id::RunId;
use common::message::Queue;
use common::run::{Outcome, RunDocument};
use redis::pipe;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Plan;
use super::board::{Board, Command, Reader, Tracked};
use super::dice::hash;
use super::invariants::{self, Counts};
use super::load::Load;
use super::model::judge;
use super::servers::Servers;
use super::users::REPLIES;
use crate::stack::Stack;

/// How long queues may take to become empty once every run has ended.
const EMPTY_WITHIN: Duration = Duration::from_secs(30);
/// Entries of an audit trail that are read.
const EVENTS_READ: usize = 200_000;

/// A promise that was not kept.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    /// The run; empty if it is about none.
    pub(super) run: String,
    pub(super) what: String,
    /// A command that shows it.
    pub(super) show: String,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) violations: Vec<Violation>,
    pub(super) counts: Counts,
    /// Steps that were given up because too many of their executors died.
    pub(super) poisoned: u32,
    /// Dead letters that nobody had planted: messages that died too often, and were sent again.
    pub(super) revived: usize,
    /// Replies that came.
    pub(super) replies: usize,
}

impl Findings {
    fn wrong(&mut self, what: String) {
        self.violations.push(Violation { run: String::new(), what, show: String::new() });
    }
}

/// Checks everything; what a violation is shown by is written into `folder`.
pub(super) async fn verify(
    plan: &Plan,
    board: &Board,
    stack: &Stack,
    servers: &Servers,
    reader: &mut Reader,
    folder: &Path,
) -> Findings {
    let mut findings = Findings::default();
    for what in board.wrong.borrow().iter() {
        findings.wrong(what.clone());
    }
    let ids: Vec<String> = board.runs.borrow().keys().cloned().collect();
    for id in &ids {
        let run = RunId::parse(id).expect("an id of this test's own");
        let events = stack.store().events(&run, "", EVENTS_READ).await.expect("Redis is back");
        let mut query = pipe();
        query.get(reader.key(id, "result"));
        let (again,): (Option<String>,) = reader.read(&query).await;
        let commands = board.runs.borrow()[id].commands.clone();
        let mut wrong = unanswered(reader, id, &commands).await;
        wrong.extend(keys(reader, id).await);
        wrong.extend(examine(&board.runs.borrow()[id], again.as_deref(), &events, &mut findings));
        if wrong.is_empty() && !plan.keep {
            continue;
        }
        let path = folder.join(format!("{id}.json"));
        let trail = serde_json::to_value(&events).unwrap_or_default();
        let seen = serde_json::json!({"submitted": board.runs.borrow()[id].load.body(), "document": parsed(again.as_deref()), "events": trail});
        std::fs::write(&path, format!("{seen:#}")).expect("a file is written");
        let show = format!("less {}", path.display());
        findings.violations.extend(wrong.into_iter().map(|what| Violation { run: id.clone(), what, show: show.clone() }));
    }
    queues(servers, stack, &mut findings).await;
    letters(board, stack, &mut findings).await;
    strangers(reader, &ids, &mut findings).await;
    findings
}

fn parsed(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// One run: the document, the audit trail, the replies.
fn examine(run: &Tracked, again: Option<&str>, events: &[Event], findings: &mut Findings) -> Vec<String> {
    findings.counts += invariants::count(events);
    let Some(document) = &run.document else {
        let exists = if run.opened.is_some() { "has not ended" } else { "was accepted by the broker and does not exist" };
        return vec![format!("it {exists} (status {:?})", run.status)];
    };
    let mut wrong = Vec::new();
    if again != Some(document) {
        wrong.push("its document has changed after its end".to_owned());
    }
    match serde_json::from_str::<RunDocument>(document) {
        Ok(read) => {
            let poisoned = poisoned(&read, events);
            findings.poisoned += u32::try_from(poisoned.len()).unwrap_or(0);
            wrong.extend(judge(&run.load, &read, &poisoned));
        }
        Err(error) => wrong.push(format!("its document cannot be read: {error}")),
    }
    wrong.extend(invariants::check(events, &dependencies(&run.load)));
    if run.replies.iter().any(|reply| *reply != hash(document)) {
        wrong.push("a reply is not the document".to_owned());
    }
    if run.load.replied && run.replies.is_empty() {
        wrong.push("no reply came".to_owned());
    }
    findings.replies += run.replies.len();
    wrong
}

/// What each step waits for.
fn dependencies(load: &Load) -> BTreeMap<u32, Vec<u32>> {
    let replaced = load.replacement.iter();
    load.steps.iter().chain(replaced).map(|step| (step.number, step.after.clone())).collect()
}

/// Steps that failed because they had ended too many executors, where the trail bears that out.
fn poisoned(document: &RunDocument, events: &[Event]) -> Vec<u32> {
    let given_up =
        |error: &str| error.contains("executors ended while they ran this step") || error.contains("dead letters too often");
    let failed = document.step_results.iter().filter(|step| step.outcome == Outcome::Failed);
    let failed = failed.filter(|step| step.error.as_deref().is_some_and(given_up)).map(|step| step.step_number.0);
    failed.filter(|number| invariants::claims(events, &number.to_string()) > common::limits::CLAIMS_MAX as usize).collect()
}

/// Commands that the broker took and nobody answered.
async fn unanswered(reader: &mut Reader, run: &str, commands: &[Command]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Command { id, .. } in commands {
        let mut query = pipe();
        query.hexists(reader.key(run, "controls"), id);
        let (answered,): (bool,) = reader.read(&query).await;
        if !answered {
            wrong.push(format!("the command {id} was never answered"));
        }
    }
    wrong
}

/// Every key of a run that has ended goes one day.
async fn keys(reader: &mut Reader, run: &str) -> Vec<String> {
    let names = [
        "run", "plan", "specs", "steps", "results", "ready", "flight", "open", "journal", "events", "result", "news", "controls",
    ];
    let mut query = pipe();
    for name in names {
        query.pttl(reader.key(run, name));
    }
    let left: Vec<i64> = reader.read(&query).await;
    // -1: does not expire; -2: is not there.
    names.iter().zip(left).filter(|(_, left)| *left == -1).map(|(name, _)| format!("its key {name} never expires")).collect()
}

/// Every queue is empty, in the end.
async fn queues(servers: &Servers, stack: &Stack, findings: &mut Findings) {
    let deadline = Instant::now() + EMPTY_WITHIN;
    loop {
        let backlog = servers.backlog(stack.prefix()).await;
        let left: Vec<_> = backlog.iter().filter(|queue| queue.ready + queue.unacknowledged > 0).collect();
        if left.is_empty() && backlog.len() == Queue::ALL.len() {
            return;
        }
        if Instant::now() >= deadline {
            let holders = servers.holders().await;
            findings.wrong(format!("queues are not empty: {left:?} (of {REPLIES} and {} others)\n{holders}", backlog.len()));
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Dead letters are the bad messages, all of them; besides only good ones that died too often and were sent again.
async fn letters(board: &Board, stack: &Stack, findings: &mut Findings) {
    let letters = stack.store().dead_letters(1000).await.expect("Redis is back");
    let mut unseen: BTreeSet<String> = board.bad.borrow().iter().cloned().collect();
    let planted = unseen.clone();
    for letter in &letters {
        let read: Value = serde_json::from_str(letter).unwrap_or_default();
        let (body, reason) = (read["body"].as_str().unwrap_or_default(), read["reason"].as_str().unwrap_or_default());
        let mark = body.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).find(|word| planted.contains(*word));
        match mark {
            Some(mark) => {
                unseen.remove(mark);
            }
            None if reason.contains("delivery_limit") || reason.contains("too often") => findings.revived += 1,
            None => findings.wrong(format!("a good message became a dead letter: {letter}")),
        }
    }
    if !unseen.is_empty() {
        findings.wrong(format!("bad messages were lost: {unseen:?}"));
    }
}

/// No run exists that nobody submitted.
async fn strangers(reader: &mut Reader, ids: &[String], findings: &mut Findings) {
    let known: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let mut query = pipe();
    query.cmd("KEYS").arg(reader.shared("*"));
    let (keys,): (Vec<String>,) = reader.read(&query).await;
    for key in keys {
        if let Some((run, ":run")) = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'))
            && !known.contains(run)
        {
            findings.wrong(format!("a run exists that nobody submitted: {key}"));
        }
    }
}
