//! Sentinels that name another primary.

use support::servers::Sentinels;
use support::stack::amqp_url;
use tokio::time::Instant;

use super::{Work, all_end, at_rest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_name_another_primary() {
    let (work, mut sentinels) = (Work::new().await, Sentinels::start().await);
    let (stack, _services) = work.stack(&amqp_url(), &sentinels.url(), &[]).await;

    let runs = work.begin(&stack, "killed").await;
    let first = sentinels.primary().await.expect("there is a primary");
    sentinels.servers[first].kill();
    work.answer();
    all_end(&stack, "the primary is killed, Sentinels name another", &runs, Instant::now()).await;
    let second = sentinels.primary().await.expect("there is a primary");
    assert_ne!(second, first);

    // The first comes back as it was, and is made a replica.
    sentinels.servers[first].start_again().await;
    let replica = async || sentinels.servers[first].role().await.as_deref() == Some("slave");
    stack.until("the first primary has become a replica", replica).await;

    // A primary that hangs believes that it still is one when it goes on.
    let runs = work.begin(&stack, "hangs").await;
    sentinels.servers[second].pause();
    work.answer();
    let elsewhere = async || sentinels.primary().await.is_some_and(|primary| primary != second);
    stack.until("the Sentinels name another", elsewhere).await;
    sentinels.servers[second].resume();
    all_end(&stack, "the primary hangs, Sentinels name another", &runs, Instant::now()).await;
    at_rest(&stack).await;
    stack.clean().await;
}
