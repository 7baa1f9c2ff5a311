//! From defaults, file, environment and flags to one checked configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::{FileFormat, Format, Source, Value, ValueKind};
use secrecy::SecretString;

use crate::store::{ApprovalRule, ApprovalTimeout};

use super::prices;
use super::settings::{OPENAI_BASE_URL, SETTINGS, split_urls};
use super::{
    BrokerConfig, Config, HttpConfig, LlmConfig, Loaded, LogConfig, LogFormat, ModelChoice, RunConfig, StoreConfig, ToolConfig,
    ValueSource, print,
};

/// The file that is read without being named, when it is there.
const FILE_NAME: &str = "planrelay.toml";
/// Largest file with configuration or a secret, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where configuration comes from. The default: nowhere, so only defaults hold.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file that `--config` names; it must exist.
    pub file: Option<PathBuf>,
    /// The folder in which `planrelay.toml` is looked for when no file is named.
    pub directory: Option<PathBuf>,
    /// The environment. A variable that is empty counts as not set.
    pub environment: BTreeMap<String, String>,
    /// What flags set, by [`Setting::key`].
    pub flags: BTreeMap<String, String>,
}

impl Sources {
    /// This process's environment and working directory, with what its command line says.
    pub fn from_process(file: Option<PathBuf>, flags: BTreeMap<String, String>) -> Self {
        // What is not UTF-8 cannot be one of ours.
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { file, directory: Some(PathBuf::from(".")), environment: environment.collect(), flags }
    }
}

/// Everything that is wrong with a configuration, one sentence each; never with a secret in it. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("configuration is not valid:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// What one source says, by key.
#[derive(Debug, Clone, Default)]
struct Layer(BTreeMap<&'static str, (String, ValueSource)>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<::config::Map<String, Value>, ::config::ConfigError> {
        let value = |(text, source): &(String, ValueSource)| Value::new(Some(&source.to_string()), text.clone());
        Ok(self.0.iter().map(|(key, entry)| ((*key).to_owned(), value(entry))).collect())
    }
}

impl Config {
    /// Loads and checks the configuration: defaults < file < environment < flags. Reads the file and the files of `*_FILE`
    /// variables, and nothing else.
    pub fn load(sources: Sources) -> Result<Loaded, ConfigError> {
        let mut problems = Vec::new();
        let layers = [
            from_file(&sources, &mut problems),
            from_environment(&sources.environment, &mut problems),
            from_flags(&sources.flags, &mut problems),
        ];
        let values = merge(&layers).map_err(|why| ConfigError { problems: vec![why.to_string()] })?;
        for (setting, value) in SETTINGS.iter().zip(&values) {
            if !value.text.is_empty() && !setting.kind.fits(&value.text) {
                let got = if setting.secret { "the value".to_owned() } else { format!("{:?}", shortened(&value.text)) };
                problems.push(format!("{}: {got} is not {}", value.source.name_of(setting), setting.kind.accepts()));
            }
        }
        // What belongs together is only looked at when each part is good.
        if problems.is_empty() {
            let config = assemble(&Texts(&values));
            problems.extend(check_model(&config.llm, &Texts(&values)));
            if problems.is_empty() {
                let shown = SETTINGS.iter().zip(values).map(|(setting, value)| print::shown(setting, value.text, value.source));
                return Ok(Loaded { config, values: shown.collect() });
            }
        }
        Err(ConfigError { problems })
    }
}

/// The value of a setting that counts; empty: not set.
struct Effective {
    text: String,
    source: ValueSource,
}

/// The later layer wins. In the order of [`SETTINGS`].
fn merge(layers: &[Layer; 3]) -> Result<Vec<Effective>, ::config::ConfigError> {
    let mut builder = ::config::Config::builder();
    let mut origins = BTreeMap::new();
    for setting in &SETTINGS {
        builder = builder.set_default(setting.key, (setting.default)())?;
    }
    for layer in layers {
        origins.extend(layer.0.values().map(|(_, source)| (source.to_string(), source.clone())));
        builder = builder.add_source(layer.clone());
    }
    // Unlike `get`, which reads a value anew, this keeps where values come from.
    let mut merged = builder.build()?.collect()?;
    SETTINGS
        .iter()
        .map(|setting| {
            let value = merged.remove(setting.key).unwrap_or_default();
            let source = value.origin().and_then(|origin| origins.get(origin)).cloned().unwrap_or(ValueSource::Default);
            Ok(Effective { text: value.into_string()?, source })
        })
        .collect()
}

fn from_file(sources: &Sources, problems: &mut Vec<String>) -> Layer {
    let mut layer = Layer::default();
    let found = sources.directory.as_ref().map(|directory| directory.join(FILE_NAME)).filter(|path| path.exists());
    let Some(path) = sources.file.clone().or(found) else { return layer };
    let name = path.display();
    let parsed = read(&path).and_then(|text| {
        // The parser's message ends with the line in question, which may hold a secret; its first line says where it is.
        let parsed = FileFormat::Toml.parse(None, &text);
        parsed.map_err(|why| why.to_string().lines().next().unwrap_or("it is not TOML").to_owned())
    });
    let entries: BTreeMap<String, Value> = match parsed {
        Ok(entries) => entries.into_iter().collect(),
        Err(why) => {
            problems.push(format!("{name}: {why}"));
            return layer;
        }
    };
    for (key, value) in entries {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
            problems.push(format!("{name}: {key}: no such key{}", hint(&key, SETTINGS.iter().map(|setting| setting.key))));
            continue;
        };
        match as_text(value) {
            Some(text) if text.is_empty() => {}
            Some(text) => {
                layer.0.insert(setting.key, (text, ValueSource::File(path.clone())));
            }
            None => problems.push(format!("{name}: {key}: a table is not {}", setting.kind.accepts())),
        }
    }
    layer
}

/// A value of the file as the environment would say it; a list as its entries with commas. None of a table.
fn as_text(value: Value) -> Option<String> {
    if matches!(value.kind, ValueKind::Table(_)) {
        return None;
    }
    match value.clone().into_array() {
        Ok(entries) => entries.into_iter().map(as_text).collect::<Option<Vec<_>>>().map(|entries| entries.join(",")),
        Err(_not_a_list) => value.into_string().ok(),
    }
}

fn from_environment(environment: &BTreeMap<String, String>, problems: &mut Vec<String>) -> Layer {
    let mut layer = Layer::default();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let set = |name: &str| environment.get(name).filter(|value| !value.trim().is_empty());
    for setting in &SETTINGS {
        let (variable, in_file) = (setting.variable.to_owned(), format!("{}_FILE", setting.variable));
        let text = match (set(&variable), set(&in_file).filter(|_| setting.secret)) {
            (Some(_), Some(_)) => {
                problems.push(format!("{variable}: {in_file} is set as well; set one of them"));
                None
            }
            (Some(text), None) => Some((text.trim().to_owned(), variable.clone())),
            (None, Some(path)) => match read(Path::new(path)) {
                Ok(text) if text.trim().is_empty() => {
                    problems.push(format!("{in_file}: {path} is empty"));
                    None
                }
                Ok(text) => Some((text.trim().to_owned(), in_file.clone())),
                Err(why) => {
                    problems.push(format!("{in_file}: {path}: {why}"));
                    None
                }
            },
            (None, None) => None,
        };
        if let Some((text, variable)) = text {
            layer.0.insert(setting.key, (text, ValueSource::Environment(variable)));
        }
        known.insert(variable);
        if setting.secret {
            known.insert(in_file);
        }
    }
    let strangers = environment
        .iter()
        .filter(|(name, value)| name.starts_with("PLANRELAY_") && !known.contains(*name) && !from_kubernetes(name, value));
    for (name, _) in strangers {
        problems.push(format!("{name}: no such variable{}", hint(name, known.iter().map(String::as_str))));
    }
    layer
}

/// Whether Kubernetes made the variable: a pod sees `PLANRELAY_PORT=tcp://…`, `PLANRELAY_SERVICE_HOST` and more of a service
/// `planrelay` beside it.
fn from_kubernetes(name: &str, value: &str) -> bool {
    let protocol = ["tcp://", "udp://", "sctp://"].iter().any(|protocol| value.starts_with(protocol));
    let port = name.split_once("_PORT_").is_some_and(|(_, port)| port.starts_with(|c: char| c.is_ascii_digit()));
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || port || (name.ends_with("_PORT") && protocol)
}

fn from_flags(flags: &BTreeMap<String, String>, problems: &mut Vec<String>) -> Layer {
    let mut layer = Layer::default();
    for (key, text) in flags {
        match SETTINGS.iter().find(|setting| setting.key == key) {
            Some(setting) => {
                let source = ValueSource::Flag(format!("--{}", key.replace('_', "-")));
                layer.0.insert(setting.key, (text.trim().to_owned(), source));
            }
            None => problems.push(format!("--{key}: no such setting{}", hint(key, SETTINGS.iter().map(|setting| setting.key)))),
        }
    }
    layer
}

fn read(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|why| why.to_string())?;
    // A named pipe (`--config <(…)`) has no length.
    if metadata.is_dir() || metadata.len() > FILE_BYTES_MAX {
        return Err(format!("it is not a file of at most {FILE_BYTES_MAX} bytes"));
    }
    std::fs::read_to_string(path).map_err(|why| why.to_string())
}

/// A value as it may stand in a complaint.
fn shortened(text: &str) -> String {
    let masked = print::mask_url(text);
    if masked.chars().count() <= 80 { masked } else { masked.chars().take(80).chain("…".chars()).collect() }
}

/// `; did you mean …?` when a known name is near.
fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.map(|candidate| (distance(name, candidate), candidate)).min();
    match nearest {
        Some((distance, candidate)) if distance <= 2.max(name.len() / 4) => format!("; did you mean {candidate}?"),
        Some(_) | None => String::new(),
    }
}

/// Insertions, deletions and replacements from one name to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// Values by key.
struct Texts<'a>(&'a [Effective]);

impl Texts<'_> {
    fn find(&self, key: &str) -> Option<&Effective> {
        SETTINGS.iter().position(|setting| setting.key == key).and_then(|at| self.0.get(at))
    }

    fn text(&self, key: &str) -> &str {
        self.find(key).map_or("", |value| value.text.as_str())
    }

    fn optional(&self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn secrets(&self, key: &str) -> Vec<SecretString> {
        split_urls(self.text(key)).map(SecretString::from).collect()
    }

    /// A number that was checked to be in range; ranges fit every type that asks.
    fn number<T: TryFrom<u64> + Default>(&self, key: &str) -> T {
        self.text(key).parse::<u64>().ok().and_then(|number| T::try_from(number).ok()).unwrap_or_default()
    }

    fn seconds(&self, key: &str) -> Duration {
        Duration::from_secs(self.number(key))
    }

    fn is_default(&self, key: &str) -> bool {
        self.find(key).is_none_or(|value| value.source == ValueSource::Default)
    }
}

/// Types for texts that were checked.
fn assemble(texts: &Texts<'_>) -> Config {
    Config {
        prefix: texts.text("prefix").to_owned(),
        broker: BrokerConfig { urls: texts.secrets("amqp_url") },
        store: StoreConfig { urls: texts.secrets("redis_url") },
        llm: LlmConfig {
            choice: match texts.text("model") {
                "openai" => ModelChoice::OpenAi,
                "offline" => ModelChoice::Offline,
                _ => ModelChoice::Auto,
            },
            api_key: texts.optional("openai_api_key").map(SecretString::from),
            base_url: texts.text("openai_base_url").trim_end_matches('/').to_owned(),
            model: texts.text("openai_model").to_owned(),
            planner_model: texts.optional("planner_model"),
            executor_model: texts.optional("executor_model"),
            summarizer_model: texts.optional("summarizer_model"),
            timeout: texts.seconds("model_timeout_secs"),
            prices: prices::parse(texts.text("prices")).unwrap_or_default(),
        },
        run: RunConfig {
            concurrency: texts.number("concurrency"),
            plan_steps_max: texts.number("plan_steps_max"),
            parallel_steps: texts.number("parallel_steps"),
            step_attempts: texts.number("step_attempts"),
            max_replans: texts.number("max_replans"),
            approval: ApprovalRule {
                timeout: texts.seconds("approval_timeout_secs"),
                otherwise: match texts.text("approval_timeout_action") {
                    "approve" => ApprovalTimeout::Approve,
                    _cancel => ApprovalTimeout::Cancel,
                },
            },
            step_timeout: texts.seconds("step_timeout_secs"),
            lease: texts.seconds("lease_secs"),
            retention: texts.seconds("retention_secs"),
            shutdown_grace: texts.seconds("shutdown_grace_secs"),
        },
        tools: ToolConfig { search_dir: texts.optional("search_dir").map(PathBuf::from) },
        http: HttpConfig { listen: texts.text("http").parse().ok(), token: texts.optional("api_token").map(SecretString::from) },
        log: LogConfig {
            filter: texts.text("log").to_owned(),
            format: if texts.text("log_format") == "json" { LogFormat::Json } else { LogFormat::Text },
        },
    }
}

/// Settings of the model that need each other.
fn check_model(llm: &LlmConfig, texts: &Texts<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    let theirs = llm.base_url == OPENAI_BASE_URL;
    if llm.uses_endpoint() && theirs && llm.api_key.is_none() {
        problems.push(format!(
            "OPENAI_API_KEY: {OPENAI_BASE_URL} needs a key; set one, or OPENAI_BASE_URL, or PLANRELAY_MODEL=offline"
        ));
    }
    if llm.uses_endpoint() && !theirs && texts.is_default("openai_model") {
        problems.push(format!("OPENAI_MODEL: is not set; name a model that {} serves", llm.base_url));
    }
    problems
}
