//! What the sequences are made of.

use std::time::Duration;

use common::message::{Command, ReplanPolicy};
use common::meter::Need;
use common::run::{Budget, HaltKind, Outcome};
use common::seam::Fate;
use common::store::{Again, ApprovalRule, ApprovalTimeout, RunRules};
use proptest::prelude::*;

/// One verb with small arguments, or a few that belong together. `run` and `slot` index short lists, `back` says how many epochs a
/// caller is behind.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Open {
        run: usize,
    },
    Claim {
        run: usize,
        slot: usize,
        message: u8,
        redelivered: bool,
        nonce: u8,
        attempt: Option<u32>,
    },
    PutPlan {
        run: usize,
        back: usize,
        behind: u32,
        patch: Patch,
    },
    KeepPlan {
        run: usize,
        back: usize,
        handled: Handled,
        counts: bool,
    },
    Control {
        run: usize,
        id: u8,
        command: Command,
        revision: Seen,
        refused: bool,
        twice: bool,
    },
    /// Something that only a holder of the slot may do.
    Hold {
        run: usize,
        slot: usize,
        back: usize,
        verb: Holding,
    },
    TakeReady {
        run: usize,
        token: u8,
    },
    Advance {
        run: usize,
    },
    TakeBack {
        run: usize,
        slot: usize,
        message: u8,
    },
    Due,
    Tick {
        ms: u64,
    },
    /// The clock goes back, as with a server that takes over and whose clock is behind.
    TickBack {
        ms: u64,
    },
    /// What becomes of the next verb.
    Spoil {
        fate: Fate,
    },
    /// The next verb is made twice in a row.
    Repeat,
    /// A verb is sent again that was sent so many verbs ago.
    Again {
        back: usize,
    },
    /// Remembers what the stores hold.
    Save,
    /// They lose all that came since.
    Lose,
    Look {
        run: usize,
    },
    /// A planner's work: claims the plan and puts or keeps one.
    Plan {
        run: usize,
        patch: Option<Patch>,
    },
    /// An executor's: takes what is ready, claims the first of it that nobody holds, from `slot` on, and maybe reports.
    Work {
        run: usize,
        slot: usize,
        outcome: Option<Outcome>,
    },
    /// Holders of a slot in hand die, one after the other.
    Die {
        run: usize,
        slot: usize,
        times: u8,
    },
    /// Messages of steps become dead letters, one after the other.
    Bury {
        run: usize,
        times: u8,
    },
    /// A summarizer's: claims the answer and maybe ends the run.
    Answer {
        run: usize,
        status: Option<usize>,
    },
}

/// What a holder does.
#[derive(Debug, Clone)]
pub(super) enum Holding {
    Renew,
    Release,
    Journal { turns: usize },
    Halt { kind: HaltKind },
    Reserve { again: bool, need: Need },
    Report { outcome: Outcome },
    Retry { again: Again, after_ms: u64 },
    Finish { status: usize },
}

/// How a plan is revised, or which one is the first.
#[derive(Debug, Clone)]
pub(super) struct Patch {
    pub(super) shape: usize,
    /// Takes this step out and puts another in its place.
    pub(super) replace: Option<usize>,
    /// Gives this step another text.
    pub(super) refine: Option<usize>,
    /// A new step that depends on these.
    pub(super) add: Option<Vec<usize>>,
    pub(super) anyway: bool,
    pub(super) handled: Handled,
}

/// Which ended steps the planner says it has decided on.
#[derive(Debug, Clone)]
pub(super) enum Handled {
    News,
    Nothing,
    These(Vec<usize>),
}

/// Which revision a command says it has seen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen {
    None,
    Current,
    Other,
}

pub(super) fn rules() -> impl Strategy<Value = RunRules> {
    let replan = prop_oneof![
        5 => Just(ReplanPolicy::OnFailure), 3 => Just(ReplanPolicy::AfterEachStep), 1 => Just(ReplanPolicy::Never),
    ];
    let approval = prop::option::weighted(
        0.35,
        (10_000..200_000u64, any::<bool>()).prop_map(|(ms, approve)| ApprovalRule {
            timeout: Duration::from_millis(ms),
            otherwise: if approve { ApprovalTimeout::Approve } else { ApprovalTimeout::Cancel },
        }),
    );
    let deadline = prop::option::weighted(0.3, (60_000..900_000u64).prop_map(Duration::from_millis));
    let limit = |range: std::ops::Range<u64>| prop::option::weighted(0.3, range);
    let budget = (limit(3..20), limit(5..40), limit(60..600), limit(20..100))
        .prop_map(|(model_calls, tool_calls, tokens, cost_nanos)| Budget { model_calls, tool_calls, tokens, cost_nanos });
    let reserve = Need { model_calls: 1, tool_calls: 0, tokens: 40, cost_nanos: 5 };
    (replan, 0..4u32, approval, deadline, budget).prop_map(move |(replan, max_replans, approval, deadline, budget)| RunRules {
        replan,
        max_replans,
        approval,
        deadline,
        budget,
        reserve,
    })
}

fn handled() -> impl Strategy<Value = Handled> {
    prop_oneof![
        6 => Just(Handled::News), 1 => Just(Handled::Nothing),
        1 => prop::collection::vec(1..8usize, 0..3).prop_map(Handled::These),
    ]
}

fn patch() -> impl Strategy<Value = Patch> {
    let step = || prop::option::weighted(0.6, 0..6usize);
    let add = prop::option::weighted(0.6, prop::collection::vec(0..6usize, 0..3));
    (0..6usize, step(), step(), add, any::<bool>(), handled()).prop_map(|(shape, replace, refine, add, anyway, handled)| Patch {
        shape,
        replace,
        refine,
        add,
        anyway,
        handled,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![6 => Just(Outcome::Succeeded), 5 => Just(Outcome::Failed), 1 => Just(Outcome::Cancelled)]
}

fn run() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0usize), 1 => Just(1usize)]
}

fn back() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(0usize), 1 => Just(1usize)]
}

/// 0: the plan; 1 to 7: steps; 8: the summary; above: one that somebody holds.
fn slot() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0usize), 3 => 1..8usize, 1 => Just(8usize), 8 => 9..20usize]
}

/// What a call needs; now and then more than any budget has.
fn need() -> impl Strategy<Value = Need> {
    let small = (0..3u64, 0..2u64, 0..80u64, 0..20u64).prop_map(|(model_calls, tool_calls, tokens, cost_nanos)| Need {
        model_calls,
        tool_calls,
        tokens,
        cost_nanos,
    });
    let large = Need { model_calls: 5_000, tool_calls: 5_000, tokens: 5_000, cost_nanos: 5_000 };
    prop_oneof![4 => small, 1 => Just(large)]
}

fn again() -> impl Strategy<Value = Again> {
    prop_oneof![Just(Again::Retry), Just(Again::Park), Just(Again::Anew("{\"learned\":\"not so\"}".to_owned()))]
}

pub(super) fn held() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![Just(HaltKind::Unreachable), Just(HaltKind::Budget), Just(HaltKind::Deadline)];
    let verb = prop_oneof![
        2 => Just(Holding::Renew),
        1 => Just(Holding::Release),
        2 => (1..4usize).prop_map(|turns| Holding::Journal { turns }),
        1 => kind.prop_map(|kind| Holding::Halt { kind }),
        6 => (prop::bool::weighted(0.2), need()).prop_map(|(again, need)| Holding::Reserve { again, need }),
        8 => outcome().prop_map(|outcome| Holding::Report { outcome }),
        3 => (again(), 0..90_000u64).prop_map(|(again, after_ms)| Holding::Retry { again, after_ms }),
    ];
    let end = (prop_oneof![Just(0usize), Just(8usize)], (0..3usize).prop_map(|status| Holding::Finish { status }));
    (run(), prop_oneof![22 => (slot(), verb), 1 => end], back()).prop_map(|(run, (slot, verb), back)| Op::Hold {
        run,
        slot,
        back,
        verb,
    })
}

fn control() -> impl Strategy<Value = Op> {
    let command = prop_oneof![
        1 => Just(Command::Cancel), 3 => Just(Command::Pause), 3 => Just(Command::Resume), 2 => Just(Command::Approve),
        2 => Just(Command::Reject), 2 => Just(Command::Edit), 3 => Just(Command::Retry),
    ];
    let revision = prop_oneof![4 => Just(Seen::None), 2 => Just(Seen::Current), 1 => Just(Seen::Other)];
    (run(), 0..40u8, command, revision, prop::bool::weighted(0.05), prop::bool::weighted(0.4))
        .prop_map(|(run, id, command, revision, refused, twice)| Op::Control { run, id, command, revision, refused, twice })
}

/// How every sequence starts: where the interesting states are. Those that chance seldom comes to have a start of their own.
pub(super) fn start() -> impl Strategy<Value = Vec<Op>> {
    let open = || Op::Open { run: 0 };
    let plan = |patch| Op::Plan { run: 0, patch };
    let work = |outcome| Op::Work { run: 0, slot: 0, outcome };
    let hold = |slot, verb| Op::Hold { run: 0, slot, back: 0, verb };
    let retry = move |slot, again| hold(slot, Holding::Retry { again, after_ms: 5_000 });
    let one_step = || patch().prop_map(|patch| Some(Patch { shape: 3, ..patch }));
    let planned = prop::option::weighted(0.9, patch()).prop_map(move |patch| vec![open(), plan(patch), work(None)]);
    let plan_given_back = again().prop_map(move |how| {
        let claim = Op::Claim { run: 0, slot: 0, message: 0, redelivered: false, nonce: 0, attempt: None };
        let later = [Op::Look { run: 0 }, Op::Tick { ms: 100_000 }, Op::Advance { run: 0 }];
        [open(), claim, retry(0, how)].into_iter().chain(later).collect()
    });
    let answer_given_back = (one_step(), again()).prop_map(move |(patch, how)| {
        let answer = Op::Answer { run: 0, status: None };
        let later = [retry(8, how), Op::Look { run: 0 }, Op::Tick { ms: 100_000 }, Op::TakeBack { run: 0, slot: 8, message: 9 }];
        [open(), plan(patch), work(Some(Outcome::Succeeded)), answer].into_iter().chain(later).collect()
    });
    let retried = (one_step(), outcome(), 1..3usize).prop_map(move |(patch, outcome, status)| {
        let end = hold(8, Holding::Finish { status });
        let command = Command::Retry;
        let retry = Op::Control { run: 0, id: 0, command, revision: Seen::None, refused: false, twice: true };
        let late = [hold(1, Holding::Report { outcome }), hold(1, Holding::Release)];
        let ended = [open(), plan(patch), work(Some(outcome)), Op::Answer { run: 0, status: None }, end];
        ended.into_iter().chain(late).chain([retry]).collect()
    });
    let used_up = (one_step(), again()).prop_map(move |(patch, how)| {
        let need = Need { model_calls: 5_000, tool_calls: 5_000, tokens: 5_000, cost_nanos: 5_000 };
        vec![open(), plan(patch), work(None), hold(1, Holding::Reserve { again: false, need }), retry(1, how)]
    });
    // Two holders want more and more: they stand in each other's way before the budget is used up.
    let side_by_side = patch().prop_map(move |patch| {
        let need = |amount: u64| Need { tokens: amount, cost_nanos: amount / 4, ..Need::default() };
        let reserve = move |slot, amount| hold(slot, Holding::Reserve { again: false, need: need(amount) });
        let more = [20, 40, 80, 160, 320].into_iter().flat_map(move |amount| [reserve(1, amount), reserve(2, amount)]);
        [open(), plan(Some(Patch { shape: 4, ..patch })), work(None), work(None)].into_iter().chain(more).collect()
    });
    prop_oneof![8 => planned, 1 => side_by_side, 1 => plan_given_back, 1 => answer_given_back, 1 => retried, 1 => used_up]
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => run().prop_map(|run| Op::Open { run }),
        8 => (run(), slot(), 0..3u8, any::<bool>(), 0..12u8, prop::option::weighted(0.3, 1..3u32))
            .prop_map(|(run, slot, message, redelivered, nonce, attempt)| Op::Claim { run, slot, message, redelivered, nonce, attempt }),
        16 => held(),
        3 => (run(), back(), 0..2u32, patch()).prop_map(|(run, back, behind, patch)| Op::PutPlan { run, back, behind, patch }),
        2 => (run(), back(), handled(), any::<bool>())
            .prop_map(|(run, back, handled, counts)| Op::KeepPlan { run, back, handled, counts }),
        5 => control(),
        3 => (run(), 0..3u8).prop_map(|(run, token)| Op::TakeReady { run, token }),
        3 => run().prop_map(|run| Op::Advance { run }),
        2 => (run(), slot(), 0..3u8).prop_map(|(run, slot, message)| Op::TakeBack { run, slot, message }),
        1 => Just(Op::Due),
        3 => prop_oneof![0..50u64, 20_000..200_000u64].prop_map(|ms| Op::Tick { ms }),
        2 => run().prop_map(|run| Op::Look { run }),
        10 => (run(), prop::option::weighted(0.8, patch())).prop_map(|(run, patch)| Op::Plan { run, patch }),
        14 => (run(), 0..4usize, prop::option::weighted(0.7, outcome())).prop_map(|(run, slot, outcome)| Op::Work { run, slot, outcome }),
        1 => (run(), 9..20usize, 1..8u8).prop_map(|(run, slot, times)| Op::Die { run, slot, times }),
        1 => (run(), 1..8u8).prop_map(|(run, times)| Op::Bury { run, times }),
        2 => (run(), prop::option::weighted(0.6, 0..4usize)).prop_map(|(run, status)| Op::Answer { run, status }),
    ]
}
