//! The trap: watches every call for its point, tells the test there, and does what the test says.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use common::broker::{Envelope, Target};
use common::seam::{Answering, Call, Fate, Seam};
use support::points::{Place, Point};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// How often a held up call looks whether it may go on.
const HELD_POLL: Duration = Duration::from_millis(20);

/// The trap of a process.
#[derive(Debug)]
pub(crate) struct Trap {
    point: &'static Point,
    state: AtomicU8,
    /// Whether anything has been published: then there is a channel for it, and what is sent next arrives even if nothing comes back.
    has_published: AtomicBool,
    /// Messages that were delivered and not acknowledged.
    in_hand: AtomicUsize,
    line: Mutex<BufReader<TcpStream>>,
}

/// How far the point has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Set,
    Prepared,
    /// A zombie goes on.
    Overdue,
    Fired,
}

/// What a point wants of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Reach,
    Prepare,
    /// Only a part of the batch gets through.
    Cut,
    /// It waits until the point has fired: what does not get through renews no lease.
    HoldUp,
    /// The same as `Reach`, of a zombie that goes on.
    ReachOverdue,
}

impl Trap {
    /// Connects to the test.
    pub(crate) async fn set(point: &'static Point, line: &str) -> std::io::Result<Self> {
        let line = Mutex::new(BufReader::new(TcpStream::connect(line).await?));
        Ok(Self {
            point,
            state: AtomicU8::new(State::Set as u8),
            has_published: AtomicBool::new(false),
            in_hand: AtomicUsize::new(0),
            line,
        })
    }

    /// Whether the trap is at `place`, and for the first time.
    pub(crate) fn at(&self, place: Place) -> bool {
        self.point.place == place && self.moves(State::Set, State::Fired)
    }

    /// Moves on, if it stands there: of many that try only one does.
    fn moves(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn has_fired(&self) -> bool {
        self.state.load(Ordering::SeqCst) == State::Fired as u8
    }

    /// Says that the point is reached, waits, and panics if that is wanted.
    pub(crate) async fn reached(&self) {
        if self.tell("reached").await.as_deref() == Some("panic") {
            panic!("{}: {}", self.point.name, self.point.what);
        }
    }

    /// Says that the point is about to be reached, and waits.
    async fn prepare(&self) {
        let _go = self.tell("prepare").await;
    }

    async fn tell(&self, stage: &str) -> Option<String> {
        let mut line = self.line.lock().await;
        line.write_all(format!("{} {stage} {}\n", self.point.name, self.in_hand.load(Ordering::SeqCst)).as_bytes()).await.ok()?;
        let mut word = String::new();
        line.read_line(&mut word).await.ok()?;
        Some(word.trim().to_owned())
    }

    /// The effect is had. A zombie sits here until its lease has run out.
    pub(crate) async fn after_effect(&self) {
        if self.at(Place::AfterEffect) {
            self.reached().await;
        } else if self.point.place == Place::Zombie && self.moves(State::Set, State::Prepared) {
            self.prepare().await;
            self.moves(State::Prepared, State::Overdue);
        }
    }

    /// A call is about to be made.
    async fn meet(&self, call: Call<'_>) -> Fate {
        if matches!(call, Call::Deliver { .. }) {
            self.in_hand.fetch_add(1, Ordering::SeqCst);
        }
        let fate = self.meet_at_the_point(call).await;
        if matches!(call, Call::Ack { .. }) {
            self.in_hand.fetch_sub(1, Ordering::SeqCst);
        }
        fate
    }

    async fn meet_at_the_point(&self, call: Call<'_>) -> Fate {
        match self.asks(call) {
            Some(Ask::Reach) if self.moves(State::Set, State::Fired) => self.reached().await,
            Some(Ask::Prepare) if self.moves(State::Set, State::Prepared) => self.prepare().await,
            Some(Ask::Cut) if self.moves(State::Set, State::Prepared) => return Fate::Cut(1),
            Some(Ask::HoldUp) => {
                while !self.has_fired() {
                    tokio::time::sleep(HELD_POLL).await;
                }
            }
            Some(Ask::ReachOverdue) if self.moves(State::Overdue, State::Fired) => self.reached().await,
            Some(Ask::Reach | Ask::Prepare | Ask::Cut | Ask::ReachOverdue) | None => {}
        }
        Fate::Passes
    }

    /// What the point asks for before this call.
    fn asks(&self, call: Call<'_>) -> Option<Ask> {
        match (self.point.place, call) {
            (Place::Before(verb), Call::Verb { name, .. }) => (verb == name).then_some(Ask::Reach),
            (Place::BeforeAck(from), Call::Ack { queue, .. }) => queue.ends_with(from.role()).then_some(Ask::Reach),
            (Place::AfterFirst(verb), Call::Verb { name, .. }) => (verb == name).then_some(Ask::Prepare),
            (Place::DuringAck(from), Call::Ack { queue, .. }) => queue.ends_with(from.role()).then_some(Ask::Prepare),
            (Place::Sent(kind), Call::Publish { batch }) => {
                (is(batch, kind) && self.has_published.load(Ordering::SeqCst)).then_some(Ask::Prepare)
            }
            (Place::Between(kind), Call::Publish { batch }) => (batch.len() > 1 && is(batch, kind)).then_some(Ask::Cut),
            (Place::Zombie, Call::Verb { name: "renew", .. }) => Some(Ask::HoldUp),
            (Place::Zombie, Call::Verb { name: "report", .. }) => Some(Ask::ReachOverdue),
            _elsewhere => None,
        }
    }

    /// A call has been made.
    async fn leave(&self, call: Call<'_>, answer: &(dyn fmt::Debug + Send + Sync)) {
        if matches!(call, Call::Publish { .. }) {
            self.has_published.store(true, Ordering::SeqCst);
        }
        let here = match (self.point.place, call) {
            (Place::After(verb, words), Call::Verb { name, .. }) if verb == name => {
                let answer = format!("{answer:?}");
                words.iter().all(|word| answer.contains(word)) && self.moves(State::Set, State::Fired)
            }
            (Place::AfterFirst(verb), Call::Verb { name, .. }) => verb == name && self.moves(State::Prepared, State::Fired),
            (Place::Confirmed(kind), Call::Publish { batch }) => is(batch, kind) && self.moves(State::Set, State::Fired),
            (Place::Between(kind) | Place::Sent(kind), Call::Publish { batch }) => {
                is(batch, kind) && self.moves(State::Prepared, State::Fired)
            }
            (Place::DuringAck(from), Call::Ack { queue, .. }) => {
                queue.ends_with(from.role()) && self.moves(State::Prepared, State::Fired)
            }
            _elsewhere => false,
        };
        if here {
            self.reached().await;
        }
    }
}

fn is(batch: &[(Target, Envelope)], kind: &str) -> bool {
    batch.first().is_some_and(|(_, envelope)| envelope.kind == kind)
}

impl Seam for Trap {
    fn before<'a>(&'a self, call: Call<'a>) -> Answering<'a, Fate> {
        Box::pin(self.meet(call))
    }

    fn after<'a>(&'a self, call: Call<'a>, answer: &'a (dyn fmt::Debug + Send + Sync)) -> Answering<'a, ()> {
        Box::pin(self.leave(call, answer))
    }
}
