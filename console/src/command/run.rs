//! `planrelay run`: a whole stack in this process, in memory, for one objective.

use std::sync::Arc;

use anyhow::Context;
use common::broker::{self, Broker};
use common::client::Client;
use common::clock::Clock;
use common::config::Config;
use common::env::Env;
use common::ids::Ids;
use common::llm::Llm;
use common::message::ObjectiveMessage;
use common::store::{self, Store, StoreTime};
use executor::tool::Toolbox;
use tokio_util::sync::CancellationToken;

use crate::args::{Globals, RunArgs};
use crate::command::answer;
use crate::display::say;
use crate::exit::{Exit, Failure};
use crate::follow::{Followed, follow};
use crate::objective;

/// What the user can do about a run that did not do all it should. Nothing of it is left to ask for later.
const HINT: &str = "planrelay run -o json prints every step with its error";

pub(crate) async fn run(args: RunArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    let objective = objective::read(&args.what, None)?;
    let env = in_memory(config)?;
    if matches!(env.llm, Llm::Offline) && !globals.quiet {
        say("model: offline (rule-based; set OPENAI_API_KEY or OPENAI_BASE_URL for a real one)");
    }
    let tools = Toolbox::builtin(&config.tools).map_err(|error| Failure::new(Exit::Usage, error))?;
    let services = Box::pin(services(env.clone(), config, tools));
    let answered = Box::pin(one_run(&env, objective, globals));
    tokio::select! {
        exit = answered => exit,
        ended = services => Err(Failure::new(Exit::Failed, match ended {
            Err(error) => error,
            Ok(()) => anyhow::anyhow!("the services ended before the run did"),
        })),
    }
}

/// A world that is this process and the model.
fn in_memory(config: &Config) -> Result<Env, Failure> {
    let ids = Ids::random();
    let llm = Llm::from_config(&config.llm).map_err(|error| Failure::says(Exit::Usage, error))?;
    Ok(Env {
        clock: Clock::System,
        broker: Broker::Memory(broker::memory::Memory::new(&config.prefix)),
        store: Store::Memory(Arc::new(store::memory::Memory::new(StoreTime::Own))),
        llm,
        worker: format!("local-{}", ids.unique()).into(),
        ids,
    })
}

/// The three services, until one of them fails. They are never asked to stop: with the run they have nothing left to do.
async fn services(env: Env, config: &Config, tools: Toolbox) -> anyhow::Result<()> {
    let stop = CancellationToken::new;
    tokio::try_join!(
        async { planner::run(env.clone(), config, stop()).await.context("planner") },
        async { executor::run(env.clone(), config, tools, stop()).await.context("executor") },
        async { summarizer::run(env.clone(), config, stop()).await.context("summarizer") },
    )?;
    Ok(())
}

async fn one_run(env: &Env, objective: ObjectiveMessage, globals: &Globals) -> Result<Exit, Failure> {
    let client = Client::new(env.store.clone(), env.ids.clone(), env.clock);
    let run = client.submit(&env.broker, objective).await?;
    if !globals.quiet {
        say(&format!("run {run}"));
    }
    match follow(&client, &run, "", None, globals).await? {
        Followed::Ended { status, error } => answer(&client, &run, (status, error), globals, HINT).await,
        Followed::Interrupted => Ok(Exit::Interrupted),
        Followed::TimedOut => Ok(Exit::TimedOut),
    }
}
