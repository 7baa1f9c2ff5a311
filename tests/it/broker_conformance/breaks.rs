//! Connections that break while messages are in hand: on RabbitMQ through a proxy that breaks them, in memory by giving back what is
//! out, which is what a broker does then.

use support::proxy::Proxy;

use super::rabbit_only::behind_proxy;
use super::*;

/// A broker, and what its connections go through.
struct Line {
    place: Place,
    proxy: Option<Arc<Proxy>>,
}

impl Line {
    /// Breaks every connection, and waits until both sides know and the one consumer is back.
    async fn cut_and_mend(&self) {
        let refuse = |refuse| self.proxy.as_ref().map(|proxy| proxy.refuse(refuse));
        refuse(true);
        self.cut();
        self.place.consumed_by(0).await;
        refuse(false);
        self.place.consumed_by(1).await;
    }

    /// Breaks every connection.
    fn cut(&self) {
        match (&self.place.broker, &self.proxy) {
            (Broker::Memory(memory), _) => memory.give_back(|_, _| true),
            (_, Some(proxy)) => proxy.reset_connections(),
            (Broker::Rabbit(_) | Broker::Watched(_), None) => panic!("nothing to break"),
        }
    }
}

macro_rules! lines {
    ($($case:ident),* $(,)?) => {
        mod on_memory { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $case() {
            super::on_memory(|place| super::$case(super::Line { place, proxy: None })).await;
        })* }
        mod on_rabbit { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $case() {
            super::behind_proxy(|place, proxy| super::$case(super::Line { place, proxy: Some(proxy) })).await;
        })* }
    };
}

lines![what_was_in_hand_settles_nothing, what_was_not_taken_comes_again_once, a_lost_connection_counts_as_a_return,];

async fn what_was_in_hand_settles_nothing(line: Line) {
    let Line { place, .. } = &line;
    place.publish(&["a"]).await;
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    let (held, dropped_late) = (next(&mut consumer).await, {
        line.cut();
        next(&mut consumer).await
    });
    assert!(dropped_late.redelivered() && !held.ack().await);
    line.cut();
    let again = next(&mut consumer).await;
    assert_eq!((id(&again), again.redelivered()), ("a", true));
    // Of an older delivery, neither the acknowledgement nor the drop is one of this delivery.
    drop(dropped_late);
    assert!(consumer.next().now_or_never().is_none(), "it is in hand");
    assert!(again.ack().await);
    drop(consumer);
    place.is_empty_after_break().await;
}

async fn what_was_not_taken_comes_again_once(line: Line) {
    let Line { place, .. } = &line;
    place.publish(&["a", "b", "c", "d", "e"]).await;
    let mut consumer = place.broker.consume(Queue::Steps, 4);
    let held = next(&mut consumer).await;
    place.has_depth(1).await;
    line.cut_and_mend().await;
    for (wanted, redelivered) in [("a", true), ("b", true), ("c", true), ("d", true), ("e", false)] {
        let delivery = next(&mut consumer).await;
        assert_eq!((id(&delivery), delivery.redelivered()), (wanted, redelivered));
        assert!(delivery.ack().await);
    }
    assert!(!held.ack().await);
    drop(consumer);
    place.is_empty_after_break().await;
}

async fn a_lost_connection_counts_as_a_return(line: Line) {
    let Line { place, .. } = &line;
    place.publish(&["a"]).await;
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    for _ in 0..DELIVERY_LIMIT {
        drop(next(&mut consumer).await);
    }
    let last = next(&mut consumer).await;
    line.cut();
    let letter = next(&mut place.broker.consume(Queue::Dead, 1)).await;
    assert_eq!((id(&letter), letter.envelope().reason.as_deref()), ("a", Some("delivery_limit")));
    assert!(letter.ack().await && !last.ack().await);
}
