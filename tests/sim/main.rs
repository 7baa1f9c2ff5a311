//! Simulation: the real planner, executor and summarizer on the broker and the store in memory, one thread, a paused clock, one seed.
//!
//! ```text
//! cargo test -p tests --test sim                                  the same seed twice, seeds that once failed, a fixed set, fresh ones
//! cargo test -p tests --release --test sim -- --seeds 1000000     so many fresh ones, on all processors
//! cargo test -p tests --test sim -- --seed 42                     one world, with its trace
//! ```
//!
//! A world is a function of its seed: which processes there are, what users want, what goes wrong at which call. [`check`] looks at every run after
//! every verb that changes it, [`load`] knows what must come out. What fails prints the command that shows it again.

#![expect(clippy::print_stdout, reason = "a test says what it did")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

mod check;
mod dice;
mod faults;
mod load;
mod model;
mod simulation;
mod world;

use common::ids::Ids;
use tokio::time::Instant;
use world::{Report, live};

/// Worlds in which something was found once.
const ONCE_FAILED: &[u64] = &[];
/// Worlds that every test run lives through.
const FIXED: u64 = 150;
/// How long a test run goes on with fresh ones.
const FRESH: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| {
        let position = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(position + 1)?.parse::<u64>().ok()
    };
    // The test runner's own flags mean nothing here, and a filter that names other tests means that these are not wanted.
    let named: Vec<&String> =
        arguments.iter().filter(|argument| !argument.starts_with('-') && argument.parse::<u64>().is_err()).collect();
    if arguments.iter().any(|argument| argument == "--list") || named.iter().any(|name| !"simulation".contains(name.as_str())) {
        return ExitCode::SUCCESS;
    }
    // Tools that panic are part of the world; everything else that panics is reported with its world.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = value("--seed") {
        return show(seed);
    }
    if !same_seed_twice() {
        return ExitCode::FAILURE;
    }
    let from = Ids::random().fraction();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of 2^52")]
    let from = (from * (1u64 << 52) as f64) as u64;
    let sweeps = match value("--seeds") {
        Some(count) => vec![Sweep { seeds: from..from + count, most: Duration::MAX }],
        None => vec![
            Sweep { seeds: 0..FIXED, most: Duration::MAX },
            Sweep { seeds: from..u64::MAX, most: value("--seconds").map_or(FRESH, Duration::from_secs) },
        ],
    };
    let known = ONCE_FAILED.iter().all(|seed| report(&[live_safely(*seed)]));
    if known && sweeps.into_iter().all(Sweep::run) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first test: nothing else means anything if this fails.
fn same_seed_twice() -> bool {
    for seed in [1, 2, 3, 7, 11] {
        let (first, second) = (live(seed, true), live(seed, true));
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
fn show(seed: u64) -> ExitCode {
    let report = live(seed, true);
    for line in &report.trace {
        println!("{line}");
    }
    println!("{:?}\nlongest standstill {:?}", report.counts, report.standstill);
    if self::report(&[report]) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A world that panics is a violation like any other.
fn live_safely(seed: u64) -> Report {
    std::panic::catch_unwind(|| live(seed, false)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked".to_owned());
        Report { seed, counts: BTreeMap::new(), violations: vec![text], trace: Vec::new(), standstill: Duration::ZERO }
    })
}

/// Whether nothing was violated; says what was.
fn report(reports: &[Report]) -> bool {
    for report in reports {
        for violation in &report.violations {
            println!("VIOLATION in the world {}: {violation}", report.seed);
        }
        if !report.violations.is_empty() {
            println!("see it again: cargo test -p tests --test sim -- --seed {}", report.seed);
        }
    }
    reports.iter().all(|report| report.violations.is_empty())
}

/// Many worlds.
struct Sweep {
    seeds: std::ops::Range<u64>,
    most: Duration,
}

impl Sweep {
    /// Lives through them on all processors until the first that fails.
    fn run(self) -> bool {
        let started = Instant::now();
        let (next, failed) = (AtomicU64::new(self.seeds.start), AtomicBool::new(false));
        let (counts, slowest) = (Mutex::new(BTreeMap::<&str, u64>::new()), Mutex::new((Duration::ZERO, 0)));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while started.elapsed() < self.most && !failed.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.seeds.end {
                            return;
                        }
                        let world = live_safely(seed);
                        let mut counts = counts.lock().expect("no panic");
                        for (what, count) in &world.counts {
                            *counts.entry(what).or_default() += count;
                        }
                        let mut slowest = slowest.lock().expect("no panic");
                        *slowest = (*slowest).max((world.standstill, seed));
                        if !report(&[world]) {
                            failed.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let lived = next.load(Ordering::Relaxed).min(self.seeds.end) - self.seeds.start;
        let minutes = started.elapsed().as_secs_f64() / 60.0;
        println!(
            "{lived} worlds from seed {} in {:.1} s: {:.0} a minute",
            self.seeds.start,
            minutes * 60.0,
            lived as f64 / minutes
        );
        let counts = counts.into_inner().expect("no panic");
        println!("  {}", counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", "));
        let (standstill, seed) = slowest.into_inner().expect("no panic");
        println!("  longest standstill of a run after the last fault: {standstill:?} (seed {seed})");
        !failed.into_inner()
    }
}
