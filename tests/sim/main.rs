//! Simulation: the real planner, executor and summarizer on the broker and the store in memory, one thread, a paused clock, one seed.
//!
//! ```text
//! cargo test -p tests --test sim                                  the same seed twice, seeds that once failed, a fixed set, fresh ones
//! cargo test -p tests --release --test sim -- --seeds 1000000     so many fresh ones, on all processors
//! cargo test -p tests --release --test sim -- --systematic 100    every single crash of a hundred worlds, and pairs
//! cargo test -p tests --test sim -- --seconds 600                 fresh ones for so long
//! cargo test -p tests --test sim -- --seed 42                     one world, with its trace; --crash 17,30 where processes end
//! ```
//!
//! A world is a function of its seed: which processes there are, what users want, what goes wrong at which call. [`check`] looks at every run after
//! every verb that changes it, [`load`] knows what must come out. What fails prints the command that shows it again.

#![expect(clippy::print_stdout, reason = "a test says what it did")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

mod check;
mod dice;
mod faults;
mod load;
mod model;
mod simulation;
mod verdict;
mod world;

use common::ids::Ids;
use dice::Dice;
use tokio::time::Instant;
use world::{Report, Which, live};

/// Worlds in which something was found once: seed, and passes at which processes end, if it was that. A seed means another world when what is
/// drawn from it changes; what was found before that stands as a case of its own: `it pipeline::an_objective_that_is_published_again_…`.
const ONCE_FAILED: &[(u64, Option<&[u64]>)] = &[];
/// Worlds that every test run lives through.
const FIXED: u64 = 150;
/// Worlds in which a process ends at each single point where it may, one world a point; then at pairs of points.
const SYSTEMATIC: std::ops::Range<u64> = 5..7;
/// Pairs of points in each of these.
const PAIRS: usize = 60;
/// How long a test run goes on with fresh worlds.
const FRESH: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| {
        let position = arguments.iter().position(|argument| argument == flag)?;
        Some(arguments.get(position + 1).map_or("", String::as_str))
    };
    for flag in ["--seed", "--seeds", "--seconds", "--systematic"] {
        if value(flag).is_some_and(|text| text.parse::<u64>().is_err()) {
            println!("{flag} needs a whole number");
            return ExitCode::from(2);
        }
    }
    let number = |flag: &str| value(flag).and_then(|text| text.parse::<u64>().ok());
    // The test runner's own flags mean nothing here, and a filter that names other tests means that these are not wanted.
    let filter = arguments.first().filter(|argument| !argument.starts_with('-'));
    if arguments.iter().any(|argument| argument == "--list") || filter.is_some_and(|name| !"simulation".contains(name.as_str())) {
        return ExitCode::SUCCESS;
    }
    // Tools that panic are part of the world; everything else that panics is reported with its world.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = number("--seed") {
        let crashes = value("--crash").map(|list| list.split(',').filter_map(|at| at.parse().ok()).collect());
        return show(&Which { seed, crashes });
    }
    if !same_seed_twice() {
        return ExitCode::FAILURE;
    }
    let fresh =
        Dice::new(Ids::random().run_id(0).as_str().bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31) ^ u64::from(byte)))
            .seed();
    let random = |seed: u64| Which { seed, crashes: None };
    let good = if let Some(count) = number("--seeds") {
        sweep("fresh", (fresh..fresh + count).map(random), Duration::MAX)
    } else {
        let known = ONCE_FAILED.iter().map(|(seed, crashes)| Which { seed: *seed, crashes: crashes.map(<[u64]>::to_vec) });
        let seconds = number("--seconds").map_or(FRESH, Duration::from_secs);
        sweep("once failed", known, Duration::MAX)
            && sweep("fixed", (0..FIXED).map(random), Duration::MAX)
            && systematic(number("--systematic").map_or(SYSTEMATIC, |most| 1..most + 1))
            && sweep("fresh", (fresh..).map(random), seconds)
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// In each of these worlds a process ends at every single point where it may, and at some pairs of points; nothing else goes wrong.
fn systematic(seeds: std::ops::Range<u64>) -> bool {
    seeds.into_iter().all(|seed| {
        let with = |crashes: Vec<u64>| Which { seed, crashes: Some(crashes) };
        let faultless = live_safely(&with(Vec::new()));
        let passes = faultless.passes;
        let dice = Dice::new(seed);
        let pass = || 1 + dice.below(usize::try_from(passes).unwrap_or(usize::MAX)) as u64;
        let pairs: Vec<Which> = (0..PAIRS).map(|_| with(vec![pass(), pass()])).collect();
        sweep(
            &format!("every crash of world {seed}, and pairs"),
            (1..=passes).map(|at| with(vec![at])).chain(pairs),
            Duration::MAX,
        )
    })
}

/// The first test: nothing else means anything if this fails.
fn same_seed_twice() -> bool {
    for seed in [1, 2, 3, 7, 11] {
        let which = Which { seed, crashes: None };
        let (first, second) = (live(&which, true), live(&which, true));
        if first != second {
            let same = first.trace.iter().zip(&second.trace).take_while(|(a, b)| a == b).count();
            let lines = |report: &Report| {
                report.trace.iter().skip(same.saturating_sub(3)).take(6).cloned().collect::<Vec<_>>().join("\n")
            };
            println!("the world {seed} is not the same twice; line {same}:\n{}\nand then:\n{}", lines(&first), lines(&second));
            return false;
        }
    }
    println!("the same seed twice gives the same trace");
    true
}

/// One world with all that happened in it.
fn show(which: &Which) -> ExitCode {
    let report = live(which, true);
    for line in &report.trace {
        println!("{line}");
    }
    println!("{:?}, {} passes\nlongest standstill {:?}", report.counts, report.passes, report.standstill);
    if is_good(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A world that panics is a violation like any other.
fn live_safely(which: &Which) -> Report {
    std::panic::catch_unwind(|| live(which, false)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked".to_owned());
        let (counts, violations) = (BTreeMap::new(), vec![text]);
        Report { which: which.clone(), passes: 0, counts, violations, trace: Vec::new(), standstill: Duration::ZERO }
    })
}

/// Whether nothing was violated; says what was.
fn is_good(report: &Report) -> bool {
    for violation in &report.violations {
        println!("VIOLATION in the world {}: {violation}", report.which);
    }
    if !report.violations.is_empty() {
        println!("see it again: cargo test -p tests --test sim -- {}", report.which);
    }
    report.violations.is_empty()
}

/// What many worlds have come to.
#[derive(Default)]
struct Tally {
    worlds: u64,
    counts: BTreeMap<&'static str, u64>,
    longest: Option<(Duration, Which)>,
    failed: bool,
}

/// Lives through worlds on all processors, for at most so long, until the first that fails.
fn sweep(what: &str, worlds: impl Iterator<Item = Which> + Send, most: Duration) -> bool {
    let started = Instant::now();
    let (worlds, tally) = (Mutex::new(worlds), Mutex::new(Tally::default()));
    let one = || {
        let next = || worlds.lock().expect("no panic").next();
        while started.elapsed() < most && !tally.lock().expect("no panic").failed {
            let Some(which) = next() else { return };
            let report = live_safely(&which);
            let mut tally = tally.lock().expect("no panic");
            tally.worlds += 1;
            for (what, count) in &report.counts {
                *tally.counts.entry(what).or_default() += count;
            }
            tally.longest = tally.longest.take().max(Some((report.standstill, which)));
            tally.failed |= !is_good(&report);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(one);
        }
    });
    let Tally { worlds, counts, longest, failed } = tally.into_inner().expect("no panic");
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    println!("{what}: {worlds} worlds in {:.1} s, {:.0} a minute", minutes * 60.0, worlds as f64 / minutes);
    println!("  {}", counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", "));
    if let Some((standstill, which)) = longest {
        println!("  longest standstill of a run after the last fault: {standstill:?} ({which})");
    }
    !failed
}
