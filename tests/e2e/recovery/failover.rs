//! A Redis that is replaced by its replica, while connections to the old primary stay open.

use support::proxy::Proxy;
use support::servers::PrivateRedis;
use support::stack::amqp_url;
use tokio::time::Instant;

use super::{Work, all_end};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over() {
    let work = Work::new().await;
    let (primary, replica) = (PrivateRedis::start(&[]).await, PrivateRedis::start(&[]).await);
    replica.replicate(Some(&primary)).await;
    // The name that clients know, and that names the primary.
    let name = Proxy::start(primary.address()).await.unwrap();
    let url = format!("redis://{}", name.address());
    // The user reads from the replica.
    let (stack, _services) = work.stack(&amqp_url(), &replica.url(), &[("REDIS_URL", &url)]).await;

    let runs = work.begin(&stack, "failover").await;
    let (sent, got) = (["INFO", "replication"], "state=online");
    stack.until("the replica copies", async || primary.command::<String>(&sent).await.unwrap().contains(got)).await;
    replica.replicate(None).await;
    name.redirect(replica.address());
    primary.replicate(Some(&replica)).await;
    let since = Instant::now();
    work.answer();
    all_end(&stack, "a replica takes over, the old primary refuses writes", &runs, since).await;
    stack.clean().await;
}
