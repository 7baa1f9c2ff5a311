//! The seam to the message broker: publish with confirms, consume with explicit acknowledgement.
//!
//! RabbitMQ and its twin in memory keep the same contract, held by one conformance suite (`tests/it/broker_conformance.rs`), which also
//! looks at both through the seam for tests ([`Broker::Watched`]):
//! - a publication is good only when the broker confirmed it and routed it; anything else is an error, and the message may
//!   or may not be there;
//! - at most `prefetch` deliveries of a consumer are unacknowledged at once;
//! - a delivery that is dropped without `ack` or `park` comes back, marked as redelivered, with the same message id;
//! - a message that comes back more than [`crate::limits::DELIVERY_LIMIT`] times goes to the dead queue.

use std::sync::Arc;
use std::time::Duration;

use crate::limits::AMQP_TEXT_BYTES_MAX;
use crate::message::Queue;
use crate::seam::{Call, Fate, Watched};

pub mod memory;
pub mod rabbit;

/// A message broker. A cheap handle: clones share connections.
#[derive(Debug, Clone)]
pub enum Broker {
    /// RabbitMQ, quorum queues.
    Rabbit(Arc<rabbit::Rabbit>),
    /// The same in this process.
    Memory(Arc<memory::Memory>),
    /// Either of them, behind a test's seam.
    Watched(Arc<Watched<Broker>>),
}

/// A message, as it is published and as it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Unique to this publication; only a redelivery carries the same one again. At most 255 bytes.
    pub message_id: String,
    /// The AMQP `type`: `objective`, `plan_owed`, `step`, `report`, `completion`, `control`, `result`, or what a foreign publisher set.
    pub kind: String,
    /// The body.
    pub body: Vec<u8>,
    /// Where the final document is to be published (objectives only).
    pub reply_to: Option<String>,
    /// What the final document is to carry so that its receiver knows it.
    pub correlation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Why a dead letter is one: the `planrelay-reason` header, or the broker's own reason (`delivery_limit`, …).
    pub reason: Option<String>,
    /// The queue a dead letter comes from, by name, when known.
    pub origin: Option<String>,
    /// Whether this very message was handed out before it was put back as a copy of itself: the broker knows nothing of that.
    pub returned: bool,
}

impl Envelope {
    /// A message with nothing but an id, a type and a body.
    pub fn new(message_id: String, kind: &str, body: Vec<u8>) -> Self {
        Self {
            message_id,
            kind: kind.to_owned(),
            body,
            reply_to: None,
            correlation_id: None,
            traceparent: None,
            reason: None,
            origin: None,
            returned: false,
        }
    }
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One of our queues.
    Queue(Queue),
    /// A queue named by a submitter's `reply_to`.
    Named(String),
}

/// How a queue stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLook {
    /// Messages that are ready for delivery.
    pub ready: u64,
    /// Who consumes it.
    pub consumers: u64,
}

/// Why a publication is not known to be good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No confirm: connection lost, time-out, nack. The message may still arrive.
    #[error("broker did not confirm the message: {0}")]
    Unconfirmed(String),
    /// The broker has no such queue. The message is not there.
    #[error("broker has no queue {0}")]
    Unroutable(String),
}

/// Why a broker cannot be used at all: the process should end with a clear sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers. Exit code 5.
    #[error("cannot reach RabbitMQ at {url}: {why}")]
    Unreachable {
        /// The URL, password masked.
        url: String,
        /// What happened.
        why: String,
    },
    /// The broker answers and says no: credentials, virtual host, permissions. Exit code 5.
    #[error("RabbitMQ at {url} refused: {why}")]
    Refused {
        /// The URL, password masked.
        url: String,
        /// What it said.
        why: String,
    },
    /// A queue exists with other arguments. Exit code 2.
    #[error("queue {queue} exists with other arguments than planrelay needs: {why}; delete it or set PLANRELAY_PREFIX")]
    Topology {
        /// The queue.
        queue: String,
        /// What the broker said; names the argument.
        why: String,
    },
    /// The URL cannot be used. Exit code 2.
    #[error("AMQP_URL: {0}")]
    BadUrl(String),
}

impl Broker {
    /// Publishes one message and waits for the broker's confirm.
    pub async fn publish(&self, target: Target, envelope: Envelope) -> Result<(), PublishError> {
        self.publish_all(vec![(target, envelope)]).await
    }

    /// Publishes all of them, [`crate::limits::CONFIRM_WINDOW`] at once, and waits for every confirm. An error says that at
    /// least one is not known to be good.
    pub async fn publish_all(&self, batch: Vec<(Target, Envelope)>) -> Result<(), PublishError> {
        match self {
            Broker::Rabbit(rabbit) => rabbit.publish_all(batch).await,
            Broker::Memory(memory) => memory.publish_all(batch).await,
            Broker::Watched(watched) => Box::pin(publish_watched(watched, batch)).await,
        }
    }

    /// Starts to consume `queue` with at most `prefetch` unacknowledged deliveries. Survives lost connections by itself.
    pub fn consume(&self, queue: Queue, prefetch: u16) -> Consumer {
        match self {
            Broker::Rabbit(rabbit) => Consumer::Rabbit(rabbit::Rabbit::consume(rabbit, queue, prefetch)),
            Broker::Memory(memory) => Consumer::Memory(memory::Memory::consume(memory, queue, prefetch)),
            Broker::Watched(watched) => {
                let consumer = Box::new(watched.inner.consume(queue, prefetch));
                Consumer::Watched(Box::new(WatchedConsumer { watched: Arc::clone(watched), consumer, arriving: None }))
            }
        }
    }

    /// Messages in `queue` that are ready for delivery. For tests and for people; never for decisions.
    pub async fn depth(&self, queue: Queue) -> Result<u64, PublishError> {
        self.look(queue).await.map(|look| look.ready)
    }

    /// How `queue` stands. For people; never for decisions.
    pub async fn look(&self, queue: Queue) -> Result<QueueLook, PublishError> {
        match self {
            Broker::Rabbit(rabbit) => rabbit.look(queue).await,
            Broker::Memory(memory) => Ok(memory.look(queue)),
            Broker::Watched(watched) => Box::pin(watched.inner.look(queue)).await,
        }
    }

    /// Why the broker cannot be used now, if so.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Broker::Rabbit(rabbit) => rabbit.trouble(),
            Broker::Memory(_) => None,
            Broker::Watched(watched) => watched.inner.trouble(),
        }
    }

    /// Closes every connection. Unacknowledged deliveries come back to other consumers.
    pub async fn close(&self) {
        match self {
            Broker::Rabbit(rabbit) => rabbit.close().await,
            Broker::Memory(_) => {}
            Broker::Watched(watched) => Box::pin(watched.inner.close()).await,
        }
    }
}

async fn publish_watched(watched: &Watched<Broker>, mut batch: Vec<(Target, Envelope)>) -> Result<(), PublishError> {
    let lost = || Err(PublishError::Unconfirmed("lost on the way".to_owned()));
    let sent = batch.clone();
    let call = Call::Publish { batch: &sent };
    let fate = watched.seam.before(call).await;
    match fate {
        Fate::Lost => return lost(),
        Fate::Cut(arrive) => batch.truncate(arrive),
        Fate::Twice => batch.extend(sent.iter().cloned()),
        Fate::Passes | Fate::Unanswered => {}
    }
    let published = Box::pin(watched.inner.publish_all(batch)).await;
    watched.seam.after(call, &published).await;
    match fate {
        Fate::Unanswered | Fate::Cut(_) => lost(),
        Fate::Passes | Fate::Twice | Fate::Lost => published,
    }
}

/// A stream of deliveries. Dropping it stops consuming; deliveries already handed out stay valid.
#[derive(Debug)]
pub enum Consumer {
    /// From RabbitMQ.
    Rabbit(rabbit::RabbitConsumer),
    /// From this process.
    Memory(memory::MemoryConsumer),
    /// Through a test's seam.
    Watched(Box<WatchedConsumer>),
}

/// A consumer behind a test's seam.
#[derive(Debug)]
pub struct WatchedConsumer {
    watched: Arc<Watched<Broker>>,
    consumer: Box<Consumer>,
    /// What has come, while the seam holds it up.
    arriving: Option<Delivery>,
}

impl WatchedConsumer {
    async fn next(&mut self) -> Delivery {
        loop {
            let delivery = match self.arriving.take() {
                Some(delivery) => delivery,
                None => Box::pin(self.consumer.next()).await,
            };
            // Kept here while the seam is asked, so that this may be dropped meanwhile.
            let delivery = self.arriving.insert(delivery);
            let (queue, envelope, redelivered) = (delivery.queue(), delivery.envelope(), delivery.redelivered());
            let fate = self.watched.seam.before(Call::Deliver { queue, envelope, redelivered }).await;
            if let Some(delivery) = self.arriving.take().filter(|_| fate != Fate::Lost) {
                return Delivery::Watched(Box::new((delivery, Arc::clone(&self.watched))));
            }
        }
    }
}

impl Consumer {
    /// The next delivery. Waits as long as it takes, reconnecting when needed; cancel-safe.
    pub async fn next(&mut self) -> Delivery {
        match self {
            Consumer::Rabbit(consumer) => Delivery::Rabbit(consumer.next().await),
            Consumer::Memory(consumer) => Delivery::Memory(consumer.next().await),
            Consumer::Watched(consumer) => consumer.next().await,
        }
    }
}

/// A message in hand. Dropping it means redelivery.
#[derive(Debug)]
pub enum Delivery {
    /// From RabbitMQ.
    Rabbit(rabbit::RabbitDelivery),
    /// From this process.
    Memory(memory::MemoryDelivery),
    /// Through a test's seam.
    Watched(Box<(Delivery, Arc<Watched<Broker>>)>),
}

impl Delivery {
    /// The message.
    pub fn envelope(&self) -> &Envelope {
        match self {
            Delivery::Rabbit(delivery) => &delivery.envelope,
            Delivery::Memory(delivery) => &delivery.envelope,
            Delivery::Watched(watched) => watched.0.envelope(),
        }
    }

    /// Whether this message has been handed out before.
    pub fn redelivered(&self) -> bool {
        match self {
            Delivery::Rabbit(delivery) => delivery.redelivered || delivery.envelope.returned,
            Delivery::Memory(delivery) => delivery.redelivered || delivery.envelope.returned,
            Delivery::Watched(watched) => watched.0.redelivered(),
        }
    }

    /// The full name of the queue that it comes from.
    pub fn queue(&self) -> &str {
        match self {
            Delivery::Rabbit(delivery) => &delivery.queue,
            Delivery::Memory(delivery) => &delivery.queue,
            Delivery::Watched(watched) => watched.0.queue(),
        }
    }

    /// When it was published, in milliseconds since 1970, if its publisher said so. Another machine's clock.
    pub fn published_ms(&self) -> Option<u64> {
        match self {
            Delivery::Rabbit(delivery) => delivery.published_ms,
            Delivery::Memory(_) => None,
            Delivery::Watched(watched) => watched.0.published_ms(),
        }
    }

    /// Takes the message off the queue. `false`: the connection was lost in the meantime, the message comes back. No broker
    /// confirms an acknowledgement, so after `true` it may come back too, when the connection is lost in this moment.
    pub async fn ack(self) -> bool {
        match self {
            Delivery::Rabbit(delivery) => delivery.ack(),
            Delivery::Memory(delivery) => delivery.ack(),
            Delivery::Watched(watched) => {
                let (delivery, watched) = *watched;
                let (queue, envelope) = (delivery.queue().to_owned(), delivery.envelope().clone());
                let call = Call::Ack { queue: &queue, envelope: &envelope };
                if watched.seam.before(call).await == Fate::Lost {
                    // The consumer believes it; the broker knows nothing and hands the message out again.
                    return true;
                }
                let acknowledged = Box::pin(delivery.ack()).await;
                watched.seam.after(call, &acknowledged).await;
                acknowledged
            }
        }
    }

    /// Publishes the message to the dead queue with `why` as its reason, then takes it off this queue. When the dead queue
    /// does not confirm, the message is not acknowledged and comes back. It keeps its id, so that a slot which this very
    /// message holds can be told from one that another message holds.
    pub async fn park(self, broker: &Broker, why: &str) -> bool {
        let mut dead = self.envelope().clone();
        dead.origin = Some(self.queue().to_owned());
        dead.reason = Some(why.chars().take(crate::limits::REASON_CHARS_MAX).collect());
        match broker.publish(Target::Queue(Queue::Dead), dead).await {
            Ok(()) => self.ack().await,
            Err(_unconfirmed) => false,
        }
    }
}

/// The one of two answers that asks more of the caller: what may be lost must be published again.
fn worse(one: Result<(), PublishError>, other: Result<(), PublishError>) -> Result<(), PublishError> {
    match (&one, &other) {
        (Err(PublishError::Unconfirmed(_)), _) | (_, Ok(())) => one,
        (Ok(()) | Err(PublishError::Unroutable(_)), _) => other,
    }
}

/// Why AMQP has no room for something in the envelope or for the queue's name, in one sentence, if it has not.
fn unfit(envelope: &Envelope, queue: &str) -> Option<String> {
    let named = [
        ("type", Some(envelope.kind.as_str())),
        ("message_id", Some(envelope.message_id.as_str())),
        ("reply_to", envelope.reply_to.as_deref()),
        ("correlation_id", envelope.correlation_id.as_deref()),
        ("queue name", Some(queue)),
    ];
    let long =
        named.into_iter().find_map(|(what, text)| Some((what, text?.len())).filter(|(_, bytes)| *bytes > AMQP_TEXT_BYTES_MAX));
    long.map(|(what, bytes)| format!("{what}: {}", too_long(bytes)))
}

/// What is said of a name or an id of so many bytes.
fn too_long(bytes: usize) -> String {
    format!("{bytes} bytes do not fit into AMQP's {AMQP_TEXT_BYTES_MAX} for a name or an id")
}

/// The wait before try `tries` (from 0) of something that is done again and again: doubled each time, with full jitter from
/// `random` in [0, 1), never more than `max`.
pub fn backoff(tries: u32, min: Duration, max: Duration, random: f64) -> Duration {
    let ceiling = min.saturating_mul(2u32.saturating_pow(tries.min(20))).min(max);
    ceiling.mul_f64(random.clamp(0.0, 1.0))
}
