//! The command line as data.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use common::id::RunId;
use common::message::{ReplanPolicy, Respond};
use common::run::RunStatus;

pub use self::decision::{ApproveArgs, DecisionArgs, RejectArgs, RetryArgs};
pub use self::doctor::DoctorArgs;
use crate::exit::{DOCTOR_EXIT_CODES, EXIT_CODES};
use crate::output::Format;

mod decision;
mod doctor;

/// Longest wait that may be asked for, in seconds: a year.
const TIMEOUT_SECS_MAX: u64 = 365 * 24 * 3600;

/// Plan-and-execute agents on RabbitMQ and Redis.
///
/// A language model turns an objective into a plan, executors run its steps with tools, and a summarizer writes the answer.
#[derive(Debug, Parser)]
#[command(name = "planrelay", version, arg_required_else_help = true, max_term_width = 100, after_help = EXIT_CODES,
    after_long_help = format!("Start here:\n  planrelay run \"Calculate 15% of 240, then half of that\"\n\n{EXIT_CODES}"))]
pub struct CommandLine {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command. Settings given here win over the environment, and that over the file.
#[derive(Debug, Clone, Default, Args)]
pub struct Globals {
    /// What stdout gets.
    #[arg(short, long, global = true, value_enum, default_value_t, hide_default_value = true)]
    pub output: Format,
    /// Say more on stderr: model calls, tool calls, dispatches.
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Show no progress on stderr; errors only.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// A TOML file with settings.
    #[arg(long, global = true, value_name = "PATH", help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// Print the settings that hold, secrets masked, and end.
    #[arg(long, global = true, help_heading = "Settings")]
    pub print_config: bool,
    /// Where RabbitMQ is (AMQP_URL).
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    pub amqp_url: Option<String>,
    /// Where Redis is (REDIS_URL).
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    pub redis_url: Option<String>,
    /// Who answers: the endpoint if one is configured, the endpoint, or the rule-based stand-in (PLANRELAY_MODEL).
    #[arg(long, global = true, value_name = "auto|openai|offline", help_heading = "Settings", value_parser = ["auto", "openai", "offline"], hide_possible_values = true)]
    pub model: Option<String>,
    /// The folder that the tool `search` reads (PLANRELAY_SEARCH_DIR).
    #[arg(long, global = true, value_name = "DIR", help_heading = "Settings")]
    pub search_dir: Option<String>,
    /// Prefix of queues and keys (PLANRELAY_PREFIX).
    #[arg(long, global = true, value_name = "PREFIX", help_heading = "Settings")]
    pub prefix: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Do it all in this process, in memory: plan, execute, answer. Needs no broker, no store and no key.
    #[command(after_long_help = "\
Examples:
  planrelay run \"Calculate 15% of 240, then half of that\"
  planrelay run --search-dir docs \"Which ports does the service use?\"
  planrelay run -o json - < objective.txt > result.json
  planrelay run --plan plan.json --respond results \"Quarterly numbers\"
  planrelay run --approve --max-tokens 20000 \"Which of the offers is the best?\"

Progress goes to stderr, the answer alone to stdout; with -o json the result document, with -o jsonl the events.
Ctrl-C cancels the run; once more ends at once.")]
    Run(RunArgs),
    /// Publish an objective to RabbitMQ and print the id of its run.
    #[command(after_long_help = "\
Examples:
  planrelay submit \"Compare the three offers in the folder\"
  planrelay submit --wait --timeout 300 \"What changed since May?\"
  planrelay submit --run-id report-2026-11 - < objective.txt
  planrelay submit --approve --deadline 600 --max-tokens 50000 \"Clean up the wiki\"

The same --run-id again is the same run: nothing is done twice.")]
    Submit(SubmitArgs),
    /// Follow a run until it ends; the newest live one if none is named.
    #[command(after_long_help = "\
Examples:
  planrelay watch
  planrelay watch report-2026-11
  planrelay watch -o jsonl report-2026-11 | jq -r .type

Ctrl-C stops watching, never the run. The exit code tells how the run ended.")]
    Watch(WatchArgs),
    /// Print the answer of a run.
    #[command(after_long_help = "\
Examples:
  planrelay result report-2026-11
  planrelay result --wait --timeout 60 report-2026-11
  planrelay result -o json report-2026-11 | jq .step_results")]
    Result(ResultArgs),
    /// Print where a run stands: its plan, every step, what it used.
    #[command(after_long_help = "\
Examples:
  planrelay show report-2026-11
  planrelay show -o json report-2026-11 | jq '.steps[] | select(.state == \"failed\")'")]
    Show(ShowArgs),
    /// Say why a run does not go on: one line for each step that has not ended.
    #[command(after_long_help = "\
Examples:
  planrelay explain report-2026-11
  planrelay explain -o json report-2026-11 | jq '.steps[].waiting.for'")]
    Explain(ExplainArgs),
    /// Stop a run: what runs is aborted, results so far stay readable.
    #[command(after_long_help = "\
Examples:
  planrelay cancel report-2026-11
  planrelay cancel report-2026-11 --reason \"the wrong quarter\" --by alice")]
    Cancel(DecisionArgs),
    /// Start no further step of a run; those that run go on.
    #[command(after_long_help = "\
Examples:
  planrelay pause report-2026-11 --reason \"the database is being moved\"")]
    Pause(DecisionArgs),
    /// Go on with a paused run.
    #[command(after_long_help = "\
Examples:
  planrelay resume report-2026-11")]
    Resume(DecisionArgs),
    /// Run the plan that waits for approval, or another one in its place.
    #[command(after_long_help = "\
Examples:
  planrelay approve report-2026-11
  planrelay approve --revision 2 --wait report-2026-11
  planrelay approve --plan mine.json report-2026-11

`planrelay show RUN` prints the plan that waits, and what it will take. With --plan, FILE runs in its place.")]
    Approve(ApproveArgs),
    /// Send the plan that waits for approval back: the planner makes another one.
    #[command(after_long_help = "\
Examples:
  planrelay reject report-2026-11 --feedback \"leave the archive alone\"
  planrelay reject report-2026-11 --feedback - < remarks.txt")]
    Reject(RejectArgs),
    /// Run a failed or partial run again from its failed steps; what succeeded is kept.
    #[command(after_long_help = "\
Examples:
  planrelay retry report-2026-11
  planrelay retry --wait report-2026-11")]
    Retry(RetryArgs),
    /// List runs, newest first.
    #[command(after_long_help = "\
Examples:
  planrelay list
  planrelay list --status failed --limit 5
  planrelay list -o jsonl | jq -r .run_id")]
    List(ListArgs),
    /// Look at configuration, RabbitMQ, Redis and the model: what is well, what is not, and the command that mends it.
    #[command(after_help = DOCTOR_EXIT_CODES, after_long_help = doctor::long_help())]
    Doctor(DoctorArgs),
    /// Print the JSON Schemas of the messages and of the result document.
    #[command(after_long_help = "\
Examples:
  planrelay schema
  planrelay schema result > result.schema.json")]
    Schema(SchemaArgs),
    /// Answer over HTTP: an API for runs, and gauges over all that goes on.
    #[command(after_long_help = "\
Examples:
  PLANRELAY_HTTP=127.0.0.1:8080 planrelay serve
  curl -s -H 'Content-Type: application/json' -d '{\"objective\": \"15% of 240\"}' '127.0.0.1:8080/v1/runs?wait=30'
  curl -s 127.0.0.1:8080/metrics

GET / lists what is answered. With PLANRELAY_API_TOKEN callers of /v1 must send it as `Authorization: Bearer …`.")]
    Serve,
    /// Ask the `planrelay serve` of this machine whether it is ready.
    #[command(after_long_help = "\
Examples:
  PLANRELAY_HTTP=127.0.0.1:8080 planrelay healthcheck && echo ready")]
    Healthcheck,
}

/// What is to be done, and how.
#[derive(Debug, Args)]
pub struct ObjectiveArgs {
    /// What is to be done, in words; `-`, or nothing when stdin is a pipe or a file, reads it from there.
    pub objective: Option<String>,
    /// The objective's own plan as JSON, `{"steps": […]}`: then no model is asked for one.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Background that the planner's model gets.
    #[arg(long, value_name = "FILE")]
    pub context: Option<PathBuf>,
    /// Where the answer comes from: a model writes it, or it is the list of results.
    #[arg(long, value_enum, default_value = "answer")]
    pub respond: RespondArg,
    #[command(flatten)]
    pub bounds: BoundsArgs,
}

/// When the plan may change, and how much the run may take.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Bounds")]
pub struct BoundsArgs {
    /// When the planner looks at the plan again.
    #[arg(long, value_enum)]
    pub replan: Option<ReplanArg>,
    /// How often the plan may be revised.
    #[arg(long, value_name = "N")]
    pub max_replans: Option<u32>,
    /// How long steps may run, in seconds; the answer is then written from what exists.
    #[arg(long, value_name = "SECS")]
    pub deadline: Option<u64>,
    /// Most tokens, read and written.
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u64>,
    /// Most requests to models.
    #[arg(long, value_name = "N")]
    pub max_model_calls: Option<u64>,
    /// Most calls of tools.
    #[arg(long, value_name = "N")]
    pub max_tool_calls: Option<u64>,
    /// Most that the model calls may cost, in the unit of the configured prices.
    #[arg(long, value_name = "X", value_parser = cost)]
    pub max_cost: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReplanArg {
    /// When a step has failed for good; unless said otherwise.
    OnFailure,
    /// After every step: nothing new starts until it has been looked at.
    AfterEachStep,
    Never,
}

impl From<ReplanArg> for ReplanPolicy {
    fn from(arg: ReplanArg) -> Self {
        match arg {
            ReplanArg::OnFailure => ReplanPolicy::OnFailure,
            ReplanArg::AfterEachStep => ReplanPolicy::AfterEachStep,
            ReplanArg::Never => ReplanPolicy::Never,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RespondArg {
    Answer,
    Results,
}

impl From<RespondArg> for Respond {
    fn from(arg: RespondArg) -> Self {
        match arg {
            RespondArg::Answer => Respond::Answer,
            RespondArg::Results => Respond::Results,
        }
    }
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Show the plan and what it will take, and ask on the terminal before it runs.
    #[arg(long)]
    pub approve: bool,
    #[command(flatten)]
    pub what: ObjectiveArgs,
}

#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// The run's id; the same id again is the same run.
    #[arg(long, value_name = "ID", value_parser = RunId::parse)]
    pub run_id: Option<RunId>,
    /// Let the plan wait until somebody approves it: `planrelay approve RUN`.
    #[arg(long)]
    pub approve: bool,
    /// How long it waits for that, in seconds.
    #[arg(long, value_name = "SECS", requires = "approve")]
    pub approval_timeout: Option<u64>,
    /// Follow the run and print its answer.
    #[arg(long)]
    pub wait: bool,
    /// Most seconds to wait; the run goes on.
    #[arg(long, value_name = "SECS", requires = "wait", value_parser = value_parser!(u64).range(1..=TIMEOUT_SECS_MAX))]
    pub timeout: Option<u64>,
    // Last, because options after it would stand under its heading.
    #[command(flatten)]
    pub what: ObjectiveArgs,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The run; without it the newest live one.
    #[arg(value_parser = RunId::parse)]
    pub run: Option<RunId>,
    /// Begin after this entry of the audit trail.
    #[arg(long, value_name = "EVENT_ID", requires = "run", value_parser = event_id)]
    pub after: Option<String>,
}

#[derive(Debug, Args)]
pub struct ResultArgs {
    /// The run.
    #[arg(value_parser = RunId::parse)]
    pub run: RunId,
    /// Wait until the run has ended.
    #[arg(long)]
    pub wait: bool,
    /// Most seconds to wait.
    #[arg(long, value_name = "SECS", requires = "wait", value_parser = value_parser!(u64).range(1..=TIMEOUT_SECS_MAX))]
    pub timeout: Option<u64>,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The run.
    #[arg(value_parser = RunId::parse)]
    pub run: RunId,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The run.
    #[arg(value_parser = RunId::parse)]
    pub run: RunId,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only runs that stand there.
    #[arg(long, value_parser = run_status())]
    pub status: Option<RunStatus>,
    /// Most runs to list.
    #[arg(long, value_name = "N", default_value = "20", value_parser = value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The shape; without it all of them, by name.
    #[arg(value_enum)]
    pub name: Option<SchemaName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaName {
    /// What the queue `objectives` takes.
    Objective,
    /// What executors get.
    Step,
    /// What the planner is told.
    Report,
    /// What the summarizer gets.
    Completion,
    /// What the queue `controls` takes.
    Control,
    /// What becomes of that.
    ControlReply,
    /// What a run ends with.
    Result,
}

/// Every status, by its name.
fn run_status() -> impl TypedValueParser<Value = RunStatus> {
    PossibleValuesParser::new(RunStatus::ALL.map(RunStatus::as_str))
        .try_map(|name| RunStatus::parse(&name).ok_or_else(|| format!("no status {name}")))
}

/// An amount. JSON has no infinity: it would become no limit at all.
fn cost(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|cost: &f64| cost.is_finite()).ok_or_else(|| "a cost is a number like 0.5".to_owned())
}

/// The id of an entry of the audit trail: `<milliseconds>-<sequence>`.
fn event_id(text: &str) -> Result<String, String> {
    match text.split_once('-') {
        Some((ms, sequence)) if ms.parse::<u64>().is_ok() && sequence.parse::<u64>().is_ok() => Ok(text.to_owned()),
        _other => Err("an entry has an id like 1793680171000-0".to_owned()),
    }
}

#[cfg(test)]
mod tests;
