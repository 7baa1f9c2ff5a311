//! The names under which traces say things, in one place.
//!
//! `gen_ai.*`: the semantic conventions for generative AI, <https://github.com/open-telemetry/semantic-conventions-genai>
//! (`docs/gen-ai/gen-ai-spans.md` and `gen-ai-agent-spans.md`, schema 1.42.0-dev; all of it in development, so names may still change).
//! `messaging.*`, `error.*`, `server.*`: the core conventions 1.44, <https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/>.
//! `planrelay.*`: our own, for what no convention has a name for.

/// The schema of these names, as the exported spans declare it.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev";

// What is done: values of GEN_AI_OPERATION_NAME, and first words of span names.

/// A whole run.
pub const INVOKE_WORKFLOW: &str = "invoke_workflow";
/// A service works on a run with a model.
pub const INVOKE_AGENT: &str = "invoke_agent";
/// A plan is made or looked at again.
pub const PLAN: &str = "plan";
/// One request to a model.
pub const CHAT: &str = "chat";
/// One call of a tool.
pub const EXECUTE_TOOL: &str = "execute_tool";

/// What is done.
pub const GEN_AI_OPERATION_NAME: &str = "gen_ai.operation.name";
/// Whose dialect the endpoint speaks.
pub const GEN_AI_PROVIDER_NAME: &str = "gen_ai.provider.name";
/// The run: what belongs to one conversation.
pub const GEN_AI_CONVERSATION_ID: &str = "gen_ai.conversation.id";
/// Always [`WORKFLOW`]: the convention wants few values.
pub const GEN_AI_WORKFLOW_NAME: &str = "gen_ai.workflow.name";
/// `planner`, `executor` or `summarizer`.
pub const GEN_AI_AGENT_NAME: &str = "gen_ai.agent.name";
/// The model that was asked.
pub const GEN_AI_REQUEST_MODEL: &str = "gen_ai.request.model";
/// How freely it may choose.
pub const GEN_AI_REQUEST_TEMPERATURE: &str = "gen_ai.request.temperature";
/// Most tokens of the reply.
pub const GEN_AI_REQUEST_MAX_TOKENS: &str = "gen_ai.request.max_tokens";
/// `json` or `text`.
pub const GEN_AI_OUTPUT_TYPE: &str = "gen_ai.output.type";
/// The model that answered.
pub const GEN_AI_RESPONSE_MODEL: &str = "gen_ai.response.model";
/// The endpoint's own id of the reply.
pub const GEN_AI_RESPONSE_ID: &str = "gen_ai.response.id";
/// Why it stopped, one per choice.
pub const GEN_AI_RESPONSE_FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
/// Tokens read.
pub const GEN_AI_USAGE_INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
/// Of these: from the provider's cache.
pub const GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
/// Tokens written.
pub const GEN_AI_USAGE_OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
/// Of these: reasoning.
pub const GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: &str = "gen_ai.usage.reasoning.output_tokens";
/// The tool.
pub const GEN_AI_TOOL_NAME: &str = "gen_ai.tool.name";
/// Always [`TOOL_TYPE`].
pub const GEN_AI_TOOL_TYPE: &str = "gen_ai.tool.type";
/// The same for every try of the same call.
pub const GEN_AI_TOOL_CALL_ID: &str = "gen_ai.tool.call.id";

// Content: only when asked for.

/// What the model was sent.
pub const GEN_AI_INPUT_MESSAGES: &str = "gen_ai.input.messages";
/// What it answered.
pub const GEN_AI_OUTPUT_MESSAGES: &str = "gen_ai.output.messages";
/// What the tool was given.
pub const GEN_AI_TOOL_CALL_ARGUMENTS: &str = "gen_ai.tool.call.arguments";
/// What it gave.
pub const GEN_AI_TOOL_CALL_RESULT: &str = "gen_ai.tool.call.result";

/// The only workflow that there is.
pub const WORKFLOW: &str = "planrelay";
/// The name of a run's span.
pub const WORKFLOW_SPAN: &str = "invoke_workflow planrelay";
/// Tools run here, on a model's request.
pub const TOOL_TYPE: &str = "function";

// Messages.

/// Always `rabbitmq`.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// The value of it.
pub const RABBITMQ: &str = "rabbitmq";
/// What is done with a message, as the system calls it.
pub const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
/// The same, as the conventions call it.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// The value of both.
pub const PROCESS: &str = "process";
/// The queue: of the default exchange, its name is the routing key as well.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// The same, where the conventions for RabbitMQ want it.
pub const MESSAGING_RABBITMQ_ROUTING_KEY: &str = "messaging.rabbitmq.destination.routing_key";
/// The message.
pub const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";
/// Its body, in bytes.
pub const MESSAGING_MESSAGE_BODY_SIZE: &str = "messaging.message.body.size";

// Both.

/// Which kind of failure it was; few values.
pub const ERROR_TYPE: &str = "error.type";
/// The model endpoint's host.
pub const SERVER_ADDRESS: &str = "server.address";
/// Its port.
pub const SERVER_PORT: &str = "server.port";

// Our own.

/// The run.
pub const RUN_ID: &str = "planrelay.run.id";
/// How it ended.
pub const RUN_STATUS: &str = "planrelay.run.status";
/// Steps of its plan at the end.
pub const RUN_STEPS: &str = "planrelay.run.steps";
/// Requests to models that it took.
pub const RUN_MODEL_CALLS: &str = "planrelay.run.model_calls";
/// Calls of tools that it took.
pub const RUN_TOOL_CALLS: &str = "planrelay.run.tool_calls";
/// The revision of its plan.
pub const PLAN_REVISION: &str = "planrelay.plan.revision";
/// The step.
pub const STEP_NUMBER: &str = "planrelay.step.number";
/// The attempt, from 1.
pub const STEP_ATTEMPT: &str = "planrelay.step.attempt";
/// The fencing epoch of the claim.
pub const STEP_EPOCH: &str = "planrelay.step.epoch";
/// What became of the message: the outcome of a step that ended (`succeeded`, `failed`, `cancelled`), `again`, `parked`, `lost`,
/// `released`; or why nothing was to be done (`done`, `duplicate`, `stale`, `finished`).
pub const OUTCOME: &str = "planrelay.outcome";
/// How a reply was asked for: `json_schema`, `tool_call`, `json_object`, `prompt`, `text`.
pub const MODEL_RUNG: &str = "planrelay.model.rung";

/// The provider behind a host, as far as the conventions name it. An endpoint that is nobody's in particular speaks OpenAI's dialect.
pub fn provider(host: &str) -> &'static str {
    const KNOWN: [(&str, &str); 14] = [
        (".openai.azure.com", "azure.ai.openai"),
        (".services.ai.azure.com", "azure.ai.inference"),
        (".anthropic.com", "anthropic"),
        (".amazonaws.com", "aws.bedrock"),
        (".cohere.com", "cohere"),
        (".cohere.ai", "cohere"),
        (".deepseek.com", "deepseek"),
        ("generativelanguage.googleapis.com", "gcp.gemini"),
        ("aiplatform.googleapis.com", "gcp.vertex_ai"),
        (".groq.com", "groq"),
        (".mistral.ai", "mistral_ai"),
        (".moonshot.ai", "moonshot_ai"),
        (".perplexity.ai", "perplexity"),
        (".x.ai", "x_ai"),
    ];
    KNOWN.iter().find(|(end, _)| host.ends_with(end)).map_or("openai", |(_, name)| name)
}
