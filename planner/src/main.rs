//! The planner service.

use std::convert::Infallible;
use std::process::ExitCode;

use common::startup::{Started, service};

fn main() -> ExitCode {
    let prepare = |_config: &_| Ok::<(), Infallible>(());
    service("planner", &planner::QUEUES, prepare, async |Started { env, config, stop }, ()| {
        planner::run(env, &config, stop).await
    })
}
