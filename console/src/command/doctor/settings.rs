//! The configuration: whether it loads, what is set where, and what contradicts itself. Pure but for the folder.

use common::config::{Config, ConfigError, Loaded, ModelChoice, OPENAI_BASE_URL, ValueSource};
use executor::tool::Toolbox;

use super::check::{Check, Fault};
use crate::text::count;

/// The configuration cannot be used.
pub(super) fn refused(error: &ConfigError) -> Check {
    Check::failed("configuration", Fault::Configuration, error.problems.join("\n"), mend(&error.problems))
}

/// Variables can be unset, so that defaults hold; files must be written.
fn mend(problems: &[String]) -> String {
    let heads: Vec<&str> = problems.iter().filter_map(|problem| problem.split_once(": ").map(|(head, _)| head)).collect();
    let is_variable = |head: &&str| head.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    let (mut variables, mut others): (Vec<&str>, Vec<&str>) = heads.into_iter().partition(is_variable);
    variables.dedup();
    others.dedup();
    match (variables.as_slice(), others.first()) {
        ([], Some(flag)) if flag.starts_with("--") => "planrelay doctor --help".to_owned(),
        ([], Some(file)) => format!("${{EDITOR:-vi}} {file}"),
        (variables, _) => format!("unset {}", variables.join(" ")),
    }
}

/// What holds, where it comes from, and what contradicts itself.
pub(super) fn checks(loaded: &Loaded) -> Vec<Check> {
    let set = loaded.values.iter().filter(|value| value.source != ValueSource::Default);
    let lines = set.filter_map(|value| Some(format!("{} = {} ({})", value.setting.key, value.shown.as_ref()?, value.source)));
    let lines: Vec<String> = lines.collect();
    let head = match lines.len() {
        0 => "every setting has its default".to_owned(),
        n => format!("valid; {} beside the defaults", count(n, "setting")),
    };
    let sources = Check::ok("configuration", [vec![head], lines].concat().join("\n"));
    [vec![sources], contradictions(&loaded.config), vec![search_folder(&loaded.config)]].concat()
}

/// Settings that make each other useless.
fn contradictions(config: &Config) -> Vec<Check> {
    let warn = |found: String, mend: String| Some(Check::warning("configuration", found, mend));
    let (llm, run) = (&config.llm, &config.run);
    let endpoint = llm.api_key.is_some() || llm.base_url != OPENAI_BASE_URL;
    let unasked = (llm.choice == ModelChoice::Offline && endpoint).then(|| {
        let found = format!("PLANRELAY_MODEL is offline, so that the endpoint {} is not asked", llm.base_url);
        warn(found, "export PLANRELAY_MODEL=auto".to_owned())
    });
    let roles = [
        ("PLANRELAY_PLANNER_MODEL", &llm.planner_model),
        ("PLANRELAY_EXECUTOR_MODEL", &llm.executor_model),
        ("PLANRELAY_SUMMARIZER_MODEL", &llm.summarizer_model),
    ];
    let named: Vec<&str> = roles.iter().filter(|(_, model)| model.is_some()).map(|(variable, _)| *variable).collect();
    let unused = (!llm.uses_endpoint() && !endpoint && !named.is_empty()).then(|| {
        let found = format!("no endpoint is configured, so that {} has no effect", named.join(", "));
        warn(found, "export OPENAI_API_KEY=… # or OPENAI_BASE_URL, for a local endpoint".to_owned())
    });
    let cut_short = (llm.uses_endpoint() && llm.timeout > run.step_timeout).then(|| {
        let (request, step) = (llm.timeout.as_secs(), run.step_timeout.as_secs());
        let found = format!("a request to a model may take {request} s, but a step only {step} s: the step ends first");
        warn(found, format!("export PLANRELAY_MODEL_TIMEOUT_SECS={step}"))
    });
    let models = roles.iter().map(|(_, model)| model.as_ref().unwrap_or(&llm.model)).collect::<Vec<_>>();
    let unknown: Vec<&str> = llm.prices.keys().filter(|priced| !models.contains(priced)).map(String::as_str).collect();
    let mispriced = (llm.uses_endpoint() && !unknown.is_empty()).then(|| {
        let found = format!("PLANRELAY_PRICES has a price for {}, which no role uses", unknown.join(", "));
        warn(found, "planrelay --print-config | grep model".to_owned())
    });
    [unasked, unused, cut_short, mispriced].into_iter().flatten().flatten().collect()
}

/// The folder as an executor on this machine would open it.
fn search_folder(config: &Config) -> Check {
    let name = "search_folder";
    match (&config.tools.search_dir, Toolbox::builtin(&config.tools)) {
        (None, _) => Check::ok(name, "not set: there is no tool search"),
        (Some(folder), Ok(_)) => Check::ok(name, format!("{} can be read", folder.display())),
        (Some(folder), Err(why)) => {
            let mend = format!("mkdir -p {0} && chmod a+rx {0}", folder.display());
            Check::failed(name, Fault::Configuration, why.to_string(), mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use common::config::Sources;

    use super::*;

    fn loaded(settings: &[(&str, &str)]) -> Loaded {
        let environment: BTreeMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::load(Sources { environment, ..Sources::default() }).unwrap()
    }

    #[track_caller]
    fn warns(settings: &[(&str, &str)], expected: &[(&str, &str)]) {
        let found: Vec<(String, String)> =
            contradictions(&loaded(settings).config).into_iter().map(|check| (check.found, check.mend.unwrap())).collect();
        let found: Vec<(&str, &str)> = found.iter().map(|(found, mend)| (&**found, &**mend)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn contradictions_are_found() {
        let local = [("OPENAI_BASE_URL", "http://h/v1"), ("OPENAI_MODEL", "m")];
        let with = |more: &[(&'static str, &'static str)]| [&local[..], more].concat();
        warns(&[], &[]);
        warns(&local, &[]);
        warns(&with(&[("PLANRELAY_PRICES", "m=1/2")]), &[]);
        warns(
            &with(&[("PLANRELAY_MODEL", "offline")]),
            &[("PLANRELAY_MODEL is offline, so that the endpoint http://h/v1 is not asked", "export PLANRELAY_MODEL=auto")],
        );
        warns(
            &[("PLANRELAY_PLANNER_MODEL", "m")],
            &[(
                "no endpoint is configured, so that PLANRELAY_PLANNER_MODEL has no effect",
                "export OPENAI_API_KEY=… # or OPENAI_BASE_URL, for a local endpoint",
            )],
        );
        warns(
            &with(&[("PLANRELAY_STEP_TIMEOUT_SECS", "60"), ("PLANRELAY_PRICES", "n=1/2")]),
            &[
                (
                    "a request to a model may take 120 s, but a step only 60 s: the step ends first",
                    "export PLANRELAY_MODEL_TIMEOUT_SECS=60",
                ),
                ("PLANRELAY_PRICES has a price for n, which no role uses", "planrelay --print-config | grep model"),
            ],
        );
    }

    #[test]
    fn what_is_wrong_can_be_unset_or_written() {
        let mend = |problems: &[&str]| mend(&problems.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(mend(&["PLANRELAY_A: no such variable", "AMQP_URL: \"x\" is not a URL"]), "unset PLANRELAY_A AMQP_URL");
        assert_eq!(mend(&["conf/planrelay.toml: concurrency: \"x\" is not a number"]), "${EDITOR:-vi} conf/planrelay.toml");
        assert_eq!(mend(&["--model: \"x\" is not one of auto"]), "planrelay doctor --help");
    }
}
