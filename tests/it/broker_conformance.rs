//! The contract of `common::broker`, held by both brokers. Every case runs on each; what only RabbitMQ can show is in `rabbit_only`,
//! what memory has of its own in `memory_only`, the consume loop in `work`.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use common::broker::memory::Memory;
use common::broker::rabbit::Rabbit;
use common::broker::{Broker, Consumer, Delivery, Envelope, PublishError, Target};
use common::config::BrokerConfig;
use common::ids::Ids;
use common::limits::DELIVERY_LIMIT;
use common::message::Queue;
use common::metrics::Metrics;
use futures::FutureExt;
use support::stack::amqp_url;
use support::stores::unique_prefix;
use tokio::time::{Instant, timeout};

mod breaks;
mod confirms;
mod memory_only;
mod prefetch;
mod rabbit_only;
mod returns;
mod seam;
mod work;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker with empty queues of its own.
#[derive(Clone)]
struct Place {
    broker: Broker,
    prefix: String,
}

fn config(urls: &[&str]) -> BrokerConfig {
    BrokerConfig { urls: urls.iter().map(|url| (*url).into()).collect(), ..BrokerConfig::default() }
}

async fn on_memory<F: Future<Output = ()>>(case: impl FnOnce(Place) -> F) {
    let prefix = unique_prefix();
    let broker = Broker::Memory(Memory::new(&prefix));
    timeout(PATIENCE, case(Place { broker, prefix })).await.expect("case hangs");
}

async fn on_rabbit<F: Future<Output = ()>>(case: impl FnOnce(Place) -> F) {
    let prefix = unique_prefix();
    let config = config(&[&amqp_url()]);
    let rabbit = Rabbit::connect(&config, &prefix, "test", Ids::random(), &Metrics::new("test"))
        .await
        .expect("these tests need RabbitMQ at AMQP_URL");
    let broker = Broker::Rabbit(rabbit);
    let place = Place { broker: broker.clone(), prefix: prefix.clone() };
    let ended = AssertUnwindSafe(timeout(PATIENCE, case(place))).catch_unwind().await;
    broker.close().await;
    Rabbit::delete_queues(&config, &prefix).await.expect("queues are deleted");
    match ended {
        Ok(in_time) => in_time.expect("case hangs"),
        Err(panic) => resume_unwind(panic),
    }
}

fn step(id: &str) -> Envelope {
    Envelope::new(id.to_owned(), "step", b"{}".to_vec())
}

fn steps(range: std::ops::Range<u32>) -> Vec<(Target, Envelope)> {
    range.map(|n| (Target::Queue(Queue::Steps), step(&n.to_string()))).collect()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    timeout(PATIENCE, consumer.next()).await.expect("no delivery")
}

fn id(delivery: &Delivery) -> &str {
    &delivery.envelope().message_id
}

impl Place {
    async fn publish(&self, ids: &[&str]) {
        let batch = ids.iter().map(|id| (Target::Queue(Queue::Steps), step(id))).collect();
        self.broker.publish_all(batch).await.expect("published");
    }

    /// Nothing is in the steps queue, ready or out: a new message is the first to come, and the only one.
    async fn is_empty(&self) {
        self.publish(&["fence"]).await;
        let mut consumer = self.broker.consume(Queue::Steps, 1);
        let delivery = next(&mut consumer).await;
        // It may have been out at a consumer that was just being dropped.
        assert_eq!(id(&delivery), "fence");
        assert!(delivery.ack().await);
        self.has_depth(0).await;
    }

    /// The same after a broken connection, when acknowledgements may have been on their way: what comes again then is marked.
    async fn is_empty_after_break(&self) {
        self.publish_until_confirmed("fence").await;
        let mut consumer = self.broker.consume(Queue::Steps, 1);
        loop {
            let delivery = next(&mut consumer).await;
            let (fence, redelivered) = (id(&delivery) == "fence", delivery.redelivered());
            assert!(delivery.ack().await && (fence || redelivered));
            if fence {
                return;
            }
        }
    }

    /// Publishes until it is confirmed, as the services do.
    async fn publish_until_confirmed(&self, id: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.broker.publish(Target::Queue(Queue::Steps), step(id)).await {
            assert!(Instant::now() < deadline, "{error}");
        }
    }

    /// So many consumers are known to the broker.
    async fn consumed_by(&self, wanted: u32) {
        let Broker::Rabbit(_) = &self.broker else { return };
        let (connection, channel) = rabbit_only::raw().await;
        let deadline = Instant::now() + PATIENCE;
        let passive = lapin::options::QueueDeclareOptions { passive: true, ..lapin::options::QueueDeclareOptions::durable() };
        let name = Queue::Steps.name(&self.prefix);
        let count = async || {
            let found = channel.queue_declare(name.as_str().into(), passive, lapin::types::FieldTable::default()).await;
            found.expect("declared").consumer_count()
        };
        while count().await != wanted {
            assert!(Instant::now() < deadline, "there are not {wanted} consumers");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        connection.close(200, "OK".into()).await.expect("closed");
    }

    /// How many messages are ready, once that does not change any more.
    async fn settled_depth(&self) -> u64 {
        let mut last = self.broker.depth(Queue::Steps).await.expect("depth");
        let mut same = 0;
        while same < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let depth = self.broker.depth(Queue::Steps).await.expect("depth");
            same = if depth == last { same + 1 } else { 0 };
            last = depth;
        }
        last
    }

    async fn has_depth(&self, wanted: u64) {
        let deadline = Instant::now() + PATIENCE;
        let mut depth = self.broker.depth(Queue::Steps).await.expect("depth");
        while depth != wanted {
            assert!(Instant::now() < deadline, "{depth} messages, not {wanted}");
            // The broker counts now and then; there is no event to wait for.
            tokio::time::sleep(Duration::from_millis(20)).await;
            depth = self.broker.depth(Queue::Steps).await.expect("depth");
        }
    }
}

macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        mod on_memory { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $case() { super::on_memory(super::$case).await; })* }
        mod on_rabbit { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $case() { super::on_rabbit(super::$case).await; })* }
    };
}
use contract;

contract![
    every_field_comes_through,
    one_consumer_gets_them_in_order,
    no_more_than_prefetch_are_out,
    dropped_comes_back_first,
    acknowledged_is_gone,
    parked_is_a_dead_letter,
    returns_are_limited,
    consumers_share,
    a_missing_named_queue_is_said,
    ten_thousand_are_confirmed,
    a_dropped_consumer_gives_back_what_nobody_took,
    ids_that_do_not_fit_are_an_error_on_the_wire,
];

async fn every_field_comes_through(place: Place) {
    let full = Envelope {
        message_id: "id-1".to_owned(),
        kind: "objective".to_owned(),
        body: "{\"ü\":\"\u{0}\"}".as_bytes().to_vec(),
        reply_to: Some("answers".to_owned()),
        correlation_id: Some("c-1".to_owned()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        reason: Some("because — ü".to_owned()),
        origin: Some("from.here".to_owned()),
        returned: true,
    };
    let large = Envelope::new("id-2".to_owned(), "objective", vec![b'x'; 1 << 20]);
    let bare = Envelope::new(String::new(), "", Vec::new());
    let batch = [&full, &large, &bare].map(|envelope| (Target::Queue(Queue::Objectives), envelope.clone()));
    place.broker.publish_all(batch.into()).await.expect("published");
    let mut consumer = place.broker.consume(Queue::Objectives, 3);
    for sent in [full, large, bare] {
        let delivery = next(&mut consumer).await;
        assert!(delivery.envelope() == &sent, "{} bytes of {:?}", delivery.envelope().body.len(), sent.message_id);
        assert_eq!(delivery.redelivered(), sent.returned, "a copy of a message that was handed out before says so");
        assert!(delivery.ack().await);
    }
}

async fn one_consumer_gets_them_in_order(place: Place) {
    place.broker.publish_all(steps(0..500)).await.expect("published");
    let mut consumer = place.broker.consume(Queue::Steps, 16);
    for n in 0..500 {
        let delivery = next(&mut consumer).await;
        assert_eq!(id(&delivery), n.to_string());
        assert!(delivery.ack().await);
    }
}

async fn no_more_than_prefetch_are_out(place: Place) {
    place.publish(&["a", "b", "c"]).await;
    let mut narrow = place.broker.consume(Queue::Steps, 2);
    let (a, b) = (next(&mut narrow).await, next(&mut narrow).await);
    assert_eq!((id(&a), id(&b)), ("a", "b"));
    assert!(narrow.next().now_or_never().is_none(), "two are out");
    // Were the third one out at the narrow consumer, taken or not, nobody else could have it.
    let mut other = place.broker.consume(Queue::Steps, 1);
    let c = next(&mut other).await;
    assert_eq!(id(&c), "c");
    // One acknowledgement makes room for one.
    assert!(a.ack().await);
    place.publish(&["d"]).await;
    let d = next(&mut narrow).await;
    assert_eq!(id(&d), "d");
    assert!(b.ack().await && c.ack().await && d.ack().await);
}

async fn dropped_comes_back_first(place: Place) {
    place.publish(&["a", "b"]).await;
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    let a = next(&mut consumer).await;
    assert_eq!((id(&a), a.redelivered()), ("a", false));
    drop(a);
    let again = next(&mut consumer).await;
    assert_eq!((id(&again), again.redelivered()), ("a", true));
    assert_eq!(again.envelope(), &step("a"));
    assert!(again.ack().await);
    let b = next(&mut consumer).await;
    assert_eq!((id(&b), b.redelivered()), ("b", false));
    assert!(b.ack().await);
}

async fn acknowledged_is_gone(place: Place) {
    place.publish(&["a"]).await;
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    assert!(next(&mut consumer).await.ack().await);
    drop(consumer);
    place.is_empty().await;
}

async fn parked_is_a_dead_letter(place: Place) {
    place.publish(&["a"]).await;
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    let delivery = next(&mut consumer).await;
    assert!(delivery.park(&place.broker, "does not parse").await);
    drop(consumer);
    let mut dead = place.broker.consume(Queue::Dead, 1);
    let letter = next(&mut dead).await;
    let mut wanted = step("a");
    wanted.reason = Some("does not parse".to_owned());
    wanted.origin = Some(Queue::Steps.name(&place.prefix));
    assert_eq!(letter.envelope(), &wanted);
    assert!(letter.ack().await);
    place.is_empty().await;
}

async fn returns_are_limited(place: Place) {
    place.publish(&["poison"]).await;
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    let mut dead = place.broker.consume(Queue::Dead, 1);
    for nth in 0..=DELIVERY_LIMIT {
        let delivery = next(&mut consumer).await;
        assert_eq!((id(&delivery), delivery.redelivered()), ("poison", nth > 0));
        drop(delivery);
    }
    let letter = next(&mut dead).await;
    let mut wanted = step("poison");
    wanted.reason = Some("delivery_limit".to_owned());
    wanted.origin = Some(Queue::Steps.name(&place.prefix));
    assert_eq!(letter.envelope(), &wanted);
    assert!(letter.ack().await);
    drop(consumer);
    place.is_empty().await;
}

async fn consumers_share(place: Place) {
    let mut one = place.broker.consume(Queue::Steps, 1);
    let mut other = place.broker.consume(Queue::Steps, 1);
    place.publish(&["a", "b"]).await;
    // Each holds what it has, so each must have got one.
    let (first, second) = (next(&mut one).await, next(&mut other).await);
    assert_eq!(BTreeSet::from([id(&first), id(&second)]), BTreeSet::from(["a", "b"]));
    assert!(first.ack().await && second.ack().await);
}

async fn a_missing_named_queue_is_said(place: Place) {
    let nowhere = format!("{}.nowhere", place.prefix);
    let lost = place.broker.publish(Target::Named(nowhere.clone()), step("a")).await;
    assert_eq!(lost, Err(PublishError::Unroutable(nowhere.clone())));
    // In a batch, what comes before and after it arrives all the same.
    let mut batch = steps(0..2);
    batch.insert(1, (Target::Named(nowhere.clone()), step("lost")));
    assert_eq!(place.broker.publish_all(batch).await, Err(PublishError::Unroutable(nowhere)));
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    for n in ["0", "1"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(id(&delivery), n);
        assert!(delivery.ack().await);
    }
}

async fn ten_thousand_are_confirmed(place: Place) {
    place.broker.publish_all(steps(0..10_000)).await.expect("every one is confirmed");
    place.has_depth(10_000).await;
}

async fn a_dropped_consumer_gives_back_what_nobody_took(place: Place) {
    place.broker.publish_all(steps(0..10)).await.expect("published");
    let mut leaving = place.broker.consume(Queue::Steps, 5);
    let held = next(&mut leaving).await;
    assert_eq!(id(&held), "0");
    drop(leaving);
    let mut staying = place.broker.consume(Queue::Steps, 20);
    let mut got = BTreeSet::new();
    for _ in 1..10 {
        let delivery = next(&mut staying).await;
        got.insert(id(&delivery).to_owned());
        assert!(delivery.ack().await);
    }
    assert_eq!(got, (1..10).map(|n| n.to_string()).collect());
    // What was taken stays valid, and is not with anybody else.
    assert!(held.ack().await);
    drop(staying);
    place.is_empty().await;
}

async fn ids_that_do_not_fit_are_an_error_on_the_wire(place: Place) {
    let long = "x".repeat(256);
    let named =
        |what: &str| PublishError::Unconfirmed(format!("{what}: 256 bytes do not fit into AMQP's 255 for a name or an id"));
    let with = |change: &dyn Fn(&mut Envelope)| {
        let mut message = step("a");
        change(&mut message);
        message
    };
    for (what, message) in [
        ("message_id", step(&long)),
        ("type", with(&|message| message.kind.clone_from(&long))),
        ("reply_to", with(&|message| message.reply_to = Some(long.clone()))),
        ("correlation_id", with(&|message| message.correlation_id = Some(long.clone()))),
        ("queue name", step("a")),
    ] {
        let target = if what == "queue name" { Target::Named(long.clone()) } else { Target::Queue(Queue::Steps) };
        assert_eq!(place.broker.publish(target, message).await, Err(named(what)));
    }
    place.broker.publish(Target::Queue(Queue::Steps), step(&"x".repeat(255))).await.expect("fits");
}
