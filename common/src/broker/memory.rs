//! The broker in one process: the faithful twin of RabbitMQ for the all-in-one mode, tests and simulation.
//!
//! A message keeps its place in the queue while it is out, and comes back to that place. Nothing here needs a task or a clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Envelope, PublishError, Target};
use crate::limits::{DELIVERY_LIMIT, MEMORY_QUEUE_MESSAGES_MAX};
use crate::message::Queue;

/// Queues in memory.
#[derive(Debug)]
pub struct Memory {
    prefix: String,
    state: Mutex<State>,
    /// Somebody may go on: a message was put into a queue, or a consumer has room again.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    queues: BTreeMap<String, BTreeMap<u64, Stored>>,
    /// The place of the next message, in every queue.
    next_place: u64,
    /// Deliveries out, by consumer.
    unacknowledged: BTreeMap<u64, u16>,
    next_consumer: u64,
    faults: Faults,
}

#[derive(Debug)]
struct Stored {
    envelope: Envelope,
    /// How often it was out and came back.
    returns: i64,
}

/// What goes wrong next; each count is used up by as many operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Publications that do not arrive and are not confirmed.
    pub publications_lost: u32,
    /// Publications that arrive, while their confirm does not.
    pub confirms_lost: u32,
    /// Acknowledgements that do not arrive, although the consumer was told so: the message is delivered again.
    pub acks_lost: u32,
}

/// A stream of deliveries.
#[derive(Debug)]
pub struct MemoryConsumer {
    broker: Arc<Memory>,
    queue: String,
    id: u64,
    prefetch: u16,
}

/// A message in hand. Dropping it gives it back to the queue.
#[derive(Debug)]
pub struct MemoryDelivery {
    pub(super) envelope: Envelope,
    pub(super) redelivered: bool,
    pub(super) queue: String,
    broker: Arc<Memory>,
    consumer: u64,
    place: u64,
    returns: i64,
    settled: bool,
}

impl Memory {
    /// A broker with all of our queues, and nothing in them.
    pub fn new(prefix: &str) -> Arc<Self> {
        let queues = Queue::ALL.iter().map(|queue| (queue.name(prefix), BTreeMap::new())).collect();
        let state = State { queues, ..State::default() };
        Arc::new(Self { prefix: prefix.to_owned(), state: Mutex::new(state), changed: Notify::new() })
    }

    /// Makes a queue for replies, as a submitter would.
    pub fn declare(&self, queue: &str) {
        self.lock().queues.entry(queue.to_owned()).or_default();
    }

    /// The oldest message of a queue made by [`Memory::declare`], taken off it. Waits for one, and for the queue.
    pub async fn receive(&self, queue: &str) -> Envelope {
        loop {
            let changed = self.changed.notified();
            let oldest = self.lock().queues.get_mut(queue).and_then(BTreeMap::pop_first);
            match oldest {
                Some((_, stored)) => return stored.envelope,
                None => changed.await,
            }
        }
    }

    /// Replaces the faults to come.
    pub fn inject(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    #[expect(clippy::unused_async, reason = "the same signature as the other broker's")]
    pub(super) async fn publish_all(&self, batch: Vec<(Target, Envelope)>) -> Result<(), PublishError> {
        let mut unroutable = Ok(());
        let mut state = self.lock();
        for (target, envelope) in batch {
            let queue = match target {
                Target::Queue(queue) => queue.name(&self.prefix),
                Target::Named(queue) => queue,
            };
            match state.publish(queue, envelope) {
                Ok(()) => {}
                Err(error @ PublishError::Unroutable(_)) => unroutable = Err(error),
                Err(error @ PublishError::Unconfirmed(_)) => {
                    self.changed.notify_waiters();
                    return Err(error);
                }
            }
        }
        self.changed.notify_waiters();
        unroutable
    }

    pub(super) fn consume(this: &Arc<Self>, queue: Queue, prefetch: u16) -> MemoryConsumer {
        let mut state = this.lock();
        let id = state.next_consumer;
        state.next_consumer += 1;
        state.unacknowledged.insert(id, 0);
        MemoryConsumer { broker: Arc::clone(this), queue: queue.name(&this.prefix), id, prefetch: prefetch.max(1) }
    }

    pub(super) fn depth(&self, queue: Queue) -> u64 {
        self.lock().queues.get(&queue.name(&self.prefix)).map_or(0, |messages| messages.len() as u64)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn publish(&mut self, queue: String, envelope: Envelope) -> Result<(), PublishError> {
        let place = self.next_place;
        let Some(messages) = self.queues.get_mut(&queue) else { return Err(PublishError::Unroutable(queue)) };
        if used_up(&mut self.faults.publications_lost) {
            return Err(PublishError::Unconfirmed("the publication was lost".to_owned()));
        }
        if messages.len() >= MEMORY_QUEUE_MESSAGES_MAX {
            return Err(PublishError::Unconfirmed(format!("{queue} is full: {MEMORY_QUEUE_MESSAGES_MAX} messages")));
        }
        messages.insert(place, Stored { envelope, returns: 0 });
        self.next_place += 1;
        if used_up(&mut self.faults.confirms_lost) {
            return Err(PublishError::Unconfirmed("the confirm was lost".to_owned()));
        }
        Ok(())
    }

    fn give_back(&mut self, queue: &str, dead: &str, place: u64, mut stored: Stored) {
        stored.returns += 1;
        if stored.returns > DELIVERY_LIMIT && queue != dead {
            stored.envelope.reason = Some("delivery_limit".to_owned());
            stored.envelope.origin = Some(queue.to_owned());
            stored.returns = 0;
            let place = self.next_place;
            self.next_place += 1;
            self.queues.entry(dead.to_owned()).or_default().insert(place, stored);
        } else {
            self.queues.entry(queue.to_owned()).or_default().insert(place, stored);
        }
    }

    fn settled(&mut self, consumer: u64) {
        if let Some(out) = self.unacknowledged.get_mut(&consumer) {
            *out = out.saturating_sub(1);
        }
    }
}

/// Takes one off `count`, if there is one.
fn used_up(count: &mut u32) -> bool {
    let any = *count > 0;
    *count = count.saturating_sub(1);
    any
}

impl MemoryConsumer {
    pub(super) async fn next(&mut self) -> MemoryDelivery {
        let broker = Arc::clone(&self.broker);
        loop {
            let changed = broker.changed.notified();
            match self.take() {
                Some(delivery) => return delivery,
                None => changed.await,
            }
        }
    }

    fn take(&self) -> Option<MemoryDelivery> {
        let mut state = self.broker.lock();
        let state = &mut *state;
        let out = state.unacknowledged.entry(self.id).or_default();
        if *out >= self.prefetch {
            return None;
        }
        let (place, stored) = state.queues.get_mut(&self.queue)?.pop_first()?;
        *out += 1;
        Some(MemoryDelivery {
            envelope: stored.envelope,
            redelivered: stored.returns > 0,
            queue: self.queue.clone(),
            broker: Arc::clone(&self.broker),
            consumer: self.id,
            place,
            returns: stored.returns,
            settled: false,
        })
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.broker.lock().unacknowledged.remove(&self.id);
    }
}

impl MemoryDelivery {
    pub(super) fn ack(mut self) -> bool {
        let mut state = self.broker.lock();
        let arrives = !used_up(&mut state.faults.acks_lost);
        if arrives {
            state.settled(self.consumer);
        }
        drop(state);
        self.settled = arrives;
        self.broker.changed.notify_waiters();
        true
    }
}

impl Drop for MemoryDelivery {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let empty = Envelope::new(String::new(), "", Vec::new());
        let stored = Stored { envelope: std::mem::replace(&mut self.envelope, empty), returns: self.returns };
        let mut state = self.broker.lock();
        state.settled(self.consumer);
        state.give_back(&self.queue, &Queue::Dead.name(&self.broker.prefix), self.place, stored);
        drop(state);
        self.broker.changed.notify_waiters();
    }
}
