//! Chaos: a load of mixed runs on real services, RabbitMQ and Redis, while all of these are killed, stopped, paused and cut off at
//! random; then every run is compared with an independent model of what it must have come to.
//!
//! What is submitted and which faults come in which order follows from a seed. When they hit, and whom at what work, does not:
//! processes run as they like. The simulation replays; this one finds what the simulation has not thought of.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use crate::fake_openai::FakeOpenAi;
use crate::servers::{PrivateRabbit, PrivateRedis};
use crate::stack::Stack;
use board::{Board, Reader};
use dice::Dice;
pub use report::Report;
use script::Model;
use services::{LEASE_SECS, SERVICES, Slot};
use user::User;

mod backends;
mod board;
mod dice;
mod invariants;
mod load;
mod model;
mod report;
mod script;
mod services;
mod user;
mod users;
mod verify;

/// How often a line says how it goes.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Every kind of fault must have happened once in so many seconds.
const SECS_PER_FAULT: u64 = 200;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where chance begins.
    pub seed: u64,
    /// How long faults come; longer, if some kind of them has hardly happened. Starting, recovery and verification take their time
    /// besides.
    pub duration: Duration,
    /// How densely they come; 1 is some sixty a minute.
    pub pace: f64,
    /// Runs in flight at once.
    pub in_flight: usize,
    /// Folders with the services of two releases or more. Then nothing but this happens: all services are replaced by those of the next one,
    /// one after the other, there and back again. Without: faults of everything.
    pub builds: Vec<PathBuf>,
    /// Logs, documents and audit trails stay for a look also if nothing is wrong.
    pub keep: bool,
}

/// Does it. `say` gets a line now and then.
pub async fn run(plan: &Plan, say: impl Fn(String)) -> Report {
    say(format!("seed {}, {} s of faults, {} runs in flight", plan.seed, plan.duration.as_secs(), plan.in_flight));
    let (mut rabbit, mut redis) = tokio::join!(PrivateRabbit::start(&[]), PrivateRedis::start(&[]));
    let model = Model::new(plan.seed);
    let fake = FakeOpenAi::start(move |request| model.respond(request)).await;
    let (url, lease) = (fake.base_url(), LEASE_SECS.to_string());
    let settings = [
        ("OPENAI_BASE_URL", url.as_str()),
        ("OPENAI_MODEL", "fake-1"),
        ("PLANRELAY_LEASE_SECS", lease.as_str()),
        ("PLANRELAY_SHUTDOWN_GRACE_SECS", "2"),
        ("PLANRELAY_MODEL_TIMEOUT_SECS", "30"),
    ];
    let stack = Stack::on(&rabbit.url(), &redis.url(), &settings).await;
    let (amqp_url, redis_url) = (rabbit.url(), redis.url());
    let urls = (amqp_url.as_str(), redis_url.as_str());
    let mut slots: Vec<Slot> = join_all(SERVICES.map(|service| Slot::new(&stack, service, plan.builds.first(), urls))).await;
    stack.queues_exist().await;
    User::new(amqp_url.clone()).declare(users::REPLIES).await;

    let least = u32::try_from(plan.duration.as_secs() / SECS_PER_FAULT).unwrap_or(u32::MAX).max(1);
    let kinds = match plan.builds.len() {
        0 => services::kinds().into_iter().chain(backends::kinds()).collect(),
        builds => services::rolls(builds),
    };
    let board = Board::new(plan.duration, kinds, least);
    let (user, reader) = (|| User::new(amqp_url.clone()), || Reader::new(&redis_url, stack.prefix()));
    let dice = |whom: &str| Dice::new(plan.seed, whom);
    let harmed = &mut slots;
    let harm = async {
        if !plan.builds.is_empty() {
            return services::roll(harmed, &plan.builds, &stack, &board, dice("roll"), plan.pace).await;
        }
        let harm = harmed.iter_mut().enumerate();
        let harm = harm.map(|(n, slot)| slot.torment(&stack, &board, dice(&format!("slot {n}")), plan.pace));
        tokio::join!(
            join_all(harm),
            backends::torment_rabbit(&mut rabbit, &board, stack.prefix(), dice("RabbitMQ"), plan.pace),
            backends::torment_redis(&mut redis, &board, dice("Redis"), plan.pace),
        );
    };
    tokio::join!(
        users::submit(plan, &board, stack.prefix(), user()),
        users::accompany(&board, stack.prefix(), user(), reader()),
        users::watch(&board, reader()),
        users::collect(&board, user()),
        harm,
        progress(&board, &say),
    );
    say("verifying".to_owned());
    let folder = stack.file("faults.txt", &board.history.borrow());
    let folder = folder.parent().expect("a file stands in a folder").to_owned();
    let findings = verify::verify(plan, &board, &stack, &rabbit, &mut reader(), &folder).await;
    let report = Report::new(plan, &board, findings, folder);
    drop(slots);
    if plan.keep || !report.is_clean() {
        stack.keep_logs();
    }
    report
}

/// Says how it goes.
async fn progress(board: &Board, say: &impl Fn(String)) {
    let started = Instant::now();
    let mut next = started + SAY_EVERY;
    while !board.done.get() {
        sleep(Duration::from_millis(200)).await;
        if Instant::now() < next {
            continue;
        }
        next += SAY_EVERY;
        let (all, live) = (board.runs.borrow().len(), board.live().len());
        let faults: u32 = board.faults.borrow().values().sum();
        let phase = if board.over() { "recovering" } else { "chaos" };
        say(format!(
            "{:>4} s  {phase}: {faults} faults, {} runs ended, {live} in flight",
            started.elapsed().as_secs(),
            all - live
        ));
    }
}
