//! The summarizer service.

use std::process::ExitCode;

use common::startup;

fn main() -> ExitCode {
    startup::service("summarizer", async |started| summarizer::run(started.env, &started.config, started.stop).await)
}
