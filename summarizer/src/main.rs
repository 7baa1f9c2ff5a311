//! The summarizer service.

use std::convert::Infallible;
use std::process::ExitCode;

use common::startup::{Started, service};

fn main() -> ExitCode {
    let prepare = |_config: &_| Ok::<(), Infallible>(());
    service("summarizer", &summarizer::QUEUES, prepare, async |Started { env, config, stop }, ()| {
        summarizer::run(env, &config, stop).await
    })
}
