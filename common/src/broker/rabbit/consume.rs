//! A feed: the one task that keeps one consumer supplied, over as many connections as it takes.
//!
//! Every end of the stream (an error, a cancelled consumer, a lost connection) is treated the same: new channel, prefetch,
//! consumer; on a new connection if the old one is gone. Deliveries of an old channel cannot be acknowledged any more, and come back.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use lapin::Acker;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Rabbit;
use super::link::Link;
use super::wire;
use crate::broker::{ConnectError, Envelope};
use crate::limits::{CONNECT_TIMEOUT, RECONNECT_BACKOFF_MAX};

/// A stream of deliveries. Dropping it gives back what was prefetched; deliveries already handed out can still be acknowledged.
#[derive(Debug)]
pub struct RabbitConsumer {
    deliveries: mpsc::UnboundedReceiver<RabbitDelivery>,
    stop: CancellationToken,
    /// Keeps the feed alive while this consumer or one of its deliveries lives.
    _give_back: mpsc::UnboundedSender<GivenBack>,
    /// Keeps the connection.
    _broker: Arc<Rabbit>,
}

/// A message in hand. Dropping it gives it back to the queue.
#[derive(Debug)]
pub struct RabbitDelivery {
    pub(in crate::broker) envelope: Envelope,
    pub(in crate::broker) redelivered: bool,
    pub(in crate::broker) queue: String,
    acker: Option<Acker>,
    /// Somebody has had it in hand.
    taken: bool,
    give_back: mpsc::UnboundedSender<GivenBack>,
}

/// A delivery that was dropped.
#[derive(Debug)]
struct GivenBack {
    acker: Acker,
    taken: bool,
}

/// The feed's side of a consumer.
pub(super) struct Feed {
    link: Arc<Link>,
    queue: String,
    prefetch: u16,
    deliveries: mpsc::UnboundedSender<RabbitDelivery>,
    given_back: mpsc::UnboundedReceiver<GivenBack>,
    /// Weak: the feed ends when all deliveries are gone.
    give_back: mpsc::WeakUnboundedSender<GivenBack>,
    stop: CancellationToken,
}

/// A consumer and its feed, not yet running.
pub(super) fn pair(broker: Arc<Rabbit>, link: Arc<Link>, queue: String, prefetch: u16) -> (RabbitConsumer, Feed) {
    let (out, deliveries) = mpsc::unbounded_channel();
    let (give_back, given_back) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let weak = give_back.downgrade();
    let feed = Feed { link, queue, prefetch, deliveries: out, given_back, give_back: weak, stop: stop.clone() };
    (RabbitConsumer { deliveries, stop, _give_back: give_back, _broker: broker }, feed)
}

impl RabbitConsumer {
    pub(in crate::broker) async fn next(&mut self) -> RabbitDelivery {
        match self.deliveries.recv().await {
            Some(mut delivery) => {
                delivery.taken = true;
                delivery
            }
            // The broker was closed under us: there is nothing to come.
            None => std::future::pending().await,
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
    pub(in crate::broker) async fn ack(mut self) -> bool {
        match self.acker.take() {
            Some(acker) => acker.ack(BasicAckOptions::default()).await.unwrap_or(false),
            None => false,
        }
    }
}

impl Drop for RabbitDelivery {
    fn drop(&mut self) {
        if let Some(acker) = self.acker.take() {
            // Without a feed there is no connection either, and the message comes back by itself.
            let _feed_may_be_gone = self.give_back.send(GivenBack { acker, taken: self.taken });
        }
    }
}

impl Feed {
    /// Supplies the consumer until it is dropped and all its deliveries are settled.
    pub(super) async fn run(mut self) {
        let mut tries = 0;
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            let subscribed = tokio::select! {
                () = stop.cancelled() => return,
                subscribed = self.subscribe() => subscribed,
            };
            let since = Instant::now();
            match subscribed {
                Ok((channel, consumer)) => {
                    tracing::debug!(queue = %self.queue, "consuming from {}", self.queue);
                    self.supply(&channel, consumer).await;
                    let _closed_or_not = timeout(CONNECT_TIMEOUT, channel.close(200, "OK".into())).await;
                }
                Err(error) => {
                    tracing::warn!(queue = %self.queue, %error, tries, "cannot consume from {}, trying again", self.queue)
                }
            }
            // A session that lasted was a good one; one that ends at once again and again must not become a storm.
            tries = if since.elapsed() > RECONNECT_BACKOFF_MAX { 0 } else { tries + 1 };
            tokio::select! {
                () = stop.cancelled() => {}
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

    /// Hands over deliveries until the stream ends, or the consumer is dropped and everything is settled.
    async fn supply(&mut self, channel: &Channel, mut consumer: Consumer) {
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.wind_up(channel, consumer).await,
                Some(given_back) = self.given_back.recv() => given_back.requeue().await,
                next = consumer.next() => if self.hand_over(next).is_break() {
                    return;
                },
            }
        }
    }

    fn hand_over(&self, next: Option<Result<lapin::message::Delivery, lapin::Error>>) -> ControlFlow<()> {
        match next {
            Some(Ok(delivery)) => {
                // No sender is left when the consumer and all deliveries are gone; then `stop` is cancelled too.
                let Some(give_back) = self.give_back.upgrade() else { return ControlFlow::Break(()) };
                let delivery = RabbitDelivery {
                    envelope: wire::envelope(&delivery.properties, delivery.data),
                    redelivered: delivery.redelivered,
                    queue: self.queue.clone(),
                    acker: Some(delivery.acker),
                    taken: false,
                    give_back,
                };
                // A consumer that is gone in this moment drops the delivery, which gives it back.
                let _consumer_may_be_gone = self.deliveries.send(delivery);
                ControlFlow::Continue(())
            }
            Some(Err(error)) => {
                tracing::warn!(queue = %self.queue, %error, "lost the consumer of {}, consuming anew", self.queue);
                ControlFlow::Break(())
            }
            None => {
                tracing::warn!(queue = %self.queue, "the broker cancelled the consumer of {}, consuming anew", self.queue);
                self.link.redeclare();
                ControlFlow::Break(())
            }
        }
    }

    /// Cancels the consumer, gives back what it had not handed over, and stays until the rest is settled.
    async fn wind_up(&mut self, channel: &Channel, mut consumer: Consumer) {
        // Deliveries may arrive until the broker has confirmed; after it none can.
        let _cancelled_or_lost =
            timeout(CONNECT_TIMEOUT, channel.basic_cancel(consumer.tag(), BasicCancelOptions::default())).await;
        while let Some(Some(Ok(delivery))) = consumer.next().now_or_never() {
            GivenBack { acker: delivery.acker, taken: false }.requeue().await;
        }
        while let Some(given_back) = self.given_back.recv().await {
            given_back.requeue().await;
        }
    }
}

impl GivenBack {
    /// Gives the message back. On a channel that is gone there is nothing to do: the broker has it back already.
    async fn requeue(self) {
        // Before RabbitMQ 4.3 both count as a return; since then only a reject does. What nobody has had in hand has not failed.
        let _given_back_or_gone = if self.taken {
            self.acker.reject(BasicRejectOptions { requeue: true }).await
        } else {
            self.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await
        };
    }
}
