//! Runs steps: claims one, does it with tools, stores its outcome, tells who must act, and only then acknowledges.
//!
//! [`step`] handles a message, [`attempt`] does the work under the lease, [`turns`] is the tool loop, [`tool`] holds the tools.

use common::config::{Config, RunConfig};
use common::env::Env;
use common::lease::Drain;
use common::message::Queue;
use common::worker;
use tokio_util::sync::CancellationToken;

pub mod attempt;
pub mod step;
pub mod tool;
pub mod turns;

use tool::Toolbox;

/// What it consumes.
pub const QUEUES: [Queue; 1] = [Queue::Steps];

/// What every step needs beside its message.
#[derive(Clone)]
pub struct Executor {
    /// The world.
    pub env: Env,
    /// The limits.
    pub config: RunConfig,
    /// The tools.
    pub tools: Toolbox,
    /// The stop signal.
    pub drain: Drain,
}

/// Consumes steps until `stop`, then ends what runs within the grace period or gives it back.
pub async fn run(env: Env, config: &Config, tools: Toolbox, stop: CancellationToken) -> anyhow::Result<()> {
    let drain = Drain { stop: stop.clone(), grace: config.run.shutdown_grace };
    let executor = Executor { env: env.clone(), config: config.run.clone(), tools, drain };
    // The worker waits a little longer than the lease holder, which gives unfinished steps back by itself.
    let grace = config.run.shutdown_grace + common::limits::RELEASE_MARGIN;
    worker::work(&env, Queue::Steps, config.run.concurrency, grace, stop, move |envelope, redelivered| {
        let executor = executor.clone();
        async move { step::handle(&executor, &envelope, redelivered).await }
    })
    .await;
    Ok(())
}
