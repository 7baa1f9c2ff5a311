//! The services, each behind proxies of its own, and what is done to them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::board::Board;
use super::dice::Dice;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::stack::{Stack, binary, through};

/// Who runs.
pub(super) const SERVICES: [&str; 7] = ["planner", "planner", "executor", "executor", "executor", "summarizer", "summarizer"];
/// Leases in this test, in seconds.
pub(super) const LEASE_SECS: u32 = 3;
/// How often a process that ended by itself is looked for.
const TEND: Duration = Duration::from_millis(200);
/// A process younger than this may not yet know what to do with a stop signal.
const YOUNG: Duration = Duration::from_secs(5);

/// How long a service may take to stop: its grace of 2 s, and however long a server does not answer.
const STOP_MAX: Duration = Duration::from_secs(30);

/// What is done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Kill,
    Stop,
    Hang,
    HangBeyondLease,
    Reset(Link),
    Delay(Link),
    Blackhole(Link),
    LoseReplies(Link),
}

/// One of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Amqp,
    Redis,
}

/// All of it, in the proportions in which it happens.
const CARDS: [Harm; 16] = [
    Harm::Kill,
    Harm::Kill,
    Harm::Kill,
    Harm::Stop,
    Harm::Stop,
    Harm::Hang,
    Harm::HangBeyondLease,
    Harm::HangBeyondLease,
    Harm::Reset(Link::Amqp),
    Harm::Delay(Link::Amqp),
    Harm::Blackhole(Link::Amqp),
    Harm::LoseReplies(Link::Amqp),
    Harm::Reset(Link::Redis),
    Harm::Delay(Link::Redis),
    Harm::Blackhole(Link::Redis),
    Harm::LoseReplies(Link::Redis),
];

impl Harm {
    fn name(self, service: &str) -> String {
        let link = |link: Link| if link == Link::Amqp { "AMQP" } else { "Redis" };
        match self {
            Harm::Kill => format!("{service}: SIGKILL"),
            Harm::Stop => format!("{service}: SIGTERM"),
            Harm::Hang => format!("{service}: SIGSTOP, shorter than the lease"),
            Harm::HangBeyondLease => format!("{service}: SIGSTOP, longer than the lease"),
            Harm::Reset(l) => format!("{} connections of a service: reset", link(l)),
            Harm::Delay(l) => format!("{} connections of a service: delayed", link(l)),
            Harm::Blackhole(l) => format!("{} connections of a service: blackhole", link(l)),
            Harm::LoseReplies(l) => format!("{} connections of a service: replies lost", link(l)),
        }
    }
}

/// Every replacement that must happen.
pub(super) fn rolls(builds: usize) -> Vec<String> {
    let mut all: Vec<String> =
        SERVICES.iter().flat_map(|service| (0..builds).map(move |from| roll_name(service, from, (from + 1) % builds))).collect();
    all.sort();
    all.dedup();
    all
}

fn roll_name(service: &str, from: usize, to: usize) -> String {
    format!("{service}: build {} in place of build {}", to + 1, from + 1)
}

/// Replaces all services by those of the next build, one after the other, there and back, until the faults are over; then those that are not
/// of the last build, for good.
pub(super) async fn roll(slots: &mut [Slot], builds: &[PathBuf], stack: &Stack, board: &Board, mut dice: Dice, pace: f64) {
    let all: Vec<usize> = (0..slots.len()).collect();
    for round in 1.. {
        let (from, to) = ((round - 1) % builds.len(), round % builds.len());
        for n in dice.shuffled(&all) {
            let pause = Instant::now() + dice.millis(300, 2500).div_f64(pace);
            while Instant::now() < pause && !board.over() {
                tend_all(slots, stack, board).await;
            }
            if board.over() {
                break;
            }
            let slot = &mut slots[n];
            builds[to].join(slot.service).clone_into(&mut slot.program);
            // Not every replacement is a gentle one.
            if dice.percent(30) {
                slot.process.kill();
                slot.start(stack);
                board.fault(format!("{}: killed for it", slot.service));
            } else {
                slot.stop(stack, board).await;
            }
            board.fault(roll_name(slot.service, from, to));
        }
        if board.over() {
            break;
        }
    }
    for slot in slots.iter_mut() {
        let last = builds.last().map(|build| build.join(slot.service)).unwrap_or_default();
        if slot.program != last {
            slot.program = last;
            slot.stop(stack, board).await;
        }
    }
    while !board.done.get() {
        tend_all(slots, stack, board).await;
    }
}

async fn tend_all(slots: &mut [Slot], stack: &Stack, board: &Board) {
    join_all(slots.iter_mut().map(|slot| slot.tend(stack, board))).await;
}

/// Every kind of fault that must happen.
pub(super) fn kinds() -> Vec<String> {
    let mut all: Vec<String> = SERVICES.iter().flat_map(|service| CARDS.map(|card| card.name(service))).collect();
    all.sort();
    all.dedup();
    all
}

/// A place for a service process.
pub(super) struct Slot {
    service: &'static str,
    program: PathBuf,
    amqp: (Proxy, String),
    redis: (Proxy, String),
    process: Process,
    started: Instant,
}

impl Slot {
    /// Starts `service` behind proxies in front of these servers; as it stands in the folder `build`, if given.
    pub(super) async fn new(
        stack: &Stack,
        service: &'static str,
        build: Option<&PathBuf>,
        (amqp_url, redis_url): (&str, &str),
    ) -> Self {
        let (amqp, redis) = (through(amqp_url, 5672).await, through(redis_url, 6379).await);
        let program = build.map_or_else(|| binary(service), |build| build.join(service));
        let process = start(stack, service, &program, (&amqp.1, &redis.1));
        Self { service, program, amqp, redis, process, started: Instant::now() }
    }

    fn start(&mut self, stack: &Stack) {
        self.process = start(stack, self.service, &self.program, (&self.amqp.1, &self.redis.1));
        self.started = Instant::now();
    }

    /// Does harm to it, one card after the other, until the faults are over; then keeps it running until all is done.
    pub(super) async fn torment(&mut self, stack: &Stack, board: &Board, mut dice: Dice, pace: f64) {
        while !board.over() {
            for card in dice.shuffled(&CARDS) {
                let pause = Instant::now() + dice.millis(1500, 9000).div_f64(pace);
                while Instant::now() < pause && !board.over() {
                    self.tend(stack, board).await;
                }
                if board.over() {
                    break;
                }
                self.suffer(card, stack, board, &mut dice).await;
                board.fault(card.name(self.service));
            }
        }
        while !board.done.get() {
            self.tend(stack, board).await;
        }
    }

    /// Starts it again if it has ended by itself, as a service manager would.
    async fn tend(&mut self, stack: &Stack, board: &Board) {
        sleep(TEND).await;
        let Some(status) = self.process.ended() else { return };
        // A service that cannot reach its servers when it starts says so and ends.
        if status.code() == Some(5) {
            board.not_started.set(board.not_started.get() + 1);
        } else {
            board.wrong(format!("{} ended by itself with {status}, see {}", self.service, self.log()));
        }
        self.start(stack);
    }

    async fn suffer(&mut self, harm: Harm, stack: &Stack, board: &Board, dice: &mut Dice) {
        let lease = LEASE_SECS * 1000;
        let proxy = |link: Link| if link == Link::Amqp { &self.amqp.0 } else { &self.redis.0 };
        match harm {
            Harm::Kill => {
                self.process.kill();
                sleep(dice.millis(0, 1500)).await;
                self.start(stack);
            }
            Harm::Stop => self.stop(stack, board).await,
            Harm::Hang => self.hang(dice.millis(200, lease - 800)).await,
            Harm::HangBeyondLease => self.hang(dice.millis(lease + 500, 3 * lease)).await,
            Harm::Reset(link) => proxy(link).reset_connections(),
            Harm::Delay(link) => {
                proxy(link).delay(dice.millis(20, 400));
                sleep(dice.millis(1000, 5000)).await;
                proxy(link).delay(Duration::ZERO);
            }
            Harm::Blackhole(link) => {
                proxy(link).blackhole(true);
                sleep(dice.millis(500, 9000)).await;
                proxy(link).blackhole(false);
            }
            Harm::LoseReplies(link) => {
                proxy(link).lose_replies(dice.between(1, 3) as usize);
                // Not for ever: AMQP has few replies while nothing is published.
                for _ in 0..20 {
                    sleep(Duration::from_millis(100)).await;
                    if proxy(link).losses_to_come() == 0 {
                        break;
                    }
                }
                proxy(link).lose_replies(0);
            }
        }
    }

    fn log(&self) -> std::path::Display<'_> {
        self.process.log.display()
    }

    async fn hang(&self, time: Duration) {
        self.process.pause();
        sleep(time).await;
        self.process.resume();
    }

    async fn stop(&mut self, stack: &Stack, board: &Board) {
        let grown_up = self.started.elapsed() >= YOUNG;
        match timeout(STOP_MAX, self.process.stop()).await {
            // 5: it had not found its servers yet.
            Ok(status) if !grown_up || matches!(status.code(), Some(0 | 5)) => {}
            Ok(status) => board.wrong(format!("{} was asked to stop and ended with {status}, see {}", self.service, self.log())),
            Err(_elapsed) => board.wrong(format!("{} did not stop within {STOP_MAX:?}, see {}", self.service, self.log())),
        }
        // What did not stop dies here.
        self.start(stack);
    }
}

fn start(stack: &Stack, service: &str, program: &Path, (amqp_url, redis_url): (&str, &str)) -> Process {
    stack.start_program(program, service, &[("AMQP_URL", amqp_url), ("REDIS_URL", redis_url)])
}
