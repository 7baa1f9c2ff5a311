//! What memory has of its own: queues for replies without a broker's help, and an end of its room.

use super::*;

#[tokio::test]
async fn named_queues_are_there_once_declared() {
    let memory = Memory::new("p");
    let broker = Broker::Memory(memory.clone());
    memory.declare("answers");
    broker.publish(Target::Named("answers".to_owned()), step("a")).await.expect("routed");
    assert_eq!(memory.receive("answers").await, step("a"));
}

#[tokio::test]
async fn its_room_ends() {
    let memory = Memory::new("p");
    memory.limit(&Queue::Steps.name("p"), 2);
    memory.limit(&Queue::Dead.name("p"), 2);
    let place = Place { broker: Broker::Memory(Arc::clone(&memory)), prefix: "p".to_owned() };
    let published = place.broker.publish_all(steps(0..3)).await;
    assert!(matches!(published, Err(PublishError::Unconfirmed(why)) if why.contains("full")));
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    let first = next(&mut consumer).await;
    place.publish(&["2"]).await;
    // A full dead queue takes no letter: the message comes back.
    place.broker.publish_all(vec![(Target::Queue(Queue::Dead), step("x")); 2]).await.expect("there is room");
    assert!(!first.park(&place.broker, "no").await);
    let again = next(&mut consumer).await;
    assert_eq!((id(&again), again.redelivered()), ("0", true));
    assert_eq!(memory.unacknowledged(), 1);
}
