//! Any OpenAI-compatible endpoint: the three tasks as prompts, and what is remembered about each model.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::text::cut;
use super::{AnswerTask, LlmError, Move, PlanDraft, PlanTask, Reply, StepTask, extract, prompt};
use crate::config::LlmConfig;
use crate::limits::{PROMPT_RESULTS_BYTES_MAX, RESULT_BYTES_MAX};
use act::Style;
use endpoint::Endpoint;
use ladder::{Asker, Kind, Rung, Shape};

mod act;
mod completion;
mod conversation;
mod endpoint;
mod failure;
mod ladder;

/// Most tokens of one reply: a model that never stops must not write until the time-out.
const PLAN_TOKENS_MAX: u32 = 8192;
const MOVE_TOKENS_MAX: u32 = 2048;
const ANSWER_TOKENS_MAX: u32 = 4096;
/// The same for a model that has been seen to reason at length first.
const REASONING_TOKENS_MAX: u32 = 16_384;
/// How often a final answer that is cut off is continued.
const CONTINUATIONS_MAX: usize = 2;

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
    planner: String,
    executor: String,
    summarizer: String,
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
        let or_model = |model: &Option<String>| model.clone().unwrap_or_else(|| config.model.clone());
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

    fn asker<'a>(&'a self, model: &'a str, tokens_max: u32) -> Asker<'a> {
        Asker { endpoint: &self.endpoint, memory: &self.memory, model, tokens_max, calls: Vec::new() }
    }

    pub(super) async fn plan(&self, task: &PlanTask<'_>) -> Result<Reply<PlanDraft>, LlmError> {
        let mut messages = vec![message("system", &prompt::plan_system(task)), message("user", &prompt::plan_user(task))];
        if let Some(refused) = &task.refused {
            let reply = cut(refused.reply, PROMPT_RESULTS_BYTES_MAX);
            messages.push(message("assistant", if reply.trim().is_empty() { "(nothing)" } else { &reply }));
            messages.push(message("user", &prompt::plan_refused(refused.complaints)));
        }
        let shape = Shape { kind: Kind::Plan, name: "plan", schema: plan_schema(task), strict: true, wanted: &["steps"] };
        let mut asker = self.asker(&self.models.planner, PLAN_TOKENS_MAX);
        let found = asker.structured(&shape, &messages).await?;
        // A bare list of steps is as clear as a plan.
        let plan = found.value.map(|value| if value.is_array() { json!({"steps": value}) } else { value });
        let draft = PlanDraft { reply: cut(&found.reply, PROMPT_RESULTS_BYTES_MAX), plan };
        Ok(Reply { value: draft, calls: asker.calls })
    }

    pub(super) async fn replan(&self, _task: &super::ReplanTask<'_>) -> Result<Reply<PlanDraft>, LlmError> {
        unimplemented!()
    }

    pub(super) async fn act(&self, task: &StepTask<'_>) -> Result<Reply<Move>, LlmError> {
        let mut asker = self.asker(&self.models.executor, MOVE_TOKENS_MAX);
        let value = asker.act(task).await?;
        Ok(Reply { value, calls: asker.calls })
    }

    pub(super) async fn answer(&self, task: &AnswerTask<'_>) -> Result<Reply<String>, LlmError> {
        let mut asker = self.asker(&self.models.summarizer, ANSWER_TOKENS_MAX);
        let mut messages = vec![message("system", prompt::ANSWER_SYSTEM.trim_end()), message("user", &prompt::answer_user(task))];
        let mut whole = String::new();
        for part in 0..=CONTINUATIONS_MAX {
            let completion = asker.ask(json!({"messages": messages}), "text").await.map_err(|failure| failure.error)?;
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
        Ok(Reply { value: cut(text, RESULT_BYTES_MAX), calls: asker.calls })
    }
}

fn plan_schema(task: &PlanTask<'_>) -> Value {
    let tools: Vec<&str> = task.tools.iter().map(|tool| tool.name).chain(["none"]).collect();
    let step = json!({
        "type": "object",
        "properties": {
            "step_number": {"type": "integer"},
            "description": {"type": "string"},
            "tool_hint": {"type": "string", "enum": tools},
            "depends_on": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["step_number", "description", "tool_hint", "depends_on"],
        "additionalProperties": false,
    });
    json!({
        "type": "object",
        "properties": {"steps": {"type": "array", "items": step}},
        "required": ["steps"],
        "additionalProperties": false,
    })
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}
