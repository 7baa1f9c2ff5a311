//! Who submits runs, publishes them again, pauses, approves and cancels them, collects replies and watches how they end.

use std::time::Duration;

use common::message::Queue;
use lapin::BasicProperties;
use redis::pipe;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Plan;
use super::board::{Board, Command, Reader, Stage, Tracked};
use super::dice::{Dice, hash};
use super::load::{Fate, Load};
use super::user::User;

/// Where replies go.
pub(super) const REPLIES: &str = "chaos.replies";
/// How often everybody looks.
const POLL: Duration = Duration::from_millis(200);
/// How long after the last fault runs are waited for. Beyond what is promised, so that the report says how long it took.
const WATCHED_MAX: Duration = Duration::from_secs(240);
/// How long somebody waits for an answer that a failover of Redis may have lost, before asking again.
const LOST_AFTER: Duration = Duration::from_secs(20);
/// A bad message comes after so many good ones.
const GOOD_PER_BAD: u32 = 12;

fn objective(load: &Load) -> BasicProperties {
    let properties = BasicProperties::default().with_delivery_mode(2);
    if !load.replied {
        return properties;
    }
    properties.with_reply_to(REPLIES.into()).with_correlation_id(load.run.as_str().into())
}

/// Keeps so many runs in flight, until the faults are over.
pub(super) async fn submit(plan: &Plan, board: &Board, prefix: &str, mut user: User) {
    let mut dice = Dice::new(plan.seed, "bad messages");
    for number in 1.. {
        while board.live().len() >= plan.in_flight && !board.over() {
            sleep(Duration::from_millis(20)).await;
        }
        if board.over() {
            return;
        }
        let load = Load::new(plan.seed, number);
        user.publish(&Queue::Objectives.name(prefix), load.body().to_string().as_bytes(), &objective(&load)).await;
        board.submitted(load);
        if number % GOOD_PER_BAD == 0 {
            let mark = format!("bad-{number}");
            let (queue, body) = nonsense(&mut dice, &mark);
            user.publish(&queue.name(prefix), body.as_bytes(), &BasicProperties::default()).await;
            board.bad.borrow_mut().push(mark);
        }
    }
}

/// A message that nobody can use.
fn nonsense(dice: &mut Dice, mark: &str) -> (Queue, String) {
    match dice.between(0, 5) {
        0 => (Queue::Objectives, format!("not json {mark}")),
        1 => (Queue::Objectives, json!({"objective": mark, "version": 2}).to_string()),
        2 => (Queue::Steps, json!([mark]).to_string()),
        3 => (Queue::Reports, json!({"run_id": 1, "mark": mark}).to_string()),
        4 => (Queue::Controls, json!({"run_id": "chaos-00001", "command": mark}).to_string()),
        _ => (Queue::Completions, format!("\"{mark}\"")),
    }
}

/// Publishes what is due for one run after the other: objectives once more, and commands.
pub(super) async fn accompany(plan: &Plan, board: &Board, prefix: &str, mut user: User, mut reader: Reader) {
    let mut looked = Instant::now();
    while !board.done.get() {
        sleep(POLL).await;
        if plan.clusters && looked.elapsed() >= LOST_AFTER / 4 {
            publish_lost(board, prefix, &mut user, &mut reader).await;
            looked = Instant::now();
        }
        let again: Vec<Load> = board.runs.borrow_mut().values_mut().filter_map(due_again).collect();
        for load in again {
            user.publish(&Queue::Objectives.name(prefix), load.body().to_string().as_bytes(), &objective(&load)).await;
        }
        learn_answers(board, &mut reader).await;
        let commands: Vec<(String, &str)> = board.runs.borrow().values().filter_map(due_command).collect();
        for (run, command) in commands {
            let command = Command { id: format!("{run}-{command}"), name: command, sent: Instant::now() };
            publish_command(&run, &command, prefix, &mut user).await;
            if let Some(tracked) = board.runs.borrow_mut().get_mut(&run) {
                tracked.commands.push(command.clone());
                tracked.stage = if command.name == "pause" { Stage::Sent } else { Stage::Settled };
            }
        }
    }
}

async fn publish_command(run: &str, command: &Command, prefix: &str, user: &mut User) {
    let body = json!({"run_id": run, "command": command.name, "by": "chaos"}).to_string();
    let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(command.id.as_str().into());
    user.publish(&Queue::Controls.name(prefix), body.as_bytes(), &properties).await;
}

/// Publishes once more, under the same ids, what a Redis that fails over may lose for good: a run that was opened in its last writes, and
/// a command that was carried out in them.
async fn publish_lost(board: &Board, prefix: &str, user: &mut User, reader: &mut Reader) {
    let lost = |run: &&Tracked| run.forgotten || (run.opened.is_none() && run.published.elapsed() >= LOST_AFTER);
    let runs: Vec<Load> = board.runs.borrow().values().filter(lost).map(|run| run.load.clone()).collect();
    for load in runs {
        user.publish(&Queue::Objectives.name(prefix), load.body().to_string().as_bytes(), &objective(&load)).await;
        board.lost.set(board.lost.get() + 1);
        if let Some(tracked) = board.runs.borrow_mut().get_mut(&load.run) {
            (tracked.forgotten, tracked.published) = (false, Instant::now());
        }
    }
    let ripe = |run: &Tracked| run.commands.iter().any(|command| command.sent.elapsed() >= LOST_AFTER);
    let commanded: Vec<String> = board.runs.borrow().iter().filter(|(_, run)| ripe(run)).map(|(id, _)| id.clone()).collect();
    for run in commanded {
        let commands = board.runs.borrow()[&run].commands.clone();
        for command in commands {
            let mut query = pipe();
            query.hexists(reader.key(&run, "controls"), &command.id);
            if reader.ask::<(bool,)>(&query).await == Some((false,)) {
                publish_command(&run, &command, prefix, user).await;
                board.lost.set(board.lost.get() + 1);
            }
        }
    }
}

fn due_again(run: &mut Tracked) -> Option<Load> {
    let at = run.load.again.len().checked_sub(run.again)?;
    let due = run.load.again.get(at).is_some_and(|after| run.published.elapsed() >= *after);
    due.then(|| {
        run.again -= 1;
        run.load.clone()
    })
}

fn due_command(run: &Tracked) -> Option<(String, &'static str)> {
    let ripe = run.opened.is_some_and(|opened| opened.elapsed() >= run.load.command_after) && run.ended.is_none();
    let command = match (run.load.fate, run.stage) {
        (Fate::Cancelled, Stage::Quiet) => "cancel",
        (Fate::Approved, Stage::Quiet) if run.status == "awaiting_approval" => "approve",
        (Fate::Paused, Stage::Quiet) if run.status == "running" => "pause",
        // Commands have no order of their own: whoever wants one waits for the answer to the first.
        (Fate::Paused, Stage::Answered(at)) if at.elapsed() >= run.load.command_after / 2 => "resume",
        _ => return None,
    };
    ripe.then(|| (run.load.run.clone(), command))
}

/// Finds out which pauses have been answered.
async fn learn_answers(board: &Board, reader: &mut Reader) {
    let sent = |(id, run): (&String, &Tracked)| (run.stage == Stage::Sent).then(|| id.clone());
    let sent: Vec<String> = board.runs.borrow().iter().filter_map(sent).collect();
    if sent.is_empty() {
        return;
    }
    let mut query = pipe();
    for run in &sent {
        query.hexists(reader.key(run, "controls"), format!("{run}-pause"));
    }
    let Some(answered) = reader.ask::<Vec<bool>>(&query).await else { return };
    let mut runs = board.runs.borrow_mut();
    for (run, _) in sent.iter().zip(answered).filter(|(_, answered)| *answered) {
        if let Some(tracked) = runs.get_mut(run) {
            tracked.stage = Stage::Answered(Instant::now());
        }
    }
}

/// Notes how every run comes on, until all have ended or nobody believes any more that they will.
pub(super) async fn watch(board: &Board, mut reader: Reader) {
    loop {
        sleep(POLL).await;
        let live = board.live();
        if board.over() && (live.is_empty() || board.last_fault.get().elapsed() > WATCHED_MAX) {
            board.done.set(true);
            return;
        }
        let mut query = pipe();
        for run in &live {
            query.hget(reader.key(run, "run"), "status").xlen(reader.key(run, "events")).get(reader.key(run, "result"));
        }
        if live.is_empty() {
            continue;
        }
        let Some(answers) = reader.ask::<Vec<(Option<String>, u64, Option<String>)>>(&query).await else { continue };
        for (run, answer) in live.iter().zip(answers) {
            if let Some(tracked) = board.runs.borrow_mut().get_mut(run) {
                note(tracked, answer);
            }
        }
    }
}

fn note(run: &mut Tracked, (status, entries, document): (Option<String>, u64, Option<String>)) {
    let Some(status) = status else {
        run.forgotten = run.opened.is_some();
        return;
    };
    let now = Instant::now();
    run.opened.get_or_insert(now);
    let held = matches!(status.as_str(), "paused" | "awaiting_approval");
    if entries != run.entries || held {
        (run.entries, run.moved) = (entries, now);
    }
    run.stall = run.stall.max(now - run.moved);
    run.status = status;
    if document.is_some() {
        (run.ended, run.document) = (Some(now), document);
    }
}

/// Takes what comes to the reply queue, until there is nothing more to come.
pub(super) async fn collect(board: &Board, mut user: User) {
    loop {
        match user.take(REPLIES).await {
            Some((run, body)) => match board.runs.borrow_mut().get_mut(&run) {
                Some(tracked) => tracked.replies.push(hash(&String::from_utf8_lossy(&body))),
                None => board.wrong(format!("a reply came for {run:?}, which nobody submitted")),
            },
            None if board.done.get() => return,
            None => sleep(POLL).await,
        }
    }
}
