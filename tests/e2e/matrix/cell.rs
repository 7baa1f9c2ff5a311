//! One cell: a stack under a prefix of its own, one process with a trap, one fault, and everything that must be true afterwards.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::event::{Event, EventType};
use common::id::RunId;
use common::message::Queue;
use common::run::RunStatus;
use lapin::BasicProperties;
use serde_json::{Value, json};
use support::fake_openai::{FakeOpenAi, Purpose};
use support::invariants::{self, Look};
use support::points::{EFFECTS, Place, SERVICE};
use support::proxy::Way;
use support::stack::{PATIENCE, Process, Stack};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::Cell;
use super::fault::{Fault, Line, Target};
use super::script::{self, EFFECT_STEP, STEPS};

/// The lease of every process here: the shortest that the configuration allows, as [`Stack`] sets it.
const LEASE: Duration = Duration::from_secs(3);
/// How long beyond a lease it takes for everybody to have noticed.
const MARGIN: Duration = Duration::from_millis(300);
/// I16: how long a run may take to end, once the fault is over.
const RECOVERY_MAX: Duration = PATIENCE;
/// How long a reply, or an empty queue, may be later than the result.
const AFTERMATH_MAX: Duration = Duration::from_secs(20);

/// A cell under way.
struct Course {
    cell: Cell,
    stack: Stack,
    redis_url: String,
    model: FakeOpenAi,
    gate: Arc<Semaphore>,
    effects: PathBuf,
    target: Target,
    /// Ordinary processes.
    others: Vec<Process>,
    run: RunId,
    replies: String,
}

/// Runs a cell; gives how long recovery took, or what was wrong at the end.
pub(super) async fn run(cell: Cell, rabbit: &str, redis: &str) -> Result<Duration, Vec<String>> {
    let mut course = Course::start(cell, rabbit, redis).await;
    let mut line = course.target.line().await;
    course.submit().await;
    course.reach_the_point(&mut line).await;
    let before = course.look().await;
    course.strike(line).await;
    let over = Instant::now();
    let mut wrong = Vec::new();
    if timeout(RECOVERY_MAX, course.ended()).await.is_err() {
        wrong.push(format!("I16 the run has not ended {RECOVERY_MAX:?} after the fault"));
        eprintln!("{} has not ended:\n{:#?}\n{}", cell.name(), course.look().await, course.stack.logs());
        return Err(wrong);
    }
    let recovery = over.elapsed();
    wrong.extend(course.verdict(before).await);
    if wrong.is_empty() {
        course.stack.clean().await;
        return Ok(recovery);
    }
    eprintln!("{} ends badly:\n{}", cell.name(), course.stack.logs());
    Err(wrong)
}

impl Course {
    async fn start(cell: Cell, rabbit: &str, redis: &str) -> Self {
        let held = (cell.point.place == Place::Asking).then_some(if cell.point.service == "planner" {
            Purpose::Plan
        } else {
            Purpose::Answer
        });
        let (model, gate) = script::model(held).await;
        let url = model.base_url();
        // What planners know of a tool is that it is configured; which one executors have is their own business.
        let settings =
            [("OPENAI_BASE_URL", url.as_str()), ("OPENAI_MODEL", "fake-1"), ("PLANRELAY_SEARCH_DIR", "."), (EFFECTS, "effects")];
        let stack = Stack::on(rabbit, redis, &settings).await;
        let effects = stack.file("effects", "");
        let target = Target::start(&stack, cell.point, rabbit, redis).await;
        let run = RunId::parse(&cell.name().to_lowercase().replace('/', "-")).unwrap();
        let redis_url = redis.to_owned();
        let (others, replies) = (Vec::new(), String::new());
        let mut course = Self { cell, stack, redis_url, model, gate, effects, target, others, run, replies };
        // Alone at first, so that nobody else's declaration of the same queues breaks its connections: one fault a cell.
        let log = || std::fs::read_to_string(&course.target.process.log).unwrap();
        course.stack.until("the process consumes", async || log().contains("consuming from")).await;
        for service in ["planner", "executor", "summarizer"] {
            let later = service == "executor" && course.needs_a_dead_letter();
            if service != cell.point.service && !later {
                course.start_another(service);
            }
        }
        course
    }

    /// Starts an ordinary process.
    fn start_another(&mut self, service: &str) {
        // An executor is ordinary but for the tool.
        let process = match service {
            "executor" => self.stack.start_with("crashing", &[(SERVICE, service)]),
            other => self.stack.start(other),
        };
        self.others.push(process);
    }

    fn needs_a_dead_letter(&self) -> bool {
        self.cell.point.place == Place::AfterFirst("take_back")
    }

    async fn submit(&mut self) {
        self.replies = self.stack.reply_queue().await;
        let properties = BasicProperties::default().with_reply_to(self.replies.as_str().into());
        let body = json!({"run_id": self.run.as_str(), "objective": "all of it"});
        self.stack.publish(Queue::Objectives, body.to_string().as_bytes(), properties).await;
        if self.needs_a_dead_letter() {
            // No executor yet: a step waits in its queue, and somebody moves it to the dead queue.
            let (body, properties) = self.stack.receive(&Queue::Steps.name(self.stack.prefix())).await;
            self.stack.publish(Queue::Dead, &body, properties).await;
            self.start_another("executor");
        }
    }

    async fn look(&self) -> Option<Look> {
        Look::at(&self.stack.store(), &self.redis_url, self.stack.prefix(), &self.run).await
    }

    /// How often `slot` was claimed.
    async fn claims(&self, slot: impl Fn(&str) -> bool) -> usize {
        let events = self.stack.store().events(&self.run, "", 10_000).await.unwrap();
        events.iter().filter(|e| e.kind == EventType::Claimed && e.slot.as_deref().is_some_and(&slot)).count()
    }

    /// Waits until the process is at its point; arranges what belongs to it.
    async fn reach_the_point(&mut self, line: &mut Line) {
        let Cell { point, fault } = self.cell;
        match point.place {
            Place::AfterFirst(_) => {
                line.expect("prepare").await;
                if fault == Fault::Redis {
                    self.target.redis.lose_replies(1);
                }
                line.say("go").await;
                line.expect("reached").await;
                assert_eq!(self.target.redis.losses_to_come(), 0, "the reply was not lost");
            }
            Place::Sent(kind) => {
                line.expect("prepare").await;
                if fault == Fault::Panic {
                    line.say("go").await;
                    return line.expect("reached").await;
                }
                self.target.amqp.hold(Way::Replies, true);
                line.say("go").await;
                // Somebody else has got it; the process cannot know. The first steps are not meant: they opened the channel.
                let taken = |slot: &str| if kind == "completion" { slot == "summary" } else { slot == "2" || slot == "3" };
                self.stack.until("the message arrives", async || self.claims(taken).await > 0).await;
            }
            Place::DuringAck(_) => {
                line.expect("prepare").await;
                self.target.amqp.hold(Way::Requests, fault != Fault::Panic);
                line.say("go").await;
                line.expect("reached").await;
            }
            Place::Asking => {
                line.expect("reached").await;
                self.stack.until("the model is asked", async || self.model.calls() > 0).await;
            }
            Place::Zombie => {
                line.expect("prepare").await;
                self.start_another(point.service);
                sleep(LEASE + MARGIN).await;
                self.take_over(2).await;
                line.say("go").await;
                line.expect("reached").await;
            }
            Place::Before(_)
            | Place::After(..)
            | Place::Answered
            | Place::BeforeEffect
            | Place::AfterEffect
            | Place::Between(_)
            | Place::Confirmed(_)
            | Place::BeforeAck(_) => line.expect("reached").await,
        }
    }

    /// Has a planner look at the run now rather than at its next wake-up, until the step has been claimed so often.
    async fn take_over(&self, claims: usize) {
        let step = EFFECT_STEP.to_string();
        self.stack
            .until("the step is taken over", async || {
                self.stack.store().wake(&self.run, Duration::ZERO).await.unwrap();
                self.claims(|slot| slot == step).await >= claims
            })
            .await;
    }

    /// The fault, from its beginning to its end.
    async fn strike(&mut self, mut line: Line) {
        let Cell { point, fault } = self.cell;
        match fault {
            Fault::Kill => {
                self.target.process.kill();
                // What it had on the way is lost with it.
                self.target.amqp.reset_connections();
                self.target.redis.reset_connections();
                self.start_another(point.service);
            }
            Fault::Stop => {
                self.target.process.pause();
                self.start_another(point.service);
                sleep(LEASE + MARGIN).await;
                // Wake-ups are rarer than leases are short here.
                self.stack.store().wake(&self.run, Duration::ZERO).await.unwrap();
                sleep(LEASE).await;
            }
            Fault::Panic => {
                line.say("panic").await;
                let log = || std::fs::read_to_string(&self.target.process.log).unwrap();
                self.stack.until("the process panics", async || log().contains(point.what)).await;
            }
            Fault::Redis => {
                assert!(self.target.redis.connections() > 0, "there is no connection to reset");
                self.target.redis.reset_connections();
            }
            Fault::Amqp => {
                assert_eq!(self.target.amqp.connections(), 2, "there is no connection to reset");
                self.target.amqp.reset_connections();
            }
        }
        self.target.amqp.blackhole(false);
        self.gate.add_permits(1000);
        if fault == Fault::Stop {
            self.target.process.resume();
        }
        // Closes the line: from here on the process does as it likes.
        drop(line);
    }

    /// I8: what is acknowledged here has been recorded before.
    fn recorded(&self, before: Option<&Look>) -> Vec<String> {
        let ended = |event: &Event| matches!(event.kind, EventType::StepFinished | EventType::StepRetried);
        let has = |is: &dyn Fn(&Event) -> bool| before.is_some_and(|look| look.events.iter().any(is));
        let holds = if let Place::BeforeAck(queue) | Place::DuringAck(queue) = self.cell.point.place {
            if queue == Queue::Steps { has(&ended) } else { has(&|event| event.kind == EventType::StepDispatched) }
        } else {
            true
        };
        if holds { Vec::new() } else { vec!["I8 acknowledged before it was recorded".to_owned()] }
    }

    async fn ended(&self) {
        while self.stack.store().result(&self.run).await.unwrap().is_none() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything that is wrong at the end.
    async fn verdict(&mut self, before: Option<Look>) -> Vec<String> {
        let replies = self.aftermath().await;
        let ended = self.look().await.expect("the run is there");
        let mut wrong = self.stop().await;
        let last = self.look().await.expect("the run is there");
        wrong.extend(self.recorded(before.as_ref()));
        if let Some(before) = before {
            wrong.extend(invariants::always(&before));
            wrong.extend(invariants::never_undone(&before, &ended));
        }
        wrong.extend(invariants::never_undone(&ended, &last));
        wrong.extend(invariants::at_the_end(&last));
        wrong.extend(invariants::replies(&last, &replies));
        let effects = std::fs::read_to_string(&self.effects).unwrap();
        let effects: Vec<String> = effects.lines().map(str::to_owned).collect();
        wrong.extend(invariants::effects(&last, &self.run, EFFECT_STEP, &effects));
        wrong.extend(self.outcome(&last));
        wrong.extend(self.dead_letters().await);
        wrong
    }

    /// Waits for the reply, for dead letters, and until the queues are empty; gives the replies.
    async fn aftermath(&self) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + AFTERMATH_MAX;
        let mut replies = Vec::new();
        let mut quiet = 0;
        // Quiet for a while: what is in hand at one look may publish until the next.
        while Instant::now() < deadline && quiet < 3 {
            sleep(Duration::from_millis(100)).await;
            replies.extend(self.stack.take_all(&self.replies).await);
            let settled = !replies.is_empty() && self.backlog().await.is_empty() && self.dead_letters().await.is_empty();
            quiet = if settled { quiet + 1 } else { 0 };
        }
        replies
    }

    /// Queues that hold messages.
    async fn backlog(&self) -> Vec<&'static str> {
        let mut backlog = Vec::new();
        for queue in Queue::ALL {
            if self.stack.depth(queue).await > 0 {
                backlog.push(queue.role());
            }
        }
        backlog
    }

    /// I17: stops every process and looks whether it leaves messages: what was unacknowledged comes back then. And a fault other than
    /// SIGKILL ends no process.
    async fn stop(&mut self) -> Vec<String> {
        let mut wrong: Vec<String> = self.backlog().await.iter().map(|queue| format!("I17 messages wait in {queue}")).collect();
        if self.cell.fault != Fault::Kill {
            match self.target.process.ended() {
                Some(status) => wrong.push(format!("the process has ended: {status}")),
                None => _ = self.target.process.stop().await,
            }
        }
        for process in &mut self.others {
            match process.ended() {
                Some(status) => wrong.push(format!("an ordinary process has ended: {status}")),
                None => _ = process.stop().await,
            }
        }
        wrong.extend(self.backlog().await.iter().map(|queue| format!("I17 messages of {queue} were unacknowledged")));
        wrong
    }

    /// A tool that panics has failed its step; everything else ends as if nothing had been.
    fn outcome(&self, last: &Look) -> Vec<String> {
        let broken = self.cell.fault == Fault::Panic && matches!(self.cell.point.place, Place::BeforeEffect | Place::AfterEffect);
        let expected = if broken { RunStatus::Partial } else { RunStatus::Succeeded };
        let view = &last.snapshot.view;
        let mut wrong = Vec::new();
        if view.status != expected || view.steps.len() != STEPS {
            wrong.push(format!("I1 the run is {:?}: {:?}", view.status, view.error));
        }
        wrong
    }

    /// I18: no dead letter but the one that a panic in a handler makes of its message, or that this cell has put there.
    async fn dead_letters(&self) -> Vec<String> {
        let Cell { point, fault } = self.cell;
        let letters: Vec<Value> =
            self.stack.store().dead_letters(100).await.unwrap().iter().map(|l| serde_json::from_str(l).unwrap()).collect();
        let reasons: Vec<&str> = letters.iter().filter_map(|letter| letter["reason"].as_str()).collect();
        // The tool's own border, or the worker's task around the handler, catches these.
        let caught = matches!(point.place, Place::BeforeEffect | Place::AfterEffect | Place::BeforeAck(_) | Place::DuringAck(_));
        let as_it_must_be = if self.needs_a_dead_letter() {
            !reasons.is_empty() && reasons.iter().all(|reason| *reason == "unknown")
        } else if fault == Fault::Panic && !caught {
            reasons.len() == 1 && reasons[0].contains(point.what)
        } else {
            reasons.is_empty()
        };
        if as_it_must_be { Vec::new() } else { vec![format!("I18 dead letters: {reasons:?}")] }
    }
}
