//! A seam that does to the calls of a process what a test has told it to, and remembers what the other side said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::broker::Broker;
use common::seam::{Answering, Call, Fate, Seam, Watched};
use common::store::Store;
use tokio::sync::Notify;

/// The kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A verb of the store, by its name.
    Verb(&'static str),
    /// Messages are published.
    Publish,
    /// A message has come.
    Deliver,
    /// A message is acknowledged.
    Ack,
}

/// What is to become of calls, kind by kind. Calls that nothing is said of pass.
#[derive(Debug, Default)]
pub struct Script {
    lines: Mutex<Lines>,
    /// A call has come, or may go on.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    fates: BTreeMap<Kind, VecDeque<Fate>>,
    held: BTreeSet<Kind>,
    asked: BTreeMap<Kind, usize>,
    heard: BTreeMap<Kind, Vec<String>>,
}

impl Script {
    /// Everything passes.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// `broker` as a process sees it that stands behind this seam.
    pub fn before_broker(self: &Arc<Self>, broker: Broker) -> Broker {
        Broker::Watched(Watched::new(broker, Arc::clone(self) as Arc<dyn Seam>))
    }

    /// The same of `store`.
    pub fn before_store(self: &Arc<Self>, store: Store) -> Store {
        Store::Watched(Watched::new(store, Arc::clone(self) as Arc<dyn Seam>))
    }

    /// The fate of the next call of this kind that has none yet.
    pub fn then(&self, kind: Kind, fate: Fate) {
        self.lines().fates.entry(kind).or_default().push_back(fate);
    }

    /// Whether calls of this kind are held up.
    pub fn hold(&self, kind: Kind, hold: bool) {
        let mut lines = self.lines();
        if hold {
            lines.held.insert(kind)
        } else {
            lines.held.remove(&kind)
        };
        drop(lines);
        self.changed.notify_waiters();
    }

    /// Waits until so many calls of this kind have come to the seam.
    pub async fn asked(&self, kind: Kind, times: usize) {
        self.wait_until(|lines| lines.asked.get(&kind).is_some_and(|asked| *asked >= times)).await;
    }

    /// Remembers from here on what the other side says to calls of this kind.
    pub fn listen(&self, kind: Kind) {
        self.lines().heard.entry(kind).or_default();
    }

    /// What it has said since [`Script::listen`], the oldest first.
    pub fn heard(&self, kind: Kind) -> Vec<String> {
        self.lines().heard.get(&kind).cloned().unwrap_or_default()
    }

    async fn wait_until(&self, condition: impl Fn(&Lines) -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition(&self.lines()) {
                return;
            }
            changed.await;
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seam for Script {
    fn before<'a>(&'a self, call: Call<'a>) -> Answering<'a, Fate> {
        Box::pin(async move {
            let kind = kind_of(&call);
            *self.lines().asked.entry(kind).or_default() += 1;
            self.changed.notify_waiters();
            self.wait_until(|lines| !lines.held.contains(&kind)).await;
            let fate = self.lines().fates.get_mut(&kind).and_then(VecDeque::pop_front);
            fate.unwrap_or(Fate::Passes)
        })
    }

    fn after<'a>(&'a self, call: Call<'a>, answer: &'a (dyn Debug + Send + Sync)) -> Answering<'a, ()> {
        Box::pin(async move {
            if let Some(heard) = self.lines().heard.get_mut(&kind_of(&call)) {
                heard.push(format!("{answer:?}"));
            }
        })
    }
}

fn kind_of(call: &Call<'_>) -> Kind {
    match call {
        Call::Verb { name, .. } => Kind::Verb(name),
        Call::Publish { .. } => Kind::Publish,
        Call::Deliver { .. } => Kind::Deliver,
        Call::Ack { .. } => Kind::Ack,
    }
}
