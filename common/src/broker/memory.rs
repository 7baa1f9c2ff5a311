//! MemoryMQ. The only file that names x.
use super::{Envelope, PublishError, Target};
use crate::message::Queue;
use std::sync::Arc;
#[derive(Debug)]
pub struct Memory;
#[derive(Debug)]
pub struct MemoryConsumer;
#[derive(Debug)]
pub struct MemoryDelivery {
    pub(super) envelope: Envelope,
    pub(super) redelivered: bool,
    pub(super) queue: String,
}
impl Memory {
    pub(super) async fn publish_all(&self, _b: Vec<(Target, Envelope)>) -> Result<(), PublishError> {
        unimplemented!()
    }
    pub(super) fn consume(_: &Arc<Self>, _q: Queue, _p: u16) -> MemoryConsumer {
        unimplemented!()
    }
    pub(super) fn depth(&self, _q: Queue) -> u64 {
        unimplemented!()
    }
}
impl MemoryConsumer {
    pub(super) async fn next(&mut self) -> MemoryDelivery {
        unimplemented!()
    }
}
impl MemoryDelivery {
    pub(super) fn ack(self) -> bool {
        unimplemented!()
    }
}
