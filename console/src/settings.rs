//! The configuration of a command: the same as every service's, with the flags of the command line on top.

use std::collections::BTreeMap;

use common::config::{Config, ConfigError, Loaded, Sources, ValueSource};
use common::telemetry;

use crate::args::Globals;
use crate::exit::{Exit, Failure};

/// What a command logs unless told otherwise. How well Redis is set up is for services to say; that a connection is gone, for the
/// command that needs it.
const LOG_DEFAULT: &str = "warn,common::store=error,lapin=off";

/// Loads and checks the configuration.
pub(crate) fn load(globals: &Globals) -> Result<Loaded, ConfigError> {
    let sources = Sources::from_process(globals.config.clone(), flags(globals));
    Config::load(sources).map(with_quiet_logs)
}

/// The settings given as flags, by their keys.
fn flags(globals: &Globals) -> BTreeMap<String, String> {
    [
        ("amqp_url", &globals.amqp_url),
        ("redis_url", &globals.redis_url),
        ("model", &globals.model),
        ("search_dir", &globals.search_dir),
        ("prefix", &globals.prefix),
    ]
    .into_iter()
    .filter_map(|(key, value)| value.clone().map(|value| (key.to_owned(), value)))
    .collect()
}

fn with_quiet_logs(mut loaded: Loaded) -> Loaded {
    let unset = loaded.values.iter_mut().find(|value| value.setting.key == "log" && value.source == ValueSource::Default);
    if let Some(value) = unset {
        value.shown = Some(LOG_DEFAULT.to_owned());
        loaded.config.log.filter = LOG_DEFAULT.to_owned();
    }
    loaded
}

/// Starts the logs, on stderr.
pub(crate) fn start_logs(config: &Config) -> Result<(), Failure> {
    telemetry::init(&config.log).map_err(|error| Failure::new(Exit::Usage, error))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::CommandLine;

    #[test]
    fn every_flag_is_a_setting() {
        let line = "planrelay list --amqp-url amqp://a --redis-url redis://b --model offline --search-dir d --prefix p";
        let globals = CommandLine::try_parse_from(line.split(' ')).unwrap().globals;
        let loaded = Config::load(Sources { flags: flags(&globals), ..Sources::default() }).unwrap();
        assert_eq!(loaded.config.prefix, "p");
        let given = loaded.values.iter().filter(|value| value.source != ValueSource::Default).count();
        assert_eq!(given, 5);
    }

    #[test]
    fn logs_are_quiet_unless_somebody_wants_them() {
        let loaded = Config::load(Sources::default()).unwrap();
        assert_eq!(with_quiet_logs(loaded).config.log.filter, LOG_DEFAULT);
        let environment = BTreeMap::from([("PLANRELAY_LOG".to_owned(), "debug".to_owned())]);
        let loaded = Config::load(Sources { environment, ..Sources::default() }).unwrap();
        assert_eq!(with_quiet_logs(loaded).config.log.filter, "debug");
    }
}
