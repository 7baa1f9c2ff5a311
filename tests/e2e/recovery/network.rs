//! A network that is slow, loses replies, resets connections, or is gone with every connection still open.

use std::time::Duration;

use common::limits::CLAIMS_MAX;
use support::proxy::{Proxy, Way};
use support::stack::{Process, Stack, amqp_url, through};
use support::stores::redis_url;
use tokio::time::{Instant, sleep};

use super::{Work, all_end, at_rest, sums};

/// Longer than the services wait for a confirm, and for an answer of Redis.
const SILENCE: Duration = Duration::from_secs(13);

async fn behind_proxies(work: &Work) -> (Proxy, Proxy, Stack, Vec<Process>) {
    let (rabbit, rabbit_url) = through(&amqp_url(), 5672).await;
    let (redis, proxied_url) = through(&redis_url(), 6379).await;
    let settings = [("AMQP_URL", rabbit_url.as_str()), ("REDIS_URL", proxied_url.as_str())];
    let (stack, services) = work.stack(&amqp_url(), &redis_url(), &settings).await;
    (rabbit, redis, stack, services)
}

/// Everything is asked and done, and no answer comes; then all of them come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_late() {
    let work = Work::new().await;
    let (rabbit, redis, stack, _services) = behind_proxies(&work).await;
    let runs = work.begin(&stack, "late").await;
    rabbit.hold(Way::Replies, true);
    redis.hold(Way::Replies, true);
    work.answer();
    sleep(SILENCE).await;
    rabbit.hold(Way::Replies, false);
    redis.hold(Way::Replies, false);
    all_end(&stack, "answers of RabbitMQ and Redis are 13 s late", &runs, Instant::now()).await;
    at_rest(&stack).await;
    stack.clean().await;
}

/// Half-open connections: the other side is gone for good, and has not said so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_connections_lead_nowhere() {
    let to_redis = async {
        let work = Work::new().await;
        let (_rabbit, redis, stack, _services) = behind_proxies(&work).await;
        let runs = work.begin(&stack, "redis").await;
        redis.strand_connections();
        let since = Instant::now();
        work.answer();
        all_end(&stack, "connections to Redis lead nowhere (from then on)", &runs, since).await;
        stack.clean().await;
    };
    let to_rabbit = async {
        let work = Work::new().await;
        let (rabbit, _redis, stack, _services) = behind_proxies(&work).await;
        let runs = work.begin(&stack, "rabbit").await;
        rabbit.strand_connections();
        let since = Instant::now();
        work.answer();
        all_end(&stack, "connections to RabbitMQ lead nowhere (from then on)", &runs, since).await;
        stack.clean().await;
    };
    tokio::join!(to_redis, to_rabbit);
}

/// More often than a step may end its executors, while one waits in the model: whoever holds it lives, and nothing counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_comes_and_goes_is_no_poison() {
    let work = Work::new().await;
    let (rabbit, _redis, stack, _services) = behind_proxies(&work).await;
    let runs = work.begin(&stack, "flapping").await;
    for _ in 0..=CLAIMS_MAX {
        let asked = work.asked();
        rabbit.break_connections();
        work.waits_again(&stack, asked).await;
    }
    let since = Instant::now();
    work.answer();
    all_end(&stack, "connections to RabbitMQ break six times", &runs, since).await;
    stack.clean().await;
}

/// Two names of one broker: whichever is gone, the other one is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_host_of_the_list_is_taken() {
    let work = Work::new().await;
    let ((one, one_url), (other, other_url)) = (through(&amqp_url(), 5672).await, through(&amqp_url(), 5672).await);
    let urls = format!("{one_url},{other_url}");
    let (stack, _services) = work.stack(&amqp_url(), &redis_url(), &[("AMQP_URL", urls.as_str())]).await;
    for (name, gone, back) in [("one", &one, &other), ("other", &other, &one)] {
        let runs = work.begin(&stack, name).await;
        back.refuse(false);
        gone.refuse(true);
        gone.break_connections();
        let since = Instant::now();
        work.answer();
        all_end(&stack, "one of two hosts is gone (from then on)", &runs, since).await;
    }
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_are_lost_and_connections_reset() {
    let work = Work::new().await;
    let (rabbit, redis, stack, _services) = behind_proxies(&work).await;

    let runs = work.begin(&stack, "redis").await;
    redis.lose_replies(30);
    work.answer();
    let more = sums(&stack, "more").await;
    stack.until("the replies are lost", async || redis.losses_to_come() == 0).await;
    all_end(&stack, "30 replies of Redis are lost: written, not answered", &[runs, more].concat(), Instant::now()).await;

    let runs = work.begin(&stack, "rabbit").await;
    rabbit.lose_replies(10);
    work.answer();
    stack.until("the replies are lost", async || rabbit.losses_to_come() == 0).await;
    all_end(&stack, "10 replies of RabbitMQ are lost: published, not confirmed", &runs, Instant::now()).await;

    let runs = work.begin(&stack, "resets").await;
    work.answer();
    for _ in 0..3 {
        rabbit.reset_connections();
        redis.reset_connections();
        sleep(Duration::from_millis(300)).await;
    }
    all_end(&stack, "every connection is reset, three times", &runs, Instant::now()).await;

    let runs = work.begin(&stack, "slow").await;
    for proxy in [&rabbit, &redis] {
        proxy.delay(Duration::from_millis(50));
    }
    work.answer();
    let slow = Instant::now();
    all_end(&stack, "everything is 50 ms late, each way (from its begin)", &runs, slow).await;
    at_rest(&stack).await;
    stack.clean().await;
}
