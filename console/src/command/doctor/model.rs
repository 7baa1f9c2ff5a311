//! The model: asks the endpoint, and says what came of it.

use std::time::Duration;

use common::clock::{Reading, millis};
use common::config::LlmConfig;
use common::limits::DOCTOR_MODEL_TIMEOUT;
use common::llm::ModelCall;
use common::llm::openai::OpenAi;
use common::llm::openai::probe::{self, Asked, Calls, Configured, Listing, Unanswered, Writes};
use tokio::time::timeout;

use super::check::{Check, Fault, Status};
use crate::text::{amount, count, list, one_line, span};

/// Checks beside the first, in the order in which they are shown.
const NAMES: [&str; 3] = ["model", "model_plan", "model_tools"];
/// What a key is set with.
const KEY: &str = "export OPENAI_API_KEY=KEY";

/// What came of it, and the endpoint's clock.
pub(super) struct Found {
    pub(super) checks: Vec<Check>,
    pub(super) clock: Option<Reading>,
}

/// Everything about the model. `free`: nothing is asked that costs tokens.
pub(super) async fn look(config: &LlmConfig, free: bool) -> Found {
    if !config.uses_endpoint() {
        let found = "offline: the rule-based stand-in answers, and is named wherever its answers are shown; \
                     OPENAI_API_KEY or OPENAI_BASE_URL names a real one";
        let checks = [vec![Check::ok("model_endpoint", found)], skipped("no endpoint is asked")].concat();
        return Found { checks, clock: None };
    }
    let listing = probe::list(config).await;
    let clock = listing.as_ref().ok().and_then(|listing| listing.clock);
    let first = endpoint(config, &listing);
    let mut checks = vec![first.clone()];
    let model = match (&first.status, OpenAi::new(config)) {
        (Status::Failed(_), _) => Err("the endpoint cannot be used".to_owned()),
        (_, made) => made,
    };
    match model {
        Err(why) => checks.extend(skipped(&why)),
        Ok(openai) if free => {
            let listed = listing.ok().and_then(|listing| listing.models);
            checks.extend(openai.configured().iter().map(|model| unasked(model, listed.as_ref())));
            checks.extend(skipped("not asked (--no-model)").split_off(1));
        }
        Ok(openai) => {
            let asked = Box::pin(timeout(DOCTOR_MODEL_TIMEOUT, ask(&openai))).await;
            checks.extend(asked.unwrap_or_else(|_elapsed| {
                let found = format!("no end of the questions within {} s", DOCTOR_MODEL_TIMEOUT.as_secs());
                vec![Check::failed(NAMES[0], Fault::Unreachable, found, "planrelay doctor --no-model")]
            }));
        }
    }
    Found { checks, clock }
}

/// The same when nothing can be asked.
pub(super) fn skipped(why: &str) -> Vec<Check> {
    NAMES.into_iter().map(|name| Check::skipped(name, why)).collect()
}

/// Each model once, then the two things that a run needs of one.
async fn ask(openai: &OpenAi) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut silent = Vec::new();
    for model in openai.configured() {
        let check = answers(&model, openai.probe_answer(&model).await);
        if check.status != Status::Ok {
            silent.extend(model.roles.iter().copied());
        }
        checks.push(check);
    }
    checks.push(match silent.contains(&"planner") {
        true => Check::skipped(NAMES[1], "the planner's model does not answer"),
        false => plans(openai.probe_plan().await),
    });
    checks.push(match silent.contains(&"executor") {
        true => Check::skipped(NAMES[2], "the executor's model does not answer"),
        false => calls(openai.probe_tools().await),
    });
    checks
}

/// What the list of models tells of the endpoint.
fn endpoint(config: &LlmConfig, listing: &Result<Listing, String>) -> Check {
    let name = "model_endpoint";
    let base = &config.base_url;
    let check = match listing {
        Err(why) => Check::failed(name, Fault::Unreachable, one_line(why), "export OPENAI_BASE_URL=http://HOST:PORT/v1"),
        Ok(Listing { status: 401 | 403, .. }) if config.api_key.is_some() => {
            Check::failed(name, Fault::Unreachable, "it refuses the key", KEY)
        }
        Ok(Listing { status: 401 | 403, .. }) => Check::failed(name, Fault::Unreachable, "it wants a key, and none is set", KEY),
        Ok(Listing { status: 300..=399, redirects, .. }) => {
            let to = redirects.as_ref().map_or("nowhere", |to| to.trim_end_matches("/models"));
            let mend = format!("export OPENAI_BASE_URL={}", pasted(to, "http://HOST:PORT/v1"));
            Check::failed(name, Fault::Configuration, format!("it redirects to {to}, and is not followed"), mend)
        }
        Ok(Listing { status: 500.., .. }) => {
            let found = format!("it answers, but with {}", listing.as_ref().map_or(0, |listing| listing.status));
            Check::warning(name, found, format!("curl -i {base}/models"))
        }
        Ok(listing) => {
            let listed = match &listing.models {
                Some(models) => format!("lists {}", count(models.len(), "model")),
                None => format!("lists no models ({})", listing.status),
            };
            Check::ok(name, format!("answers in {}, {listed}", span(millis(listing.took))))
        }
    };
    check.of(base.clone())
}

/// A model that is not asked: at least it can be listed.
fn unasked(model: &Configured, listed: Option<&std::collections::BTreeSet<String>>) -> Check {
    let check = match listed {
        None => Check::skipped(NAMES[0], "not asked (--no-model), and the endpoint lists no models"),
        Some(listed) if listed.contains(&model.name) => {
            Check::ok(NAMES[0], format!("listed, not asked (--no-model); {}", price(model)))
        }
        Some(listed) => {
            let known: Vec<&str> = listed.iter().map(String::as_str).take(5).collect();
            let found = format!("the endpoint does not list it; it lists {}", known.join(", "));
            Check::warning(NAMES[0], found, named(model, known.first().copied().unwrap_or("MODEL")))
        }
    };
    check.of(model.name.clone())
}

/// What an endpoint says, where a shell takes it for nothing but a word; else `instead`: these lines are for pasting.
fn pasted<'a>(said: &'a str, instead: &'a str) -> &'a str {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:/@+%=,".contains(c);
    if !said.is_empty() && said.chars().all(plain) { said } else { instead }
}

fn named(model: &Configured, name: &str) -> String {
    match model.roles.as_slice() {
        [role] => format!("export PLANRELAY_{}_MODEL={}", role.to_uppercase(), pasted(name, "MODEL")),
        _several => format!("export OPENAI_MODEL={}", pasted(name, "MODEL")),
    }
}

fn price(model: &Configured) -> String {
    match model.price {
        Some(price) => format!("{}/{} for a million tokens read/written", amount(price.input_nanos), amount(price.output_nanos)),
        None => "no price is known, so that --max-cost is refused (PLANRELAY_PRICES)".to_owned(),
    }
}

/// What requests took.
fn took(calls: &[ModelCall]) -> String {
    let time: Duration = calls.iter().map(|call| call.duration).sum();
    let tokens: u64 = calls.iter().map(|call| call.usage.input_tokens + call.usage.output_tokens).sum();
    format!("{}, {tokens} tokens, {}", count(calls.len(), "request"), span(millis(time)))
}

fn answers(model: &Configured, asked: Asked<()>) -> Check {
    let name = NAMES[0];
    let check = match &asked.found {
        Ok(()) => {
            let roles: Vec<String> = model.roles.iter().map(|role| (*role).to_owned()).collect();
            Check::ok(name, format!("answers, for {} ({}); {}", list(&roles), took(&asked.calls), price(model)))
        }
        Err(unanswered) if unanswered.no_model => {
            Check::failed(name, Fault::Configuration, one_line(&unanswered.why), named(model, "MODEL"))
        }
        Err(unanswered) => failed(name, unanswered),
    };
    check.of(model.name.clone())
}

fn failed(name: &'static str, unanswered: &Unanswered) -> Check {
    let why = one_line(&unanswered.why);
    match unanswered.status {
        401 | 403 => Check::failed(name, Fault::Unreachable, why, KEY),
        429 => Check::warning(name, why, "planrelay doctor # again, when the limit has passed"),
        0 | 500.. => Check::failed(name, Fault::Unreachable, why, "export OPENAI_BASE_URL=http://HOST:PORT/v1 # or wait"),
        _other => Check::failed(name, Fault::Broken, why, "export OPENAI_MODEL=MODEL"),
    }
}

fn plans(asked: Asked<Writes>) -> Check {
    let name = NAMES[1];
    let serve = "planrelay doctor --help # a server that takes response_format json_schema writes better plans";
    match &asked.found {
        Ok(Writes::Json(rung @ ("json_schema" | "tool_call"))) => {
            Check::ok(name, format!("structured output by {rung} ({})", took(&asked.calls)))
        }
        Ok(Writes::Json(rung)) => {
            let found =
                format!("structured output by {rung} only: plans are checked here, and some go back ({})", took(&asked.calls));
            Check::warning(name, found, serve)
        }
        Ok(Writes::Nothing(why)) => {
            let found = format!("no plan as JSON by any rung: {} ({})", one_line(why), took(&asked.calls));
            Check::failed(name, Fault::Broken, found, "export PLANRELAY_PLANNER_MODEL=MODEL # one that writes JSON")
        }
        Err(unanswered) => failed(name, unanswered),
    }
}

fn calls(asked: Asked<Calls>) -> Check {
    let name = NAMES[2];
    let another = "export PLANRELAY_EXECUTOR_MODEL=MODEL # one that calls tools";
    match &asked.found {
        Ok(Calls::Native) => Check::ok(name, format!("native tool calls ({})", took(&asked.calls))),
        Ok(Calls::Action(rung)) => {
            let found = format!("no native tool calls: tools are named in an object, by {rung} ({})", took(&asked.calls));
            Check::ok(name, found)
        }
        Ok(Calls::Nothing) => {
            let found = format!("it called no tool although told to: steps may be done in its head ({})", took(&asked.calls));
            Check::warning(name, found, another)
        }
        Ok(Calls::Unusable(why)) => {
            let found = format!("no tool call that can be used: {} ({})", one_line(why), took(&asked.calls));
            Check::failed(name, Fault::Broken, found, another)
        }
        Err(unanswered) => failed(name, unanswered),
    }
}
