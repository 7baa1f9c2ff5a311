//! `planrelay run`: a whole stack in this process, in memory, for one objective.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use common::broker::{self, Broker};
use common::client::{Client, ControlError};
use common::clock::Clock;
use common::config::Config;
use common::env::Env;
use common::id::RunId;
use common::ids::Ids;
use common::llm::Llm;
use common::message::{Command, ControlMessage, ObjectiveMessage};
use common::metrics::Metrics;
use common::run::RunStatus;
use common::store::{self, Store, StoreTime};
use common::telemetry;
use executor::tool::Toolbox;
use tokio_util::sync::CancellationToken;

use crate::args::{Globals, RunArgs};
use crate::command::{answer, ask, control};
use crate::display::say;
use crate::exit::{Exit, Failure};
use crate::follow::{Followed, Follower, Follows};
use crate::objective::{self, Approval};

/// What the user can do about a run that did not do all it should. Nothing of it is left to ask for later.
const HINT: &str = "planrelay run -o json prints every step with its error";
/// How long a run may take to end after Ctrl-C.
const CANCEL_PATIENCE: Duration = Duration::from_secs(2);
/// How long the planner may take to answer a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: RunArgs, globals: &Globals, config: &Config) -> Result<Exit, Failure> {
    if args.approve && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let failure = Failure::says(Exit::Usage, "--approve asks on the terminal, and there is none");
        return Err(failure.hint("planrelay submit --approve OBJECTIVE, then planrelay approve RUN"));
    }
    let objective = objective::read(&args.what, None, Approval { asked: args.approve, timeout_secs: None })?;
    let env = in_memory(config)?;
    let traces = env.traces.clone();
    if matches!(env.llm, Llm::Offline) && !globals.quiet {
        say("model: offline (rule-based; set OPENAI_API_KEY or OPENAI_BASE_URL for a real one)");
    }
    let tools = Toolbox::builtin(&config.tools).map_err(|error| Failure::new(Exit::Usage, error))?;
    let services = Box::pin(services(env.clone(), config, tools));
    let answered = Box::pin(one_run(&env, objective, globals));
    let exit = tokio::select! {
        exit = answered => exit,
        ended = services => Err(Failure::new(Exit::Failed, match ended {
            Err(error) => error,
            Ok(()) => anyhow::anyhow!("the services ended before the run did"),
        })),
    };
    traces.shutdown().await;
    exit
}

/// A world that is this process and the model.
fn in_memory(config: &Config) -> Result<Env, Failure> {
    let ids = Ids::random();
    let llm = Llm::from_config(&config.llm).map_err(|error| Failure::says(Exit::Usage, error))?;
    let worker = format!("local-{}", ids.unique());
    let traces = telemetry::traces("run", &worker, &config.prefix).map_err(|error| Failure::new(Exit::Usage, error))?;
    Ok(Env {
        clock: Clock::System,
        broker: Broker::Memory(broker::memory::Memory::new(&config.prefix)),
        store: Store::Memory(Arc::new(store::memory::Memory::new(StoreTime::Own))),
        llm,
        metrics: Metrics::new("local"),
        traces,
        worker: worker.into(),
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
    let mut follower = Follower::new(&client, &run, "", Follows::Owner, globals);
    loop {
        match follower.go(None).await? {
            Followed::Ended(ending) => return answer(&client, &run, &ending, globals, HINT).await,
            Followed::AwaitsApproval => match ask::approval(&client, &run).await? {
                Some(decision) => tell(&client, &env.broker, &decision).await?,
                None => return interrupted(&client, &env.broker, &run, &mut follower).await,
            },
            Followed::Interrupted => return interrupted(&client, &env.broker, &run, &mut follower).await,
            // The wait has no limit.
            Followed::TimedOut => return Ok(Exit::TimedOut),
        }
    }
}

/// Carries a decision out. What came of it stands among the events.
async fn tell(client: &Client, broker: &Broker, decision: &ControlMessage) -> Result<(), Failure> {
    client.control(broker, decision, ANSWER_TIMEOUT).await?;
    Ok(())
}

/// Ctrl-C: the run is cancelled, and given a moment to end. Another Ctrl-C takes that away.
async fn interrupted(client: &Client, broker: &Broker, run: &RunId, follower: &mut Follower<'_>) -> Result<Exit, Failure> {
    let reason = Some("Ctrl-C".to_owned());
    let cancel = ControlMessage { by: control::user(), reason, ..control::of(run.clone(), Command::Cancel) };
    let cancelled = async {
        match client.control(broker, &cancel, CANCEL_PATIENCE).await {
            Ok(_reply) => follower.go(Some(CANCEL_PATIENCE)).await,
            // There is nothing to cancel yet, or nobody to do it: the end of the process ends it all.
            Err(ControlError::NoSuchRun(_) | ControlError::Unanswered(..)) => Ok(Followed::TimedOut),
            Err(error @ (ControlError::Publish(_) | ControlError::Store(_))) => Err(error.into()),
        }
    };
    let followed = tokio::select! {
        _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        followed = cancelled => followed?,
    };
    match followed {
        Followed::Ended(ending) if ending.status != RunStatus::Cancelled => {
            say(&format!("the run had ended before it could be cancelled: {}", ending.status.as_str()));
        }
        Followed::Ended(_) | Followed::TimedOut | Followed::AwaitsApproval => say("the run was cancelled"),
        Followed::Interrupted => {}
    }
    Ok(Exit::Interrupted)
}
