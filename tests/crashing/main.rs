//! A service as its own `main.rs` starts it, with a trap at one named point. For `tests/e2e/matrix.rs`; nobody ships it.
//!
//! `CRASHING_SERVICE` says which service it is, `CRASHING_POINT` where its trap is; without a point it has none, and is the service
//! with one more tool. See [`support::points`].

#![expect(clippy::expect_used, reason = "test support: what cannot start fails its test")]

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;

use common::broker::Broker;
use common::env::Env;
use common::llm::Llm;
use common::seam::Watched;
use common::startup::{Started, service};
use common::store::Store;
use support::points::{self, LINE, POINT, SERVICE};

use crate::trap::Trap;

mod model;
mod tools;
mod trap;

fn main() -> ExitCode {
    let nothing = |_config: &_| Ok::<(), Infallible>(());
    match variable(SERVICE).expect("CRASHING_SERVICE is set").as_str() {
        "planner" => service("planner", &planner::QUEUES, nothing, async |started: Started, ()| {
            let (env, _trap) = watched(started.env).await;
            planner::run(env, &started.config, started.stop).await
        }),
        "executor" => service("executor", &executor::QUEUES, nothing, async |started: Started, ()| {
            let (env, trap) = watched(started.env).await;
            let tools = tools::toolbox(&started.config.tools, trap)?;
            executor::run(env, &started.config, tools, started.stop).await
        }),
        "summarizer" => service("summarizer", &summarizer::QUEUES, nothing, async |started: Started, ()| {
            let (env, _trap) = watched(started.env).await;
            summarizer::run(env, &started.config, started.stop).await
        }),
        other => panic!("no service is named {other}"),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The world with the trap in it, if there is one.
async fn watched(env: Env) -> (Env, Option<Arc<Trap>>) {
    let Some(name) = variable(POINT) else { return (env, None) };
    let point = points::find(&name).expect("a point of that name");
    let line = variable(LINE).expect("CRASHING_LINE is set");
    let trap = Arc::new(Trap::set(point, &line).await.expect("the test listens"));
    let env = Env {
        broker: Broker::Watched(Watched::new(env.broker, trap.clone())),
        store: Store::Watched(Watched::new(env.store, trap.clone())),
        llm: Llm::Scripted(Arc::new(model::Trapped { llm: env.llm, trap: trap.clone() })),
        ..env
    };
    (env, Some(trap))
}
