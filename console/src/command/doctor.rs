//! `planrelay doctor`: what of a stack is well, what is not, and the command that mends it.
//!
//! `common` looks (`broker::rabbit::inspect`, `store::redis::inspect`, `llm::openai::probe`) and gives facts; the files here make
//! checks of them. Nothing is changed anywhere, and nothing stops at the first failure: the servers are asked side by side, each within its
//! time limits, and what depends on a check that failed is skipped and says so.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, IsTerminal};

use common::broker::rabbit::{inspect, management};
use common::clock::Reading;
use common::config::{Config, ConfigError, Loaded};
use common::ids::Ids;
use common::limits::{CONSUMER_TIMEOUT_DEFAULT, PLAN_REPAIRS_MAX};
use common::llm::openai::CONTINUATIONS_MAX;
use common::message::Queue;
use common::store;

use self::broker::Hold;
use self::check::{Check, Fault, Report};
use crate::args::{DoctorArgs, Globals};
use crate::display::say;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

mod broker;
mod check;
mod clocks;
mod model;
mod settings;
mod store_checks;
mod version;

/// Clocks by whose they are.
type Clocks = Vec<(String, Reading)>;

/// Looks at everything that the configuration names, and prints what it found.
pub(crate) async fn run(args: &DoctorArgs, globals: &Globals, loaded: &Loaded) -> Result<Exit, Failure> {
    print([settings::checks(loaded), servers(args, globals, &loaded.config).await].concat(), globals)
}

/// The same where the configuration cannot be used: nobody knows where the servers are.
pub(crate) fn unconfigured(globals: &Globals, error: &ConfigError) -> Result<Exit, Failure> {
    print([vec![settings::refused(error)], unasked("the configuration cannot be used")].concat(), globals)
}

fn print(checks: Vec<Check>, globals: &Globals) -> Result<Exit, Failure> {
    let report = Report::new(checks);
    match globals.output {
        Format::Text => output::line(&report.render(colour()))?,
        Format::Json => output::json(&report, Format::Json)?,
        Format::Jsonl => report.checks.iter().try_for_each(|check| output::json(check, Format::Jsonl))?,
    }
    Ok(report.exit())
}

fn colour() -> bool {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    io::stdout().is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb")
}

/// Every check that needs a configuration, skipped.
fn unasked(why: &str) -> Vec<Check> {
    let skip = |name| Check::skipped(name, why);
    [
        vec![skip("search_folder"), skip("rabbitmq")],
        broker::skipped(why),
        vec![skip("rabbitmq_management"), skip("consumer_timeout"), skip("redis")],
        store_checks::skipped(why),
        vec![skip("model_endpoint")],
        model::skipped(why),
        vec![skip("clock")],
    ]
    .concat()
}

async fn servers(args: &DoctorArgs, globals: &Globals, config: &Config) -> Vec<Check> {
    if config.llm.uses_endpoint() && !args.no_model && !globals.quiet && io::stderr().is_terminal() {
        say(&format!("asking {} a few small questions", config.llm.model));
    }
    let ((broker, broker_clocks), (store, store_clocks), model) = tokio::join!(
        Box::pin(look_at_broker(args, config)),
        Box::pin(look_at_store(config)),
        Box::pin(model::look(&config.llm, args.no_model))
    );
    let endpoint = model.clock.map(|clock| ("the model endpoint".to_owned(), clock));
    let clocks: Clocks = store_clocks.into_iter().chain(broker_clocks).chain(endpoint).collect();
    [broker, store, model.checks, vec![clocks::check(&clocks)]].concat()
}

async fn look_at_broker(args: &DoctorArgs, config: &Config) -> (Vec<Check>, Clocks) {
    let urls = management::urls(&config.broker, args.management_url.as_deref());
    let ids = Ids::random();
    let (inspection, managed) = tokio::join!(
        inspect::inspect(&config.broker, &config.prefix, &ids),
        management::ask(&urls, &config.broker, &config.prefix)
    );
    let inspection = match inspection {
        Ok(inspection) => inspection,
        Err(error) => {
            let refused = Check::failed("rabbitmq", Fault::Configuration, error.to_string(), "unset AMQP_URL");
            let why = "AMQP_URL cannot be used";
            let rest = ["rabbitmq_management", "consumer_timeout"].map(|name| Check::skipped(name, why));
            return ([vec![refused], broker::skipped(why), rest.to_vec()].concat(), Clocks::new());
        }
    };
    let seen = managed.as_ref().ok();
    let mut checks = broker::checks(&inspection, seen, &config.prefix);
    checks.push(broker::management(&managed, &urls, args.management_url.is_some(), &inspection.login));
    let version = inspection.hosts.iter().find_map(|host| Some(&*host.greeting.as_ref().ok()?.version)).unwrap_or_default();
    checks.push(broker::consumer_timeout(&holds(config), version, seen, CONSUMER_TIMEOUT_DEFAULT));
    let clock = seen.and_then(|seen| seen.clock).map(|clock| ("RabbitMQ".to_owned(), clock));
    (checks, clock.into_iter().collect())
}

/// How long messages are held at the most. Failed requests come on top, but they fail sooner.
fn holds(config: &Config) -> Vec<Hold> {
    let mut holds = vec![Hold {
        service: "an executor",
        queue: Queue::Steps.name(&config.prefix),
        time: config.run.step_timeout,
        because: "PLANRELAY_STEP_TIMEOUT_SECS".to_owned(),
        setting: "PLANRELAY_STEP_TIMEOUT_SECS",
    }];
    if config.llm.uses_endpoint() {
        let requests = |service, queue: Queue, times: u32| Hold {
            service,
            queue: queue.name(&config.prefix),
            time: config.llm.timeout * times,
            because: format!("{times} requests of PLANRELAY_MODEL_TIMEOUT_SECS"),
            setting: "PLANRELAY_MODEL_TIMEOUT_SECS",
        };
        holds.push(requests("a planner", Queue::Objectives, PLAN_REPAIRS_MAX + 1));
        holds.push(requests("a summarizer", Queue::Completions, CONTINUATIONS_MAX + 1));
    }
    holds
}

async fn look_at_store(config: &Config) -> (Vec<Check>, Clocks) {
    let inspection = match store::redis::inspect::inspect(&config.store, &config.prefix).await {
        Ok(inspection) => inspection,
        Err(error) => {
            let refused = Check::failed("redis", Fault::Configuration, error.to_string(), "unset REDIS_URL");
            return ([vec![refused], store_checks::skipped("REDIS_URL cannot be used")].concat(), Clocks::new());
        }
    };
    let mut clocks: BTreeMap<String, Reading> = BTreeMap::new();
    for node in &inspection.nodes {
        let clock = node.facts.as_ref().ok().and_then(|facts| facts.clock);
        let whose = if inspection.nodes.len() > 1 { format!("Redis {}", node.url) } else { "Redis".to_owned() };
        clocks.extend(clock.map(|clock| (whose, clock)));
    }
    (store_checks::checks(&inspection, &config.prefix), clocks.into_iter().collect())
}
