//! What a publisher is told: refused, returned, confirmed; alone, in a batch, and with many others in flight.

use common::limits::CONFIRM_WINDOW;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use tokio::task::JoinSet;

use super::rabbit_only::raw;
use super::*;

contract![
    a_full_queue_refuses,
    what_follows_a_refusal_arrives,
    a_batch_does_not_go_on_for_ever_behind_a_refusal,
    the_worst_of_a_batch_is_told,
    returned_messages_are_told_apart,
];

/// A queue that somebody else has declared, for replies.
enum Foreign {
    Rabbit { held: Box<(Connection, Channel)>, name: String },
    Memory { place: Place, name: String },
}

/// Messages that a queue for replies takes.
const ROOM: u32 = 3;

impl Foreign {
    /// One that takes [`ROOM`] messages and refuses more. `full`: it has them already.
    async fn declare(place: &Place, full: bool) -> Self {
        let name = format!("{}.answers", place.prefix);
        let foreign = match &place.broker {
            Broker::Rabbit(_) => {
                let (connection, channel) = raw().await;
                let mut arguments = FieldTable::default();
                arguments.insert("x-max-length".into(), AMQPValue::LongInt(ROOM.cast_signed()));
                arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
                let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(name.as_str().into(), options, arguments).await.expect("declared");
                Foreign::Rabbit { held: Box::new((connection, channel)), name }
            }
            Broker::Memory(memory) => {
                memory.limit(&name, ROOM as usize);
                Foreign::Memory { place: place.clone(), name }
            }
            Broker::Watched(_) => panic!("no seam here"),
        };
        if full {
            for n in 0..ROOM {
                place.broker.publish(foreign.target(), step(&n.to_string())).await.expect("there is room");
            }
        }
        foreign
    }

    fn target(&self) -> Target {
        let (Foreign::Rabbit { name, .. } | Foreign::Memory { name, .. }) = self;
        Target::Named(name.clone())
    }

    /// Takes everything out of it; how many there were.
    async fn drain(self) -> usize {
        match self {
            Foreign::Rabbit { held, name } => {
                let (connection, channel) = *held;
                let mut count = 0;
                let taken = lapin::options::BasicGetOptions { no_ack: true };
                while channel.basic_get(name.as_str().into(), taken).await.expect("get").is_some() {
                    count += 1;
                }
                connection.close(200, "OK".into()).await.expect("closed");
                count
            }
            Foreign::Memory { place, name } => {
                let Broker::Memory(memory) = &place.broker else { panic!("memory has its queue") };
                std::iter::from_fn(|| memory.receive(&name).now_or_never()).count()
            }
        }
    }
}

fn refused(published: &Result<(), PublishError>) -> bool {
    matches!(published, Err(PublishError::Unconfirmed(_)))
}

async fn a_full_queue_refuses(place: Place) {
    let answers = Foreign::declare(&place, true).await;
    let late = place.broker.publish(answers.target(), step("late")).await;
    assert!(refused(&late), "{late:?}");
    assert_eq!(answers.drain().await, ROOM as usize, "exactly what was confirmed is there");
}

async fn what_follows_a_refusal_arrives(place: Place) {
    let answers = Foreign::declare(&place, true).await;
    let mut batch = steps(0..4);
    batch.insert(2, (answers.target(), step("late")));
    let published = place.broker.publish_all(batch).await;
    assert!(refused(&published), "{published:?}");
    place.has_depth(4).await;
    assert_eq!(answers.drain().await, ROOM as usize);
}

async fn a_batch_does_not_go_on_for_ever_behind_a_refusal(place: Place) {
    let answers = Foreign::declare(&place, true).await;
    let most = 4 * u32::try_from(CONFIRM_WINDOW).expect("small");
    let mut batch = steps(0..most);
    batch.insert(0, (answers.target(), step("late")));
    let published = place.broker.publish_all(batch).await;
    assert!(refused(&published), "{published:?}");
    // What was in flight with it is there, in its order; what comes later was not sent.
    let depth = place.settled_depth().await;
    assert!((1..u64::from(most)).contains(&depth), "{depth} of {most}");
    let mut consumer = place.broker.consume(Queue::Steps, 64);
    for n in 0..depth {
        let delivery = next(&mut consumer).await;
        assert_eq!(id(&delivery), n.to_string());
        assert!(delivery.ack().await);
    }
    drop(answers);
}

async fn the_worst_of_a_batch_is_told(place: Place) {
    let answers = Foreign::declare(&place, true).await;
    let nowhere = Target::Named(format!("{}.nowhere", place.prefix));
    for swapped in [false, true] {
        let mut batch = vec![(answers.target(), step("late")), (nowhere.clone(), step("lost"))];
        if swapped {
            batch.reverse();
        }
        let published = place.broker.publish_all(batch).await;
        assert!(refused(&published), "what may be lost must be published again: {published:?}");
    }
    drop(answers);
}

async fn returned_messages_are_told_apart(place: Place) {
    let answers = Foreign::declare(&place, false).await;
    let mut tasks = JoinSet::new();
    for n in 0..200u32 {
        let (broker, target, prefix) = (place.broker.clone(), answers.target(), place.prefix.clone());
        tasks.spawn(async move {
            let message = step(&n.to_string());
            match n % 4 {
                0 => {
                    let nowhere = format!("{prefix}.nowhere-{n}");
                    let lost = broker.publish(Target::Named(nowhere.clone()), message).await;
                    assert_eq!(lost, Err(PublishError::Unroutable(nowhere)));
                    false
                }
                1 => {
                    let answered = broker.publish(target, message).await;
                    assert!(answered.is_ok() || refused(&answered), "{answered:?}");
                    answered.is_ok()
                }
                _ => {
                    broker.publish(Target::Queue(Queue::Steps), message).await.expect("ours");
                    false
                }
            }
        });
    }
    let answered = tasks.join_all().await.into_iter().filter(|answered| *answered).count();
    place.has_depth(100).await;
    assert_eq!((answered, answers.drain().await), (ROOM as usize, ROOM as usize));
}
