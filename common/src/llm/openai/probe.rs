//! What `planrelay doctor` asks an endpoint: which models it lists, which is free, and a few small questions, asked as a run asks them.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::header::{DATE, LOCATION};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::act::Style;
use super::failure::{Failure, one_line};
use super::ladder::{Asker, Kind};
use super::{Model, OpenAi, message};
use crate::clock::{Clock, Reading};
use crate::config::{LlmConfig, Price};
use crate::limits::{CONNECT_TIMEOUT, DOCTOR_BODY_BYTES_MAX, DOCTOR_TIMEOUT};
use crate::llm::{LlmError, ModelCall, Move, PlanTask, StepTask};
use crate::meter::Meter;
use crate::tool::builtin;

/// Most tokens of one reply; more where a model reasons.
const TOKENS_MAX: u32 = 1024;
/// What is asked.
const QUESTION: &str = "What is 6 times 7?";

/// What `GET <base>/models` gave.
#[derive(Debug)]
pub struct Listing {
    /// The status code.
    pub status: u16,
    /// Where it redirects to.
    pub redirects: Option<String>,
    /// The models, if it lists any.
    pub models: Option<BTreeSet<String>>,
    /// Its clock, if it tells it.
    pub clock: Option<Reading>,
    /// How long it took.
    pub took: Duration,
}

/// A model that is configured, for one role or more.
#[derive(Debug, Clone)]
pub struct Configured {
    /// Its name.
    pub name: String,
    /// `planner`, `executor`, `summarizer`.
    pub roles: Vec<&'static str>,
    /// What it costs, if that is known.
    pub price: Option<Price>,
}

/// What a question gave.
#[derive(Debug)]
pub struct Asked<T> {
    /// What was found.
    pub found: Result<T, Unanswered>,
    /// Every request that was answered.
    pub calls: Vec<ModelCall>,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Unanswered {
    /// The status code, or one of its kind; 0: no response, or one that may be better the next time.
    pub status: u16,
    /// What happened, in one sentence.
    pub why: String,
    /// Whether the endpoint says that it does not have the model.
    pub no_model: bool,
}

/// How a model writes plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writes {
    /// As JSON on this rung of structured output.
    Json(&'static str),
    /// Not as JSON on any rung; why the last reply was no use.
    Nothing(String),
}

/// How a model calls tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Calls {
    /// Natively.
    Native,
    /// With an object that says which; on this rung.
    Action(&'static str),
    /// It called none, and did the step in its head.
    Nothing,
    /// It said nothing that can be used.
    Unusable(String),
}

/// Asks for the list of models: whether anybody answers, whether the key is good, what time it is there.
pub async fn list(config: &LlmConfig) -> Result<Listing, String> {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(DOCTOR_TIMEOUT);
    let trusted = config.trust.http().map_err(|error| format!("PLANRELAY_CA_FILE: {error}"))?;
    let http = http
        .tls_certs_merge(trusted)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| format!("no HTTP client: {error}"))?;
    let mut request = http.get(format!("{}/models", config.base_url.trim_end_matches('/')));
    if let Some(key) = &config.api_key {
        request = request.bearer_auth(key.expose_secret());
    }
    let broken = |error| Failure::from_http(error, DOCTOR_TIMEOUT).to_string();
    let (started, sent_ms) = (Instant::now(), Clock::System.now_ms());
    let mut response = request.send().await.map_err(broken)?;
    let (took, got_ms) = (started.elapsed(), Clock::System.now_ms());
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let clock = header(DATE).and_then(|date| Reading::of_http_date(date, sent_ms, got_ms));
    let redirects = header(LOCATION).map(|to| one_line(to.split('?').next().unwrap_or_default()));
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        body.extend_from_slice(&chunk);
        if body.len() > DOCTOR_BODY_BYTES_MAX {
            break;
        }
    }
    Ok(Listing { status, redirects, models: models(&body).filter(|_| status == 200), clock, took })
}

fn models(body: &[u8]) -> Option<BTreeSet<String>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let names = body["data"].as_array()?.iter().filter_map(|model| model["id"].as_str().map(one_line));
    Some(names.collect())
}

impl OpenAi {
    /// The models that are configured, each once.
    pub fn configured(&self) -> Vec<Configured> {
        let models = &self.models;
        let mut all: Vec<Configured> = Vec::new();
        for (role, model) in [("planner", &models.planner), ("executor", &models.executor), ("summarizer", &models.summarizer)] {
            match all.iter_mut().find(|known| known.name == model.name) {
                Some(known) => known.roles.push(role),
                None => all.push(Configured { name: model.name.clone(), roles: vec![role], price: model.price }),
            }
        }
        all
    }

    fn probe<'a>(&'a self, model: &'a Model) -> Asker<'a> {
        self.asker(model, TOKENS_MAX, &Meter::Free)
    }

    /// Asks a model for one word: whether it answers at all.
    pub async fn probe_answer(&self, configured: &Configured) -> Asked<()> {
        let model = Model { name: configured.name.clone(), price: None };
        let mut asker = self.probe(&model);
        let found = asker.ask(json!({"messages": [message("user", "Reply with the word ok.")]}), "text").await;
        Asked { found: found.map(|_whatever| ()).map_err(Unanswered::from), calls: asker.calls }
    }

    /// Asks the planner's model for a plan.
    pub async fn probe_plan(&self) -> Asked<Writes> {
        let model = &self.models.planner;
        let mut asker = self.probe(model);
        let tools = builtin(false);
        let task = PlanTask {
            objective: QUESTION,
            context: None,
            tools: &tools,
            steps_max: 1,
            refused: None,
            feedback: None,
            meter: &Meter::Free,
        };
        let found = match asker.plan(&task).await {
            Ok(draft) => Ok(match draft.plan {
                Ok(_) => Writes::Json(self.rung(model, Kind::Plan)),
                Err(why) => Writes::Nothing(why),
            }),
            Err(error) => Err(error.into()),
        };
        Asked { found, calls: asker.calls }
    }

    /// Asks the executor's model for a step that wants a tool.
    pub async fn probe_tools(&self) -> Asked<Calls> {
        let model = &self.models.executor;
        let mut asker = self.probe(model);
        let tools = builtin(false);
        let task = StepTask {
            objective: QUESTION,
            description: "Call the tool calculate with the expression 6 * 7.",
            tool_hint: None,
            tools: &tools,
            inputs: &[],
            done_when: None,
            lessons: &[],
            meter: &Meter::Free,
            turns: &[],
            last: false,
        };
        let found = match asker.act(&task).await {
            Ok(Move::Call(_)) => Ok(match self.memory.get(&model.name).style {
                Some(Style::Native) => Calls::Native,
                Some(Style::Action) | None => Calls::Action(self.rung(model, Kind::Action)),
            }),
            Ok(Move::Conclude(_)) => Ok(Calls::Nothing),
            Ok(Move::Unusable { complaint, .. }) => Ok(Calls::Unusable(complaint)),
            Err(error) => Err(error.into()),
        };
        Asked { found, calls: asker.calls }
    }

    /// The rung that has worked for this kind of object.
    fn rung(&self, model: &Model, kind: Kind) -> &'static str {
        self.memory.get(&model.name).rungs.get(&kind).map_or("text", |rung| rung.name())
    }
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        let says = |words: &str| failure.said.contains(words);
        let no_model = says("model_not_found") || (failure.status == 404 && says("model"));
        Self { status: failure.status, why: failure.to_string(), no_model }
    }
}

impl From<LlmError> for Unanswered {
    fn from(error: LlmError) -> Self {
        let status = match error {
            LlmError::Transient(_) => 0,
            LlmError::RateLimited { .. } => 429,
            LlmError::Exhausted(_) | LlmError::Permanent(_) => 400,
        };
        Self { status, why: error.to_string(), no_model: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_models_are_read() {
        let listed = models(br#"{"object": "list", "data": [{"id": "a"}, {"id": "b\u001b[1m"}, {"name": "c"}]}"#).unwrap();
        assert_eq!(listed.into_iter().collect::<Vec<_>>(), ["a", "b [1m"]);
        for none in ["", "[]", "{}", r#"{"data": 1}"#, "<html>"] {
            assert_eq!(models(none.as_bytes()), None, "{none}");
        }
    }
}
