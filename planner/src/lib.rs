//! Turns objectives into plans and plans into dispatched steps. The only publisher of steps.
//!
//! One file per message: [`objective`], [`report`], [`control`], [`dead`]. [`planning`] asks for a plan, [`replanning`] for its
//! revision, [`dispatch`] publishes what is ready, [`wakeup`] looks at runs whose time has come, [`close`] ends what nothing else can.

use common::config::{Config, RunConfig};
use common::env::Env;
use common::lease::Drain;
use common::limits::RELEASE_MARGIN;
use common::message::Queue;
use common::plan::Rules;
use common::tool::{ToolSpec, builtin};
use common::worker;
use tokio_util::sync::CancellationToken;

pub mod close;
pub mod control;
pub mod dead;
pub mod dispatch;
pub mod objective;
pub mod planning;
pub mod replanning;
pub mod report;
pub mod wakeup;

/// What it consumes.
pub const QUEUES: [Queue; 4] = [Queue::Objectives, Queue::Reports, Queue::Controls, Queue::Dead];

/// What every handler needs.
#[derive(Clone)]
pub struct Planner {
    /// The world.
    pub env: Env,
    /// The limits.
    pub config: RunConfig,
    /// The tools that plans may name.
    pub tools: Vec<ToolSpec>,
    /// The stop signal.
    pub drain: Drain,
}

impl Planner {
    /// What plans are checked against.
    pub fn rules(&self) -> Rules {
        let tools = self.tools.iter().map(|tool| tool.name.to_owned()).collect();
        Rules { tools, steps_max: self.config.plan_steps_max }
    }
}

/// Consumes objectives, reports, commands and dead letters, and wakes runs up, until `stop`; then ends what runs within the grace period.
pub async fn run(env: Env, config: &Config, stop: CancellationToken) -> anyhow::Result<()> {
    let drain = Drain { stop: stop.clone(), grace: config.run.shutdown_grace };
    let tools = builtin(config.tools.search_dir.is_some());
    let planner = Planner { env: env.clone(), config: config.run.clone(), tools, drain };
    let (concurrency, grace) = (config.run.concurrency, config.run.shutdown_grace + RELEASE_MARGIN);
    let on = |planner: &Planner| planner.clone();
    let objectives = {
        let planner = on(&planner);
        worker::work(&env, Queue::Objectives, concurrency, grace, stop.clone(), move |envelope, redelivered| {
            let planner = planner.clone();
            async move { objective::handle(&planner, &envelope, redelivered).await }
        })
    };
    let reports = {
        let planner = on(&planner);
        worker::work(&env, Queue::Reports, concurrency, grace, stop.clone(), move |envelope, _redelivered| {
            let planner = planner.clone();
            async move { report::handle(&planner, &envelope).await }
        })
    };
    let controls = {
        let planner = on(&planner);
        worker::work(&env, Queue::Controls, concurrency, grace, stop.clone(), move |envelope, _redelivered| {
            let planner = planner.clone();
            async move { control::handle(&planner, &envelope).await }
        })
    };
    let dead_letters = {
        let planner = on(&planner);
        worker::work(&env, Queue::Dead, 1, grace, stop.clone(), move |envelope, _redelivered| {
            let planner = planner.clone();
            async move { dead::handle(&planner, &envelope).await }
        })
    };
    tokio::join!(objectives, reports, controls, dead_letters, wakeup::poll(&planner, stop));
    Ok(())
}
