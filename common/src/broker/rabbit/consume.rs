//! A feed: the one task that keeps one consumer supplied, over as many connections as it takes.
//!
//! Every end of the stream (an error, a cancelled consumer, a lost connection) is treated the same: new channel, prefetch,
//! consumer; on a new connection if the old one is gone. Deliveries of an old channel cannot be settled any more, and come back.
//!
//! Acknowledgements go through the feed, which tells the broker of many at once: while one write is under way the next ones gather.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Rabbit;
use super::ledger::{Ledger, Returned};
use super::link::Link;
use super::wire;
use crate::broker::{ConnectError, Envelope};
use crate::limits::{CONNECT_TIMEOUT, RECONNECT_BACKOFF_MAX};
use crate::message::Queue;
use crate::metrics::Metrics;

/// A stream of deliveries. Dropping it gives back what was prefetched; deliveries already handed out can still be acknowledged.
#[derive(Debug)]
pub struct RabbitConsumer {
    deliveries: mpsc::UnboundedReceiver<RabbitDelivery>,
    stop: CancellationToken,
    /// Keeps the feed alive while this consumer or one of its deliveries lives.
    _settle: mpsc::UnboundedSender<Settled>,
    /// Keeps the connection.
    _broker: Arc<Rabbit>,
}

/// A message in hand. Dropping it gives it back to the queue.
#[derive(Debug)]
pub struct RabbitDelivery {
    pub(in crate::broker) envelope: Envelope,
    pub(in crate::broker) redelivered: bool,
    pub(in crate::broker) queue: String,
    pub(in crate::broker) published_ms: Option<u64>,
    session: Arc<Session>,
    tag: u64,
    fate: Fate,
    settle: mpsc::UnboundedSender<Settled>,
}

/// One channel's life, as its deliveries see it.
#[derive(Debug, Default)]
struct Session {
    over: AtomicBool,
}

/// What becomes of a delivery when it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Goes back; nobody has had it in hand.
    Untaken,
    /// Goes back; it was taken.
    Taken,
    /// Is gone.
    Acknowledged,
}

/// A delivery whose fate is sealed.
#[derive(Debug)]
struct Settled {
    session: Arc<Session>,
    tag: u64,
    fate: Fate,
}

/// The feed's side of a consumer.
pub(super) struct Feed {
    link: Arc<Link>,
    metrics: Metrics,
    role: Queue,
    queue: String,
    prefetch: u16,
    deliveries: mpsc::UnboundedSender<RabbitDelivery>,
    settled: mpsc::UnboundedReceiver<Settled>,
    /// Weak: the feed ends when the consumer and all deliveries are gone.
    settle: mpsc::WeakUnboundedSender<Settled>,
    /// The consumer was dropped.
    stop: CancellationToken,
    /// The broker is being closed.
    closing: CancellationToken,
}

/// A consumer of `queue` and its feed, not yet running.
pub(super) fn pair(broker: Arc<Rabbit>, role: Queue, prefetch: u16) -> (RabbitConsumer, Feed) {
    let (out, deliveries) = mpsc::unbounded_channel();
    let (settle, settled) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let feed = Feed {
        link: Arc::clone(&broker.consuming),
        metrics: broker.metrics.clone(),
        role,
        queue: role.name(&broker.prefix),
        prefetch,
        deliveries: out,
        settled,
        settle: settle.downgrade(),
        stop: stop.clone(),
        closing: broker.closing.clone(),
    };
    (RabbitConsumer { deliveries, stop, _settle: settle, _broker: broker }, feed)
}

impl RabbitConsumer {
    pub(in crate::broker) async fn next(&mut self) -> RabbitDelivery {
        loop {
            match self.deliveries.recv().await {
                // Its channel is gone: the broker hands it out again, and nothing that is done with this one counts.
                Some(delivery) if delivery.session.over.load(Ordering::SeqCst) => {}
                Some(mut delivery) => {
                    delivery.fate = Fate::Taken;
                    return delivery;
                }
                // The broker was closed under us: there is nothing to come.
                None => std::future::pending().await,
            }
        }
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        // Before the prefetched deliveries are dropped, so that none of them comes back to this consumer.
        self.stop.cancel();
    }
}

impl RabbitDelivery {
    /// Hands the acknowledgement to the feed. No broker confirms one, so there is nothing to wait for.
    pub(in crate::broker) fn ack(mut self) -> bool {
        self.fate = Fate::Acknowledged;
        !self.session.over.load(Ordering::SeqCst) && !self.settle.is_closed()
    }
}

impl Drop for RabbitDelivery {
    fn drop(&mut self) {
        let settled = Settled { session: Arc::clone(&self.session), tag: self.tag, fate: self.fate };
        // Without a feed there is no connection either, and the message comes back by itself.
        let _feed_may_be_gone = self.settle.send(settled);
    }
}

impl Feed {
    /// Supplies the consumer until it is dropped and all its deliveries are settled.
    pub(super) async fn run(mut self) {
        let mut tries = 0;
        let (stop, closing) = (self.stop.clone(), self.closing.clone());
        let ended = async || tokio::select! { () = stop.cancelled() => {}, () = closing.cancelled() => {} };
        while !stop.is_cancelled() && !closing.is_cancelled() {
            let subscribed = tokio::select! {
                () = ended() => return,
                subscribed = self.subscribe() => subscribed,
            };
            let since = Instant::now();
            match subscribed {
                Ok((channel, consumer)) => {
                    tracing::debug!(queue = %self.queue, "consuming from {}", self.queue);
                    let (metrics, role) = (self.metrics.clone(), self.role);
                    metrics.consuming(role, true);
                    Supply::new(&mut self, channel).run(consumer).await;
                    metrics.consuming(role, false);
                }
                Err(error) => {
                    tracing::warn!(queue = %self.queue, %error, tries, "cannot consume from {}, trying again", self.queue)
                }
            }
            // A session that lasted was a good one; one that ends at once again and again must not become a storm.
            tries = if since.elapsed() > RECONNECT_BACKOFF_MAX { 0 } else { tries + 1 };
            tokio::select! {
                () = ended() => {}
                () = tokio::time::sleep(self.link.pause(tries)) => {}
            }
        }
    }

    async fn subscribe(&self) -> Result<(Channel, Consumer), ConnectError> {
        let channel = self.link.channel().await?;
        let lost = |why: String| ConnectError::Unreachable { url: "the connected host".to_owned(), why };
        let subscribed = timeout(CONNECT_TIMEOUT, async {
            channel.basic_qos(self.prefetch, BasicQosOptions { global: false }).await?;
            let queue = wire::short(&self.queue).map_err(std::io::Error::other)?;
            channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
        });
        match subscribed.await {
            Ok(Ok(consumer)) => Ok((channel, consumer)),
            Ok(Err(error)) => {
                // The queue may be gone since the connection was made.
                self.link.redeclare();
                Err(lost(error.to_string()))
            }
            Err(_elapsed) => {
                self.link.distrust();
                Err(lost(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))
            }
        }
    }
}

/// The feed on one channel.
struct Supply<'a> {
    feed: &'a mut Feed,
    channel: Channel,
    session: Arc<Session>,
    ledger: Ledger,
    /// Frames on their way out.
    writes: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<'a> Supply<'a> {
    fn new(feed: &'a mut Feed, channel: Channel) -> Self {
        Self { feed, channel, session: Arc::default(), ledger: Ledger::new(), writes: FuturesUnordered::new() }
    }

    /// Hands over deliveries until the stream ends, the broker is closed, or the consumer is dropped and everything is settled.
    async fn run(mut self, mut consumer: Consumer) {
        let (stop, closing) = (self.feed.stop.clone(), self.feed.closing.clone());
        let mut cancelled = false;
        loop {
            if self.writes.is_empty() {
                self.tell();
            }
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                () = stop.cancelled(), if !cancelled => {
                    cancelled = true;
                    self.cancel(&mut consumer).await;
                }
                Some(()) = self.writes.next() => {}
                settled = self.feed.settled.recv() => match settled {
                    Some(settled) => self.note(settled),
                    // The consumer and all its deliveries are gone.
                    None => break,
                },
                next = consumer.next(), if !cancelled => if !self.hand_over(next) {
                    break;
                },
            }
        }
        self.end().await;
    }

    /// What is settled by now still reaches the broker, if the broker can be reached. Everything else comes back.
    async fn end(mut self) {
        self.session.over.store(true, Ordering::SeqCst);
        while let Ok(settled) = self.feed.settled.try_recv() {
            self.note(settled);
        }
        self.tell();
        let _closed_or_not = timeout(CONNECT_TIMEOUT, async {
            while let Some(()) = self.writes.next().await {}
            self.channel.close(200, "OK".into()).await
        })
        .await;
    }

    fn hand_over(&self, next: Option<Result<lapin::message::Delivery, lapin::Error>>) -> bool {
        let queue = &self.feed.queue;
        match next {
            Some(Ok(delivery)) => {
                // No sender is left when the consumer and all deliveries are gone; then the channel has no more use either.
                let Some(settle) = self.feed.settle.upgrade() else { return false };
                let delivery = RabbitDelivery {
                    published_ms: wire::published_ms(&delivery.properties),
                    envelope: wire::envelope(&delivery.properties, delivery.data),
                    redelivered: delivery.redelivered,
                    queue: queue.clone(),
                    session: Arc::clone(&self.session),
                    tag: delivery.delivery_tag,
                    fate: Fate::Untaken,
                    settle,
                };
                // A consumer that is gone in this moment drops the delivery, which gives it back.
                let _consumer_may_be_gone = self.feed.deliveries.send(delivery);
                true
            }
            Some(Err(error)) => {
                tracing::warn!(queue, %error, "lost the consumer of {queue}, consuming anew");
                false
            }
            None => {
                tracing::warn!(queue, "the broker cancelled the consumer of {queue}, consuming anew");
                self.feed.link.redeclare();
                false
            }
        }
    }

    /// Cancels the consumer and gives back what it had not handed over. Deliveries in hand can still be settled.
    async fn cancel(&mut self, consumer: &mut Consumer) {
        // Deliveries may arrive until the broker has confirmed; after it none can.
        let cancel = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        let _cancelled_or_lost = timeout(CONNECT_TIMEOUT, cancel).await;
        while let Some(Some(Ok(delivery))) = consumer.next().now_or_never() {
            self.ledger.give_back(delivery.delivery_tag, false);
        }
    }

    fn note(&mut self, settled: Settled) {
        let mut next = Some(settled);
        while let Some(Settled { session, tag, fate }) = next {
            // Tags of an older channel mean nothing on this one.
            if Arc::ptr_eq(&session, &self.session) {
                match fate {
                    Fate::Acknowledged => self.ledger.acknowledge(tag),
                    Fate::Taken => self.ledger.give_back(tag, true),
                    Fate::Untaken => self.ledger.give_back(tag, false),
                }
            }
            next = self.feed.settled.try_recv().ok();
        }
    }

    /// Writes what the broker does not know yet. On a channel that is gone it does not matter: the broker has everything back.
    fn tell(&mut self) {
        let words = self.ledger.words();
        let channel = || self.channel.clone();
        for Returned { tag, taken } in words.returned {
            let channel = channel();
            self.writes.push(Box::pin(async move {
                // Before RabbitMQ 4.3 both count as a return; since then only a reject does. What nobody took has not failed.
                let _written_or_lost = if taken {
                    channel.basic_reject(tag, BasicRejectOptions { requeue: true }).await
                } else {
                    channel.basic_nack(tag, BasicNackOptions { requeue: true, multiple: false }).await
                };
            }));
        }
        let acks = words.through.map(|tag| (tag, true)).into_iter().chain(words.single.into_iter().map(|tag| (tag, false)));
        for (tag, multiple) in acks {
            let channel = channel();
            self.writes.push(Box::pin(async move {
                let _written_or_lost = channel.basic_ack(tag, BasicAckOptions { multiple }).await;
            }));
        }
    }
}
