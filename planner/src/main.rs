//! The planner service.

use std::process::ExitCode;

use common::startup;

fn main() -> ExitCode {
    startup::service("planner", async |started| planner::run(started.env, &started.config, started.stop).await)
}
