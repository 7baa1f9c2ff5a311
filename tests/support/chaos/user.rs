//! Somebody who uses planrelay over AMQP, and does what the README tells such a client to do: what was not confirmed is published
//! again under the same id.

use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::time::{sleep, timeout};

/// How long anything may take before the connection counts as gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// The wait before the next try.
const PAUSE: Duration = Duration::from_millis(200);

/// A user with a connection of its own, made anew whenever it fails, to the next host.
pub(super) struct User {
    urls: Vec<String>,
    tried: usize,
    connected: Option<(Connection, Channel)>,
}

impl User {
    /// `urls`: one, or several of a cluster separated by commas.
    pub(super) fn new(urls: &str) -> Self {
        Self { urls: urls.split(',').map(str::to_owned).collect(), tried: 0, connected: None }
    }

    async fn channel(&mut self) -> Option<Channel> {
        if self.connected.is_none() {
            let url = self.urls[self.tried % self.urls.len()].clone();
            self.tried += 1;
            let connect = async {
                let connection = Connection::connect(&url, ConnectionProperties::default()).await.ok()?;
                let channel = connection.create_channel().await.ok()?;
                channel.confirm_select(ConfirmSelectOptions::default()).await.ok()?;
                Some((connection, channel))
            };
            self.connected = timeout(PATIENCE, connect).await.ok().flatten();
        }
        self.connected.as_ref().map(|(_, channel)| channel.clone())
    }

    /// Repeats `act` on a channel until it gives something.
    async fn repeat<T>(&mut self, act: impl AsyncFn(Channel) -> Option<T>) -> T {
        loop {
            if let Some(channel) = self.channel().await
                && let Ok(Some(done)) = timeout(PATIENCE, act(channel)).await
            {
                return done;
            }
            self.connected = None;
            sleep(PAUSE).await;
        }
    }

    /// Publishes until the broker has confirmed that the message is in a queue.
    pub(super) async fn publish(&mut self, queue: &str, body: &[u8], properties: &BasicProperties) {
        let publish = async |channel: Channel| {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let sent = channel.basic_publish("".into(), queue.into(), options, body, properties.clone()).await.ok()?;
            matches!(sent.await, Ok(Confirmation::Ack(None))).then_some(())
        };
        self.repeat(publish).await;
    }

    /// Makes a queue that outlives RabbitMQ.
    pub(super) async fn declare(&mut self, queue: &str) {
        let declare = async |channel: Channel| {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(queue.into(), options, arguments).await.ok().map(drop)
        };
        self.repeat(declare).await;
    }

    /// Takes a message, if there is one: correlation id and body. One that could not be acknowledged comes again.
    pub(super) async fn take(&mut self, queue: &str) -> Option<(String, Vec<u8>)> {
        let take = async |channel: Channel| {
            let Some(message) = channel.basic_get(queue.into(), BasicGetOptions::default()).await.ok()? else {
                return Some(None);
            };
            let delivery = message.delivery;
            let correlation_id = delivery.properties.correlation_id().as_ref().map(ToString::to_string);
            delivery.acker.ack(BasicAckOptions::default()).await.ok()?;
            Some(Some((correlation_id.unwrap_or_default(), delivery.data)))
        };
        self.repeat(take).await
    }

    /// Takes every message out of a queue, once; whether that was done.
    pub(super) async fn purge(&mut self, queue: &str) -> Option<u32> {
        let channel = self.channel().await?;
        let purged = timeout(PATIENCE, channel.queue_purge(queue.into(), QueuePurgeOptions::default())).await;
        let count = purged.ok().and_then(Result::ok);
        if count.is_none() {
            self.connected = None;
        }
        count
    }
}
