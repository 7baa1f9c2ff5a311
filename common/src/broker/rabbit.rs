//! RabbitMQ: quorum queues, publisher confirms, explicit acknowledgement. Only the files under `broker/rabbit` and this one name
//! `lapin` and `deadpool_lapin`.
//!
//! - `address`: what a URL may be. `link`: one connection, kept up. `topology`: the queues. `wire`: envelopes as AMQP properties.
//! - `inspect`, `greeting` and `management`: what `planrelay doctor` asks; nothing else uses them.
//! - `publish`: one task per confirm channel publishes for the whole process. `consume`: one task per consumer.
//!
//! One connection publishes and one consumes, because the broker blocks connections that publish when it runs out of memory or disk;
//! acknowledgements must still get through then.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::link::Link;
use self::publish::{Cargo, Lane, Receipt};
use super::{ConnectError, Envelope, PublishError, QueueLook, Target, worse};
use crate::clock::Clock;
use crate::config::BrokerConfig;
use crate::ids::Ids;
use crate::limits::{CONFIRM_TIMEOUT, CONFIRM_WINDOW, CONNECT_TIMEOUT};
use crate::message::Queue;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

mod address;
mod consume;
mod greeting;
pub mod inspect;
mod ledger;
mod link;
pub mod management;
mod publish;
mod topology;
mod wire;

pub use self::consume::{RabbitConsumer, RabbitDelivery};

/// A RabbitMQ cluster. Lost connections are made again, for ever, over all the configured hosts.
pub struct Rabbit {
    prefix: String,
    clock: Clock,
    publishing: Arc<Link>,
    consuming: Arc<Link>,
    metrics: Metrics,
    /// Publications to our own queues.
    own: Lane,
    /// Publications to queues that submitters named.
    foreign: Lane,
    _lanes: Tasks,
    feeds: Mutex<Tasks>,
    closing: CancellationToken,
}

impl fmt::Debug for Rabbit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rabbit").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Rabbit {
    /// Connects to the first host that answers and declares the queues of `prefix`. `name` is what the broker shows for the
    /// connections; `random` gives jitter. Fails at once when that is not possible; connections that are lost later are made again.
    pub async fn connect(
        config: &BrokerConfig,
        prefix: &str,
        name: &str,
        random: Ids,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, ConnectError> {
        let link =
            |suffix: &str| Link::new(config, prefix, &format!("{name} ({suffix})"), &Queue::ALL, &random, metrics).map(Arc::new);
        let (publishing, consuming) = (link("publish")?, link("consume")?);
        drop(publishing.channel().await?);
        let (own, own_jobs) = Lane::new(&publishing, CONFIRM_WINDOW);
        let (foreign, foreign_jobs) = Lane::new(&publishing, 1);
        let closing = CancellationToken::new();
        let mut lanes = Tasks::new();
        for (cargo, window, jobs) in [(Cargo::Own, CONFIRM_WINDOW, own_jobs), (Cargo::Foreign, 1, foreign_jobs)] {
            let (lane, closing) = (publish::run(Arc::clone(&publishing), cargo, window, jobs), closing.clone());
            lanes.spawn(async move {
                closing.run_until_cancelled(lane).await;
            });
        }
        let (prefix, clock, feeds, metrics) = (prefix.to_owned(), Clock::System, Mutex::default(), metrics.clone());
        Ok(Arc::new(Self { prefix, clock, publishing, consuming, metrics, own, foreign, _lanes: lanes, feeds, closing }))
    }

    /// Deletes every queue of `prefix`, with what is in them. For tests.
    pub async fn delete_queues(config: &BrokerConfig, prefix: &str) -> Result<(), ConnectError> {
        let link = Link::new(config, prefix, "delete queues", &[], &Ids::random(), &Metrics::new("none"))?;
        let channel = link.channel().await?;
        let deleted = topology::delete(&channel, prefix).await;
        link.close().await;
        deleted.map_err(|e| ConnectError::Refused { url: "the connected host".to_owned(), why: e.to_string() })
    }

    pub(super) async fn publish_all(&self, batch: Vec<(Target, Envelope)>) -> Result<(), PublishError> {
        let now_ms = self.clock.now_ms();
        let mut waiting: VecDeque<(&Lane, Receipt)> = VecDeque::new();
        let mut verdict = Ok(());
        for (target, envelope) in batch {
            if waiting.len() >= CONFIRM_WINDOW
                && let Some((lane, receipt)) = waiting.pop_front()
            {
                verdict = worse(verdict, lane.answer(receipt).await);
            }
            // A connection that confirms nothing would let every further message run into its time-out.
            if matches!(verdict, Err(PublishError::Unconfirmed(_))) {
                break;
            }
            let (lane, queue) = match target {
                Target::Queue(queue) => (&self.own, queue.name(&self.prefix)),
                Target::Named(queue) => (&self.foreign, queue),
            };
            match lane.send(&queue, envelope, now_ms).await {
                Ok(receipt) => waiting.push_back((lane, receipt)),
                Err(error) => verdict = worse(verdict, Err(error)),
            }
        }
        for (lane, receipt) in waiting {
            verdict = worse(verdict, lane.answer(receipt).await);
        }
        verdict
    }

    pub(super) fn consume(this: &Arc<Self>, queue: Queue, prefetch: u16) -> RabbitConsumer {
        // A prefetch of 0 would mean no limit.
        let (consumer, feed) = consume::pair(Arc::clone(this), queue, prefetch.max(1));
        this.feeds.lock().unwrap_or_else(PoisonError::into_inner).spawn(feed.run());
        consumer
    }

    pub(super) async fn look(&self, queue: Queue) -> Result<QueueLook, PublishError> {
        let name = queue.name(&self.prefix);
        let unknown = |why: String| PublishError::Unconfirmed(why);
        let channel = self.publishing.channel().await.map_err(|e| unknown(e.to_string()))?;
        let short = wire::short(&name).map_err(unknown)?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        match timeout(CONFIRM_TIMEOUT, channel.queue_declare(short, options, FieldTable::default())).await {
            Ok(Ok(found)) => Ok(QueueLook { ready: found.message_count().into(), consumers: found.consumer_count().into() }),
            Ok(Err(error)) if error.is_amqp_soft_error() => Err(PublishError::Unroutable(name)),
            Ok(Err(error)) => Err(unknown(error.to_string())),
            Err(_elapsed) => Err(unknown(format!("no answer within {} s", CONFIRM_TIMEOUT.as_secs()))),
        }
    }

    /// Why there is no connection, if there is none.
    pub(super) fn trouble(&self) -> Option<String> {
        self.publishing.trouble().or_else(|| self.consuming.trouble())
    }

    pub(super) async fn close(&self) {
        self.closing.cancel();
        let mut feeds = std::mem::take(&mut *self.feeds.lock().unwrap_or_else(PoisonError::into_inner));
        // They write what is acknowledged by now.
        let _all_or_some = timeout(CONNECT_TIMEOUT, feeds.finish()).await;
        feeds.stop().await;
        self.consuming.close().await;
        self.publishing.close().await;
    }
}
