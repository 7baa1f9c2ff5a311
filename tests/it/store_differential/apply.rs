//! Applies one operation to both stores and compares.

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::id::{Slot, StepNumber};
use common::message::Command;
use common::patch::Diff;
use common::quote::Quote;
use common::run::{Halt, Outcome, RunStatus, RunWait, StepRecord, StepState};
use common::store::{Advance, Finish, NewRun, PlanNote, Taken};
use common::wait::Wait;
use proptest::prelude::*;
use serde_json::json;

use super::calls::{Answer, LEASE, Verb};
use super::ops::{Handled, Holding, Op, Patch, Seen};
use super::{Pair, look, patches, run_id};

/// Longer than any sequence: Redis forgets by its own time, memory by the test's.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

type Tested = Result<(), TestCaseError>;

/// The slot that a number means: see `ops`.
async fn slot_of(pair: &Pair, run: usize, slot: usize) -> Slot {
    match slot {
        0 => Slot::Plan,
        8 => Slot::Summary,
        1..8 => Slot::Step(StepNumber(slot as u32)),
        number => {
            let Some(snapshot) = pair.snapshot(run).await else { return Slot::Plan };
            let steps = snapshot.view.steps.iter().filter(|step| step.state == StepState::Running);
            let mut held: Vec<Slot> = steps.map(|step| Slot::Step(step.step.step_number)).collect();
            let running = |waiting: &&RunWait| matches!(waiting.wait, Wait::Running { .. });
            held.extend(snapshot.view.waiting.iter().filter(running).filter_map(|waiting| Slot::parse(&waiting.slot)));
            held.get(number % held.len().max(1)).copied().unwrap_or(Slot::Plan)
        }
    }
}

pub(super) async fn apply(pair: &mut Pair, op: &Op) -> Tested {
    match op.clone() {
        Op::Open { run } => open(pair, run).await,
        Op::Claim { run, slot, message, redelivered, nonce, attempt } => {
            let slot = slot_of(pair, run, slot).await;
            let worker = if nonce % 2 == 0 { "w" } else { "v" };
            let (message_id, nonce) = (format!("m{message}"), format!("n{nonce}"));
            done(pair.send(run, Verb::Claim { slot, message_id, redelivered, nonce, attempt, worker }).await)
        }
        Op::PutPlan { run, back, behind, patch } => put_plan(pair, run, back, behind, &patch).await,
        Op::KeepPlan { run, back, handled, counts } => keep_plan(pair, run, back, &handled, counts).await,
        Op::Control { run, id, command, revision, refused, twice } => {
            control(pair, run, id, command, revision, refused).await?;
            if twice { control(pair, run, id + 100, command, revision, false).await } else { Ok(()) }
        }
        Op::TakeReady { run, token } => take_ready(pair, run, &format!("t{token}")).await,
        Op::Advance { run } => advance(pair, run).await,
        Op::TakeBack { run, slot, message } => {
            let slot = slot_of(pair, run, slot).await;
            take_back(pair, run, slot, &format!("m{message}")).await
        }
        Op::Due => {
            let (mut expected, mut got) = (pair.memory.due(100).await.unwrap(), pair.redis.due(100).await.unwrap());
            expected.sort();
            got.sort();
            prop_assert_eq!(got, expected);
            Ok(())
        }
        Op::Tick { ms } => {
            pair.time.fetch_add(ms, Ordering::SeqCst);
            Ok(())
        }
        Op::TickBack { ms } => {
            pair.time.fetch_sub(ms, Ordering::SeqCst);
            pair.went_back = true;
            pair.came_to("clock back".to_owned());
            Ok(())
        }
        Op::Spoil { fate } => {
            pair.fate = fate;
            Ok(())
        }
        Op::Repeat => {
            pair.repeat = true;
            Ok(())
        }
        Op::Again { back } => pair.send_again(back).await,
        Op::Save => {
            pair.save().await;
            Ok(())
        }
        Op::Lose => {
            pair.lose().await;
            Ok(())
        }
        Op::Look { run } => look(pair, run).await,
        Op::Plan { run, patch } => plan(pair, run, patch.as_ref()).await,
        Op::Work { run, slot, outcome } => work(pair, run, slot, outcome).await,
        Op::Answer { run, status } => answer(pair, run, status).await,
        Op::Die { run, slot, times } => die(pair, run, slot, times).await,
        Op::Bury { run, times } => bury(pair, run, times).await,
        Op::Hold { run, slot, back, verb } => {
            let slot = slot_of(pair, run, slot).await;
            hold(pair, verb, run, slot, back).await
        }
    }
}

async fn plan(pair: &mut Pair, run: usize, patch: Option<&Patch>) -> Tested {
    claim_anew(pair, run, Slot::Plan).await?;
    match patch {
        Some(patch) => put_plan(pair, run, 0, 0, patch).await,
        None => keep_plan(pair, run, 0, &Handled::News, true).await,
    }
}

async fn answer(pair: &mut Pair, run: usize, status: Option<usize>) -> Tested {
    claim_anew(pair, run, Slot::Summary).await?;
    match status {
        Some(status) => finish(pair, run, Slot::Summary, 0, status).await,
        None => Ok(()),
    }
}

async fn die(pair: &mut Pair, run: usize, slot: usize, times: u8) -> Tested {
    let slot = slot_of(pair, run, slot).await;
    for _ in 0..times {
        pair.time.fetch_add(LEASE.as_millis() as u64, Ordering::SeqCst);
        claim_anew(pair, run, slot).await?;
    }
    Ok(())
}

async fn bury(pair: &mut Pair, run: usize, times: u8) -> Tested {
    for _ in 0..times {
        let token = format!("bury-{}", pair.next());
        take_ready(pair, run, &token).await?;
        if let Some(step) = dispatched(pair, run).await.first() {
            take_back(pair, run, Slot::Step(*step), "dead").await?;
        }
    }
    Ok(())
}

/// The verbs of a holder.
async fn hold(pair: &mut Pair, holding: Holding, run: usize, slot: Slot, back: usize) -> Tested {
    let epoch = pair.epoch(run, slot, back);
    let verb = match holding {
        Holding::Renew => Verb::Renew { slot, epoch },
        Holding::Release => Verb::Release { slot, epoch },
        Holding::Journal { turns } => {
            // Turns are recorded in order: a process never skips one.
            for index in 0..turns {
                pair.send(run, Verb::Journal { slot, epoch, index }).await?;
            }
            return Ok(());
        }
        Holding::Halt { kind } => Verb::Halt { slot, epoch, halt: Halt { kind, reason: "no \"way\"/out".to_owned() } },
        Holding::Reserve { again, need } => {
            let number = if again { pair.count } else { pair.next() };
            Verb::Reserve { slot, epoch, number, need }
        }
        Holding::Report { outcome } => return report(pair, run, slot, back, outcome).await,
        Holding::Retry { again, after_ms } => Verb::Retry { slot, epoch, again, after: Duration::from_millis(after_ms) },
        Holding::Finish { status } => return finish(pair, run, slot, back, status).await,
    };
    done(pair.send(run, verb).await)
}

/// Whatever the answer is.
fn done(answer: Result<Answer, TestCaseError>) -> Tested {
    answer.map(|_compared| ())
}

async fn open(pair: &mut Pair, run: usize) -> Tested {
    let new = NewRun {
        request: format!("{{\"objective\":\"goal {run}\"}}"),
        objective: format!("goal {run}"),
        window: 2 + run as u32,
        reply_to: (run == 1).then(|| "reply".to_owned()),
        correlation_id: None,
        traceparent: (run == 0).then(|| "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        rules: pair.rules[run].clone(),
    };
    done(pair.send(run, Verb::Open(Box::new(new))).await)
}

/// By a message and a process that nobody has seen before.
async fn claim_anew(pair: &mut Pair, run: usize, slot: Slot) -> Tested {
    let id = format!("new-{}", pair.next());
    let (message_id, nonce) = (id.clone(), id);
    let claim = Verb::Claim { slot, message_id, redelivered: false, nonce, attempt: None, worker: "fresh" };
    done(pair.send(run, claim).await)
}

async fn put_plan(pair: &mut Pair, run: usize, back: usize, behind: u32, patch: &Patch) -> Tested {
    let Some(snapshot) = pair.snapshot(run).await else { return Ok(()) };
    let revision = patches::revision(&snapshot, patch);
    let handled = patches::handled(&snapshot, &patch.handled);
    let diff = Diff { retired: revision.retired.clone(), ..Diff::default() };
    let quote = Quote { steps: revision.plan.steps.len(), critical_path: handled.clone(), ..Quote::default() };
    let note = PlanNote { reason: "be\"cause".to_owned(), diff: Some(diff), quote: patch.anyway.then_some(quote) };
    let (epoch, current) = (pair.epoch(run, Slot::Plan, back), snapshot.view.revision.saturating_sub(behind));
    let note = Box::new(note);
    done(pair.send(run, Verb::PutPlan { epoch, current, revision, note, handled }).await)
}

async fn keep_plan(pair: &mut Pair, run: usize, back: usize, handled: &Handled, counts: bool) -> Tested {
    let Some(snapshot) = pair.snapshot(run).await else { return Ok(()) };
    let handled = patches::handled(&snapshot, handled);
    let epoch = pair.epoch(run, Slot::Plan, back);
    done(pair.send(run, Verb::KeepPlan { epoch, handled, counts }).await)
}

async fn control(pair: &mut Pair, run: usize, id: u8, command: Command, seen: Seen, refused: bool) -> Tested {
    let current = pair.snapshot(run).await.map_or(0, |snapshot| snapshot.view.revision);
    let revision = match seen {
        Seen::None => None,
        Seen::Current => Some(current),
        Seen::Other => Some(current + 7),
    };
    let (id, reason) = (format!("c{id}"), if id.is_multiple_of(2) { "" } else { "a \"reason\"/why" });
    let refused = if refused { "it is not a plan" } else { "" };
    let verb = Verb::Control { id: id.clone(), command, reason, revision, refused };
    let Answer::Controlled(controlled) = pair.send(run, verb).await? else { return Ok(()) };
    let name = if command == Command::Retry { "retry-run" } else { command.as_str() };
    pair.saw(name, &controlled.answer);
    let owes = [("plan", controlled.plan), ("dispatch", controlled.dispatch), ("summary", controlled.summary)];
    for (what, _) in owes.iter().filter(|(_, owed)| *owed) {
        pair.came_to(format!("command owes {what}"));
    }
    both!(pair.control_reply(&run_id(run), &id));
    Ok(())
}

async fn take_ready(pair: &mut Pair, run: usize, token: &str) -> Tested {
    let answer = pair.send(run, Verb::TakeReady { token: token.to_owned() }).await?;
    let Answer::Taken(Taken { steps, plan }) = answer else { return Ok(()) };
    for (what, _) in [("steps", !steps.is_empty()), ("plan", plan)].iter().filter(|(_, taken)| *taken) {
        pair.came_to(format!("take_ready {what}"));
    }
    Ok(())
}

async fn work(pair: &mut Pair, run: usize, from: usize, outcome: Option<Outcome>) -> Tested {
    let token = format!("work-{}", pair.next());
    take_ready(pair, run, &token).await?;
    let steps = dispatched(pair, run).await;
    let Some(step) = steps.get(from % steps.len().max(1)) else { return Ok(()) };
    claim_anew(pair, run, Slot::Step(*step)).await?;
    match outcome {
        Some(outcome) => report(pair, run, Slot::Step(*step), 0, outcome).await,
        None => Ok(()),
    }
}

async fn dispatched(pair: &Pair, run: usize) -> Vec<StepNumber> {
    let Some(snapshot) = pair.snapshot(run).await else { return Vec::new() };
    let steps = snapshot.view.steps.iter().filter(|step| step.state == StepState::Dispatched);
    steps.map(|step| step.step.step_number).collect()
}

async fn take_back(pair: &mut Pair, run: usize, slot: Slot, message_id: &str) -> Tested {
    done(pair.send(run, Verb::TakeBack { slot, message_id: message_id.to_owned() }).await)
}

async fn report(pair: &mut Pair, run: usize, slot: Slot, back: usize, outcome: Outcome) -> Tested {
    let Slot::Step(step) = slot else { return Ok(()) };
    let failed = outcome != Outcome::Succeeded;
    let record = StepRecord {
        result: json!({"value": step}),
        duration_ms: 5,
        worker: Some("w".to_owned()),
        learned: failed.then(|| "it is broken".to_owned()),
        error: failed.then(|| "broken".to_owned()),
        ..StepRecord::without_result(outcome, String::new())
    };
    let epoch = pair.epoch(run, slot, back);
    done(pair.send(run, Verb::Report { step, epoch, record: Box::new(record) }).await)
}

async fn finish(pair: &mut Pair, run: usize, slot: Slot, back: usize, status: usize) -> Tested {
    let status = [RunStatus::Succeeded, RunStatus::Partial, RunStatus::Failed, RunStatus::Cancelled][status];
    let error = (status == RunStatus::Failed).then(|| "no".to_owned());
    let end = Finish { status, error, document: "{\"a\":1}".to_owned(), retention: RETENTION };
    let epoch = pair.epoch(run, slot, back);
    done(pair.send(run, Verb::Finish { slot, epoch, end }).await)
}

async fn advance(pair: &mut Pair, run: usize) -> Tested {
    let Answer::Advance(Advance::Live { next_look, plan, dispatch, summary }) = pair.send(run, Verb::Advance).await? else {
        return Ok(());
    };
    for (what, _) in [("plan", plan), ("dispatch", dispatch), ("summary", summary)].iter().filter(|(_, owed)| *owed) {
        pair.came_to(format!("advance {what}"));
    }
    both!(pair.looked(&run_id(run), next_look));
    Ok(())
}
