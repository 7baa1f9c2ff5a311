//! The consume loop, on both brokers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::worker::{Outcome, work};
use tokio::sync::{Barrier, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

contract![
    everything_is_handled_and_gone,
    no_more_than_concurrency_run_at_once,
    park_and_panic_make_dead_letters,
    retry_handles_the_same_message_again,
    a_message_for_others_keeps_its_id_and_its_mark,
    stop_lets_work_finish_and_gives_back_the_rest,
    stop_does_not_wait_for_retries,
];

/// A worker on the steps queue, and the means to stop it.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start<H, F>(place: &Place, concurrency: u16, grace: Duration, handle: H) -> Self
    where
        H: Fn(Envelope, bool) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let (env, stopped) = (support::world::env(place.broker.clone()), stop.clone());
        #[expect(clippy::disallowed_methods, reason = "the test is the owner of the worker")]
        let task = tokio::spawn(async move {
            work(&env, Queue::Steps, concurrency, grace, stopped, handle).await;
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("worker does not stop").expect("worker broke");
    }
}

async fn everything_is_handled_and_gone(place: Place) {
    let (seen, mut on_seen) = mpsc::unbounded_channel();
    let running = Running::start(&place, 4, PATIENCE, move |message, redelivered| {
        let seen = seen.clone();
        async move {
            seen.send((message.message_id, redelivered)).expect("test listens");
            Outcome::Done
        }
    });
    place.broker.publish_all(steps(0..200)).await.expect("published");
    let mut handled = BTreeSet::new();
    while handled.len() < 200 {
        let (id, redelivered) = timeout(PATIENCE, on_seen.recv()).await.expect("handled").expect("worker lives");
        assert!(!redelivered && handled.insert(id.clone()), "{id} again");
    }
    running.stop().await;
    place.is_empty().await;
}

async fn no_more_than_concurrency_run_at_once(place: Place) {
    place.broker.publish_all(steps(0..12)).await.expect("published");
    // Three meet at the barrier, so three run at once; the count sees whether a fourth does.
    let (barrier, now, most) = (Arc::new(Barrier::new(3)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (done, mut on_done) = mpsc::unbounded_channel();
    let peak = Arc::clone(&most);
    let running = Running::start(&place, 3, PATIENCE, move |_, _| {
        let (barrier, now, most, done) = (Arc::clone(&barrier), Arc::clone(&now), Arc::clone(&most), done.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            barrier.wait().await;
            now.fetch_sub(1, Ordering::SeqCst);
            done.send(()).expect("test listens");
            Outcome::Done
        }
    });
    for _ in 0..12 {
        timeout(PATIENCE, on_done.recv()).await.expect("handled").expect("worker lives");
    }
    assert_eq!(peak.load(Ordering::SeqCst), 3);
    running.stop().await;
}

async fn park_and_panic_make_dead_letters(place: Place) {
    place.publish(&["good", "bad", "ugly", "fine"]).await;
    let (done, mut on_done) = mpsc::unbounded_channel();
    let running = Running::start(&place, 4, PATIENCE, move |message, _| {
        let done = done.clone();
        async move {
            match message.message_id.as_str() {
                "bad" => Outcome::Park { why: "it is bad".to_owned() },
                "ugly" => panic!("boom {}", message.message_id),
                other => {
                    done.send(other.to_owned()).expect("test listens");
                    Outcome::Done
                }
            }
        }
    });
    let mut dead = place.broker.consume(Queue::Dead, 2);
    let mut letters = BTreeSet::new();
    for _ in 0..2 {
        let letter = next(&mut dead).await;
        assert_eq!(letter.envelope().origin, Some(Queue::Steps.name(&place.prefix)));
        assert!(["bad", "ugly"].contains(&id(&letter)), "it keeps its id");
        letters.insert(letter.envelope().reason.clone().expect("reason"));
        assert!(letter.ack().await);
    }
    assert_eq!(letters, BTreeSet::from(["handler panicked: boom ugly".to_owned(), "it is bad".to_owned()]));
    for _ in 0..2 {
        timeout(PATIENCE, on_done.recv()).await.expect("undisturbed").expect("worker lives");
    }
    running.stop().await;
    place.is_empty().await;
}

/// What the holder before has left undone, a reply say, is done by whoever knows that there was one.
async fn a_message_for_others_keeps_its_id_and_its_mark(place: Place) {
    place.publish(&["a"]).await;
    let mut died = place.broker.consume(Queue::Steps, 1);
    drop(next(&mut died).await);
    drop(died);
    place.publish(&["b"]).await;
    let (seen, mut on_seen) = mpsc::unbounded_channel();
    let tries = Arc::new(AtomicUsize::new(0));
    let running = Running::start(&place, 1, PATIENCE, move |message, redelivered| {
        let (seen, tries) = (seen.clone(), Arc::clone(&tries));
        async move {
            seen.send((message.message_id, redelivered)).expect("test listens");
            match tries.fetch_add(1, Ordering::SeqCst) {
                0..4 => Outcome::Return { why: "it is for somebody else".to_owned() },
                _ => Outcome::Done,
            }
        }
    });
    let mut times = BTreeMap::new();
    for _ in 0..6 {
        let (id, redelivered) = timeout(PATIENCE, on_seen.recv()).await.expect("handled").expect("worker lives");
        assert_eq!(redelivered, id == "a", "{id}");
        *times.entry(id).or_insert(0) += 1;
    }
    assert_eq!(times, BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 3)]), "they take turns");
    running.stop().await;
    place.is_empty().await;
}

async fn retry_handles_the_same_message_again(place: Place) {
    place.publish(&["a"]).await;
    let (seen, mut on_seen) = mpsc::unbounded_channel();
    let tries = Arc::new(AtomicUsize::new(0));
    let running = Running::start(&place, 1, PATIENCE, move |message, redelivered| {
        let (seen, tries) = (seen.clone(), Arc::clone(&tries));
        async move {
            seen.send((message.message_id, redelivered)).expect("test listens");
            match tries.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => Outcome::Retry { after: Duration::from_millis(1), why: "not yet".to_owned() },
                _ => Outcome::Done,
            }
        }
    });
    for _ in 0..3 {
        let seen = timeout(PATIENCE, on_seen.recv()).await.expect("handled").expect("worker lives");
        assert_eq!(seen, ("a".to_owned(), false));
    }
    running.stop().await;
    place.is_empty().await;
}

async fn stop_lets_work_finish_and_gives_back_the_rest(place: Place) {
    place.publish(&["quick", "stuck", "waiting", "waiting", "waiting"]).await;
    let (started, mut on_started) = mpsc::unbounded_channel();
    let go = Arc::new(Semaphore::new(0));
    let going = Arc::clone(&go);
    let running = Running::start(&place, 2, Duration::from_millis(300), move |message, _| {
        let (started, going) = (started.clone(), Arc::clone(&going));
        async move {
            started.send(message.message_id.clone()).expect("test listens");
            if message.message_id == "stuck" {
                std::future::pending::<()>().await;
            }
            let _permit = going.acquire().await.expect("never closed");
            Outcome::Done
        }
    });
    for _ in 0..2 {
        timeout(PATIENCE, on_started.recv()).await.expect("started").expect("worker lives");
    }
    running.stop.cancel();
    go.add_permits(1);
    running.stop().await;
    let mut consumer = place.broker.consume(Queue::Steps, 8);
    let mut left = Vec::new();
    for _ in 0..4 {
        let delivery = next(&mut consumer).await;
        assert!(delivery.redelivered() || id(&delivery) != "stuck");
        left.push(id(&delivery).to_owned());
        assert!(delivery.ack().await);
    }
    left.sort();
    assert_eq!(left, ["stuck", "waiting", "waiting", "waiting"], "only the quick one was finished, nothing new was taken");
    drop(consumer);
    place.is_empty().await;
}

async fn stop_does_not_wait_for_retries(place: Place) {
    place.publish(&["a"]).await;
    let (seen, mut on_seen) = mpsc::unbounded_channel();
    let running = Running::start(&place, 1, PATIENCE * 10, move |_, _| {
        seen.send(()).expect("test listens");
        async { Outcome::Retry { after: PATIENCE * 10, why: "later".to_owned() } }
    });
    timeout(PATIENCE, on_seen.recv()).await.expect("handled").expect("worker lives");
    running.stop().await;
    let mut consumer = place.broker.consume(Queue::Steps, 1);
    let back = next(&mut consumer).await;
    assert_eq!((id(&back), back.redelivered()), ("a", true));
    assert!(back.ack().await);
}
