//! The command line `planrelay`. stdout is data, stderr is everything else, the exit code says how it ended.
//!
//! [`args`] is the command line, `command/` holds one file per command. A run is followed by `follow`, told by `progress`
//! (pure: events in, changes out), pictured by `frame` (pure) and drawn by `display`. [`exit`] holds the codes.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use common::config::print_config;
use common::health;

pub mod args;
mod command;
mod connect;
mod display;
pub mod exit;
mod follow;
mod frame;
mod objective;
pub mod output;
mod progress;
mod serve;
mod settings;
mod text;
mod wait;

use args::{Command, CommandLine};
use command::control;
use exit::{Exit, Failure};

/// Does what the command line says.
pub fn main(line: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(line) {
        Ok(line) => line,
        Err(error) => {
            // Help and version are such errors, too; with the terminal gone there is nobody to read them.
            let _gone = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code()));
        }
    };
    match start(line) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report().into(),
    }
}

fn not_ready(why: String) -> Failure {
    Failure::says(Exit::Failed, why)
}

fn start(line: CommandLine) -> Result<Exit, Failure> {
    let globals = &line.globals;
    if let (Some(Command::Schema(args)), false) = (&line.command, globals.print_config) {
        // Needs no configuration, so that a bad one does not matter.
        return command::schema::run(args, globals);
    }
    let loaded = match (settings::load(globals), &line.command) {
        (Ok(loaded), _) => loaded,
        // It has more to say about a bad one.
        (Err(error), Some(Command::Doctor(_))) if !globals.print_config => {
            return command::doctor::unconfigured(globals, &error);
        }
        (Err(error), _) => return Err(Failure::new(Exit::Usage, error)),
    };
    if globals.print_config {
        output::line(print_config(&loaded).trim_end())?;
        return Ok(Exit::Ok);
    }
    let config = &loaded.config;
    let Some(command) = line.command else { return Err(Failure::says(Exit::Usage, "no command").hint("planrelay --help")) };
    settings::start_logs(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, error))?;
    let done = runtime.block_on(async {
        match command {
            Command::Run(args) => Box::pin(command::run::run(args, globals, config)).await,
            Command::Submit(args) => Box::pin(command::submit::run(args, globals, config)).await,
            Command::Watch(args) => Box::pin(command::watch::run(args, globals, config)).await,
            Command::Result(args) => Box::pin(command::result::run(args, globals, config)).await,
            Command::Show(args) => command::show::run(args, globals, config).await,
            Command::Explain(args) => command::explain::run(args, globals, config).await,
            Command::Cancel(args) => Box::pin(control::cancel(args, globals, config)).await,
            Command::Pause(args) => Box::pin(control::pause(args, globals, config)).await,
            Command::Resume(args) => Box::pin(control::resume(args, globals, config)).await,
            Command::Approve(args) => Box::pin(control::approve(args, globals, config)).await,
            Command::Reject(args) => Box::pin(control::reject(args, globals, config)).await,
            Command::Retry(args) => Box::pin(control::retry(args, globals, config)).await,
            Command::List(args) => command::list::run(args, globals, config).await,
            Command::Doctor(args) => Box::pin(command::doctor::run(&args, globals, &loaded)).await,
            Command::Schema(args) => command::schema::run(&args, globals),
            Command::Serve => Box::pin(serve::run(config)).await,
            Command::Healthcheck => health::check(config.http.listen).await.map(|()| Exit::Ok).map_err(not_ready),
        }
    });
    // Nothing that still runs is waited for: what matters is stored, or was never to outlive this process.
    runtime.shutdown_background();
    done
}
