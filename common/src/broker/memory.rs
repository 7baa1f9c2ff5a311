//! The broker in one process: the faithful twin of RabbitMQ for the all-in-one mode, tests and simulation.
//!
//! A message keeps its place in the queue while it is out, and comes back to that place. Nothing here needs a task or a clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Envelope, PublishError, Target};
use crate::limits::{DEAD_DELIVERY_LIMIT, DELIVERY_LIMIT, MEMORY_QUEUE_MESSAGES_MAX};
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
    next_delivery: u64,
    /// Messages that are out, by their place.
    out: BTreeMap<u64, Out>,
    /// How many of them each consumer has.
    unacknowledged: BTreeMap<u64, u16>,
    next_consumer: u64,
}

#[derive(Debug)]
struct Stored {
    envelope: Envelope,
    /// How often it was out and came back.
    returns: i64,
}

/// A message that is out.
#[derive(Debug)]
struct Out {
    stored: Stored,
    queue: String,
    consumer: u64,
    /// Which delivery of this process it is: an earlier one of the same message settles nothing.
    delivery: u64,
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
    place: u64,
    delivery: u64,
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

    /// Gives back every message that is out and that `lost` (queue, message) names, as when the connection on which it was delivered
    /// breaks: it comes again at once, and whoever has it in hand can do nothing with it any more.
    pub fn give_back(&self, lost: impl Fn(&str, &Envelope) -> bool) {
        let dead = Queue::Dead.name(&self.prefix);
        let mut state = self.lock();
        let named = |out: &Out| lost(&out.queue, &out.stored.envelope);
        let places: Vec<(u64, u64)> =
            state.out.iter().filter(|(_, out)| named(out)).map(|(place, out)| (*place, out.delivery)).collect();
        for (place, delivery) in places {
            state.give_back(&dead, place, delivery);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Destroys every message that is ready for delivery and that `lost` (queue, message) names. How many those were.
    pub fn lose(&self, lost: impl Fn(&str, &Envelope) -> bool) -> usize {
        let mut state = self.lock();
        let ready: usize = state.queues.values().map(BTreeMap::len).sum();
        for (queue, messages) in &mut state.queues {
            messages.retain(|_, stored| !lost(queue, &stored.envelope));
        }
        ready - state.queues.values().map(BTreeMap::len).sum::<usize>()
    }

    /// Messages that are out, in all queues.
    pub fn unacknowledged(&self) -> usize {
        self.lock().out.len()
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
        if messages.len() >= MEMORY_QUEUE_MESSAGES_MAX {
            return Err(PublishError::Unconfirmed(format!("{queue} is full: {MEMORY_QUEUE_MESSAGES_MAX} messages")));
        }
        messages.insert(place, Stored { envelope, returns: 0 });
        self.next_place += 1;
        Ok(())
    }

    /// Takes a message off the books as settled; `None` when this delivery of it is not the one that is out.
    fn settle(&mut self, place: u64, delivery: u64) -> Option<Out> {
        if self.out.get(&place)?.delivery != delivery {
            return None;
        }
        let out = self.out.remove(&place)?;
        if let Some(count) = self.unacknowledged.get_mut(&out.consumer) {
            *count = count.saturating_sub(1);
        }
        Some(out)
    }

    fn give_back(&mut self, dead: &str, place: u64, delivery: u64) {
        let Some(Out { mut stored, queue, .. }) = self.settle(place, delivery) else { return };
        stored.returns += 1;
        let limit = if queue == dead { DEAD_DELIVERY_LIMIT } else { DELIVERY_LIMIT };
        if stored.returns <= limit {
            self.queues.entry(queue).or_default().insert(place, stored);
        } else if queue != dead {
            stored.envelope.reason = Some("delivery_limit".to_owned());
            stored.envelope.origin = Some(queue);
            stored.returns = 0;
            let place = self.next_place;
            self.next_place += 1;
            self.queues.entry(dead.to_owned()).or_default().insert(place, stored);
        }
    }
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
        let delivery = state.next_delivery;
        state.next_delivery += 1;
        let (envelope, redelivered) = (stored.envelope.clone(), stored.returns > 0);
        state.out.insert(place, Out { stored, queue: self.queue.clone(), consumer: self.id, delivery });
        let (queue, broker) = (self.queue.clone(), Arc::clone(&self.broker));
        Some(MemoryDelivery { envelope, redelivered, queue, broker, place, delivery, settled: false })
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.broker.lock().unacknowledged.remove(&self.id);
    }
}

impl MemoryDelivery {
    pub(super) fn ack(mut self) -> bool {
        let acknowledged = self.broker.lock().settle(self.place, self.delivery).is_some();
        self.settled = true;
        self.broker.changed.notify_waiters();
        acknowledged
    }
}

impl Drop for MemoryDelivery {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        self.broker.lock().give_back(&Queue::Dead.name(&self.broker.prefix), self.place, self.delivery);
        self.broker.changed.notify_waiters();
    }
}
