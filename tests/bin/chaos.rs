//! `tests/chaos`: a load of runs under random faults, checked against a model. See `support::chaos`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use common::ids::Ids;
use support::chaos::{self, Plan};

/// Runs planrelay under random faults of its services, RabbitMQ and Redis, and verifies every run against an independent model.
/// Everything is started on ports of its own. Exit code 1: a promise was not kept, or too little was tried
#[derive(Debug, Parser)]
#[command(name = "tests/chaos")]
struct Arguments {
    /// How long faults come, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where chance begins; drawn and printed if not given
    #[arg(long)]
    seed: Option<u64>,
    /// How densely faults come; 1 is some sixty a minute
    #[arg(long, default_value_t = 1.0)]
    rate: f64,
    /// Runs in flight at once
    #[arg(long, default_value_t = 40)]
    runs: usize,
    /// Folders with the services of several releases: no faults, but rolling restarts from one to the next, see tests/upgrade
    #[arg(long, value_delimiter = ',')]
    bins: Vec<PathBuf>,
    /// Keep logs, documents and audit trails also if nothing is wrong
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "what it is for")]
async fn main() -> ExitCode {
    let Arguments { seconds, seed, rate, runs, keep, bins: builds } = Arguments::parse();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a small count")]
    let drawn = || (Ids::random().fraction() * 1e6) as u64;
    let (seed, duration, pace) = (seed.unwrap_or_else(drawn), Duration::from_secs(seconds), rate.max(0.01));
    let plan = Plan { seed, duration, pace, in_flight: runs, keep, builds };
    let report = Box::pin(chaos::run(&plan, |line| println!("{line}"))).await;
    println!("{report}");
    if report.is_clean() && report.proves_something() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
