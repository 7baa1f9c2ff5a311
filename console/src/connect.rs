//! From configuration to a client of a running stack.

use std::time::Duration;

use common::broker::Broker;
use common::broker::rabbit::Rabbit;
use common::client::Client;
use common::clock::Clock;
use common::config::Config;
use common::id::RunId;
use common::ids::Ids;
use common::metrics::Metrics;
use common::store::redis::Redis;
use common::store::{Store, StoreTime};
use tokio::time::Instant;

use crate::exit::{Exit, Failure};

/// How long a run may take to appear after its objective was published, before it counts as missing.
const APPEARANCE: Duration = Duration::from_secs(3);
/// Time between two looks for it.
const APPEARANCE_LOOK: Duration = Duration::from_millis(100);

/// A client of the store.
pub(crate) async fn client(config: &Config) -> Result<Client, Failure> {
    let redis = Redis::connect(&config.store, &config.prefix, StoreTime::Own, &Metrics::new("planrelay")).await?;
    Ok(Client::new(Store::Redis(redis), Ids::random(), Clock::System))
}

/// The broker, for publishing.
pub(crate) async fn broker(config: &Config) -> Result<Broker, Failure> {
    let rabbit = Rabbit::connect(&config.broker, &config.prefix, "planrelay", Ids::random(), &Metrics::new("planrelay")).await?;
    Ok(Broker::Rabbit(rabbit))
}

/// Returns when the run exists. Somebody may ask for it right after submitting it, when no planner has opened it yet.
pub(crate) async fn appeared(client: &Client, run: &RunId) -> Result<(), Failure> {
    let deadline = Instant::now() + APPEARANCE;
    while client.status(run).await?.is_none() {
        if Instant::now() >= deadline {
            let missing = Failure::says(Exit::Failed, format!("there is no run {run}, or no planner has taken it yet"));
            return Err(missing.hint("planrelay list"));
        }
        tokio::time::sleep(APPEARANCE_LOOK).await;
    }
    Ok(())
}
