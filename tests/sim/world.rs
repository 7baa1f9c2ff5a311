//! One simulated world, from its seed to its end: the real services on the servers in memory, one thread, a clock that only moves when nobody
//! has anything to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::broker::{Broker, Envelope, Target};
use common::config::Config;
use common::env::Env;
use common::ids::Ids;
use common::llm::{Llm, Model};
use common::message::{Command, Queue};
use common::metrics::Metrics;
use common::seam::{Seam, Watched};
use common::store::Store;
use common::telemetry::Traces;
use executor::tool::Toolbox;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dice::Dice;
use crate::faults::{ProcessSeam, Rates};
use crate::load::{self, Wish};
use crate::model::{SimModel, SimTool};
use crate::simulation::{Happening, Simulation};

/// How long runs may take after the last fault, by the clock of the world: a plan of slow steps with long back-off takes minutes.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// How long the world goes on after the last run's end: what is left in queues must be gone then.
const QUIET: Duration = Duration::from_secs(90);

/// Which world: everything about it follows from this.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Which {
    /// What there is, and what goes wrong.
    pub(crate) seed: u64,
    /// Instead of what the seed says: nothing goes wrong but that processes end, each at one of these passes, counted over the whole world.
    pub(crate) crashes: Option<Vec<u64>>,
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "--seed {}", self.seed)?;
        match &self.crashes {
            Some(at) if at.is_empty() => f.write_str(" --crash none"),
            Some(at) => write!(f, " --crash {}", at.iter().map(u64::to_string).collect::<Vec<_>>().join(",")),
            None => Ok(()),
        }
    }
}

/// What became of a world.
#[derive(Debug, PartialEq)]
pub(crate) struct Report {
    /// Which one.
    pub(crate) which: Which,
    /// How often a process has passed a point at which it may end.
    pub(crate) passes: u64,
    /// How often each fault happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// What must never be, and was.
    pub(crate) violations: Vec<String>,
    /// What happened, line by line, if that was asked for.
    pub(crate) trace: Vec<String>,
    /// The longest time after the last fault in which nothing happened to a run that had not ended, and that nobody had paused.
    pub(crate) standstill: Duration,
}

/// Lives through a world.
pub(crate) fn live(which: &Which, trace: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads").block_on(async {
        let mut world = World::new(which, trace);
        world.run().await;
        let standstill = world.standstill;
        for life in world.lives.drain(..).flatten() {
            drop(life);
        }
        let passes = world.simulation.passes();
        let (counts, violations, trace) = world.simulation.take();
        Report { which: which.clone(), passes, counts, violations, trace, standstill }
    })
}

/// What the world does at a set time.
#[derive(Debug)]
enum Deed {
    Start(usize),
    Terminate(usize),
    Freeze(usize),
    Reset(usize),
    LoseWrites,
    Vanish,
    LoseHints,
    Submit(usize),
    Control(usize, Command),
    Nonsense,
    Arrive(Vec<(Target, Envelope)>),
    Calm,
    Resubmit,
}

/// A process that lives.
struct Life {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Copy)]
enum Service {
    Planner,
    Executor,
    Summarizer,
}

pub(crate) struct World {
    pub(crate) simulation: Arc<Simulation>,
    happenings: mpsc::UnboundedReceiver<Happening>,
    dice: Dice,
    pub(crate) broker: Broker,
    pub(crate) store: Store,
    config: Config,
    services: Vec<Service>,
    lives: Vec<Option<Life>>,
    agenda: BTreeMap<(Instant, u64), Deed>,
    deeds: u64,
    pub(crate) wishes: Vec<Wish>,
    last_deed_at: Instant,
    calm: bool,
    pub(crate) calm_at_ms: u64,
    pub(crate) standstill: Duration,
    nonsense: usize,
    /// Nothing goes wrong here at all.
    pub(crate) faultless: bool,
}

impl World {
    fn new(which: &Which, trace: bool) -> Self {
        let dice = Dice::new(which.seed);
        let mut rates = Rates::drawn(&dice);
        let mut span = dice.millis(5_000, 120_000);
        let mut forgetful = dice.chance(0.25);
        if which.crashes.is_some() {
            (rates, span, forgetful) = (Rates::default(), Duration::from_secs(40), false);
        }
        let crashes = which.crashes.clone().unwrap_or_default();
        let only_crashes = which.crashes.is_some();
        let (simulation, happenings) = Simulation::new(Dice::new(dice.seed()), rates, &crashes, only_crashes, forgetful, trace);
        let (broker, store) = simulation.servers();
        let mut services = vec![Service::Planner, Service::Executor, Service::Summarizer];
        services.extend(
            [Service::Planner, Service::Executor, Service::Executor, Service::Summarizer].iter().filter(|_| dice.chance(0.5)),
        );
        let wishes = load::wishes(&dice, span);
        let config = support::world::config();
        let lives = services.iter().map(|_| None).collect();
        let (agenda, deeds) = (BTreeMap::new(), 0);
        let mut world = Self {
            simulation,
            happenings,
            dice,
            broker,
            store,
            config,
            services,
            lives,
            agenda,
            deeds,
            wishes,
            last_deed_at: Instant::now(),
            calm: false,
            calm_at_ms: 0,
            standstill: Duration::ZERO,
            nonsense: 0,
            faultless: which.crashes.as_ref().is_some_and(Vec::is_empty),
        };
        world.plan_deeds(span, which.crashes.is_none());
        world
    }

    /// Everything that is to happen, but for what the seams do.
    fn plan_deeds(&mut self, span: Duration, faults: bool) {
        for process in 0..self.services.len() {
            self.later(self.dice.millis(0, 1_000), Deed::Start(process));
        }
        for n in 0..self.wishes.len() {
            let wish = self.wishes[n].clone();
            for _ in 0..wish.copies {
                self.later(wish.at + self.dice.millis(0, 500), Deed::Submit(n));
            }
            for (at, command) in wish.commands {
                self.later(at, Deed::Control(n, command));
            }
        }
        self.later(span, Deed::Calm);
        if !faults {
            return;
        }
        let most = usize::try_from(span.as_millis()).unwrap_or(1_000);
        let some = |dice: &Dice, chance: f64| if dice.chance(chance) { dice.between(1, 4) } else { 0 };
        let dice = self.dice.clone();
        let process = |dice: &Dice| dice.below(self.services.len());
        let mut deeds = Vec::new();
        deeds.extend((0..some(&dice, 0.3)).map(|_| Deed::Terminate(process(&dice))));
        deeds.extend((0..some(&dice, 0.3)).map(|_| Deed::Freeze(process(&dice))));
        deeds.extend((0..some(&dice, 0.3)).map(|_| Deed::Reset(process(&dice))));
        deeds.extend((0..some(&dice, 0.3)).map(|_| Deed::Vanish));
        deeds.extend((0..some(&dice, 0.2)).map(|_| Deed::LoseHints));
        deeds.extend((0..some(&dice, 0.2)).map(|_| Deed::Nonsense));
        if self.simulation.forgetful {
            deeds.extend((0..dice.between(1, 4)).map(|_| Deed::LoseWrites));
        }
        for deed in deeds {
            self.later(dice.millis(0, most), deed);
        }
    }

    fn later(&mut self, after: Duration, deed: Deed) {
        self.deeds += 1;
        self.agenda.insert((Instant::now() + after, self.deeds), deed);
    }

    /// Lives until every run has ended and nothing is left.
    async fn run(&mut self) {
        let begin = Instant::now();
        let calm_at = self.agenda.iter().find(|(_, deed)| matches!(deed, Deed::Calm)).map_or(begin, |((at, _), _)| *at);
        let mut ended_at = None;
        loop {
            self.nobody_has_left();
            if self.simulation.is_violated() {
                return;
            }
            let now = Instant::now();
            match self.calm && self.all_ended().await {
                true => drop(ended_at.get_or_insert(now)),
                false => ended_at = None,
            }
            if ended_at.is_some_and(|ended_at| self.agenda.is_empty() && now >= self.last_deed_at.max(ended_at) + QUIET) {
                return self.at_the_end().await;
            }
            if now > calm_at + PATIENCE {
                return self.hanging().await;
            }
            self.next_deed().await;
        }
    }

    /// A service ends when it is told to, and not before.
    fn nobody_has_left(&mut self) {
        for life in self.lives.iter_mut().flatten() {
            let told = life.stop.is_cancelled();
            match life.tasks.try_join_next() {
                Some(Err(panic)) => self.simulation.violation(format!("a service broke: {panic}")),
                Some(Ok(())) if !told => self.simulation.violation("a service has ended by itself".to_owned()),
                Some(Ok(())) | None => {}
            }
        }
    }

    /// Does what comes next, or nothing for a second.
    async fn next_deed(&mut self) {
        let soon = Instant::now() + Duration::from_secs(1);
        let next = self.agenda.keys().next().map_or(soon, |(at, _)| soon.min(*at));
        tokio::select! {
            biased;
            Some(happening) = self.happenings.recv() => match happening {
                Happening::Crash(process) => {
                    self.lives[process] = None;
                    self.later(self.dice.millis(50, 5_000), Deed::Start(process));
                }
                Happening::Ghost(after, batch) => self.later(after, Deed::Arrive(batch)),
            },
            () = tokio::time::sleep_until(next) => {
                if let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
                    let deed = entry.remove();
                    self.last_deed_at = Instant::now();
                    self.simulation.trace(|| format!("world: {deed:?}"));
                    self.do_it(deed).await;
                }
            }
        }
    }

    async fn do_it(&mut self, deed: Deed) {
        match deed {
            Deed::Start(process) => self.start(process),
            Deed::Terminate(process) => {
                if let Some(life) = &self.lives[process] {
                    self.simulation.count("terminated");
                    life.stop.cancel();
                    self.later(self.dice.millis(100, 40_000), Deed::Start(process));
                }
            }
            Deed::Freeze(process) => self.simulation.freeze(process),
            Deed::Reset(process) if self.lives[process].is_some() => self.simulation.reset(process),
            Deed::Reset(_not_running) => {}
            Deed::LoseWrites => self.simulation.lose_writes(),
            Deed::Vanish => self.simulation.vanish(),
            Deed::LoseHints => {
                self.simulation.count("hints lost");
                for wish in &self.wishes {
                    self.store.settle(&wish.run).await.expect("memory answers");
                }
            }
            Deed::Submit(n) => self.submit(n).await,
            Deed::Control(n, command) => self.control(n, command).await,
            Deed::Nonsense => {
                self.nonsense += 1;
                let queue = *self.dice.pick(&Queue::ALL[..5]);
                let body = self.dice.pick(&["", "{", "[]", "{\"run_id\":\"run 0\"}", "{\"version\":9}"]).as_bytes().to_vec();
                self.publish(Target::Queue(queue), Envelope::new(format!("nonsense-{}", self.nonsense), "nonsense", body)).await;
            }
            Deed::Arrive(batch) => {
                for (target, envelope) in batch {
                    self.publish(target, envelope).await;
                }
            }
            Deed::Calm => self.calm_down(),
            Deed::Resubmit => self.resubmit().await,
        }
    }

    async fn publish(&self, target: Target, envelope: Envelope) {
        // A queue for replies may be missing; everything else is there.
        let _unroutable = self.broker.publish(target, envelope).await;
    }

    /// Starts a process. What is left of an earlier life of it ends here.
    fn start(&mut self, process: usize) {
        let service = self.services[process];
        self.lives[process] = None;
        let life = self.simulation.born(process, &format!("{service:?}-{process}").to_lowercase());
        let seam = Arc::new(ProcessSeam { simulation: Arc::clone(&self.simulation), process, life });
        let env = Env {
            clock: self.simulation.clock,
            ids: Ids::seeded(self.dice.seed()),
            broker: Broker::Watched(Watched::new(self.broker.clone(), Arc::clone(&seam) as Arc<dyn Seam>)),
            store: Store::Watched(Watched::new(self.store.clone(), Arc::clone(&seam) as Arc<dyn Seam>)),
            llm: Llm::Scripted(Arc::new(SimModel(Arc::clone(&seam))) as Arc<dyn Model>),
            metrics: Metrics::new("test"),
            traces: Traces::Off,
            worker: format!("{service:?}-{process}.{life}").to_lowercase().into(),
        };
        let (stop, config) = (CancellationToken::new(), self.config.clone());
        let (stopped, mut tasks) = (stop.clone(), JoinSet::new());
        match service {
            Service::Planner => tasks.spawn(async move { ended(planner::run(env, &config, stopped).await) }),
            Service::Summarizer => tasks.spawn(async move { ended(summarizer::run(env, &config, stopped).await) }),
            Service::Executor => {
                let tools = Toolbox::new(vec![Box::new(SimTool(seam))]).expect("one tool");
                tasks.spawn(async move { ended(executor::run(env, &config, tools, stopped).await) })
            }
        };
        self.lives[process] = Some(Life { stop, tasks });
    }

    async fn submit(&self, n: usize) {
        let wish = &self.wishes[n];
        if let Some(queue) = &wish.reply_to {
            self.simulation.broker.declare(queue);
        }
        let id = format!("{}-{}", wish.run, self.deeds + self.dice.seed());
        let mut envelope = Envelope::new(id, "objective", wish.body.to_string().into_bytes());
        envelope.reply_to.clone_from(&wish.reply_to);
        self.publish(Target::Queue(Queue::Objectives), envelope).await;
    }

    async fn control(&self, n: usize, command: Command) {
        let run = &self.wishes[n].run;
        let body = json!({"run_id": run.as_str(), "command": command.as_str(), "by": "somebody"});
        let envelope =
            Envelope::new(format!("{run}-{}-{}", command.as_str(), self.dice.seed()), "control", body.to_string().into_bytes());
        self.publish(Target::Queue(Queue::Controls), envelope).await;
    }

    /// Nothing goes wrong any more; whoever does not run is started, and what its owner has paused is resumed.
    fn calm_down(&mut self) {
        self.calm = true;
        self.calm_at_ms = self.simulation.clock.now_ms();
        self.simulation.calm_down();
        for process in 0..self.services.len() {
            if self.lives[process].as_ref().is_none_or(|life| life.stop.is_cancelled()) {
                self.agenda.retain(|_, deed| !matches!(deed, Deed::Start(other) if *other == process));
                self.later(self.dice.millis(0, 2_000), Deed::Start(process));
            }
        }
        for n in 0..self.wishes.len() {
            for after in [10, 120] {
                self.later(Duration::from_secs(after), Deed::Control(n, Command::Resume));
            }
        }
        if self.simulation.forgetful {
            self.later(Duration::from_secs(150), Deed::Resubmit);
        }
    }

    /// A store that has forgotten that a run was opened cannot know of it: its owner asks again.
    async fn resubmit(&self) {
        for n in 0..self.wishes.len() {
            if self.store.status(&self.wishes[n].run).await == Ok(None) {
                self.simulation.count("run forgotten");
                self.submit(n).await;
            }
        }
    }
}

/// A service that ends by itself has failed.
fn ended(result: anyhow::Result<()>) {
    result.expect("a service does not fail");
}
