//! The broker in one process: the faithful twin of RabbitMQ for the all-in-one mode, tests and simulation.
//!
//! What it does, and in which order, is what a quorum queue of RabbitMQ 3.10 does: messages go to the consumers with room in turn, as soon
//! as there is room, taken or not; what comes back is handed out before anything else, in the order in which it came back, and counts as
//! returned even if nobody had taken it. Nothing here needs a task or a clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Envelope, PublishError, QueueLook, Target, unfit, worse};
use crate::limits::{CONFIRM_WINDOW, DEAD_DELIVERY_LIMIT, DELIVERY_LIMIT, MEMORY_QUEUE_MESSAGES_MAX};
use crate::message::Queue;

/// Queues in memory.
#[derive(Debug)]
pub struct Memory {
    prefix: String,
    state: Mutex<State>,
    /// Somebody may go on: a consumer has something to take, or a queue for replies has.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    queues: BTreeMap<String, Messages>,
    consumers: BTreeMap<u64, Served>,
    next_consumer: u64,
    /// Messages that are with a consumer, taken or not, by their delivery.
    out: BTreeMap<u64, Out>,
    next_delivery: u64,
}

/// The messages of a queue that are ready, and who is to have them.
#[derive(Debug)]
struct Messages {
    /// Those that came back: they go first.
    returned: VecDeque<Stored>,
    fresh: VecDeque<Stored>,
    /// Consumers with room, the next one first.
    turns: VecDeque<u64>,
    /// Messages that it takes.
    room: usize,
}

impl Default for Messages {
    fn default() -> Self {
        let (returned, fresh, turns) = Default::default();
        Self { returned, fresh, turns, room: MEMORY_QUEUE_MESSAGES_MAX }
    }
}

/// A consumer as the queue sees it.
#[derive(Debug)]
struct Served {
    queue: String,
    /// How many more messages it may have.
    room: u16,
    /// Deliveries that it has and has not taken.
    untaken: VecDeque<u64>,
}

#[derive(Debug)]
struct Stored {
    envelope: Envelope,
    /// How often it was out and came back.
    returns: i64,
}

/// A message that is with a consumer.
#[derive(Debug)]
struct Out {
    stored: Stored,
    queue: String,
    consumer: u64,
}

/// A stream of deliveries. Dropping it gives back what was not taken; deliveries already handed out can still be acknowledged.
#[derive(Debug)]
pub struct MemoryConsumer {
    broker: Arc<Memory>,
    id: u64,
}

/// A message in hand. Dropping it gives it back to the queue.
#[derive(Debug)]
pub struct MemoryDelivery {
    pub(super) envelope: Envelope,
    pub(super) redelivered: bool,
    pub(super) queue: String,
    broker: Arc<Memory>,
    /// An earlier delivery of the same message settles nothing.
    delivery: u64,
    settled: bool,
}

impl Memory {
    /// A broker with all of our queues, and nothing in them.
    pub fn new(prefix: &str) -> Arc<Self> {
        let queues = Queue::ALL.iter().map(|queue| (queue.name(prefix), Messages::default())).collect();
        let state = State { queues, ..State::default() };
        Arc::new(Self { prefix: prefix.to_owned(), state: Mutex::new(state), changed: Notify::new() })
    }

    /// Makes a queue for replies, as a submitter would.
    pub fn declare(&self, queue: &str) {
        self.lock().queues.entry(queue.to_owned()).or_default();
    }

    /// Lets a queue refuse what comes when `room` messages are ready in it, as a policy would.
    pub fn limit(&self, queue: &str, room: usize) {
        self.lock().queues.entry(queue.to_owned()).or_default().room = room;
    }

    /// The oldest message of a queue made by [`Memory::declare`], taken off it. Waits for one, and for the queue.
    pub async fn receive(&self, queue: &str) -> Envelope {
        loop {
            let changed = self.changed.notified();
            let oldest = self.lock().queues.get_mut(queue).and_then(Messages::pop);
            match oldest {
                Some(stored) => return stored.envelope,
                None => changed.await,
            }
        }
    }

    /// Gives back every message that is out and that `lost` (queue, message) names, as when the connection on which it was delivered
    /// breaks: it comes again at once, and whoever has it in hand can do nothing with it any more.
    pub fn give_back(&self, lost: impl Fn(&str, &Envelope) -> bool) {
        self.change(|state, dead| {
            let named = |out: &Out| lost(&out.queue, &out.stored.envelope);
            let named: Vec<u64> = state.out.iter().filter(|(_, out)| named(out)).map(|(delivery, _)| *delivery).collect();
            state.give_back(dead, named);
        });
    }

    /// Destroys every message that nobody has taken yet and that `lost` (queue, message) names. How many those were.
    pub fn lose(&self, lost: impl Fn(&str, &Envelope) -> bool) -> usize {
        self.change(|state, _dead| {
            let mut count = 0;
            for (queue, messages) in &mut state.queues {
                let ready = messages.len();
                messages.returned.retain(|stored| !lost(queue, &stored.envelope));
                messages.fresh.retain(|stored| !lost(queue, &stored.envelope));
                count += ready - messages.len();
            }
            let untaken: Vec<u64> = state.consumers.values().flat_map(|consumer| consumer.untaken.iter().copied()).collect();
            for delivery in untaken {
                let named = state.out.get(&delivery).is_some_and(|out| lost(&out.queue, &out.stored.envelope));
                if let Some(out) = named.then(|| state.settle(delivery)).flatten() {
                    count += 1;
                    state.serve(&out.queue);
                }
            }
            count
        })
    }

    /// Messages that are with consumers, of all queues.
    pub fn unacknowledged(&self) -> usize {
        self.lock().out.len()
    }

    #[expect(clippy::unused_async, reason = "the same signature as the other broker's")]
    pub(super) async fn publish_all(&self, batch: Vec<(Target, Envelope)>) -> Result<(), PublishError> {
        self.change(|state, _dead| {
            let mut verdict = Ok(());
            let mut refused = None;
            for (n, (target, envelope)) in batch.into_iter().enumerate() {
                // What is in flight behind a message that is refused arrives all the same.
                if refused.is_some_and(|refused| n >= refused + CONFIRM_WINDOW) {
                    break;
                }
                let queue = match target {
                    Target::Queue(queue) => queue.name(&self.prefix),
                    Target::Named(queue) => queue,
                };
                let published = state.publish(queue, envelope);
                if matches!(published, Err(PublishError::Unconfirmed(_))) {
                    refused = refused.or(Some(n));
                }
                verdict = worse(verdict, published);
            }
            verdict
        })
    }

    pub(super) fn consume(this: &Arc<Self>, queue: Queue, prefetch: u16) -> MemoryConsumer {
        let id = this.change(|state, _dead| state.subscribe(queue.name(&this.prefix), prefetch.max(1)));
        MemoryConsumer { broker: Arc::clone(this), id }
    }

    pub(super) fn look(&self, queue: Queue) -> QueueLook {
        let (state, name) = (self.lock(), queue.name(&self.prefix));
        let ready = state.queues.get(&name).map_or(0, |messages| messages.len() as u64);
        let consumers = state.consumers.values().filter(|served| served.queue == name).count() as u64;
        QueueLook { ready, consumers }
    }

    /// Does something to the state (and the name of the dead queue), then tells whoever waits for it.
    fn change<T>(&self, change: impl FnOnce(&mut State, &str) -> T) -> T {
        let changed = change(&mut self.lock(), &Queue::Dead.name(&self.prefix));
        self.changed.notify_waiters();
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Messages {
    fn len(&self) -> usize {
        self.returned.len() + self.fresh.len()
    }

    fn pop(&mut self) -> Option<Stored> {
        self.returned.pop_front().or_else(|| self.fresh.pop_front())
    }
}

impl State {
    fn publish(&mut self, queue: String, envelope: Envelope) -> Result<(), PublishError> {
        if let Some(why) = unfit(&envelope, &queue) {
            return Err(PublishError::Unconfirmed(why));
        }
        let Some(messages) = self.queues.get_mut(&queue) else { return Err(PublishError::Unroutable(queue)) };
        if messages.len() >= messages.room {
            return Err(PublishError::Unconfirmed(format!("{queue} is full: {} messages", messages.room)));
        }
        messages.fresh.push_back(Stored { envelope, returns: 0 });
        self.serve(&queue);
        Ok(())
    }

    fn subscribe(&mut self, queue: String, prefetch: u16) -> u64 {
        let id = self.next_consumer;
        self.next_consumer += 1;
        self.queues.entry(queue.clone()).or_default().turns.push_back(id);
        self.consumers.insert(id, Served { queue: queue.clone(), room: prefetch, untaken: VecDeque::new() });
        self.serve(&queue);
        id
    }

    /// Gives what is ready to the consumers with room, in turn.
    fn serve(&mut self, queue: &str) {
        let Some(messages) = self.queues.get_mut(queue) else { return };
        while messages.len() > 0
            && let Some(id) = messages.turns.pop_front()
        {
            let Some(consumer) = self.consumers.get_mut(&id) else { continue };
            let Some(stored) = messages.pop() else { return };
            consumer.room -= 1;
            if consumer.room > 0 {
                messages.turns.push_back(id);
            }
            consumer.untaken.push_back(self.next_delivery);
            self.out.insert(self.next_delivery, Out { stored, queue: queue.to_owned(), consumer: id });
            self.next_delivery += 1;
        }
    }

    /// Takes a delivery off the books, so that its consumer has room for another; `None` when it was settled before. The caller serves.
    fn settle(&mut self, delivery: u64) -> Option<Out> {
        let out = self.out.remove(&delivery)?;
        if let Some(consumer) = self.consumers.get_mut(&out.consumer) {
            consumer.untaken.retain(|untaken| *untaken != delivery);
            consumer.room += 1;
            let turns = self.queues.get_mut(&out.queue).map(|messages| &mut messages.turns);
            if let Some(turns) = turns.filter(|turns| !turns.contains(&out.consumer)) {
                turns.push_back(out.consumer);
            }
        }
        Some(out)
    }

    /// Deliveries come back, in this order.
    fn give_back(&mut self, dead: &str, deliveries: Vec<u64>) {
        let mut touched = Vec::new();
        for delivery in deliveries {
            let Some(Out { mut stored, queue, .. }) = self.settle(delivery) else { continue };
            stored.returns += 1;
            let limit = if queue == dead { DEAD_DELIVERY_LIMIT } else { DELIVERY_LIMIT };
            if stored.returns <= limit {
                self.queues.entry(queue.clone()).or_default().returned.push_back(stored);
            } else if queue != dead {
                let mut envelope = stored.envelope;
                envelope.reason.get_or_insert_with(|| "delivery_limit".to_owned());
                envelope.origin.get_or_insert_with(|| queue.clone());
                self.queues.entry(dead.to_owned()).or_default().fresh.push_back(Stored { envelope, returns: 0 });
                touched.push(dead.to_owned());
            }
            touched.push(queue);
        }
        // Only now: all of them have come back before the first one goes out again.
        for queue in touched {
            self.serve(&queue);
        }
    }

    fn leave(&mut self, dead: &str, consumer: u64) {
        let Some(Served { queue, untaken, .. }) = self.consumers.remove(&consumer) else { return };
        if let Some(messages) = self.queues.get_mut(&queue) {
            messages.turns.retain(|id| *id != consumer);
        }
        self.give_back(dead, untaken.into());
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
        let delivery = state.consumers.get_mut(&self.id)?.untaken.pop_front()?;
        let Out { stored, queue, .. } = state.out.get(&delivery)?;
        let (envelope, redelivered) = (stored.envelope.clone(), stored.returns > 0);
        let (queue, broker) = (queue.clone(), Arc::clone(&self.broker));
        Some(MemoryDelivery { envelope, redelivered, queue, broker, delivery, settled: false })
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.broker.change(|state, dead| state.leave(dead, self.id));
    }
}

impl MemoryDelivery {
    pub(super) fn ack(mut self) -> bool {
        self.settled = true;
        self.broker.change(|state, _dead| {
            let settled = state.settle(self.delivery);
            settled.map(|out| state.serve(&out.queue)).is_some()
        })
    }
}

impl Drop for MemoryDelivery {
    fn drop(&mut self) {
        if !self.settled {
            self.broker.change(|state, dead| state.give_back(dead, vec![self.delivery]));
        }
    }
}
