//! `planrelay serve`: the HTTP API ([`api`]), health and metrics, and the gauges over all that goes on ([`census`]).

use common::broker::Broker;
use common::broker::rabbit::Rabbit;
use common::client::Client;
use common::clock::Clock;
use common::config::Config;
use common::env::Env;
use common::health::{self, Health};
use common::ids::Ids;
use common::limits::HTTP_DRAIN;
use common::llm::Llm;
use common::metrics::Metrics;
use common::shutdown;
use common::store::redis::Redis;
use common::store::{Store, StoreTime};
use common::telemetry::Traces;

use crate::display::say;
use crate::exit::{Exit, Failure};

mod api;
mod census;

pub(crate) async fn run(config: &Config) -> Result<Exit, Failure> {
    let Some(address) = config.http.listen else {
        let failure = Failure::says(Exit::Usage, "PLANRELAY_HTTP is not set: there is no address to answer at");
        return Err(failure.hint("PLANRELAY_HTTP=127.0.0.1:8080 planrelay serve"));
    };
    let stop = shutdown::signal().map_err(|error| Failure::new(Exit::Failed, error))?;
    let listener = health::listen(address).await.map_err(|why| Failure::says(Exit::Usage, why))?;
    let (metrics, fleet) = Metrics::with_fleet("console");
    let ids = Ids::random();
    let redis = Redis::connect(&config.store, &config.prefix, StoreTime::Own, &metrics).await?;
    let rabbit = Rabbit::connect(&config.broker, &config.prefix, "planrelay serve", ids.clone(), &metrics).await?;
    let (broker, store) = (Broker::Rabbit(rabbit), Store::Redis(redis));
    let client = Client::new(store.clone(), ids.clone(), Clock::System);
    let worker = "planrelay serve".into();
    let env =
        Env { clock: Clock::System, ids, broker: broker.clone(), store, llm: Llm::Offline, metrics, traces: Traces::Off, worker };
    let api = api::routes(client, broker.clone(), config.http.token.as_ref(), stop.clone());
    let pages = health::routes(Health { env: env.clone(), queues: &[], stop: stop.clone() }).merge(api);
    say(&format!("planrelay answers at http://{address}"));
    if config.http.token.is_none() && !address.ip().is_loopback() {
        say("whoever reaches this address may submit, read and cancel runs: PLANRELAY_API_TOKEN is not set");
    }
    tokio::select! {
        () = health::serve(listener, pages, stop.clone()) => {}
        () = census::keep(&env, &fleet, config.run.step_timeout) => {}
        // Whoever waits is told where the run stands; a connection that says nothing is not waited for.
        () = async { stop.cancelled().await; tokio::time::sleep(HTTP_DRAIN).await } => {}
    }
    broker.close().await;
    Ok(Exit::Ok)
}
