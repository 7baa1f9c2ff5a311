//! The queues on the broker. Their arguments never change in place: a change needs a new version in the queue's name.
//! Every argument here declares identically on RabbitMQ 3.10 and 4.x.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Error, ErrorKind};

use super::wire::short;
use crate::limits::{DEAD_DELIVERY_LIMIT, DELIVERY_LIMIT};
use crate::message::Queue;

/// Declares `queues`. The error names the queue it happened at.
///
/// A user who may not declare (no `configure` permission) can still use the queues that another one has declared.
pub(super) async fn declare(connection: &Connection, prefix: &str, queues: &[Queue]) -> Result<(), (String, Error)> {
    let mut channel = None;
    for queue in queues {
        let name = queue.name(prefix);
        let open = match channel.take() {
            Some(channel) => Ok(channel),
            None => connection.create_channel().await,
        };
        let open = open.map_err(|error| (name.clone(), error))?;
        match declare_one(&open, *queue, &name, prefix).await {
            Ok(()) => channel = Some(open),
            // The channel is gone; a look needs no permission.
            Err(refused) if is_refused(&refused) => match is_there(connection, &name).await {
                Ok(()) => tracing::debug!(queue = %name, "queue {name} is somebody else's to declare, and there"),
                Err(_missing) => return Err((name, refused)),
            },
            Err(error) => return Err((name, error)),
        }
    }
    Ok(())
}

async fn declare_one(channel: &Channel, queue: Queue, name: &str, prefix: &str) -> Result<(), Error> {
    let name = short(name).map_err(std::io::Error::other)?;
    channel.queue_declare(name, QueueDeclareOptions::durable(), arguments(queue, prefix)).await.map(drop)
}

async fn is_there(connection: &Connection, name: &str) -> Result<(), Error> {
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let name = short(name).map_err(std::io::Error::other)?;
    channel.queue_declare(name, passive, FieldTable::default()).await.map(drop)
}

fn is_refused(error: &Error) -> bool {
    let refused = |said: &AMQPError| matches!(said.kind(), AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED));
    matches!(error.kind(), ErrorKind::ProtocolError(said) if refused(said))
}

/// Deletes every queue with this prefix, and what is in them.
pub(super) async fn delete(channel: &Channel, prefix: &str) -> Result<(), Error> {
    for queue in Queue::ALL {
        let name = short(&queue.name(prefix)).map_err(std::io::Error::other)?;
        channel.queue_delete(name, QueueDeleteOptions::default()).await?;
    }
    Ok(())
}

pub(super) fn arguments(queue: Queue, prefix: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    let mut text = |key: &'static str, value: &str| {
        arguments.insert(key.into(), AMQPValue::LongString(value.into()));
    };
    text("x-queue-type", "quorum");
    let limit = match queue {
        Queue::Dead => DEAD_DELIVERY_LIMIT,
        Queue::Objectives | Queue::Steps | Queue::Reports | Queue::Completions | Queue::Controls => {
            text("x-dead-letter-exchange", "");
            text("x-dead-letter-routing-key", &Queue::Dead.name(prefix));
            text("x-dead-letter-strategy", "at-least-once");
            // Without it the broker silently falls back to at-most-once dead-lettering.
            text("x-overflow", "reject-publish");
            DELIVERY_LIMIT
        }
    };
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(limit));
    arguments
}
