//! The queues on the broker. Their arguments never change in place: a change needs a new version in the queue's name.
//! Every argument here declares identically on RabbitMQ 3.10 and 4.x.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Error};

use super::wire::short;
use crate::limits::{DEAD_DELIVERY_LIMIT, DELIVERY_LIMIT};
use crate::message::Queue;

/// Declares `queues`. The error names the queue it happened at; the channel is gone then.
pub(super) async fn declare(channel: &Channel, prefix: &str, queues: &[Queue]) -> Result<(), (String, Error)> {
    for queue in queues {
        let name = queue.name(prefix);
        let declared = match short(&name) {
            Ok(short) => channel.queue_declare(short, QueueDeclareOptions::durable(), arguments(*queue, prefix)).await,
            Err(too_long) => Err(std::io::Error::other(too_long).into()),
        };
        declared.map_err(|e| (name, e))?;
    }
    Ok(())
}

/// Deletes every queue with this prefix, and what is in them.
pub(super) async fn delete(channel: &Channel, prefix: &str) -> Result<(), Error> {
    for queue in Queue::ALL {
        let name = short(&queue.name(prefix)).map_err(std::io::Error::other)?;
        channel.queue_delete(name, QueueDeleteOptions::default()).await?;
    }
    Ok(())
}

fn arguments(queue: Queue, prefix: &str) -> FieldTable {
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
