//! What is known about the runs and the faults while both go on. One task reads and writes it; nothing is held over an await.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use common::clock::Clock;
use redis::{FromRedisValue, Pipeline};
use tokio::time::{Instant, timeout};

use super::load::Load;
use crate::plain::{PlainConnection, PlainRedis};

/// How long Redis may take to answer before it counts as away.
const REDIS_PATIENCE: Duration = Duration::from_secs(2);

/// How far the commands for a run have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// None was sent.
    Quiet,
    /// The first was sent, and its answer is not known yet.
    Sent,
    /// It was answered then.
    Answered(Instant),
    /// The last was sent.
    Settled,
}

/// A run that was submitted, as its submitter sees it.
pub(super) struct Tracked {
    pub(super) load: Load,
    pub(super) published: Instant,
    /// How often the same objective is still to be published.
    pub(super) again: usize,
    /// Since when it is known to exist.
    pub(super) opened: Option<Instant>,
    pub(super) status: String,
    /// Entries of its audit trail, and since when there are so many.
    pub(super) entries: u64,
    pub(super) moved: Instant,
    /// The longest time without a new entry, while nobody held it up on purpose.
    pub(super) stall: Duration,
    pub(super) stage: Stage,
    /// Ids of the commands that the broker has confirmed.
    pub(super) commands: Vec<Command>,
    /// It was there, and Redis has forgotten it.
    pub(super) forgotten: bool,
    pub(super) ended: Option<Instant>,
    /// The result document as it was first read.
    pub(super) document: Option<String>,
    /// Hashes of what came to the reply queue.
    pub(super) replies: Vec<u64>,
}

/// A command for a run that the broker has confirmed.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) id: String,
    pub(super) name: &'static str,
    pub(super) sent: Instant,
}

/// Everything.
pub(super) struct Board {
    /// When the faults end if each kind has happened so often; else they go on, at most for half as long again.
    started: Instant,
    until: Instant,
    at_the_latest: Instant,
    least: u32,
    pub(super) runs: RefCell<BTreeMap<String, Tracked>>,
    pub(super) faults: RefCell<BTreeMap<String, u32>>,
    /// When each was over, by the clock of the logs.
    pub(super) history: RefCell<String>,
    /// When the last fault was over.
    pub(super) last_fault: Cell<Instant>,
    /// What is wrong apart from any run.
    pub(super) wrong: RefCell<Vec<String>>,
    /// Marks of the bad messages that were published.
    pub(super) bad: RefCell<Vec<String>>,
    /// Services that were started while a server was away, ended with exit code 5 and were started again.
    pub(super) not_started: Cell<u32>,
    /// Objectives and commands that had to be published again, because Redis had lost them in a failover.
    pub(super) lost: Cell<u32>,
    /// Nothing is left to watch.
    pub(super) done: Cell<bool>,
}

impl Board {
    /// A board for faults of these kinds, each at least `least` times in `duration`.
    pub(super) fn new(duration: Duration, kinds: Vec<String>, least: u32) -> Self {
        let started = Instant::now();
        let until = started + duration;
        Self {
            started,
            until,
            at_the_latest: until + duration / 2,
            least,
            runs: RefCell::default(),
            faults: RefCell::new(kinds.into_iter().map(|kind| (kind, 0)).collect()),
            history: RefCell::default(),
            last_fault: Cell::new(started),
            wrong: RefCell::default(),
            bad: RefCell::default(),
            not_started: Cell::new(0),
            lost: Cell::new(0),
            done: Cell::new(false),
        }
    }

    /// Whether the time of faults is over.
    pub(super) fn over(&self) -> bool {
        let now = Instant::now();
        now >= self.at_the_latest || (now >= self.until && self.rare().is_empty())
    }

    /// How long faults came.
    pub(super) fn took(&self) -> Duration {
        self.last_fault.get() - self.started
    }

    /// Faults that have not happened often enough: a test that did nothing proves nothing.
    pub(super) fn rare(&self) -> Vec<String> {
        let faults = self.faults.borrow();
        let rare = faults.iter().filter(|(_, times)| **times < self.least);
        rare.map(|(kind, times)| format!("this run proves little: \"{kind}\" happened {times} times, not {}", self.least))
            .collect()
    }

    /// A fault has been done and undone.
    pub(super) fn fault(&self, name: String) {
        self.history.borrow_mut().push_str(&format!("{} {name}\n", Clock::System.now_ms()));
        *self.faults.borrow_mut().entry(name).or_default() += 1;
        self.last_fault.set(Instant::now());
    }

    pub(super) fn wrong(&self, what: String) {
        self.wrong.borrow_mut().push(what);
    }

    /// A run that the broker has just confirmed.
    pub(super) fn submitted(&self, load: Load) {
        let now = Instant::now();
        let tracked = Tracked {
            again: load.again.len(),
            published: now,
            opened: None,
            status: String::new(),
            entries: 0,
            moved: now,
            stall: Duration::ZERO,
            stage: Stage::Quiet,
            commands: Vec::new(),
            forgotten: false,
            ended: None,
            document: None,
            replies: Vec::new(),
            load,
        };
        self.runs.borrow_mut().insert(tracked.load.run.clone(), tracked);
    }

    /// Runs that have not ended.
    pub(super) fn live(&self) -> Vec<String> {
        self.runs.borrow().iter().filter(|(_, run)| run.document.is_none()).map(|(id, _)| id.clone()).collect()
    }
}

/// Reads Redis past all proxies; whatever fails is tried again by whoever asked.
pub(super) struct Reader {
    server: PlainRedis,
    prefix: String,
    connection: Option<PlainConnection>,
}

impl Reader {
    pub(super) fn new(url: &str, prefix: &str) -> Self {
        Self { server: PlainRedis::new(url), prefix: prefix.to_owned(), connection: None }
    }

    /// A key of a run.
    pub(super) fn key(&self, run: &str, name: &str) -> String {
        format!("{}:{{{run}}}:{name}", self.prefix)
    }

    /// A key of no run.
    pub(super) fn shared(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    /// What Redis says, if it says anything.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> Option<T> {
        let asked = timeout(REDIS_PATIENCE, async {
            if self.connection.is_none() {
                self.connection = self.server.connect().await.ok();
            }
            self.connection.as_mut()?.ask(pipeline).await.ok()
        });
        let answer = asked.await.ok().flatten();
        if answer.is_none() {
            self.connection = None;
        }
        answer
    }

    /// What Redis says when it is there again.
    pub(super) async fn read<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> T {
        loop {
            if let Some(answer) = self.ask(pipeline).await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
