//! The table of settings: it drives loading, `--print-config` and the README alike.

use super::prices;
use crate::limits;
use crate::telemetry;

/// Something that an operator may set.
#[derive(Debug)]
pub struct Setting {
    /// The environment variable.
    pub variable: &'static str,
    /// The key in the file, and of the overrides that flags give.
    pub key: &'static str,
    /// The default as a text; empty: not set.
    pub default: fn() -> String,
    /// What may be said.
    pub kind: Kind,
    /// Whether the value is a secret or may contain one; then `<variable>_FILE` may name a file that holds it.
    pub secret: bool,
    /// What it is for, in one line.
    pub meaning: &'static str,
}

/// What a setting accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A prefix of queue names and keys.
    Prefix,
    /// URLs with one of these schemes, separated by commas.
    Urls(&'static [&'static str]),
    /// An HTTP URL without credentials.
    HttpUrl,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number in a range.
    Whole(u64, u64),
    /// A whole number of seconds in a range.
    Seconds(u64, u64),
    /// An IP address and a port.
    Address,
    /// A path.
    Folder,
    /// A `tracing` filter.
    Filter,
    /// Prices of models.
    Prices,
}

/// The endpoint when none is named.
pub const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";

const UNSET: fn() -> String = String::new;

/// A plain setting that has no default.
const fn optional(variable: &'static str, key: &'static str, kind: Kind, meaning: &'static str) -> Setting {
    Setting { variable, key, default: UNSET, kind, secret: false, meaning }
}

/// Every setting, in the order in which they are explained.
pub static SETTINGS: [Setting; 28] = [
    Setting {
        variable: "AMQP_URL",
        key: "amqp_url",
        default: || "amqp://guest:guest@127.0.0.1:5672/%2f".into(),
        kind: Kind::Urls(&["amqp", "amqps"]),
        secret: true,
        meaning: "RabbitMQ: `amqp://user:password@host:5672/vhost`, several hosts separated by commas; `amqps://` for TLS",
    },
    Setting {
        variable: "REDIS_URL",
        key: "redis_url",
        default: || "redis://127.0.0.1:6379".into(),
        kind: Kind::Urls(&["redis", "rediss"]),
        secret: true,
        meaning: "Redis: `redis://host:6379`; several separated by commas are a Redis Cluster; `rediss://` for TLS",
    },
    Setting {
        secret: true,
        ..optional("OPENAI_API_KEY", "openai_api_key", Kind::Text, "key of the model endpoint; a local endpoint may need none")
    },
    Setting {
        default: || OPENAI_BASE_URL.into(),
        ..optional("OPENAI_BASE_URL", "openai_base_url", Kind::HttpUrl, "any OpenAI-compatible endpoint, with its `/v1`")
    },
    Setting {
        default: || "gpt-4o-mini".into(),
        ..optional("OPENAI_MODEL", "openai_model", Kind::Text, "the model; must be named for an endpoint other than OpenAI's")
    },
    Setting {
        default: || "auto".into(),
        ..optional(
            "PLANRELAY_MODEL",
            "model",
            Kind::Choice(&["auto", "openai", "offline"]),
            "who answers: the endpoint, the offline stand-in, or (`auto`) the endpoint if a key or a base URL is set",
        )
    },
    optional("PLANRELAY_PLANNER_MODEL", "planner_model", Kind::Text, "the planner's model, if another"),
    optional("PLANRELAY_EXECUTOR_MODEL", "executor_model", Kind::Text, "the executor's model, if another"),
    optional("PLANRELAY_SUMMARIZER_MODEL", "summarizer_model", Kind::Text, "the summarizer's model, if another"),
    Setting {
        default: || limits::MODEL_TIMEOUT.as_secs().to_string(),
        ..optional(
            "PLANRELAY_MODEL_TIMEOUT_SECS",
            "model_timeout_secs",
            Kind::Seconds(1, 1_740),
            "how long one request to a model may take",
        )
    },
    optional(
        "PLANRELAY_PRICES",
        "prices",
        Kind::Prices,
        "what a million tokens cost, read and written, for budgets: `model=0.15/0.60`, several separated by commas; models of \
         well-known providers need none",
    ),
    Setting {
        default: || "planrelay".into(),
        ..optional("PLANRELAY_PREFIX", "prefix", Kind::Prefix, "prefix of queues and keys")
    },
    Setting {
        default: || super::CONCURRENCY_DEFAULT.to_string(),
        ..optional(
            "PLANRELAY_CONCURRENCY",
            "concurrency",
            Kind::Whole(1, 1_000),
            "steps (or runs) that one process works on at a time",
        )
    },
    Setting {
        default: || limits::PLAN_STEPS_DEFAULT.to_string(),
        ..optional(
            "PLANRELAY_PLAN_STEPS_MAX",
            "plan_steps_max",
            Kind::Whole(1, limits::PLAN_STEPS_MAX as u64),
            "most steps in a plan",
        )
    },
    Setting {
        default: || limits::PARALLEL_STEPS_DEFAULT.to_string(),
        ..optional(
            "PLANRELAY_PARALLEL_STEPS",
            "parallel_steps",
            Kind::Whole(1, limits::PLAN_STEPS_MAX as u64),
            "steps of one run in flight at once",
        )
    },
    Setting {
        default: || limits::STEP_ATTEMPTS_MAX.to_string(),
        ..optional("PLANRELAY_STEP_ATTEMPTS", "step_attempts", Kind::Whole(1, 100), "tries per step, the first included")
    },
    Setting {
        default: || limits::REPLANS_DEFAULT.to_string(),
        ..optional(
            "PLANRELAY_MAX_REPLANS",
            "max_replans",
            Kind::Whole(0, limits::REPLANS_MAX as u64),
            "how often the plan of one run may be revised",
        )
    },
    Setting {
        default: || limits::APPROVAL_TIMEOUT.as_secs().to_string(),
        ..optional(
            "PLANRELAY_APPROVAL_TIMEOUT_SECS",
            "approval_timeout_secs",
            Kind::Seconds(1, limits::APPROVAL_TIMEOUT_MAX.as_secs()),
            "how long a plan waits for approval, where a run asks for it",
        )
    },
    Setting {
        default: || "cancel".into(),
        ..optional(
            "PLANRELAY_APPROVAL_TIMEOUT_ACTION",
            "approval_timeout_action",
            Kind::Choice(&["cancel", "approve"]),
            "what is done with a plan that nobody has decided on in time",
        )
    },
    Setting {
        default: || limits::STEP_TIMEOUT.as_secs().to_string(),
        ..optional(
            "PLANRELAY_STEP_TIMEOUT_SECS",
            "step_timeout_secs",
            // RabbitMQ takes a message back after 30 minutes without acknowledgement.
            Kind::Seconds(1, 1_740),
            "how long one attempt of a step may take",
        )
    },
    Setting {
        default: || limits::STEP_LEASE.as_secs().to_string(),
        ..optional("PLANRELAY_LEASE_SECS", "lease_secs", Kind::Seconds(3, 600), "how long a claim holds without renewal")
    },
    Setting {
        default: || limits::RETENTION.as_secs().to_string(),
        ..optional(
            "PLANRELAY_RETENTION_SECS",
            "retention_secs",
            Kind::Seconds(60, 315_360_000),
            "how long a finished run is kept",
        )
    },
    Setting {
        default: || limits::SHUTDOWN_GRACE.as_secs().to_string(),
        ..optional(
            "PLANRELAY_SHUTDOWN_GRACE_SECS",
            "shutdown_grace_secs",
            Kind::Seconds(0, 3_600),
            "how long running work may go on after a stop signal",
        )
    },
    optional(
        "PLANRELAY_SEARCH_DIR",
        "search_dir",
        Kind::Folder,
        "the folder that the tool `search` reads; without it there is no `search`",
    ),
    optional(
        "PLANRELAY_HTTP",
        "http",
        Kind::Address,
        "where a service answers `/healthz`, `/readyz` and `/metrics`, and `planrelay serve` its API: `0.0.0.0:8080`; not set: nowhere",
    ),
    Setting {
        secret: true,
        ..optional(
            "PLANRELAY_API_TOKEN",
            "api_token",
            Kind::Text,
            "what callers of the API of `planrelay serve` must send as `Authorization: Bearer …`; not set: nothing",
        )
    },
    Setting {
        default: || "info".into(),
        ..optional("PLANRELAY_LOG", "log", Kind::Filter, "what is logged, for example `info,planner=debug`")
    },
    Setting {
        default: || "text".into(),
        ..optional(
            "PLANRELAY_LOG_FORMAT",
            "log_format",
            Kind::Choice(&["text", "json"]),
            "`text` for people, `json` for one object a line",
        )
    },
];

impl Kind {
    /// What is accepted, to be read after "is not".
    pub fn accepts(self) -> String {
        match self {
            Kind::Text => "a text".into(),
            Kind::Prefix => "1 to 64 characters of A-Z a-z 0-9 . _ -".into(),
            Kind::Urls(schemes) => {
                let schemes: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://host")).collect();
                format!("a URL such as {} (or several, separated by commas)", schemes.join(" or "))
            }
            Kind::HttpUrl => "a URL such as http://host/v1 or https://host/v1, without user and password".into(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Seconds(min, max) => format!("a whole number of seconds from {min} to {max}"),
            Kind::Address => "an address and a port such as 127.0.0.1:8080 or 0.0.0.0:8080".into(),
            Kind::Folder => "a path".into(),
            Kind::Filter => "a filter such as info or info,planner=debug".into(),
            Kind::Prices => {
                "a list of model=input/output with prices of a million tokens, such as gpt-4o-mini=0.15/0.60,gpt-4o=2.5/10".into()
            }
        }
    }

    /// Whether `text` is accepted.
    pub(super) fn fits(self, text: &str) -> bool {
        match self {
            Kind::Text | Kind::Folder => true,
            Kind::Prefix => {
                (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            }
            Kind::Urls(schemes) => split_urls(text).all(|url| is_url(url, schemes)),
            Kind::Address => text.parse::<std::net::SocketAddr>().is_ok(),
            // The key is the only secret of an endpoint: a password in the URL would end up in logs.
            Kind::HttpUrl => is_url(text, &["http", "https"]) && !text.contains('@'),
            Kind::Choice(words) => words.contains(&text),
            Kind::Whole(min, max) | Kind::Seconds(min, max) => {
                text.parse::<u64>().is_ok_and(|number| (min..=max).contains(&number))
            }
            Kind::Filter => telemetry::parse_filter(text).is_ok(),
            Kind::Prices => prices::parse(text).is_some(),
        }
    }
}

/// The parts of a list of URLs.
pub(super) fn split_urls(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// Whether `url` has one of the schemes and names a host. The clients read the rest.
fn is_url(url: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let has_host = !host.is_empty() && !host.starts_with(':');
    schemes.contains(&scheme) && has_host && !url.contains(|c: char| c.is_whitespace() || c.is_control())
}
