//! The executor service.

use std::process::ExitCode;

use common::startup;

fn main() -> ExitCode {
    startup::service("executor", async |started| executor::run(started.env, &started.config, started.stop).await)
}
