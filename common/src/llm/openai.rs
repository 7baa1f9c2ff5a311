//! Any OpenAI-compatible endpoint: the three tasks as prompts, and what is remembered about each model.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::text::cut;
use super::{AnswerTask, Failed, LlmError, Move, PlanDraft, PlanTask, ReplanTask, Reply, StepTask, extract, prompt};
use crate::config::{LlmConfig, Price};
use crate::limits::RESULT_BYTES_MAX;
use crate::meter::Meter;
use act::Style;
use endpoint::Endpoint;
use ladder::{Asker, Kind, Rung};

mod act;
pub mod completion;
mod conversation;
mod endpoint;
mod failure;
mod ladder;
mod planning;
mod price;
pub mod probe;
mod verdict;

/// Most tokens of one reply: a model that never stops must not write until the time-out.
const PLAN_TOKENS_MAX: u32 = 8192;
const MOVE_TOKENS_MAX: u32 = 2048;
const ANSWER_TOKENS_MAX: u32 = 4096;
/// The same for a model that has been seen to reason at length first.
const REASONING_TOKENS_MAX: u32 = 16_384;
/// How often a final answer that is cut off is continued.
pub const CONTINUATIONS_MAX: u32 = 2;

/// An OpenAI-compatible endpoint. A cheap handle.
#[derive(Debug, Clone)]
pub struct OpenAi {
    endpoint: Endpoint,
    memory: Memory,
    models: Arc<Models>,
}

/// The model for each task.
#[derive(Debug)]
struct Models {
    name: String,
    planner: Model,
    executor: Model,
    summarizer: Model,
}

/// A model, and what it costs if that is known.
#[derive(Debug)]
struct Model {
    name: String,
    price: Option<Price>,
}

/// What was found out about models, by name. One endpoint per instance.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Known>>>);

/// What was found out about one model.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The rung of structured output that worked last.
    rungs: BTreeMap<Kind, Rung>,
    /// The style of moves that worked last.
    style: Option<Style>,
    /// Whether it reasons so long that the usual limit leaves no room for a reply.
    reasons: bool,
    /// Whether it refuses `temperature`.
    no_temperature: bool,
    /// Whether it refuses `max_tokens`.
    no_max_tokens: bool,
}

impl Memory {
    fn get(&self, model: &str) -> Known {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(model).cloned().unwrap_or_default()
    }

    fn update(&self, model: &str, learn: impl FnOnce(&mut Known)) {
        learn(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(model.to_owned()).or_default());
    }
}

impl OpenAi {
    /// An endpoint as configured. Connects to nothing yet. The error names the setting that cannot be used.
    pub fn new(config: &LlmConfig) -> Result<Self, String> {
        if config.model.trim().is_empty() {
            return Err("OPENAI_MODEL is empty".to_owned());
        }
        let or_model = |model: &Option<String>| {
            let name = model.clone().unwrap_or_else(|| config.model.clone());
            Model { price: price::price(config, &name), name }
        };
        let models = Models {
            name: config.model.clone(),
            planner: or_model(&config.planner_model),
            executor: or_model(&config.executor_model),
            summarizer: or_model(&config.summarizer_model),
        };
        Ok(Self { endpoint: Endpoint::new(config)?, memory: Memory::default(), models: Arc::new(models) })
    }

    /// The configured model.
    pub fn model(&self) -> &str {
        &self.models.name
    }

    /// Whether the price of every request is known; the error names a model without one.
    pub(super) fn has_prices(&self) -> Result<(), String> {
        let roles = [&self.models.planner, &self.models.executor, &self.models.summarizer];
        match roles.into_iter().find(|model| model.price.is_none()) {
            Some(model) => Err(format!("no price is known for the model {}; set PLANRELAY_PRICES", model.name)),
            None => Ok(()),
        }
    }

    fn asker<'a>(&'a self, model: &'a Model, tokens_max: u32, meter: &'a Meter) -> Asker<'a> {
        let Model { name, price } = model;
        let (endpoint, memory) = (&self.endpoint, &self.memory);
        Asker { endpoint, memory, model: name, tokens_max, price: *price, meter, calls: Vec::new() }
    }

    pub(super) async fn plan(&self, task: &PlanTask<'_>) -> Result<Reply<PlanDraft>, Failed> {
        let mut asker = self.asker(&self.models.planner, PLAN_TOKENS_MAX, task.meter);
        let draft = asker.plan(task).await;
        asker.ended(draft)
    }

    pub(super) async fn replan(&self, task: &ReplanTask<'_>) -> Result<Reply<PlanDraft>, Failed> {
        let mut asker = self.asker(&self.models.planner, PLAN_TOKENS_MAX, task.meter);
        let draft = asker.replan(task).await;
        asker.ended(draft)
    }

    pub(super) async fn act(&self, task: &StepTask<'_>) -> Result<Reply<Move>, Failed> {
        let mut asker = self.asker(&self.models.executor, MOVE_TOKENS_MAX, task.meter);
        let made = asker.act(task).await;
        asker.ended(made)
    }

    pub(super) async fn answer(&self, task: &AnswerTask<'_>) -> Result<Reply<String>, Failed> {
        let mut asker = self.asker(&self.models.summarizer, ANSWER_TOKENS_MAX, task.meter);
        let text = asker.answer(task).await;
        asker.ended(text)
    }
}

impl Asker<'_> {
    /// The final answer, continued where it is cut off.
    async fn answer(&mut self, task: &AnswerTask<'_>) -> Result<String, LlmError> {
        let mut messages = vec![message("system", prompt::ANSWER_SYSTEM.trim_end()), message("user", &prompt::answer_user(task))];
        let mut whole = String::new();
        for part in 0..=CONTINUATIONS_MAX {
            let completion = self.ask(json!({"messages": messages}), "text").await.map_err(|failure| failure.error)?;
            if let Some(refusal) = completion.refusal.filter(|_| whole.is_empty()) {
                return Err(LlmError::Permanent(format!("the model refused to answer: {}", failure::one_line(&refusal))));
            }
            whole.push_str(&completion.text);
            // What is cut off while still reasoning would only go on reasoning.
            if !completion.cut_off || part == CONTINUATIONS_MAX || extract::without_reasoning(&whole).is_empty() {
                break;
            }
            messages.push(message("assistant", &completion.text));
            messages.push(message("user", prompt::ANSWER_CONTINUE.trim_end()));
        }
        let text = extract::without_reasoning(&whole);
        if text.is_empty() {
            return Err(LlmError::Transient("the model's answer is empty".to_owned()));
        }
        Ok(cut(text, RESULT_BYTES_MAX))
    }
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}
