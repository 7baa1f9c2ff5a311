//! Services that are stopped (SIGTERM) in the middle of their work.

use common::limits::CLAIMS_MAX;
use support::stack::amqp_url;
use support::stores::redis_url;
use tokio::time::Instant;

use super::{SERVICES, Work, all_end, at_rest};

/// Every service, more often than a step may end its executors: neither an attempt nor a claim is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_services_lose_nothing() {
    let work = Work::new().await;
    let (stack, mut services) = work.stack(&amqp_url(), &redis_url(), &[("PLANRELAY_SHUTDOWN_GRACE_SECS", "0")]).await;
    let runs = work.begin(&stack, "stopped").await;
    for _ in 0..=CLAIMS_MAX {
        let asked = work.asked();
        for (process, service) in services.iter_mut().zip(SERVICES) {
            assert_eq!(process.stop().await.code(), Some(0), "{}", stack.logs());
            *process = stack.start(service);
        }
        work.waits_again(&stack, asked).await;
    }
    let stopped = Instant::now();
    work.answer();
    all_end(&stack, "every service is stopped and started, six times", &runs, stopped).await;
    at_rest(&stack).await;
    stack.clean().await;
}
