//! Writes the answer when every step of a run has reported.
//!
//! [`completion`] handles the message; [`answer`] decides what the answer is.

use common::config::{Config, RunConfig};
use common::env::Env;
use common::lease::Drain;
use common::limits::RELEASE_MARGIN;
use common::message::Queue;
use common::worker;
use tokio_util::sync::CancellationToken;

pub mod answer;
pub mod completion;

/// What it consumes.
pub const QUEUES: [Queue; 1] = [Queue::Completions];

/// What every handler needs.
#[derive(Clone)]
pub struct Summarizer {
    /// The world.
    pub env: Env,
    /// The limits.
    pub config: RunConfig,
    /// The stop signal.
    pub drain: Drain,
}

/// Consumes completions until `stop`, then ends what runs within the grace period or gives it back.
pub async fn run(env: Env, config: &Config, stop: CancellationToken) -> anyhow::Result<()> {
    let drain = Drain { stop: stop.clone(), grace: config.run.shutdown_grace };
    let summarizer = Summarizer { env: env.clone(), config: config.run.clone(), drain };
    let grace = config.run.shutdown_grace + RELEASE_MARGIN;
    let concurrency = config.run.concurrency;
    worker::work(&env, Queue::Completions, concurrency, grace, stop, move |envelope, redelivered| {
        let summarizer = summarizer.clone();
        async move { completion::handle(&summarizer, &envelope, redelivered).await }
    })
    .await;
    Ok(())
}
