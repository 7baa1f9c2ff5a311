//! What comes back: where it stands then, how it is marked, and how often it may.

use common::limits::{DEAD_DELIVERY_LIMIT, REASON_CHARS_MAX};

use super::*;

contract![
    what_comes_back_goes_first_in_the_order_of_its_return,
    what_nobody_took_comes_back_marked,
    what_one_gives_back_another_gets,
    a_dead_letter_that_comes_back_too_often_is_dropped,
    a_reason_of_its_own_is_kept,
    long_reasons_are_cut,
];

async fn what_comes_back_goes_first_in_the_order_of_its_return(place: Place) {
    place.publish(&["a", "b", "c", "d", "e"]).await;
    let mut leaving = place.broker.consume(Queue::Steps, 3);
    let (a, b, c) = (next(&mut leaving).await, next(&mut leaving).await, next(&mut leaving).await);
    assert_eq!([id(&a), id(&b), id(&c)], ["a", "b", "c"]);
    drop(leaving);
    for (depth, returned) in [(3, c), (4, a), (5, b)] {
        drop(returned);
        place.has_depth(depth).await;
    }
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    for (wanted, redelivered) in [("c", true), ("a", true), ("b", true), ("d", false), ("e", false)] {
        let delivery = next(&mut consumer).await;
        assert_eq!((id(&delivery), delivery.redelivered()), (wanted, redelivered));
        assert!(delivery.ack().await);
    }
}

async fn what_nobody_took_comes_back_marked(place: Place) {
    place.publish(&["a", "b", "c"]).await;
    let mut leaving = place.broker.consume(Queue::Steps, 2);
    let a = next(&mut leaving).await;
    place.has_depth(1).await;
    drop(leaving);
    place.has_depth(2).await;
    let mut staying = place.broker.consume(Queue::Steps, 2);
    for (wanted, redelivered) in [("b", true), ("c", false)] {
        let delivery = next(&mut staying).await;
        assert_eq!((id(&delivery), delivery.redelivered()), (wanted, redelivered));
        assert!(delivery.ack().await);
    }
    assert!(a.ack().await);
    drop(staying);
    place.is_empty().await;
}

async fn what_one_gives_back_another_gets(place: Place) {
    let mut one = place.broker.consume(Queue::Steps, 1);
    place.consumed_by(1).await;
    place.publish(&["a"]).await;
    let a = next(&mut one).await;
    let mut other = place.broker.consume(Queue::Steps, 1);
    place.consumed_by(2).await;
    drop(a);
    let again = next(&mut other).await;
    assert_eq!((id(&again), again.redelivered()), ("a", true));
    assert!(one.next().now_or_never().is_none(), "it is the other's turn");
    assert!(again.ack().await);
}

async fn a_dead_letter_that_comes_back_too_often_is_dropped(place: Place) {
    let letter = |id: &str| (Target::Queue(Queue::Dead), step(id));
    place.broker.publish_all(vec![letter("undecodable"), letter("next")]).await.expect("published");
    let mut dead = place.broker.consume(Queue::Dead, 1);
    for nth in 0..=DEAD_DELIVERY_LIMIT {
        let delivery = next(&mut dead).await;
        assert_eq!((id(&delivery), delivery.redelivered()), ("undecodable", nth > 0));
        drop(delivery);
    }
    let after = next(&mut dead).await;
    assert_eq!((id(&after), after.redelivered()), ("next", false));
    assert!(after.ack().await);
}

async fn a_reason_of_its_own_is_kept(place: Place) {
    let mut sent = step("poison");
    sent.reason = Some("it had one".to_owned());
    place.broker.publish(Target::Queue(Queue::Steps), sent.clone()).await.expect("published");
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    for _ in 0..=DELIVERY_LIMIT {
        drop(next(&mut consumer).await);
    }
    let letter = next(&mut place.broker.consume(Queue::Dead, 1)).await;
    sent.origin = Some(Queue::Steps.name(&place.prefix));
    assert_eq!(letter.envelope(), &sent);
    assert!(letter.ack().await);
}

async fn long_reasons_are_cut(place: Place) {
    place.publish(&["a"]).await;
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    let long = "ü".repeat(REASON_CHARS_MAX + 1);
    assert!(next(&mut consumer).await.park(&place.broker, &long).await);
    let letter = next(&mut place.broker.consume(Queue::Dead, 1)).await;
    assert!(!letter.redelivered(), "it is a message of its own in its new queue");
    assert_eq!(letter.envelope().reason, Some("ü".repeat(REASON_CHARS_MAX)));
    assert!(letter.ack().await);
}
