//! Publishing a case: in memory as an envelope, to RabbitMQ as any AMQP client would.

use common::broker::{Envelope, Target};
use common::message::Queue;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;
use support::stack::amqp_url;
use support::world::{Backend, World};

use crate::corpus::input;

/// Who publishes: an AMQP client of its own, or nobody but the world's broker.
pub(super) struct Publisher {
    channel: Option<Channel>,
    /// Lives as long as its channel is used.
    _connection: Option<Connection>,
}

impl Publisher {
    pub(super) async fn new(backend: Backend) -> Self {
        if backend == Backend::Memory {
            return Self { channel: None, _connection: None };
        }
        let connection = Connection::connect(&amqp_url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { channel: Some(channel), _connection: Some(connection) }
    }

    /// Publishes the message of `case`.
    pub(super) async fn publish(&self, world: &World, case: &Value) {
        let queue = *Queue::ALL.iter().find(|queue| case["queue"] == queue.role()).expect("a queue");
        let body = input::bytes(&case["body"]);
        let Some(channel) = &self.channel else {
            return world.env.broker.publish(Target::Queue(queue), envelope(world, case, body)).await.unwrap();
        };
        let (name, options) = (queue.name(world.prefix()), BasicPublishOptions::default());
        let published = channel.basic_publish("".into(), name.into(), options, &body, properties(world, case)).await;
        let confirmed = published.unwrap().await.unwrap();
        assert!(matches!(confirmed, lapin::Confirmation::Ack(None)), "{confirmed:?}");
    }
}

/// A property of the message as text, with the prefix of the world's queues in place of `{prefix}`.
fn text(world: &World, value: &Value) -> Option<String> {
    let bytes = (!value.is_null()).then(|| input::bytes(value))?;
    Some(String::from_utf8(bytes).ok()?.replace("{prefix}", world.prefix()))
}

fn envelope(world: &World, case: &Value, body: Vec<u8>) -> Envelope {
    let own = |name: &str| text(world, &case[name]);
    let header = |name: &str| text(world, &case["headers"][name]);
    Envelope {
        message_id: own("message_id").unwrap_or_default(),
        kind: own("type").unwrap_or_default(),
        body,
        reply_to: own("reply_to"),
        correlation_id: own("correlation_id"),
        traceparent: header("traceparent"),
        reason: header("planrelay-reason"),
        origin: header("planrelay-origin"),
        returned: false,
    }
}

fn properties(world: &World, case: &Value) -> BasicProperties {
    let own = |name: &str| text(world, &case[name]).map(|text| ShortString::try_new(text).expect("a short string"));
    let mut headers = FieldTable::default();
    for (name, value) in case["headers"].as_object().into_iter().flatten() {
        let name = ShortString::try_new(name.as_str()).expect("a short string");
        headers.insert(name, AMQPValue::LongString(input::bytes(value).into()));
    }
    let mut properties = BasicProperties::default().with_headers(headers);
    type With = fn(BasicProperties, ShortString) -> BasicProperties;
    let all: [(&str, With); 6] = [
        ("message_id", BasicProperties::with_message_id),
        ("type", BasicProperties::with_type),
        ("reply_to", BasicProperties::with_reply_to),
        ("correlation_id", BasicProperties::with_correlation_id),
        ("content_type", BasicProperties::with_content_type),
        ("content_encoding", BasicProperties::with_content_encoding),
    ];
    for (name, with) in all {
        if let Some(text) = own(name) {
            properties = with(properties, text);
        }
    }
    properties
}
