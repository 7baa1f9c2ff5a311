//! How a service process starts and ends: options, configuration, connections, exit codes.
//!
//! Exit codes: 0 stopped as asked, 2 configuration, 5 a server cannot be reached or refuses, 1 anything else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::broker::{self, Broker, rabbit::Rabbit};
use crate::clock::Clock;
use crate::config::{Config, Sources, print_config};
use crate::env::Env;
use crate::health::{self, Health};
use crate::ids::Ids;
use crate::llm::Llm;
use crate::message::Queue;
use crate::metrics::Metrics;
use crate::store::redis::{self, Redis};
use crate::store::{Store, StoreTime};

/// The options of every service. Everything else comes from the environment or the file.
#[derive(Debug, Parser)]
#[command(version, about = "A planrelay service; configured by the environment, see README.md")]
struct Options {
    /// A TOML file with settings
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print every setting with its source, secrets masked, and end
    #[arg(long)]
    print_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask the service on this machine whether it is ready (at PLANRELAY_HTTP); exit code 0 if so, else 1
    Healthcheck,
}

/// What a service starts with.
pub struct Started {
    /// The world.
    pub env: Env,
    /// The configuration.
    pub config: Config,
    /// Cancelled by SIGINT or SIGTERM; a second signal ends the process at once.
    pub stop: CancellationToken,
}

/// Why a service does not start: what to print, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Refused {
    what: String,
    code: u8,
}

const CONFIGURATION: u8 = 2;
const UNREACHABLE: u8 = 5;

fn refused(code: u8, what: impl std::fmt::Display) -> Refused {
    Refused { what: what.to_string(), code }
}

impl From<broker::ConnectError> for Refused {
    fn from(error: broker::ConnectError) -> Self {
        let code = match &error {
            broker::ConnectError::Unreachable { .. } | broker::ConnectError::Refused { .. } => UNREACHABLE,
            broker::ConnectError::Topology { .. } | broker::ConnectError::BadUrl(_) => CONFIGURATION,
        };
        refused(code, error)
    }
}

impl From<redis::ConnectError> for Refused {
    fn from(error: redis::ConnectError) -> Self {
        let code = match &error {
            redis::ConnectError::Unreachable { .. } => UNREACHABLE,
            redis::ConnectError::Evicts { .. } | redis::ConnectError::BadUrl(_) => CONFIGURATION,
        };
        refused(code, error)
    }
}

/// Runs the service `name`, which consumes `queues`, until it is asked to stop. `prepare` makes what the service needs of its configuration, before
/// anything is connected; what it cannot use is a mistake in the configuration.
pub fn service<P, C: std::fmt::Display, E: std::fmt::Display>(
    name: &'static str,
    queues: &'static [Queue],
    prepare: impl FnOnce(&Config) -> Result<P, C>,
    run: impl AsyncFnOnce(Started, P) -> Result<(), E>,
) -> ExitCode {
    let matches = Options::command().name(name).get_matches();
    let options = match Options::from_arg_matches(&matches) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(name, &error.to_string(), 1),
    };
    runtime.block_on(async {
        match start(name, options, prepare).await {
            Ok(None) => ExitCode::SUCCESS,
            Ok(Some((started, prepared, listener))) => {
                let (broker, worker) = (started.env.broker.clone(), started.env.worker.clone());
                let traces = started.env.traces.clone();
                let health = Health { env: started.env.clone(), queues, stop: started.stop.clone() };
                let pages = async {
                    if let Some(listener) = listener {
                        health::serve(listener, health::routes(health), CancellationToken::new()).await;
                    }
                    std::future::pending::<()>().await;
                };
                let ended = tokio::select! {
                    ended = run(started, prepared) => ended,
                    () = pages => Ok(()),
                };
                broker.close().await;
                traces.shutdown().await;
                match ended {
                    Ok(()) => {
                        info!("{worker} stopped");
                        ExitCode::SUCCESS
                    }
                    Err(error) => complain(name, &format!("{error:#}"), 1),
                }
            }
            Err(Refused { what, code }) => complain(name, &what, code),
        }
    })
}

#[expect(clippy::print_stderr, reason = "the last words of a process that may have no log yet")]
fn complain(name: &str, what: &str, code: u8) -> ExitCode {
    eprintln!("{name}: {what}");
    ExitCode::from(code)
}

async fn start<P, C: std::fmt::Display>(
    name: &str,
    options: Options,
    prepare: impl FnOnce(&Config) -> Result<P, C>,
) -> Result<Option<(Started, P, Option<TcpListener>)>, Refused> {
    let loaded =
        Config::load(Sources::from_process(options.config, BTreeMap::new())).map_err(|error| refused(CONFIGURATION, error))?;
    if options.print_config {
        #[expect(clippy::print_stdout, reason = "it was asked for")]
        {
            print!("{}", print_config(&loaded));
        }
        return Ok(None);
    }
    let config = loaded.config;
    if let Some(Command::Healthcheck) = options.command {
        return health::check(config.http.listen).await.map(|()| None).map_err(|why| refused(1, why));
    }
    crate::telemetry::init(&config.log).map_err(|error| refused(CONFIGURATION, error))?;
    let prepared = prepare(&config).map_err(|error| refused(CONFIGURATION, error))?;
    let stop = crate::shutdown::signal().map_err(|error| refused(1, error))?;
    let ids = Ids::random();
    let worker: Arc<str> = format!("{name}-{}", &ids.unique()[..8]).into();
    let traces = crate::telemetry::traces(name, &worker, &config.prefix).map_err(|error| refused(CONFIGURATION, error))?;
    let llm = Llm::from_config(&config.llm).map_err(|error| refused(CONFIGURATION, error))?;
    let listener = match config.http.listen {
        Some(address) => Some(health::listen(address).await.map_err(|why| refused(CONFIGURATION, why))?),
        None => None,
    };
    let metrics = Metrics::new(name);
    let redis = Redis::connect(&config.store, &config.prefix, StoreTime::Own, &metrics).await?;
    let rabbit = Rabbit::connect(&config.broker, &config.prefix, &worker, ids.clone(), &metrics).await?;
    info!(worker = &*worker, model = llm.name(), concurrency = config.run.concurrency, "{worker} started, model {}", llm.name());
    let env = Env {
        clock: Clock::System,
        ids,
        broker: Broker::Rabbit(rabbit),
        store: Store::Redis(redis),
        llm,
        metrics,
        traces,
        worker,
    };
    Ok(Some((Started { env, config, stop }, prepared, listener)))
}
