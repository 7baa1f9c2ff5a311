//! What the commands take that decide about a run.

use std::path::PathBuf;

use clap::Args;
use common::id::RunId;

/// A decision about a run, for its audit trail.
#[derive(Debug, Args)]
pub struct DecisionArgs {
    /// The run.
    #[arg(value_parser = RunId::parse)]
    pub run: RunId,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who; else what USER or LOGNAME says.
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
}

#[derive(Debug, Args)]
pub struct ApproveArgs {
    #[command(flatten)]
    pub decision: DecisionArgs,
    /// Only if this revision of the plan is the one that waits.
    #[arg(long, value_name = "N")]
    pub revision: Option<u32>,
    /// Run this plan, `{"steps": […]}`, in place of the one that waits.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Follow the run and print its answer.
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, Args)]
pub struct RejectArgs {
    #[command(flatten)]
    pub decision: DecisionArgs,
    /// What another plan should do better; `-` reads it from stdin.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub feedback: String,
    /// Only if this revision of the plan is the one that waits.
    #[arg(long, value_name = "N")]
    pub revision: Option<u32>,
}

#[derive(Debug, Args)]
pub struct RetryArgs {
    #[command(flatten)]
    pub decision: DecisionArgs,
    /// Follow the run and print its answer.
    #[arg(long)]
    pub wait: bool,
}
