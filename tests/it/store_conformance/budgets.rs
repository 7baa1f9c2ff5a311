//! What a run may use: reserved before a call, settled after it, and never passed by more than what was reserved.

use super::*;

use StepState::{Cancelled, Running, Succeeded};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn calls(model_calls: u64) -> Need {
    Need { model_calls, ..Need::default() }
}

/// At most `most` model calls, of which the answer alone may use `reserve`.
fn limited(most: u64, reserve: u64) -> RunRules {
    let budget = Budget { model_calls: Some(most), ..Budget::default() };
    RunRules { budget, reserve: calls(reserve), ..RunRules::default() }
}

fn used(model_calls: u64) -> Account {
    Account { usage: Usage { model_calls, ..Usage::default() }, events: Vec::new() }
}

fn exhausted(what: &str) -> Reserved {
    Reserved::Exhausted { what: format!("{what} is used up") }
}

#[tokio::test]
async fn calls_side_by_side_cannot_pass_the_limit() {
    on_both(async |bench| {
        bench.planned_with(8, limited(3, 0), &[(1, &[]), (2, &[]), (3, &[1])]).await;
        bench.take("t1").await;
        let (one, two) = (bench.hold(step(1), "m1").await, bench.hold(step(2), "m2").await.epoch);
        assert!(one.budget.is_limited());
        assert_eq!(bench.reserve(step(1), one.epoch, 0, calls(2)).await, Reserved::Granted);
        assert_eq!(bench.reserve(step(1), one.epoch, 0, calls(2)).await, Reserved::Granted, "repeated call, counted once");
        assert_eq!(bench.reserve(step(2), two, 0, calls(1)).await, Reserved::Granted);
        // Step 1 used less than it had reserved.
        assert_eq!(bench.store.journal(&bench.run, step(1), one.epoch, 0, "{}", &used(1)).await.unwrap(), Held::Kept);
        assert_eq!(bench.reserve(step(1), one.epoch, 1, calls(1)).await, Reserved::Granted);
        // A reservation takes the place of the one before; what others hold may come back, what is used does not.
        assert_eq!(bench.reserve(step(2), two, 1, calls(2)).await, Reserved::Busy { what: "max_model_calls".into() });
        assert_eq!(bench.view().await.halt, None);
        assert_eq!(bench.reserve(step(2), two, 2, calls(3)).await, exhausted("max_model_calls"));
        let view = bench.view().await;
        assert_eq!(view.halt.map(|halt| halt.kind), Some(HaltKind::Budget));
        assert_eq!(bench.states().await, [Running, Running, Cancelled], "what runs goes on, nothing starts");
        assert_eq!(bench.reserve(step(1), one.epoch, 2, calls(0)).await, exhausted("max_model_calls"), "no more calls");
        assert_eq!(bench.report(1, one.epoch, Outcome::Succeeded).await, Reported::Recorded(Owed::Nothing));
        assert_eq!(bench.report(2, two, Outcome::Cancelled).await, Reported::Recorded(Owed::Summary));
        assert_eq!(bench.states().await, [Succeeded, Cancelled, Cancelled]);
    })
    .await;
}

#[tokio::test]
async fn what_is_given_back_to_a_run_that_ends_is_owed_again() {
    on_both(async |bench| {
        bench.planned_with(8, limited(3, 0), &[(1, &[])]).await;
        bench.take("t1").await;
        let epoch = bench.hold(step(1), "m1").await.epoch;
        assert_eq!(bench.reserve(step(1), epoch, 0, calls(4)).await, exhausted("max_model_calls"));
        let again = async || {
            let account = Account::default();
            bench.store.retry(&bench.run, step(1), epoch, Again::Retry, LEASE, &account).await.unwrap()
        };
        assert_eq!(again().await, (Held::Kept, Owed::Summary), "there is no other attempt");
        assert_eq!(again().await, (Held::Kept, Owed::Summary), "repeated call");
        assert_eq!(bench.states().await, [Cancelled]);
    })
    .await;
}

#[tokio::test]
async fn a_part_is_kept_for_the_answer() {
    on_both(async |bench| {
        bench.planned_with(8, limited(3, 1), &[(1, &[])]).await;
        bench.take("t1").await;
        let epoch = bench.hold(step(1), "m1").await.epoch;
        assert_eq!(bench.reserve(step(1), epoch, 0, calls(2)).await, Reserved::Granted);
        assert_eq!(bench.reserve(step(1), epoch, 1, calls(3)).await, exhausted("max_model_calls"));
        let record = record(Outcome::Cancelled, 1);
        let reported = bench.store.report(&bench.run, StepNumber(1), epoch, &record, &used(2)).await.unwrap();
        assert_eq!(reported, Reported::Recorded(Owed::Summary));
        let writer = bench.hold(Slot::Summary, "c").await.epoch;
        assert_eq!(bench.reserve(Slot::Summary, writer, 0, calls(1)).await, Reserved::Granted);
        assert_eq!(bench.reserve(Slot::Summary, writer, 1, calls(2)).await, exhausted("max_model_calls"));
        assert_eq!(
            bench.store.renew(&bench.run, Slot::Summary, writer, LEASE).await.unwrap(),
            Held::Kept,
            "it writes what it can"
        );
    })
    .await;
}

#[tokio::test]
async fn what_a_dead_holder_had_reserved_counts_as_spent() {
    on_both(async |bench| {
        let budget = Budget { tokens: Some(100), ..Budget::default() };
        bench.planned_with(8, RunRules { budget, ..RunRules::default() }, &[(1, &[]), (2, &[])]).await;
        bench.take("t1").await;
        let dead = bench.hold(step(1), "m1").await.epoch;
        let need = Need { tokens: 60, ..Need::default() };
        assert_eq!(bench.reserve(step(1), dead, 0, need).await, Reserved::Granted);
        assert!(!bench.view().await.usage.estimated);
        bench.pass(LEASE);
        bench.store.advance(&bench.run).await.unwrap();
        let usage = bench.view().await.usage;
        assert_eq!((usage.input_tokens, usage.estimated), (60, true));
        let other = bench.hold(step(2), "m2").await.epoch;
        assert_eq!(bench.reserve(step(2), other, 0, need).await, exhausted("max_tokens"));
    })
    .await;
}

#[tokio::test]
async fn the_deadline_ends_what_a_budget_let_run() {
    on_both(async |bench| {
        let rules = RunRules { deadline: Some(Duration::from_secs(20)), ..limited(1, 0) };
        bench.planned_with(8, rules, &[(1, &[])]).await;
        bench.take("t1").await;
        let epoch = bench.hold(step(1), "m1").await.epoch;
        bench.reserve(step(1), epoch, 0, calls(1)).await;
        assert_eq!(bench.reserve(step(1), epoch, 1, calls(2)).await, exhausted("max_model_calls"));
        bench.pass(Duration::from_secs(20));
        assert!(matches!(bench.store.advance(&bench.run).await.unwrap(), Advance::Live { summary: true, .. }));
        assert_eq!(bench.states().await, [Cancelled]);
    })
    .await;
}

/// What a holder of one of four steps does.
#[derive(Debug, Clone)]
enum Move {
    Reserve {
        step: u32,
        need: u64,
    },
    /// Uses what it had reserved, or less.
    Settle {
        step: u32,
        saved: u64,
    },
    Die {
        step: u32,
    },
    Report {
        step: u32,
    },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let step = || 1..5u32;
    let one = prop_oneof![
        6 => (step(), 1..4u64).prop_map(|(step, need)| Move::Reserve { step, need }),
        4 => (step(), 0..2u64).prop_map(|(step, saved)| Move::Settle { step, saved }),
        1 => step().prop_map(|step| Move::Die { step }),
        1 => step().prop_map(|step| Move::Report { step }),
    ];
    prop::collection::vec(one, 1..40)
}

/// Spent ≤ budget, whoever does what in which order: a call is made only after its reservation, and takes no more than that.
#[test]
fn a_budget_is_never_passed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(moves(), 4..16u64), |(moves, most)| {
        runtime.block_on(on_both(async |bench| {
            bench.planned_with(8, limited(most, 1), &[(1, &[]), (2, &[]), (3, &[]), (4, &[])]).await;
            bench.take("t1").await;
            let mut holders: [Holder; 5] = Default::default();
            for (count, step_move) in moves.iter().enumerate() {
                play(bench, step_move, count, &mut holders).await;
                let spent = bench.view().await.usage.model_calls;
                let reserved: u64 = holders.iter().map(|holder| holder.reserved).sum();
                assert!(spent + reserved < most, "{spent} spent, {reserved} reserved of {most}, one of it for the answer");
            }
        }));
        Ok(())
    });
    outcome.unwrap();
}

#[derive(Default)]
struct Holder {
    epoch: u64,
    reserved: u64,
    turns: usize,
}

async fn play(bench: &Bench, step_move: &Move, count: usize, holders: &mut [Holder; 5]) {
    let (Move::Reserve { step: number, .. }
    | Move::Settle { step: number, .. }
    | Move::Die { step: number }
    | Move::Report { step: number }) = step_move;
    let (slot, holder) = (step(*number), &mut holders[*number as usize]);
    if holder.epoch == 0 {
        let Claimed::Execute(claim) = bench.claim(slot, &format!("m{number}"), &format!("n{count}")).await else { return };
        holder.epoch = claim.epoch;
    }
    match step_move {
        Move::Reserve { need, .. } => {
            if bench.reserve(slot, holder.epoch, count as u64, calls(holder.reserved + need)).await == Reserved::Granted {
                holder.reserved += need;
            }
        }
        Move::Settle { saved, .. } => {
            let account = used(holder.reserved.saturating_sub(*saved));
            let held = bench.store.journal(&bench.run, slot, holder.epoch, holder.turns, "{}", &account).await.unwrap();
            if held == Held::Kept {
                holder.turns += 1;
                holder.reserved = 0;
            }
        }
        Move::Die { .. } => {
            // The broker gives the message to somebody else.
            let claimed = bench.reclaim(slot, &format!("m{number}"), &format!("n{count}")).await;
            holder.reserved = 0;
            if let Claimed::Execute(claim) | Claimed::Poisoned(claim) = claimed {
                holder.epoch = claim.epoch;
            }
        }
        Move::Report { .. } => {
            let (record, account) = (record(Outcome::Succeeded, *number), used(holder.reserved));
            bench.store.report(&bench.run, StepNumber(*number), holder.epoch, &record, &account).await.unwrap();
            holder.reserved = 0;
        }
    }
}
