//! The one consume loop of all services: receive, handle, act on the outcome. Bounded, panic-safe, drains on shutdown.
//!
//! Handlers see messages, never the broker, and answer with an [`Outcome`]. A message is acknowledged after its handler is done,
//! never before; whatever ends in between, a crash, a stop, a lost connection, brings it back.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Delivery, Envelope, Target, backoff};
use crate::env::Env;
use crate::limits::{HANDLE_BACKOFF_MAX, RETRY_BACKOFF_MIN, RETURN_WAIT_MAX, RETURN_WAIT_MIN};
use crate::message::Queue;
use crate::metrics::{Metrics, Settled};
use crate::store::StoreError;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is taken off the queue.
    Done,
    /// It is handled again in this process, without going back to the broker, as long as the handler says so.
    Retry {
        /// The wait before it.
        after: Duration,
        /// One sentence.
        why: String,
    },
    /// It is for another process, one of a newer release: after a while it goes back to the end of its queue.
    Return {
        /// One sentence; stands in the log, once.
        why: String,
    },
    /// It goes to the dead queue.
    Park {
        /// One sentence; stands in the dead letter's `planrelay-reason` header.
        why: String,
    },
}

impl From<StoreError> for Outcome {
    /// What becomes of a message that the store has no use for. Repeating what cannot be reached is up to the handler.
    fn from(error: StoreError) -> Self {
        let why = error.to_string();
        match error {
            StoreError::Newer { .. } => Outcome::Return { why },
            StoreError::Unreachable(_) | StoreError::Unusable(_) => Outcome::Park { why },
        }
    }
}

/// Consumes `queue` until `stop`: every message is handled by `handle` (the message, whether an earlier delivery of it may have left
/// something behind: said of the first try only, never after a [`Outcome::Retry`]) in a task of its own, at most `concurrency` of them at
/// once. A panic in `handle` parks its message and disturbs no other.
///
/// After `stop` nothing new is taken; handlers that run may finish within `grace`. Those that do not are dropped where they stand, and
/// those that wait for a retry at once: their messages come back.
pub async fn work<H, F>(env: &Env, queue: Queue, concurrency: u16, grace: Duration, stop: CancellationToken, handle: H)
where
    H: Fn(Envelope, bool) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    let concurrency = concurrency.max(1);
    let mut consumer = env.broker.consume(queue, concurrency);
    let mut running = JoinSet::new();
    let foreign = Arc::new(AtomicU32::new(0));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = running.join_next() => report(ended),
            delivery = consumer.next(), if running.len() < usize::from(concurrency) => {
                let attended = attend(env.clone(), queue, delivery, handle.clone(), stop.clone(), Arc::clone(&foreign));
                running.spawn(crate::telemetry::work(attended));
            }
        }
    }
    drop(consumer);
    let finished = timeout(grace, async {
        while let Some(ended) = running.join_next().await {
            report(ended);
        }
    });
    if finished.await.is_err() {
        tracing::warn!(
            queue = queue.role(),
            unfinished = running.len(),
            "dropped work on {} after the grace period",
            queue.role()
        );
        running.shutdown().await;
    }
}

/// A message in hand, as the metrics see it. Dropped before it is settled, it goes back to the broker.
struct InHand {
    metrics: Metrics,
    queue: Queue,
    since: Instant,
    settled: Settled,
}

impl InHand {
    fn take(env: &Env, queue: Queue, delivery: &Delivery) -> Self {
        if let Some(published_ms) = delivery.published_ms().filter(|_| !delivery.redelivered()) {
            // Clocks of two machines: what seems to come from the future has just been published.
            let wait = env.clock.now_ms().saturating_sub(published_ms);
            env.metrics.waited(queue, Duration::from_millis(wait));
        }
        env.metrics.in_hand(queue, 1);
        Self { metrics: env.metrics.clone(), queue, since: Instant::now(), settled: Settled::Returned }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.metrics.in_hand(self.queue, -1);
        self.metrics.settled(self.queue, self.settled);
        self.metrics.handled(self.queue, self.since.elapsed());
    }
}

/// Handles one delivery until it is settled, or has to be given back. `foreign`: how many messages for others have come to this queue.
async fn attend<H, F>(env: Env, queue: Queue, delivery: Delivery, handle: H, stop: CancellationToken, foreign: Arc<AtomicU32>)
where
    H: Fn(Envelope, bool) -> F,
    F: Future<Output = Outcome>,
{
    let mut hand = InHand::take(&env, queue, &delivery);
    let mut redelivered = delivery.redelivered();
    loop {
        let message = delivery.envelope().clone();
        // Nothing that the handler left half-done is looked at after a panic: the message is parked.
        let handled = AssertUnwindSafe(async { handle(message, redelivered).await }).catch_unwind().await;
        let why = match handled {
            Ok(Outcome::Done) => {
                let message_id = delivery.envelope().message_id.clone();
                if delivery.ack().await {
                    hand.settled = Settled::Done;
                } else {
                    tracing::debug!(message_id, "message {message_id} could not be acknowledged and will come back");
                }
                return;
            }
            Ok(Outcome::Park { why }) => why,
            Ok(Outcome::Return { why }) => {
                let tries = foreign.fetch_add(1, Ordering::Relaxed);
                say_foreign(queue, tries, &why);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = sleep(patience(&env, tries)) => give_back(&env, queue, delivery, &stop).await,
                }
                return;
            }
            Err(panic) => format!("handler panicked: {}", text_of(&*panic)),
            Ok(Outcome::Retry { after, why }) => {
                let message_id = &delivery.envelope().message_id;
                tracing::debug!(message_id, why, "message {message_id} is handled again");
                hand.metrics.settled(queue, Settled::Retried);
                // Who holds its slot by now may be somebody to whom the broker has given the message since: not to be taken over.
                redelivered = false;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = sleep(after) => {}
                }
                continue;
            }
        };
        if park(&env.broker, queue, delivery, &why).await {
            hand.settled = Settled::Parked;
        }
        return;
    }
}

/// Says that a message is for a newer release: once a queue, for they go round and round.
fn say_foreign(queue: Queue, tries: u32, why: &str) {
    let queue = queue.role();
    if tries == 0 {
        tracing::warn!(queue, why, "a message on {queue} is left to a newer process, as are all others like it: {why}");
    } else {
        tracing::debug!(queue, why, "another message on {queue} is left to a newer process: {why}");
    }
}

/// How long a message for others is kept before it goes back: longer, the more of them have come. It holds one of the process's places
/// meanwhile, so not for long.
fn patience(env: &Env, tries: u32) -> Duration {
    let most = RETURN_WAIT_MIN.saturating_mul(2u32.saturating_pow(tries / 16)).min(RETURN_WAIT_MAX);
    most.mul_f64(0.5 + env.ids.fraction() / 2.0)
}

/// Puts the message at the end of its queue, under its own id and with its redelivered mark: the broker would put it at the front, and
/// count. Repeated until it is confirmed; should this process die or stop in between, there may be two of it, which claims sort out.
async fn give_back(env: &Env, queue: Queue, delivery: Delivery, stop: &CancellationToken) {
    let copy = Envelope { returned: delivery.redelivered(), ..delivery.envelope().clone() };
    let mut tries = 0;
    while let Err(error) = env.broker.publish(Target::Queue(queue), copy.clone()).await {
        let wait = backoff(tries, RETRY_BACKOFF_MIN, HANDLE_BACKOFF_MAX, env.ids.fraction());
        env.metrics.publishing_again();
        tracing::warn!("a message for a newer process is not confirmed, publishing again in {wait:?}: {error}");
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(wait) => tries += 1,
        }
    }
    delivery.ack().await;
}

/// Makes the message a dead letter; says whether that is done.
async fn park(broker: &Broker, queue: Queue, delivery: Delivery, why: &str) -> bool {
    let message_id = delivery.envelope().message_id.clone();
    if queue == Queue::Dead {
        // There is no queue behind this one: a dead letter that cannot be handled would only go round and round.
        tracing::error!(message_id, why, "dead letter {message_id} is dropped: {why}");
        return delivery.ack().await;
    }
    let parked = delivery.park(broker, why).await;
    if parked {
        tracing::warn!(message_id, why, "message {message_id} is now a dead letter: {why}");
    } else {
        tracing::warn!(message_id, why, "message {message_id} could not be parked and will come back");
    }
    parked
}

/// A handler's panic is caught where it happens; what is left is a panic of this file.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a worker's task broke, its message comes back");
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
