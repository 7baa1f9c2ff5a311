//! Sequences in which calls are lost, answered to nobody, made twice, or made again much later; in which the clock jumps, also back;
//! and in which the stores lose their last writes while those who made them go on.

use common::seam::Fate;
use proptest::prelude::*;

use super::ops::{self, Op};

/// A sequence: how it starts, what is kept, what is lost, what those do then who know nothing of it, and what comes after that.
pub(super) fn sequence() -> impl Strategy<Value = Vec<Op>> {
    let ops = |size| prop::collection::vec(op(), size);
    let strangers = prop::collection::vec(ops::held(), 1..6);
    (ops::start(), ops(0..20), ops(1..14), strangers, ops(1..25)).prop_map(|(start, kept, lost, strangers, after)| {
        [start, kept, vec![Op::Save], lost, vec![Op::Lose], strangers, after].concat()
    })
}

fn op() -> impl Strategy<Value = Op> {
    let fate = prop_oneof![2 => Just(Fate::Unanswered), 1 => Just(Fate::Lost), 1 => Just(Fate::Twice)];
    prop_oneof![
        20 => ops::op(),
        6 => fate.prop_map(|fate| Op::Spoil { fate }),
        5 => Just(Op::Repeat),
        8 => (0..40usize).prop_map(|back| Op::Again { back }),
        2 => (1..5_000u64).prop_map(|ms| Op::TickBack { ms }),
        1 => Just(Op::Lose),
    ]
}

/// How names begin that these sequences must have come to.
pub(super) fn everything() -> Vec<String> {
    let each = |what: &str, names: &[&str]| names.iter().map(|name| format!("{what} {name}")).collect::<Vec<_>>();
    let verbs = ["claim", "put_plan", "keep_plan", "reserve", "journal", "report", "retry", "take_ready", "control"];
    let all = [
        each("Unanswered", &verbs),
        each("Lost", &["claim", "journal", "report"]),
        each("Twice", &["claim", "put_plan", "report"]),
        each("repeated", &verbs),
        each("again claim", &["Execute", "Done", "Duplicate", "Stale"]),
        each("again report", &["Recorded", "Stale"]),
        each("again put_plan", &["Stored", "Lost"]),
        each("again journal", &["Kept", "Lost"]),
        each("again reserve", &["Granted", "Lost"]),
        each("again retry", &["(Kept", "(Lost"]),
        each("forgotten renew", &["Lost"]),
        each("forgotten report", &["Stale"]),
        each("forgotten journal", &["Lost"]),
        each("forgotten reserve", &["Lost"]),
        each("forgotten put_plan", &["Lost"]),
        each("forgotten retry", &["(Lost"]),
        each("claims", &["lost"]),
        each("clock", &["back"]),
    ];
    all.into_iter().flatten().collect()
}
