//! Configuration: one struct per concern, loaded once (defaults < file < environment < flags) and validated as a whole.
//!
//! [`SETTINGS`] is the table of all settings: it drives loading ([`Config::load`]), `--print-config` ([`print_config`]) and the
//! README ([`settings_markdown`]).

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::limits;
use crate::store::{ApprovalRule, ApprovalTimeout};

mod load;
mod prices;
mod print;
mod settings;
#[cfg(test)]
mod tests;

pub use load::{ConfigError, Sources};
pub use prices::Price;
pub use print::{mask_url, print_config, settings_markdown};
pub use settings::{Kind, OPENAI_BASE_URL, SETTINGS, Setting};

/// Steps (or runs) that one process works on at a time, unless configured.
pub const CONCURRENCY_DEFAULT: u16 = 8;

/// Everything a process can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// `PLANRELAY_PREFIX`: prefix of queues and keys.
    pub prefix: String,
    /// The message broker.
    pub broker: BrokerConfig,
    /// The store.
    pub store: StoreConfig,
    /// The model.
    pub llm: LlmConfig,
    /// Limits of runs.
    pub run: RunConfig,
    /// The tools.
    pub tools: ToolConfig,
    /// What is answered over HTTP.
    pub http: HttpConfig,
    /// Logs.
    pub log: LogConfig,
}

/// How to reach RabbitMQ.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// `AMQP_URL`, one per host: `amqp://user:pass@host:5672/vhost`. Default: `amqp://guest:guest@127.0.0.1:5672/%2f`.
    pub urls: Vec<SecretString>,
}

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// `REDIS_URL`; several = Redis Cluster. Default: `redis://127.0.0.1:6379`.
    pub urls: Vec<SecretString>,
}

/// Which model answers.
#[derive(Debug, Clone)]
pub struct LlmConfig {
    /// `PLANRELAY_MODEL`: `auto`, `openai`, `offline`.
    pub choice: ModelChoice,
    /// `OPENAI_API_KEY`; may be empty for a local endpoint.
    pub api_key: Option<SecretString>,
    /// `OPENAI_BASE_URL`, with `/v1` and without a slash at its end. Default: `https://api.openai.com/v1`.
    pub base_url: String,
    /// `OPENAI_MODEL`.
    pub model: String,
    /// `PLANRELAY_PLANNER_MODEL`: the planner's model, if another.
    pub planner_model: Option<String>,
    /// `PLANRELAY_EXECUTOR_MODEL`: the executor's model, if another.
    pub executor_model: Option<String>,
    /// `PLANRELAY_SUMMARIZER_MODEL`: the summarizer's model, if another.
    pub summarizer_model: Option<String>,
    /// `PLANRELAY_MODEL_TIMEOUT_SECS`: how long one request may take.
    pub timeout: Duration,
    /// `PLANRELAY_PRICES`: what models cost, by name. A model of a well-known provider that is not listed has the price of the
    /// bundled catalogue.
    pub prices: BTreeMap<String, Price>,
}

impl LlmConfig {
    /// Whether the endpoint answers, and not the offline stand-in.
    pub fn uses_endpoint(&self) -> bool {
        match self.choice {
            ModelChoice::OpenAi => true,
            ModelChoice::Offline => false,
            ModelChoice::Auto => self.api_key.is_some() || self.base_url != OPENAI_BASE_URL,
        }
    }
}

/// `PLANRELAY_MODEL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelChoice {
    /// The endpoint if a key or a base URL is configured, else offline.
    Auto,
    /// The endpoint.
    OpenAi,
    /// The stand-in.
    Offline,
}

/// What an operator may change about runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// `PLANRELAY_CONCURRENCY`: steps (or runs) one process works on at a time.
    pub concurrency: u16,
    /// `PLANRELAY_PLAN_STEPS_MAX`: most steps in a plan, up to [`limits::PLAN_STEPS_MAX`].
    pub plan_steps_max: usize,
    /// `PLANRELAY_PARALLEL_STEPS`: steps of one run in flight at once.
    pub parallel_steps: u32,
    /// `PLANRELAY_STEP_ATTEMPTS`: tries per step.
    pub step_attempts: u32,
    /// `PLANRELAY_MAX_REPLANS`: how often a plan may be revised.
    pub max_replans: u32,
    /// `PLANRELAY_APPROVAL_TIMEOUT_SECS` and `PLANRELAY_APPROVAL_TIMEOUT_ACTION`: how long a plan waits for approval, and what then.
    pub approval: ApprovalRule,
    /// `PLANRELAY_STEP_TIMEOUT_SECS`: how long one attempt of a step may take.
    pub step_timeout: Duration,
    /// `PLANRELAY_LEASE_SECS`: how long a claim holds without renewal.
    pub lease: Duration,
    /// `PLANRELAY_RETENTION_SECS`: how long a finished run is kept.
    pub retention: Duration,
    /// `PLANRELAY_SHUTDOWN_GRACE_SECS`: how long running work may go on after a stop signal.
    pub shutdown_grace: Duration,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            concurrency: CONCURRENCY_DEFAULT,
            plan_steps_max: limits::PLAN_STEPS_DEFAULT,
            parallel_steps: u32::try_from(limits::PARALLEL_STEPS_DEFAULT).unwrap_or(u32::MAX),
            step_attempts: limits::STEP_ATTEMPTS_MAX,
            max_replans: limits::REPLANS_DEFAULT,
            approval: ApprovalRule { timeout: limits::APPROVAL_TIMEOUT, otherwise: ApprovalTimeout::default() },
            step_timeout: limits::STEP_TIMEOUT,
            lease: limits::STEP_LEASE,
            retention: limits::RETENTION,
            shutdown_grace: limits::SHUTDOWN_GRACE,
        }
    }
}

/// What tools may touch.
#[derive(Debug, Clone, Default)]
pub struct ToolConfig {
    /// `PLANRELAY_SEARCH_DIR`: the folder that `search` reads; without it there is no `search`.
    pub search_dir: Option<PathBuf>,
}

/// What is answered over HTTP, and to whom.
#[derive(Debug, Clone, Default)]
pub struct HttpConfig {
    /// `PLANRELAY_HTTP`: where; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// `PLANRELAY_API_TOKEN`: what callers of the API must show.
    pub token: Option<SecretString>,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `PLANRELAY_LOG`: a `tracing` filter. Default: `info`.
    pub filter: String,
    /// `PLANRELAY_LOG_FORMAT`.
    pub format: LogFormat,
}

/// `PLANRELAY_LOG_FORMAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `text`: for people.
    Text,
    /// `json`: one object a line.
    Json,
}

/// A configuration that passed every check, with where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every setting, in the order of [`SETTINGS`].
    pub values: Vec<LoadedValue>,
}

/// A setting as it holds.
#[derive(Debug, Clone)]
pub struct LoadedValue {
    /// The setting.
    pub setting: &'static Setting,
    /// Its value with secrets masked; `None`: not set.
    pub shown: Option<String>,
    /// Where the value comes from.
    pub source: ValueSource,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// Nobody set it.
    Default,
    /// The file.
    File(PathBuf),
    /// This variable; one that ends with `_FILE` names the file that holds the value.
    Environment(String),
    /// This flag.
    Flag(String),
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueSource::Default => f.write_str("default"),
            ValueSource::File(path) => write!(f, "file {}", path.display()),
            ValueSource::Environment(variable) => write!(f, "environment {variable}"),
            ValueSource::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

impl ValueSource {
    /// What its user calls `setting` there.
    fn name_of(&self, setting: &Setting) -> String {
        match self {
            ValueSource::Default => setting.variable.to_owned(),
            ValueSource::File(path) => format!("{}: {}", path.display(), setting.key),
            ValueSource::Environment(variable) => variable.clone(),
            ValueSource::Flag(flag) => flag.clone(),
        }
    }
}
