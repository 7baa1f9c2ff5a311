//! LOCAL ONLY.
use common::config::Config;
use common::env::Env;
use tokio_util::sync::CancellationToken;

pub mod tool;

use tool::Toolbox;

/// LOCAL ONLY.
pub async fn run(_env: Env, _config: &Config, _tools: Toolbox, _stop: CancellationToken) -> anyhow::Result<()> {
    std::future::pending().await
}
