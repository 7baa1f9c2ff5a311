use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Loads a file, an environment and flags.
fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("planrelay.toml"), file).unwrap();
    let directory = Some(directory.path().to_owned());
    Config::load(Sources { file: None, directory, environment: map(environment), flags: map(flags) })
}

/// Expects exactly these problems of an environment, each by what it contains.
fn refused(environment: &[(&str, &str)], expected: &[&str]) {
    refused_all("", environment, &[], expected);
}

fn refused_all(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)], expected: &[&str]) {
    let problems = load(file, environment, flags).expect_err(&format!("{expected:?}")).problems;
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.contains(expected), "{expected:?} not in {problem:?}");
    }
}

/// A file with this content.
fn holding(content: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, content).unwrap();
    (folder, path.display().to_string())
}

#[test]
fn defaults_alone_are_a_configuration() {
    let Loaded { config, values } = Config::load(Sources::default()).unwrap();
    assert_eq!(config.run, RunConfig::default());
    assert_eq!(config.llm.timeout, limits::MODEL_TIMEOUT);
    assert_eq!(config.broker.urls[0].expose_secret(), "amqp://guest:guest@127.0.0.1:5672/%2f");
    assert_eq!((config.prefix.as_str(), config.llm.choice, config.llm.uses_endpoint()), ("planrelay", ModelChoice::Auto, false));
    assert_eq!((config.log.filter.as_str(), config.log.format, config.tools.search_dir), ("info", LogFormat::Text, None));
    assert!(values.iter().all(|value| value.source == ValueSource::Default));
    assert_eq!(values.len(), SETTINGS.len());
}

#[test]
fn the_later_source_wins() {
    let file = "concurrency = 2\nprefix = 'file'\nlog = \"debug\"\nredis_url = ['redis://a', 'redis://b']\nsearch_dir = ''";
    let environment = [
        ("PLANRELAY_CONCURRENCY", " 3 "),
        ("PLANRELAY_PREFIX", "env"),
        ("PLANRELAY_LOG", ""),
        ("OPENAI_API_KEY", "  "),
        ("HOME", "/"),
    ];
    let Loaded { config, values } = load(file, &environment, &[("concurrency", "4")]).unwrap();
    assert_eq!((config.run.concurrency, config.prefix.as_str(), config.log.filter.as_str()), (4, "env", "debug"));
    assert_eq!(config.store.urls.iter().map(|url| url.expose_secret()).collect::<Vec<_>>(), ["redis://a", "redis://b"]);
    assert!(config.llm.api_key.is_none() && config.tools.search_dir.is_none());
    let source = |key: &str| values.iter().find(|value| value.setting.key == key).unwrap().source.to_string();
    assert_eq!(source("concurrency"), "flag --concurrency");
    assert_eq!(source("prefix"), "environment PLANRELAY_PREFIX");
    assert!(source("log").starts_with("file ") && source("log").ends_with("planrelay.toml"));
    assert_eq!(source("lease_secs"), "default");
}

/// A certificate.
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/authority.pem");

#[test]
fn several_hosts_are_several_urls_or_one_with_a_plus() {
    for (said, read) in [
        ("redis://a, rediss://b:1", &["redis://a", "rediss://b:1"] as &[&str]),
        ("redis+cluster://u:p@a:1,b:2", &["redis+cluster://u:p@a:1,b:2"]),
        ("rediss+cluster://a", &["rediss+cluster://a"]),
        ("redis+sentinel://u:p@a:1,b,c/main/1?sentinel_password=s", &["redis+sentinel://u:p@a:1,b,c/main/1?sentinel_password=s"]),
    ] {
        let Loaded { config, .. } = load("", &[("REDIS_URL", said)], &[]).unwrap();
        assert_eq!(config.store.urls.iter().map(|url| url.expose_secret()).collect::<Vec<_>>(), read);
    }
    for bad in ["redis+sentinel://a,,b/main", "redis+sentinel:///main", "redis+cluster://a,:1", "redis://a,b", "redis+other://a"]
    {
        refused(&[("REDIS_URL", bad)], &["REDIS_URL: the value is not a URL such as redis://host"]);
    }
    refused(&[("AMQP_URL", "amqp+cluster://a,b")], &["AMQP_URL: the value is not a URL"]);
}

#[test]
fn trusted_certificates_are_read_at_once() {
    refused(&[("PLANRELAY_CA_FILE", "/no/such/file.pem")], &["PLANRELAY_CA_FILE: /no/such/file.pem: No such file"]);
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    refused(&[("PLANRELAY_CA_FILE", manifest)], &["Cargo.toml: it holds no certificate"]);
}

#[test]
fn every_setting_reaches_its_field() {
    let environment = [
        ("AMQP_URL", "amqps://u:p@one:5671/v, amqp://two"),
        ("REDIS_URL", "rediss://r"),
        ("OPENAI_API_KEY", "k"),
        ("OPENAI_BASE_URL", "http://localhost:11434/v1/"),
        ("OPENAI_MODEL", "qwen"),
        ("PLANRELAY_MODEL", "openai"),
        ("PLANRELAY_PLANNER_MODEL", "a"),
        ("PLANRELAY_EXECUTOR_MODEL", "b"),
        ("PLANRELAY_SUMMARIZER_MODEL", "c"),
        ("PLANRELAY_MODEL_TIMEOUT_SECS", "1"),
        ("PLANRELAY_PREFIX", "x"),
        ("PLANRELAY_CONCURRENCY", "2"),
        ("PLANRELAY_PLAN_STEPS_MAX", "10000"),
        ("PLANRELAY_PARALLEL_STEPS", "4"),
        ("PLANRELAY_STEP_ATTEMPTS", "5"),
        ("PLANRELAY_MAX_REPLANS", "2"),
        ("PLANRELAY_APPROVAL_TIMEOUT_SECS", "60"),
        ("PLANRELAY_APPROVAL_TIMEOUT_ACTION", "approve"),
        ("PLANRELAY_PRICES", "qwen=0/0.5"),
        ("PLANRELAY_STEP_TIMEOUT_SECS", "6"),
        ("PLANRELAY_LEASE_SECS", "7"),
        ("PLANRELAY_RETENTION_SECS", "80"),
        ("PLANRELAY_SHUTDOWN_GRACE_SECS", "9"),
        ("PLANRELAY_SEARCH_DIR", "/docs"),
        ("PLANRELAY_HTTP", "[::1]:8080"),
        ("PLANRELAY_API_TOKEN", "t"),
        ("PLANRELAY_LOG", "planner=debug"),
        ("PLANRELAY_LOG_FORMAT", "json"),
        ("PLANRELAY_CA_FILE", AUTHORITY),
    ];
    let set: BTreeSet<&str> = environment.iter().map(|(name, _)| *name).collect();
    assert_eq!(set, SETTINGS.iter().map(|setting| setting.variable).collect(), "a setting is not tried here");
    let Loaded { config, .. } = load("", &environment, &[]).unwrap();
    let secs = Duration::from_secs;
    assert_eq!(
        config.run,
        RunConfig {
            concurrency: 2,
            plan_steps_max: 10_000,
            parallel_steps: 4,
            step_attempts: 5,
            max_replans: 2,
            approval: ApprovalRule { timeout: secs(60), otherwise: ApprovalTimeout::Approve },
            step_timeout: secs(6),
            lease: secs(7),
            retention: secs(80),
            shutdown_grace: secs(9),
        }
    );
    assert_eq!(
        config.broker.urls.iter().map(|url| url.expose_secret()).collect::<Vec<_>>(),
        ["amqps://u:p@one:5671/v", "amqp://two"]
    );
    assert_eq!(config.store.urls[0].expose_secret(), "rediss://r");
    let trusts = [&config.broker.trust, &config.store.trust, &config.llm.trust];
    assert_eq!(trusts.map(|trust| trust.added().len()), [1; 3]);
    let llm = config.llm;
    assert_eq!(llm.api_key.as_ref().unwrap().expose_secret(), "k");
    assert_eq!(
        (llm.base_url.as_str(), llm.model.as_str(), llm.choice),
        ("http://localhost:11434/v1", "qwen", ModelChoice::OpenAi)
    );
    assert_eq!(llm.prices, BTreeMap::from([("qwen".to_owned(), Price { input_nanos: 0, output_nanos: 500_000_000 })]));
    let roles = [llm.planner_model, llm.executor_model, llm.summarizer_model].map(Option::unwrap_or_default);
    assert_eq!((roles, llm.timeout), (["a".into(), "b".into(), "c".into()], secs(1)));
    assert_eq!((config.prefix.as_str(), config.tools.search_dir.unwrap()), ("x", "/docs".into()));
    assert_eq!(config.http.listen, Some("[::1]:8080".parse().unwrap()));
    assert_eq!(config.http.token.unwrap().expose_secret(), "t");
    assert_eq!((config.log.filter.as_str(), config.log.format), ("planner=debug", LogFormat::Json));
}

#[test]
fn passwords_of_sentinels_are_masked() {
    for (url, shown) in [
        ("redis+sentinel://s1,s2/m?sentinel_password=pa@ss", "redis+sentinel://s1,s2/m?***"),
        ("redis+sentinel://u:p@s1:26379/m?sentinel_password=pa@ss", "redis+sentinel://u:***@s1:26379/m?***"),
        ("redis+sentinel://u:p@s1/m?x=1&sentinel_username=a&sentinel_password=b", "redis+sentinel://u:***@s1/m?***"),
    ] {
        assert_eq!(mask_url(url), shown);
    }
}

#[test]
fn bad_values_are_named_with_what_is_accepted() {
    for bad in ["8080", "localhost:8080", ":8080", "0.0.0.0:99999"] {
        refused(&[("PLANRELAY_HTTP", bad)], &["is not an address and a port such as 127.0.0.1:8080 or 0.0.0.0:8080"]);
    }
    refused(&[("PLANRELAY_CONCURRENCY", "abc")], &["PLANRELAY_CONCURRENCY: \"abc\" is not a whole number from 1 to 1000"]);
    for bad in ["0", "1001", "-1", "1.5", "99999999999999999999", "8 steps"] {
        refused(&[("PLANRELAY_CONCURRENCY", bad)], &["is not a whole number from 1 to 1000"]);
    }
    refused(&[("PLANRELAY_STEP_TIMEOUT_SECS", "1800")], &["is not a whole number of seconds from 1 to 1740"]);
    refused(&[("PLANRELAY_MODEL", "gpt")], &["PLANRELAY_MODEL: \"gpt\" is not one of auto, openai, offline"]);
    refused(&[("PLANRELAY_LOG", "info,planner=loud")], &["PLANRELAY_LOG: \"info,planner=loud\" is not a filter such as info"]);
    refused(&[("PLANRELAY_PRICES", "gpt-4o=2.5")], &["PLANRELAY_PRICES: \"gpt-4o=2.5\" is not a list of model=input/output"]);
    refused(&[("PLANRELAY_LOG_FORMAT", "JSON")], &["one of text, json"]);
    refused(&[("PLANRELAY_PREFIX", "a{b}")], &["1 to 64 characters"]);
    for bad in ["localhost", "amqp://", "amqp://:5672", "http://host", "amqp://a b", "amqp://a,,amqp://b", "amqp://a,redis://b"] {
        refused(&[("AMQP_URL", bad)], &["AMQP_URL: the value is not a URL such as amqp://host or amqps://host"]);
    }
    refused(
        &[("OPENAI_BASE_URL", "localhost:11434")],
        &["OPENAI_BASE_URL: \"localhost:11434\" is not a URL such as http://host/v1"],
    );
    refused(&[("OPENAI_BASE_URL", "http://me:hush@local/v1")], &["\"http://me:***@local/v1\" is not a URL"]);
    refused_all("concurrency = 'x'", &[], &[], &["planrelay.toml: concurrency: \"x\" is not a whole number"]);
    refused_all("concurrency = 1.5", &[], &[], &["planrelay.toml: concurrency: \"1.5\" is not a whole number"]);
    refused_all("[concurrency]\na = 1", &[], &[], &["concurrency: a table is not a whole number"]);
    refused_all("", &[], &[("lease_secs", "1")], &["--lease-secs: \"1\" is not a whole number of seconds from 3 to 600"]);
}

#[test]
fn unknown_names_are_errors_with_a_hint() {
    refused(&[("PLANRELAY_CONCURENCY", "8")], &["PLANRELAY_CONCURENCY: no such variable; did you mean PLANRELAY_CONCURRENCY?"]);
    refused(&[("PLANRELAY_BANANAS", "")], &["PLANRELAY_BANANAS: no such variable"]);
    refused_all("concurency = 8", &[], &[], &["planrelay.toml: concurency: no such key; did you mean concurrency?"]);
    refused_all("[broker]\nurl = 1", &[], &[], &["broker: no such key"]);
    refused_all("", &[], &[("prefx", "a")], &["--prefx: no such setting; did you mean prefix?"]);
    let from_kubernetes = [
        ("PLANRELAY_PORT", "tcp://10.0.0.1:8080"),
        ("PLANRELAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("PLANRELAY_PLANNER_SERVICE_HOST", "10.0.0.1"),
        ("PLANRELAY_SERVICE_PORT_HTTP", "8080"),
    ];
    load("", &from_kubernetes, &[]).unwrap();
    refused(&[("PLANRELAY_PORT", "8080")], &["PLANRELAY_PORT: no such variable"]);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    refused_all("= 5", &[], &[], &["planrelay.toml: "]);
    let secret = "openai_api_key = sk-secret";
    assert!(!load(secret, &[], &[]).unwrap_err().to_string().contains("sk-secret"));
    let missing = Sources { file: Some("/does/not/exist.toml".into()), ..Sources::default() };
    assert!(Config::load(missing).unwrap_err().problems[0].starts_with("/does/not/exist.toml: No such file"));
    let folder = Sources { file: Some("/".into()), ..Sources::default() };
    assert!(Config::load(folder).unwrap_err().problems[0].contains("is not a file"));
    let nowhere = Sources { directory: Some("/does/not/exist".into()), ..Sources::default() };
    assert!(Config::load(nowhere).is_ok());
}

#[test]
fn a_named_file_takes_the_place_of_the_one_found() {
    let (_folder, named) = holding("prefix = 'named'");
    let (found, _) = holding("");
    fs::write(found.path().join("planrelay.toml"), "prefix = 'found'\nconcurrency = 2").unwrap();
    let directory = Some(found.path().to_owned());
    let loaded = Config::load(Sources { file: Some(named.into()), directory, ..Sources::default() }).unwrap();
    assert_eq!((loaded.config.prefix.as_str(), loaded.config.run.concurrency), ("named", CONCURRENCY_DEFAULT));
}

#[test]
fn secrets_may_come_from_files() {
    let (_folder, path) = holding("sk-1\n");
    let loaded = load("openai_api_key = 'sk-0'", &[("OPENAI_API_KEY_FILE", &path)], &[]).unwrap();
    assert_eq!(loaded.config.llm.api_key.unwrap().expose_secret(), "sk-1");
    let (_other, urls) = holding(" amqp://u:p@h ");
    assert_eq!(load("", &[("AMQP_URL_FILE", &urls)], &[]).unwrap().config.broker.urls[0].expose_secret(), "amqp://u:p@h");
    refused(
        &[("OPENAI_API_KEY_FILE", &path), ("OPENAI_API_KEY", "sk-2")],
        &["OPENAI_API_KEY: OPENAI_API_KEY_FILE is set as well"],
    );
    refused(&[("REDIS_URL_FILE", "/does/not/exist")], &["REDIS_URL_FILE: /does/not/exist: No such file"]);
    refused(&[("REDIS_URL_FILE", &path)], &["REDIS_URL_FILE: the value is not a URL such as redis://host"]);
    let (_empty, empty) = holding("\n");
    refused(&[("OPENAI_API_KEY_FILE", &empty)], &["is empty"]);
    refused(&[("PLANRELAY_PREFIX_FILE", &path)], &["PLANRELAY_PREFIX_FILE: no such variable"]);
}

#[test]
fn settings_of_the_model_fit_together() {
    refused(&[("PLANRELAY_MODEL", "openai")], &["OPENAI_API_KEY: https://api.openai.com/v1 needs a key"]);
    refused(&[("OPENAI_BASE_URL", "http://local/v1")], &["OPENAI_MODEL: is not set; name a model that http://local/v1 serves"]);
    let answers = |environment: &[(&str, &str)]| load("", environment, &[]).unwrap().config.llm.uses_endpoint();
    assert!(answers(&[("OPENAI_API_KEY", "k")]));
    assert!(answers(&[("OPENAI_BASE_URL", "http://local/v1"), ("OPENAI_MODEL", "m")]));
    assert!(!answers(&[("OPENAI_BASE_URL", "http://local/v1"), ("PLANRELAY_MODEL", "offline")]));
    assert!(!answers(&[]));
}

#[test]
fn all_problems_come_at_once() {
    refused_all(
        "nonsense = 1",
        &[("PLANRELAY_CONCURRENCY", "x"), ("PLANRELAY_NONSENSE", "1"), ("AMQP_URL", "u:secret@host")],
        &[("log_format", "xml")],
        &["nonsense: no such key", "PLANRELAY_NONSENSE", "AMQP_URL: the value", "PLANRELAY_CONCURRENCY", "--log-format"],
    );
    let shown = load("", &[("PLANRELAY_CONCURRENCY", "x"), ("PLANRELAY_MODEL", "x")], &[]).unwrap_err().to_string();
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(shown.starts_with("configuration is not valid:\n  PLANRELAY_MODEL: "), "{shown}");
}

#[test]
fn printed_configuration_hides_secrets_and_can_be_read_again() {
    let environment = [
        ("AMQP_URL", "amqp://me:hush@one/v,amqp://me:hu/sh@two?x=hush"),
        ("REDIS_URL", "redis://:hush@one"),
        ("OPENAI_API_KEY", "hush"),
        ("OPENAI_BASE_URL", "http://local/v1"),
        ("OPENAI_MODEL", "a \"b\" \\c"),
    ];
    let loaded = load("", &environment, &[("concurrency", "3")]).unwrap();
    let printed = print_config(&loaded);
    assert!(!printed.contains("hush") && !format!("{loaded:?}").contains("hush"), "{printed}");
    for line in [
        "amqp_url = \"amqp://me:***@one/v,amqp://me:***@two?***\"  # environment AMQP_URL",
        "redis_url = \"redis://:***@one\"  # environment REDIS_URL",
        "openai_api_key = \"***\"  # environment OPENAI_API_KEY",
        "openai_base_url = \"http://local/v1\"  # environment OPENAI_BASE_URL",
        "concurrency = 3  # flag --concurrency",
        "log = \"info\"  # default",
        "# search_dir is not set",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} not in\n{printed}");
    }
    assert_eq!(load(&printed, &[], &[]).unwrap().config.llm.model, "a \"b\" \\c");
}

#[test]
fn urls_are_masked() {
    for (url, expected) in [
        ("amqp://host:5672/v", "amqp://host:5672/v"),
        ("amqp://user@host", "amqp://user@host"),
        ("amqp://u:p@ss@host", "amqp://u:***@host"),
        ("redis://:p,q@a,redis://b?password=x,redis://c", "redis://:***@a,redis://b?***,redis://c"),
        ("redis+sentinel://u:p@a:1,b:2/main?sentinel_password=s", "redis+sentinel://u:***@a:1,b:2/main?***"),
        ("u:p@host", "u:***@host"),
        ("", ""),
    ] {
        assert_eq!(mask_url(url), expected);
    }
}

#[test]
fn the_table_of_settings_is_sound() {
    let markdown = settings_markdown();
    assert_eq!(markdown.lines().count(), SETTINGS.len() + 2);
    for setting in &SETTINGS {
        assert!(markdown.contains(&format!("| `{}`", setting.variable)));
        assert!(setting.variable.to_lowercase().ends_with(setting.key), "{} and {} do not match", setting.variable, setting.key);
        assert!(!setting.meaning.contains('|') && !setting.kind.accepts().is_empty());
    }
    let keys: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    assert_eq!(keys.len(), SETTINGS.len());
    assert!(markdown.contains(
        "| `PLANRELAY_LEASE_SECS` | `lease_secs` | `30` | how long a claim holds without renewal, in seconds; 3 to 600 |"
    ));
}
