//! RabbitMQ. The only file that names lapin.
use super::{Envelope, PublishError, Target};
use crate::message::Queue;
use std::sync::Arc;
#[derive(Debug)]
pub struct Rabbit;
#[derive(Debug)]
pub struct RabbitConsumer;
#[derive(Debug)]
pub struct RabbitDelivery {
    pub(super) envelope: Envelope,
    pub(super) redelivered: bool,
    pub(super) queue: String,
}
impl Rabbit {
    pub(super) async fn publish_all(&self, _b: Vec<(Target, Envelope)>) -> Result<(), PublishError> {
        unimplemented!()
    }
    pub(super) fn consume(_: &Arc<Self>, _q: Queue, _p: u16) -> RabbitConsumer {
        unimplemented!()
    }
    pub(super) async fn depth(&self, _q: Queue) -> Result<u64, PublishError> {
        unimplemented!()
    }
    pub(super) async fn close(&self) {}
}
impl RabbitConsumer {
    pub(super) async fn next(&mut self) -> RabbitDelivery {
        unimplemented!()
    }
}
impl RabbitDelivery {
    pub(super) async fn ack(self) -> bool {
        unimplemented!()
    }
}
