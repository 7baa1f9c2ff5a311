//! The executor service.

use std::process::ExitCode;

use common::startup::{Started, service};
use executor::tool::Toolbox;

fn main() -> ExitCode {
    let prepare = |config: &common::config::Config| Toolbox::builtin(&config.tools);
    service("executor", &executor::QUEUES, prepare, async |Started { env, config, stop }, tools| {
        executor::run(env, &config, tools, stop).await
    })
}
