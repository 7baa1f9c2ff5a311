//! What all processes of a simulated world share: its servers, its dice, what is known of each process, and what has been seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::broker::{Broker, Envelope, Target, memory::Memory as MemoryBroker};
use common::clock::Clock;
use common::id::{RunId, Slot};
use common::message::{self, StepMessage};
use common::seam::{Call, Fate};
use common::store::memory::{Kept, Memory as MemoryStore};
use common::store::{Store, StoreTime};
use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::check::Checker;
use crate::dice::Dice;
use crate::faults::{self, Rates};
use crate::model::Mishap;

/// Earlier states of the store that are kept to go back to.
const SAVES_MAX: usize = 30;
/// Verbs that change a run, so that it is looked at after them.
const CHANGING: [&str; 15] = [
    "open_run",
    "claim",
    "release",
    "journal",
    "put_plan",
    "keep_plan",
    "halt",
    "reserve",
    "control",
    "take_ready",
    "report",
    "retry",
    "finish",
    "advance",
    "take_back",
];

/// A world and what has been seen of it.
pub(crate) struct Simulation {
    /// The broker's server.
    pub(crate) broker: Arc<MemoryBroker>,
    /// The store's server.
    pub(crate) store: Arc<MemoryStore>,
    /// What time it is.
    pub(crate) clock: Clock,
    /// Whether the store may lose its last writes here.
    pub(crate) forgetful: bool,
    started: Instant,
    dice: Dice,
    happenings: mpsc::UnboundedSender<Happening>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    rates: Rates,
    /// Which passes end their process, and how many there have been.
    crash_at: Vec<u64>,
    passes: u64,
    processes: Vec<Process>,
    trace: Option<Vec<String>>,
    checker: Checker,
    saves: VecDeque<Kept>,
    /// Idempotency keys of tool calls, with what was asked.
    calls: BTreeMap<String, String>,
    /// Messages of which two are about: the other one may be acknowledged.
    twins: BTreeSet<String>,
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
}

/// What the world itself has to do something about.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A process has ended.
    Crash(usize),
    /// A publication arrives after so long.
    Ghost(Duration, Vec<(Target, Envelope)>),
}

/// What is known of a process.
#[derive(Debug, Default)]
struct Process {
    name: String,
    life: u32,
    running: bool,
    stands_until: Option<Instant>,
    /// The messages it has in hand.
    in_hand: BTreeSet<String>,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulation")
    }
}

impl Simulation {
    /// A world without processes, and where to learn of those that end.
    pub(crate) fn new(
        dice: Dice,
        rates: Rates,
        crash_at: &[u64],
        only_crashes: bool,
        forgetful: bool,
        trace: bool,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Happening>) {
        let started = Instant::now();
        let clock = Clock::Tokio { epoch_ms: 1_700_000_000_000, started };
        let (happenings, on_happening) = mpsc::unbounded_channel();
        let checker = Checker::new(only_crashes);
        let inner = Inner { rates, checker, crash_at: crash_at.to_vec(), trace: trace.then(Vec::new), ..Inner::default() };
        let simulation = Self {
            broker: MemoryBroker::new("sim"),
            store: Arc::new(MemoryStore::new(StoreTime::Clock(clock))),
            clock,
            forgetful,
            started,
            dice,
            happenings,
            inner: Mutex::new(inner),
        };
        (Arc::new(simulation), on_happening)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The servers without any seam.
    pub(crate) fn servers(&self) -> (Broker, Store) {
        (Broker::Memory(Arc::clone(&self.broker)), Store::Memory(Arc::clone(&self.store)))
    }

    /// A new life of a process; the first one makes it known.
    pub(crate) fn born(&self, process: usize, name: &str) -> u32 {
        let mut inner = self.lock();
        if inner.processes.len() <= process {
            inner.processes.resize_with(process + 1, Process::default);
        }
        let standing = &mut inner.processes[process];
        let life = standing.life + 1;
        *standing = Process { name: name.to_owned(), life, running: true, ..Process::default() };
        life
    }

    /// The name of a process.
    pub(crate) fn name(&self, process: usize) -> String {
        self.lock().processes[process].name.clone()
    }

    /// Whether that life of the process has ended.
    pub(crate) fn is_over(&self, process: usize, life: u32) -> bool {
        let inner = self.lock();
        let standing = &inner.processes[process];
        standing.life != life || !standing.running
    }

    /// Ends the process, by chance or as planned; whether it did. Idle passes are not counted.
    pub(crate) fn crashes(&self, process: usize, life: u32, idle: bool) -> bool {
        let mut inner = self.lock();
        if inner.processes[process].life != life || !inner.processes[process].running {
            return false;
        }
        inner.passes += u64::from(!idle);
        let planned = !idle && inner.crash_at.contains(&inner.passes);
        if !planned && !self.dice.chance(inner.rates.crash) {
            return false;
        }
        inner.processes[process].running = false;
        inner.count("crash");
        // Nobody listens any more when the world has ended.
        let _heard = self.happenings.send(Happening::Crash(process));
        true
    }

    /// How long a call of the process is held up. It may also stand still from now on.
    pub(crate) fn delay(&self, process: usize) -> Duration {
        let mut inner = self.lock();
        if self.dice.chance(inner.rates.freeze) {
            self.stand_still(&mut inner, process);
        }
        let delay = faults::delay(&self.dice, &inner.rates);
        if !delay.is_zero() {
            inner.count("delay");
        }
        delay
    }

    /// The process stands still for a while, perhaps longer than its leases.
    pub(crate) fn freeze(&self, process: usize) {
        self.stand_still(&mut self.lock(), process);
    }

    fn stand_still(&self, inner: &mut Inner, process: usize) {
        let time = self.dice.millis(100, 70_000);
        inner.count("freeze");
        if let Some(standing) = inner.processes.get_mut(process) {
            standing.stands_until = Some(Instant::now() + time);
        }
    }

    /// Until when the process stands still, if it does.
    pub(crate) fn stands_until(&self, process: usize) -> Option<Instant> {
        self.lock().processes[process].stands_until.filter(|until| *until > Instant::now())
    }

    /// What becomes of a call of the process.
    pub(crate) fn fate(&self, process: usize, call: &Call<'_>) -> Fate {
        let mut inner = self.lock();
        let fate = faults::fate(&self.dice, &inner.rates, call);
        match (call, fate) {
            (Call::Deliver { envelope, .. }, Fate::Passes) => {
                inner.processes[process].in_hand.insert(envelope.message_id.clone());
            }
            (Call::Verb { .. }, Fate::Lost) => inner.count("verb lost"),
            (Call::Verb { .. }, Fate::Unanswered) => inner.count("reply lost"),
            (Call::Verb { .. }, Fate::Twice) => inner.count("verb twice"),
            (Call::Publish { .. }, Fate::Lost) => inner.count("publication lost"),
            (Call::Publish { .. }, Fate::Unanswered) => inner.count("confirm lost"),
            (Call::Publish { batch }, Fate::Twice) => {
                inner.count("published twice");
                inner.twins.extend(batch.iter().map(|(_, envelope)| envelope.message_id.clone()));
            }
            (Call::Publish { .. }, Fate::Cut(_)) => inner.count("batch cut"),
            (Call::Deliver { .. }, Fate::Lost) => inner.count("delivery lost"),
            (Call::Ack { .. }, Fate::Lost) => inner.count("ack lost"),
            (_, _) => {}
        }
        fate
    }

    /// A publication is lost; by chance it arrives after all, much later.
    pub(crate) fn lost(&self, batch: &[(Target, Envelope)]) {
        let mut inner = self.lock();
        if self.dice.chance(inner.rates.ghost) {
            inner.count("ghost");
            let _heard = self.happenings.send(Happening::Ghost(self.dice.millis(1_000, 90_000), batch.to_vec()));
        }
    }

    /// A message has been acknowledged: nothing may be held under it any more (I8).
    pub(crate) fn acknowledged(&self, process: usize, queue: &str, envelope: &Envelope) {
        let mut inner = self.lock();
        inner.processes[process].in_hand.remove(&envelope.message_id);
        if queue.ends_with(".steps")
            && let Ok(message) = message::parse::<StepMessage>(&envelope.body)
            && self.store.held_by(&message.run_id, Slot::Step(message.step_number)).as_ref() == Some(&envelope.message_id)
            && !self.forgetful
            && !inner.twins.contains(&envelope.message_id)
        {
            let what = format!("I8: message {} is acknowledged while its step is held under it", envelope.message_id);
            inner.violations.push(what);
        }
    }

    /// The connection of a process to the broker breaks: what it has in hand goes back.
    pub(crate) fn reset(&self, process: usize) {
        let in_hand = {
            let mut inner = self.lock();
            inner.count("connection reset");
            let in_hand = std::mem::take(&mut inner.processes[process].in_hand);
            // Whoever has one of these in hand may still claim with it, after the redelivery has: the latter is then acknowledged while the
            // former works. Should that process die in this moment, the lease brings the step back, not the broker.
            inner.twins.extend(in_hand.iter().cloned());
            in_hand
        };
        self.broker.give_back(|_, envelope| in_hand.contains(&envelope.message_id));
    }

    /// The store loses its last few verbs.
    pub(crate) fn lose_writes(&self) {
        let mut inner = self.lock();
        let back = self.dice.between(1, SAVES_MAX).min(inner.saves.len());
        let kept = inner.saves.len() - back;
        inner.saves.truncate(kept);
        let Some(kept) = inner.saves.back().cloned() else { return };
        inner.count("writes lost");
        inner.checker.forget();
        self.store.restore(kept);
    }

    /// A few of the messages that wait to be delivered vanish.
    pub(crate) fn vanish(&self) {
        let lost = self.broker.lose(|queue, envelope| self.may_vanish(queue, envelope) && self.dice.chance(0.7));
        if lost > 0 {
            self.lock().count("message vanished");
        }
    }

    /// A batch has been published and confirmed. By chance it vanishes all the same.
    pub(crate) fn published(&self, batch: &[(Target, Envelope)]) {
        let rate = self.lock().rates.vanish;
        if !self.dice.chance(rate) {
            return;
        }
        let ids: BTreeSet<&str> = batch.iter().map(|(_, envelope)| envelope.message_id.as_str()).collect();
        let lost = self.broker.lose(|queue, envelope| ids.contains(&*envelope.message_id) && self.may_vanish(queue, envelope));
        if lost > 0 {
            self.lock().count("publication vanished");
        }
    }

    /// Only what a live run waits for can be missed by somebody. The message that carries the reply of a run that has ended, and whose service
    /// died twice before it was sent, is the only trace of that debt: the answer stands in the store, but nobody is told.
    fn may_vanish(&self, queue: &str, envelope: &Envelope) -> bool {
        let store = Store::Memory(Arc::clone(&self.store));
        let body: serde_json::Value = serde_json::from_slice(&envelope.body).unwrap_or_default();
        let run = body["run_id"].as_str().and_then(|run| RunId::parse(run).ok());
        let known =
            run.is_some_and(|run| matches!(store.status(&run).now_or_never(), Some(Ok(Some(status))) if !status.is_final()));
        known && !queue.ends_with(".controls") && !queue.starts_with("answers")
    }

    /// Looks at the run that a verb was about.
    pub(crate) fn observe(&self, call: &Call<'_>) {
        let Call::Verb { name, run: Some(run), .. } = call else { return };
        if !CHANGING.contains(name) {
            return;
        }
        let mut inner = self.lock();
        if self.forgetful {
            inner.saves.push_back(self.store.save());
            if inner.saves.len() > SAVES_MAX {
                inner.saves.pop_front();
            }
        }
        self.look(&mut inner, run);
    }

    fn look(&self, inner: &mut Inner, run: &RunId) {
        let store = Store::Memory(Arc::clone(&self.store));
        let Some(Ok(Some(snapshot))) = store.snapshot(run).now_or_never() else { return };
        let events = store.events(run, inner.checker.last(run), 10_000).now_or_never();
        let document = store.result(run).now_or_never();
        let (Some(Ok(events)), Some(Ok(document))) = (events, document) else { return };
        if let Err(why) = inner.checker.observe(run, &snapshot, &events, document) {
            inner.violations.push(format!("{why} at {:?}", self.started.elapsed()));
        }
    }

    /// What a model does instead of answering, by chance.
    pub(crate) fn mishap_of_model(&self) -> Option<Mishap> {
        let mut inner = self.lock();
        if !self.dice.chance(inner.rates.model) {
            return None;
        }
        inner.count("model mishap");
        let secs = self.dice.between(1, 40) as u64;
        Some(*self.dice.pick(&[Mishap::Transient, Mishap::RateLimited(secs), Mishap::Garbage, Mishap::Slow(secs)]))
    }

    /// What a tool does instead of answering, by chance.
    pub(crate) fn mishap_of_tool(&self) -> Option<Mishap> {
        let mut inner = self.lock();
        if !self.dice.chance(inner.rates.tool) {
            return None;
        }
        inner.count("tool mishap");
        let secs = self.dice.between(1, 40) as u64;
        Some(*self.dice.pick(&[Mishap::Transient, Mishap::Garbage, Mishap::Slow(secs)]))
    }

    /// How long a model takes.
    pub(crate) fn time_to_think(&self) -> Duration {
        self.dice.millis(1, 3_000)
    }

    /// A tool was called. The same key must never stand for another call.
    pub(crate) fn tool_called(&self, key: &str, expression: &str) {
        let mut inner = self.lock();
        let before = inner.calls.insert(key.to_owned(), expression.to_owned());
        if before.is_some_and(|before| before != expression) {
            inner.violations.push(format!("the idempotency key {key} stands for two different calls, one is {expression:?}"));
        }
    }

    /// From now on nothing goes wrong, and nobody stands still.
    pub(crate) fn calm_down(&self) {
        let mut inner = self.lock();
        inner.rates = Rates::default();
        for process in &mut inner.processes {
            process.stands_until = None;
        }
    }

    /// Adds a line to the trace, if there is one.
    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.lock().trace.is_some() {
            let line = format!("{:>9.3} {}", self.started.elapsed().as_secs_f64(), line());
            if let Some(trace) = &mut self.lock().trace {
                trace.push(line);
            }
        }
    }

    /// Something that must never be.
    pub(crate) fn violation(&self, what: String) {
        self.lock().violations.push(what);
    }

    /// Whether something has been that must never be.
    pub(crate) fn is_violated(&self) -> bool {
        !self.lock().violations.is_empty()
    }

    /// Counts something that happened.
    pub(crate) fn count(&self, what: &'static str) {
        self.lock().count(what);
    }

    /// Whether the run was ever retried.
    pub(crate) fn was_reopened(&self, run: &RunId) -> bool {
        self.lock().checker.was_reopened(run)
    }

    /// How often a process has passed a point at which it may end.
    pub(crate) fn passes(&self) -> u64 {
        self.lock().passes
    }

    /// What was counted, seen and said.
    pub(crate) fn take(&self) -> (BTreeMap<&'static str, u64>, Vec<String>, Vec<String>) {
        let mut inner = self.lock();
        (std::mem::take(&mut inner.counts), std::mem::take(&mut inner.violations), inner.trace.take().unwrap_or_default())
    }
}

impl Inner {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}
