//! The same brokers behind a seam: what simulation and crash tests do to their calls means the same on both.

use common::seam::Fate;
use support::seam::{Kind, Script};

use super::*;

contract![
    a_lost_publication_is_not_there,
    an_unanswered_publication_is_there,
    a_publication_sent_again_is_two_messages,
    a_batch_that_is_cut_arrives_in_part,
    a_refusal_passes_the_seam,
    a_lost_delivery_comes_again,
    a_lost_acknowledgement_is_believed,
    a_delivery_may_be_late_and_is_not_lost,
    a_consumer_that_leaves_gives_back_what_is_late,
    what_cannot_be_parked_comes_back,
];

/// The place as seen through a seam.
fn watched(place: &Place) -> (Place, Arc<Script>) {
    let script = Script::new();
    script.listen(Kind::Publish);
    script.listen(Kind::Ack);
    let broker = script.before_broker(place.broker.clone());
    (Place { broker, prefix: place.prefix.clone() }, script)
}

fn unconfirmed(published: Result<(), PublishError>) {
    assert_eq!(published, Err(PublishError::Unconfirmed("lost on the way".to_owned())));
}

/// Takes and acknowledges these, in this order, none of them marked.
async fn come(place: &Place, wanted: &[&str]) {
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    for wanted in wanted {
        let delivery = next(&mut consumer).await;
        assert_eq!((id(&delivery), delivery.redelivered()), (*wanted, false));
        assert!(delivery.ack().await);
    }
    drop(consumer);
    place.is_empty().await;
}

async fn a_lost_publication_is_not_there(place: Place) {
    let (spoiled, script) = watched(&place);
    script.then(Kind::Publish, Fate::Lost);
    unconfirmed(spoiled.broker.publish(Target::Queue(Queue::Steps), step("a")).await);
    assert_eq!(script.heard(Kind::Publish), [""; 0]);
    come(&place, &[]).await;
}

async fn an_unanswered_publication_is_there(place: Place) {
    let (spoiled, script) = watched(&place);
    script.then(Kind::Publish, Fate::Unanswered);
    unconfirmed(spoiled.broker.publish_all(steps(0..2)).await);
    assert_eq!(script.heard(Kind::Publish), ["Ok(())"]);
    // Whoever was not answered publishes again: duplicates with the same ids.
    spoiled.broker.publish_all(steps(0..2)).await.expect("published");
    come(&place, &["0", "1", "0", "1"]).await;
}

async fn a_publication_sent_again_is_two_messages(place: Place) {
    let (spoiled, script) = watched(&place);
    script.then(Kind::Publish, Fate::Twice);
    spoiled.broker.publish_all(steps(0..2)).await.expect("published");
    come(&place, &["0", "1", "0", "1"]).await;
}

async fn a_batch_that_is_cut_arrives_in_part(place: Place) {
    let (spoiled, script) = watched(&place);
    script.then(Kind::Publish, Fate::Cut(2));
    unconfirmed(spoiled.broker.publish_all(steps(0..5)).await);
    come(&place, &["0", "1"]).await;
}

async fn a_refusal_passes_the_seam(place: Place) {
    let (spoiled, _script) = watched(&place);
    let nowhere = format!("{}.nowhere", place.prefix);
    let lost = spoiled.broker.publish(Target::Named(nowhere.clone()), step("a")).await;
    assert_eq!(lost, Err(PublishError::Unroutable(nowhere)));
}

async fn a_lost_delivery_comes_again(place: Place) {
    let (spoiled, script) = watched(&place);
    place.publish(&["a", "b"]).await;
    script.then(Kind::Deliver, Fate::Lost);
    let mut consumer = spoiled.broker.consume(Queue::Steps, 1);
    for (wanted, redelivered) in [("a", true), ("b", false)] {
        let delivery = next(&mut consumer).await;
        assert_eq!((id(&delivery), delivery.redelivered()), (wanted, redelivered));
        assert!(delivery.ack().await);
    }
    drop(consumer);
    place.is_empty().await;
}

async fn a_lost_acknowledgement_is_believed(place: Place) {
    let (spoiled, script) = watched(&place);
    place.publish(&["a"]).await;
    script.then(Kind::Ack, Fate::Lost);
    let mut consumer = spoiled.broker.consume(Queue::Steps, 1);
    assert!(next(&mut consumer).await.ack().await);
    let again = next(&mut consumer).await;
    assert_eq!((id(&again), again.redelivered()), ("a", true));
    assert!(again.ack().await);
    assert_eq!(script.heard(Kind::Ack), ["true"]);
    drop(consumer);
    place.is_empty().await;
}

async fn a_delivery_may_be_late_and_is_not_lost(place: Place) {
    let (spoiled, script) = watched(&place);
    place.publish(&["a"]).await;
    script.hold(Kind::Deliver, true);
    let mut consumer = spoiled.broker.consume(Queue::Steps, 1);
    for nth in 1..4 {
        tokio::select! {
            biased;
            delivery = consumer.next() => panic!("{delivery:?} is held up"),
            () = script.asked(Kind::Deliver, nth) => {}
        }
    }
    place.has_depth(0).await;
    script.hold(Kind::Deliver, false);
    let delivery = next(&mut consumer).await;
    assert_eq!((id(&delivery), delivery.redelivered()), ("a", false));
    assert!(delivery.ack().await);
    drop(consumer);
    place.is_empty().await;
}

async fn a_consumer_that_leaves_gives_back_what_is_late(place: Place) {
    let (spoiled, script) = watched(&place);
    place.publish(&["a"]).await;
    script.hold(Kind::Deliver, true);
    let mut consumer = spoiled.broker.consume(Queue::Steps, 1);
    tokio::select! {
        biased;
        delivery = consumer.next() => panic!("{delivery:?} is held up"),
        () = script.asked(Kind::Deliver, 1) => {}
    }
    drop(consumer);
    let delivery = next(&mut place.broker.consume(Queue::Steps, 1)).await;
    assert_eq!((id(&delivery), delivery.redelivered()), ("a", true));
    assert!(delivery.ack().await);
}

async fn what_cannot_be_parked_comes_back(place: Place) {
    let (spoiled, script) = watched(&place);
    place.publish(&["a"]).await;
    let mut consumer = spoiled.broker.consume(Queue::Steps, 1);
    script.then(Kind::Publish, Fate::Lost);
    assert!(!next(&mut consumer).await.park(&spoiled.broker, "nobody takes it").await);
    // The letter arrives this time, but nobody learns of it: the next try makes another one.
    script.then(Kind::Publish, Fate::Unanswered);
    let again = next(&mut consumer).await;
    assert_eq!((id(&again), again.redelivered(), &again.envelope().reason), ("a", true, &None));
    assert!(!again.park(&spoiled.broker, "it may be there").await);
    assert!(next(&mut consumer).await.park(&spoiled.broker, "it is there").await);
    drop(consumer);
    place.is_empty().await;
    let mut dead = place.broker.consume(Queue::Dead, 1);
    for why in ["it may be there", "it is there"] {
        let letter = next(&mut dead).await;
        assert_eq!((id(&letter), letter.envelope().reason.as_deref()), ("a", Some(why)));
        assert!(letter.ack().await);
    }
}
