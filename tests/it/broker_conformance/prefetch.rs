//! Who gets what: in turn, as much as there is room for, whether it is taken or not.

use super::*;

contract![
    consumers_with_room_are_served_in_turn,
    what_a_consumer_has_not_taken_is_its_own,
    room_is_counted_for_each_consumer,
    a_consumer_that_leaves_makes_room_for_nobody,
];

/// Everything that a consumer has by now, without waiting for more.
async fn taken(consumer: &mut Consumer, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for _ in 0..count {
        deliveries.push(next(consumer).await);
    }
    assert!(consumer.next().now_or_never().is_none(), "it has more than {count}");
    deliveries
}

fn ids(deliveries: &[Delivery]) -> Vec<u32> {
    deliveries.iter().map(|delivery| id(delivery).parse().expect("a number")).collect()
}

async fn consumers_with_room_are_served_in_turn(place: Place) {
    let mut one = place.broker.consume(Queue::Steps, 4);
    place.consumed_by(1).await;
    let mut other = place.broker.consume(Queue::Steps, 2);
    place.consumed_by(2).await;
    place.broker.publish_all(steps(0..7)).await.expect("published");
    let (first, second) = (taken(&mut one, 4).await, taken(&mut other, 2).await);
    // In turn while both have room, then whoever has.
    assert_eq!((ids(&first), ids(&second)), (vec![0, 2, 4, 5], vec![1, 3]));
    place.has_depth(1).await;
}

async fn what_a_consumer_has_not_taken_is_its_own(place: Place) {
    place.broker.publish_all(steps(0..5)).await.expect("published");
    let idle = place.broker.consume(Queue::Steps, 3);
    place.has_depth(2).await;
    let mut busy = place.broker.consume(Queue::Steps, 8);
    let got = taken(&mut busy, 2).await;
    assert_eq!(ids(&got), [3, 4]);
    drop(idle);
    let got = taken(&mut busy, 3).await;
    assert_eq!(ids(&got), [0, 1, 2]);
    assert!(got.iter().all(Delivery::redelivered));
}

async fn room_is_counted_for_each_consumer(place: Place) {
    place.broker.publish_all(steps(0..9)).await.expect("published");
    let mut narrow = place.broker.consume(Queue::Steps, 1);
    let held = taken(&mut narrow, 1).await;
    let mut wide = place.broker.consume(Queue::Steps, 3);
    let mut got = taken(&mut wide, 3).await;
    assert_eq!((ids(&held), ids(&got)), (vec![0], vec![1, 2, 3]));
    place.has_depth(5).await;
    // Any of them makes room, not only the oldest; so does one that is given back.
    let middle = got.remove(1);
    assert!(middle.ack().await);
    assert_eq!(ids(&taken(&mut wide, 1).await), [4], "dropped at once");
    assert_eq!(ids(&taken(&mut wide, 1).await), [4]);
    place.has_depth(4).await;
}

async fn a_consumer_that_leaves_makes_room_for_nobody(place: Place) {
    place.broker.publish_all(steps(0..4)).await.expect("published");
    let mut leaving = place.broker.consume(Queue::Steps, 2);
    let held = taken(&mut leaving, 2).await;
    drop(leaving);
    for delivery in held {
        assert!(delivery.ack().await);
    }
    place.has_depth(2).await;
    let mut staying = place.broker.consume(Queue::Steps, 2);
    assert_eq!(ids(&taken(&mut staying, 2).await), [2, 3]);
}
