//! The crash matrix: every named point of every service × every fault, on real processes, RabbitMQ and Redis; each cell ends with
//! every invariant true.
//!
//! The services are the binaries that stand next to the test, which `cargo test -p tests` alone does not build:
//!
//! ```sh
//! cargo build --workspace --bins
//! cargo test -p tests --test e2e matrix -- --nocapture                          # all 125 cells, and a table
//! CELL=C14/SIGKILL cargo test -p tests --test e2e matrix -- --nocapture         # one of them; C14/, SIGKILL and C1/,C2/ are good as well
//! REPEAT=5 JOBS=4 cargo test -p tests --test e2e matrix -- --nocapture          # everything five times, four cells at once
//! ```
//!
//! The points stand in [`support::points`], the traps in the binary `crashing`, the faults in [`fault`], a cell's course and what is
//! checked at its end in [`cell`], the run that makes every point occur in [`script`].

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use support::points::{POINTS, Point};
use support::servers::{PrivateRabbit, PrivateRedis};
use tokio::time::Instant;

mod cell;
mod fault;
mod script;

use fault::Fault;

/// Cells at once.
const JOBS: usize = 8;

/// A point and a fault.
#[derive(Debug, Clone, Copy)]
struct Cell {
    point: &'static Point,
    fault: Fault,
}

impl Cell {
    fn name(self) -> String {
        format!("{}/{}", self.point.name, self.fault.name())
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// The cells whose names hold one of the words of `CELL`, which stand between commas.
fn chosen() -> Vec<Cell> {
    let wanted = std::env::var("CELL").unwrap_or_default();
    let cells = POINTS.iter().flat_map(|point| Fault::ALL.into_iter().map(move |fault| Cell { point, fault }));
    let chosen: Vec<Cell> = cells.filter(|cell| wanted.split(',').any(|word| cell.name().contains(word))).collect();
    assert!(!chosen.is_empty(), "no cell is named {wanted}; they are named as C1/{}", Fault::ALL[0].name());
    chosen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_point_survives_every_fault() {
    let (rabbit, redis) = tokio::join!(PrivateRabbit::start(&[]), PrivateRedis::start(&[]));
    let (rabbit, redis) = (rabbit.url(), redis.url());
    let cells = chosen();
    let repeated = (0..setting("REPEAT", 1)).flat_map(|_| cells.iter().copied());
    let began = Instant::now();
    let run = async |cell: Cell| {
        let ended = AssertUnwindSafe(cell::run(cell, &rabbit, &redis)).catch_unwind().await;
        // The panic itself has been printed where it happened.
        let ended = ended.unwrap_or_else(|_panic| Err(vec!["did not come to its end".to_owned()]));
        println!("{}", line(cell, &ended));
        (cell, ended)
    };
    let ended: Vec<_> = futures::stream::iter(repeated.map(run)).buffer_unordered(setting("JOBS", JOBS)).collect().await;
    let failed: Vec<String> = ended.iter().filter(|(_, ended)| ended.is_err()).map(|(cell, _)| cell.name()).collect();
    let slowest = ended.iter().filter_map(|(cell, ended)| Some((*ended.as_ref().ok()?, cell.name()))).max();
    println!("{} cells in {:.0?}, {} failed; slowest recovery: {slowest:.1?}", ended.len(), began.elapsed(), failed.len());
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

/// A line of the table.
fn line(cell: Cell, ended: &Result<Duration, Vec<String>>) -> String {
    let Cell { point, fault } = cell;
    let outcome = match ended {
        Ok(recovery) => format!("{:6.2} s", recovery.as_secs_f64()),
        Err(wrong) => format!("FAILED: {}", wrong.join("; ")),
    };
    format!("{:4} {:11} {:55} {outcome}", point.name, fault.name(), point.what)
}
