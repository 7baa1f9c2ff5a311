//! What only a real broker can do: refuse, vanish, come back.

use std::str::FromStr;

use common::broker::ConnectError;
use common::metrics::Metrics;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use support::proxy::{Proxy, Way};
use tokio::task::JoinSet;

use super::*;

/// The tests' own connection, beside the code under test.
pub(super) async fn raw() -> (Connection, Channel) {
    let connection = Connection::connect(&amqp_url(), ConnectionProperties::default()).await.expect("RabbitMQ");
    let channel = connection.create_channel().await.expect("channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    (connection, channel)
}

/// `AMQP_URL` with another address or password.
fn url_with(change: impl FnOnce(&mut AMQPUri)) -> String {
    let mut uri = AMQPUri::from_str(&amqp_url()).expect("AMQP_URL");
    change(&mut uri);
    uri.to_string()
}

async fn connect(urls: &[&str], prefix: &str) -> Result<Broker, ConnectError> {
    Rabbit::connect(&config(urls), prefix, "test", Ids::random(), &Metrics::new("test")).await.map(Broker::Rabbit)
}

/// Runs `case` with a broker that it reaches through a proxy.
pub(super) async fn behind_proxy<F: Future<Output = ()>>(case: impl FnOnce(Place, Arc<Proxy>) -> F) {
    let uri = AMQPUri::from_str(&amqp_url()).expect("AMQP_URL");
    let proxy = Proxy::start(format!("{}:{}", uri.authority.host, uri.authority.port)).await.expect("proxy");
    let url = url_with(|uri| {
        uri.authority.host = proxy.address().ip().to_string();
        uri.authority.port = proxy.address().port();
    });
    on_rabbit(|place| async move {
        let broker = connect(&[&url], &place.prefix).await.expect("reached through the proxy");
        case(Place { broker: broker.clone(), prefix: place.prefix }, Arc::new(proxy)).await;
        broker.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_are_made_again() {
    behind_proxy(|place, proxy| async move {
        place.publish(&["a"]).await;
        let mut consumer = place.broker.consume(Queue::Steps, 1);
        for round in 0..3 {
            let held = next(&mut consumer).await;
            assert_eq!((id(&held), held.redelivered()), ("a", round > 0));
            proxy.break_connections();
            // What was held comes back by itself; the old delivery is worth nothing.
            let again = next(&mut consumer).await;
            assert_eq!((id(&again), again.redelivered()), ("a", true));
            assert!(!held.ack().await);
            drop(again);
        }
        let last = next(&mut consumer).await;
        assert!(last.ack().await);
        place.publish_until_confirmed("b").await;
        let b = next(&mut consumer).await;
        assert_eq!(id(&b), "b");
        assert!(b.ack().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_survived() {
    behind_proxy(|place, proxy| async move {
        let mut consumer = place.broker.consume(Queue::Steps, 1);
        place.publish(&["before"]).await;
        assert!(next(&mut consumer).await.ack().await);
        proxy.refuse(true);
        proxy.break_connections();
        // Published during the outage: it waits for the connection, within its time-out.
        let publishing = {
            let place = place.clone();
            let mut tasks = JoinSet::new();
            tasks.spawn(async move { place.publish_until_confirmed("during").await });
            tasks
        };
        let other = on_the_side(&place, "proof that the server is up").await;
        assert_eq!(other, Ok(()));
        proxy.refuse(false);
        let mut missing = BTreeSet::from(["during", "proof that the server is up"]);
        while !missing.is_empty() {
            // "before" may come again: its acknowledgement may have been on the way when the connection broke.
            let delivery = next(&mut consumer).await;
            assert!(missing.remove(id(&delivery)) || delivery.redelivered(), "{delivery:?}");
            delivery.ack().await;
        }
        publishing.join_all().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_on_a_dying_connection_is_lost() {
    behind_proxy(|place, proxy| async move {
        place.publish(&["a"]).await;
        let mut consumer = place.broker.consume(Queue::Steps, 1);
        let held = next(&mut consumer).await;
        proxy.hold(Way::Requests, true);
        assert!(held.ack().await, "nothing is known yet");
        proxy.reset_connections();
        proxy.hold(Way::Requests, false);
        let again = next(&mut consumer).await;
        assert_eq!((id(&again), again.redelivered()), ("a", true));
        assert!(again.ack().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_confirm_is_no_lost_message() {
    behind_proxy(|place, proxy| async move {
        place.publish(&["before"]).await;
        proxy.lose_replies(1);
        let published = place.broker.publish(Target::Queue(Queue::Steps), step("a")).await;
        assert!(matches!(published, Err(PublishError::Unconfirmed(_))), "{published:?}");
        place.publish_until_confirmed("a").await;
        let mut consumer = place.broker.consume(Queue::Steps, 1);
        for wanted in ["before", "a", "a"] {
            let delivery = next(&mut consumer).await;
            assert_eq!((id(&delivery), delivery.redelivered()), (wanted, false));
            assert!(delivery.ack().await);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_up_may_arrive() {
    behind_proxy(|place, proxy| async move {
        place.publish(&["before"]).await;
        proxy.hold(Way::Requests, true);
        let published = place.broker.publish(Target::Queue(Queue::Steps), step("ghost")).await;
        assert!(matches!(published, Err(PublishError::Unconfirmed(_))), "{published:?}");
        proxy.hold(Way::Requests, false);
        place.has_depth(2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_dead_queue_takes_no_letter() {
    on_rabbit(|place| async move {
        place.publish(&["a"]).await;
        let mut consumer = place.broker.consume(Queue::Steps, 1);
        let held = next(&mut consumer).await;
        let (connection, channel) = raw().await;
        let name = Queue::Dead.name(&place.prefix);
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
        connection.close(200, "OK".into()).await.expect("closed");
        assert!(!held.park(&place.broker, "nobody takes it").await);
        let again = next(&mut consumer).await;
        assert_eq!((id(&again), again.redelivered()), ("a", true));
        // The publisher has made the queue again.
        assert!(again.park(&place.broker, "somebody takes it").await);
    })
    .await;
}

async fn on_the_side(place: &Place, id: &str) -> Result<(), PublishError> {
    let broker = connect(&[&amqp_url()], &place.prefix).await.expect("RabbitMQ");
    let published = broker.publish(Target::Queue(Queue::Steps), step(id)).await;
    broker.close().await;
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_is_declared_again() {
    on_rabbit(|place| async move {
        let mut consumer = place.broker.consume(Queue::Steps, 1);
        place.publish(&["a"]).await;
        assert!(next(&mut consumer).await.ack().await);
        let (connection, channel) = raw().await;
        let name = Queue::Steps.name(&place.prefix);
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
        // Whoever notices first, the publisher or the consumer, makes the queue again; both work then.
        place.publish_until_confirmed("b").await;
        let delivery = next(&mut consumer).await;
        assert_eq!(id(&delivery), "b");
        assert!(delivery.ack().await);
        connection.close(200, "OK".into()).await.expect("closed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returned_messages_of_ours_are_told_apart() {
    // The queue vanishes while many publish: who is told "good" must be in the new queue or have been in the old one.
    on_rabbit(|place| async move {
        let (connection, channel) = raw().await;
        let name = Queue::Steps.name(&place.prefix);
        place.broker.publish_all(steps(0..100)).await.expect("published");
        assert_eq!(channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted"), 100);
        let mut tasks = JoinSet::new();
        for n in 0..200u32 {
            let broker = place.broker.clone();
            tasks.spawn(async move { broker.publish(Target::Queue(Queue::Steps), step(&n.to_string())).await.is_ok() });
        }
        let good = tasks.join_all().await.into_iter().filter(|good| *good).count() as u64;
        place.publish_until_confirmed("last").await;
        place.has_depth(good + 1).await;
        connection.close(200, "OK".into()).await.expect("closed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_messages_are_taken_as_they_are() {
    on_rabbit(|place| async move {
        let (connection, channel) = raw().await;
        let queue = Queue::Objectives.name(&place.prefix);
        let publish = async |properties: BasicProperties, body: &[u8]| {
            let options = BasicPublishOptions::default();
            let confirm = channel.basic_publish("".into(), queue.as_str().into(), options, body, properties).await.expect("sent");
            assert!(confirm.await.expect("confirmed").is_ack());
        };
        publish(BasicProperties::default(), b"hello").await;
        let mut headers = FieldTable::default();
        headers.insert("planrelay-reason".into(), AMQPValue::LongString(vec![0xff, 0xfe].into()));
        headers.insert("traceparent".into(), AMQPValue::Boolean(true));
        headers.insert("x-death".into(), AMQPValue::LongLongInt(1));
        publish(BasicProperties::default().with_headers(headers), b"\xff").await;
        let mut consumer = place.broker.consume(Queue::Objectives, 2);
        for body in [b"hello".to_vec(), b"\xff".to_vec()] {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.envelope(), &Envelope::new(String::new(), "", body));
            assert!(delivery.ack().await);
        }
        connection.close(200, "OK".into()).await.expect("closed");
    })
    .await;
}

#[tokio::test]
async fn other_arguments_are_said() {
    let prefix = unique_prefix();
    let (connection, channel) = raw().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(3));
    let name = Queue::Steps.name(&prefix);
    channel.queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), arguments).await.expect("declared");
    let error = connect(&[&amqp_url()], &prefix).await.expect_err("other arguments");
    Rabbit::delete_queues(&config(&[&amqp_url()]), &prefix).await.expect("deleted");
    connection.close(200, "OK".into()).await.expect("closed");
    match &error {
        ConnectError::Topology { queue, why } => assert!(queue == &name && why.contains("inequivalent arg 'x-"), "{error}"),
        ConnectError::Unreachable { .. } | ConnectError::Refused { .. } | ConnectError::BadUrl(_) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_second_process_declares_the_same() {
    on_rabbit(|place| async move {
        let second = connect(&[&amqp_url()], &place.prefix).await.expect("the same arguments");
        second.publish(Target::Queue(Queue::Steps), step("a")).await.expect("published");
        let mut consumer = place.broker.consume(Queue::Steps, 1);
        assert!(next(&mut consumer).await.ack().await);
        second.close().await;
        let late = second.publish(Target::Queue(Queue::Steps), step("late")).await;
        assert!(matches!(late, Err(PublishError::Unconfirmed(_))), "{late:?}");
    })
    .await;
}

#[tokio::test]
async fn refusals_are_told_from_silence() {
    let password = url_with(|uri| uri.authority.userinfo.password = "s3cret-and-wrong".to_owned());
    let vhost = url_with(|uri| {
        uri.vhost = "no-such-vhost".to_owned();
    });
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
        listener.local_addr().expect("address")
    };
    let nobody = url_with(|uri| {
        uri.authority.userinfo.password = "s3cret-and-unused".to_owned();
        uri.authority.host = closed.ip().to_string();
        uri.authority.port = closed.port();
    });
    let prefix = unique_prefix();
    for (url, refused) in [(&password, true), (&vhost, true), (&nobody, false)] {
        let error = connect(&[url], &prefix).await.expect_err("cannot connect");
        assert_eq!(matches!(error, ConnectError::Refused { .. }), refused, "{error}");
        let (ConnectError::Refused { url: shown, why } | ConnectError::Unreachable { url: shown, why }) = &error else {
            panic!("{error}");
        };
        assert!(shown.contains(":***@") && !why.is_empty(), "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
    // A refusal says more than silence, whichever host comes first.
    let both = connect(&[&nobody, &password], &prefix).await.expect_err("cannot connect");
    assert!(matches!(both, ConnectError::Refused { .. }), "{both}");
    let url = connect(&["amqp://guest:guest@[::1]:5672"], &prefix).await.expect_err("IPv6 literal");
    assert!(matches!(url, ConnectError::BadUrl(_)), "{url}");
    assert!(matches!(connect(&[], &prefix).await, Err(ConnectError::BadUrl(_))));
    // One host of the list is enough.
    on_rabbit(|place| async move {
        for _ in 0..4 {
            let broker = connect(&[&nobody, &amqp_url(), &nobody], &place.prefix).await.expect("one of them is there");
            assert!(!format!("{broker:?}").contains("guest"), "{broker:?}");
            broker.publish(Target::Queue(Queue::Steps), step("a")).await.expect("published");
            broker.close().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_behind() {
    on_rabbit(|place| async move {
        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let settles_at = async |most: usize, what: &str| {
            let deadline = Instant::now() + PATIENCE;
            while alive() > most {
                assert!(Instant::now() < deadline, "{} tasks instead of {most} after {what}", alive());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let at_first = alive();
        let broker = connect(&[&amqp_url()], &place.prefix).await.expect("RabbitMQ");
        broker.publish_all(steps(0..10)).await.expect("published");
        drop(next(&mut broker.consume(Queue::Steps, 4)).await);
        let with_connections = alive();
        for _ in 0..10 {
            let mut consumer = broker.consume(Queue::Steps, 4);
            assert!(next(&mut consumer).await.ack().await);
        }
        settles_at(with_connections, "ten consumers").await;
        drop(broker);
        settles_at(at_first, "the drop of the broker").await;
        let broker = connect(&[&amqp_url()], &place.prefix).await.expect("RabbitMQ");
        broker.publish(Target::Queue(Queue::Steps), step("a")).await.expect("published");
        broker.close().await;
        drop(broker);
        settles_at(at_first, "close").await;
    })
    .await;
}
