//! The tools of an executor: what each can do, and the one way to call them.
//!
//! [`Toolbox::call`] is the border: arguments come from a model or a submitter and are checked before a tool sees them, output
//! is bounded before anybody reads it, and whatever goes wrong becomes a sentence that goes back to the model. A step never
//! ends because of a tool.
//!
//! The set is open: a tool from elsewhere (an MCP server's, say) is one more [`Tool`] whose [`Tool::spec`] repeats what the
//! server listed and whose [`Tool::call`] forwards, with the idempotency key for tools that have effects. Its schema passes the
//! same validator, which follows no reference to a file or a URL, and its output the same cut.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use common::config::ToolConfig;
use common::id::{RunId, StepNumber};
use common::limits::{ARGUMENTS_BYTES_MAX, TOOL_OUTPUT_BYTES_MAX, TOOL_TIMEOUT};
use common::tool::{ToolCall, ToolSpec};
use futures::FutureExt;
use serde_json::Value;
use tokio::time::{Instant, timeout};

mod analyze;
mod arguments;
mod calculate;
mod cut;
mod search;
#[cfg(test)]
mod tests;

/// A tool. The one open set in planrelay, hence the one `dyn` trait.
///
/// A call may be dropped at any await (time-out, shutdown): work that goes on elsewhere must notice and stop.
pub trait Tool: Send + Sync {
    /// What a model may know of it. Read once, when the toolbox is made.
    fn spec(&self) -> ToolSpec;

    /// Does it. `arguments` fit the schema of the spec.
    fn call<'a>(
        &'a self,
        arguments: Value,
        ctx: &'a CallContext,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ToolError>> + Send + 'a>>;
}

/// What a tool may know about the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallContext {
    /// The same for every try of the same call, for tools with effects: `<run>:<step>:<ordinal of the call in the step>`.
    pub idempotency_key: String,
}

impl CallContext {
    /// The context of call `ordinal` (from 0) of a step.
    pub fn new(run: &RunId, step: StepNumber, ordinal: usize) -> Self {
        Self { idempotency_key: format!("{run}:{step}:{ordinal}") }
    }
}

/// Why a tool gave no result, in a sentence that a model can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ToolError(pub String);

/// Why there is no toolbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolboxError {
    /// The search folder cannot be read. Exit code 2.
    #[error("PLANRELAY_SEARCH_DIR: cannot read the folder {folder}: {why}")]
    SearchDir {
        /// The folder as configured.
        folder: String,
        /// What the system said.
        why: String,
    },
    /// A tool's own schema is not one.
    #[error("schema of the tool {tool} is not valid: {why}")]
    Schema {
        /// The tool.
        tool: String,
        /// What is wrong.
        why: String,
    },
    /// Two tools want the same name.
    #[error("two tools are named {0}")]
    Twice(String),
}

/// The tools of this process. A cheap handle.
#[derive(Clone)]
pub struct Toolbox(Arc<BTreeMap<String, Entry>>);

struct Entry {
    spec: ToolSpec,
    arguments: arguments::Validator,
    tool: Box<dyn Tool>,
}

/// A call that was made, one way or the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    /// What came out, or why nothing did, for the model to read.
    pub output: Result<Value, String>,
    /// How long it took, checks included.
    pub duration: Duration,
    /// The arguments as JSON, in bytes.
    pub arguments_bytes: usize,
    /// The output as JSON after the cut, in bytes; of an error, its text.
    pub result_bytes: usize,
}

impl Toolbox {
    /// The built-in tools that the configuration allows.
    pub fn builtin(config: &ToolConfig) -> Result<Self, ToolboxError> {
        let mut tools: Vec<Box<dyn Tool>> = vec![Box::new(calculate::Calculate), Box::new(analyze::Analyze)];
        if let Some(folder) = &config.search_dir {
            let search = search::Search::open(folder)
                .map_err(|why| ToolboxError::SearchDir { folder: folder.display().to_string(), why: why.to_string() })?;
            tools.push(Box::new(search));
        }
        Self::new(tools)
    }

    /// A toolbox of exactly these tools.
    pub fn new(tools: Vec<Box<dyn Tool>>) -> Result<Self, ToolboxError> {
        let mut entries = BTreeMap::new();
        for tool in tools {
            let spec = tool.spec();
            let arguments = arguments::Validator::new(&spec.parameters)
                .map_err(|why| ToolboxError::Schema { tool: spec.name.to_owned(), why })?;
            let name = spec.name.to_owned();
            if entries.insert(name.clone(), Entry { spec, arguments, tool }).is_some() {
                return Err(ToolboxError::Twice(name));
            }
        }
        Ok(Self(Arc::new(entries)))
    }

    /// What models may know of the tools, by name.
    pub fn specs(&self) -> Vec<ToolSpec> {
        self.0.values().map(|entry| entry.spec.clone()).collect()
    }

    /// Whether there is a tool of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Calls a tool: at most [`TOOL_TIMEOUT`] long, at most [`TOOL_OUTPUT_BYTES_MAX`] of output. A panic in the tool is an
    /// error like any other.
    pub async fn call(&self, call: &ToolCall, ctx: &CallContext) -> Called {
        let started = Instant::now();
        let arguments_bytes = cut::json_bytes(&call.arguments);
        let output = self.try_call(call, arguments_bytes, ctx).await.map(|output| cut::cut(output, TOOL_OUTPUT_BYTES_MAX));
        let result_bytes = match &output {
            Ok(value) => cut::json_bytes(value),
            Err(why) => why.len(),
        };
        Called { output, duration: started.elapsed(), arguments_bytes, result_bytes }
    }

    async fn try_call(&self, call: &ToolCall, arguments_bytes: usize, ctx: &CallContext) -> Result<Value, String> {
        let Some(entry) = self.0.get(&call.tool) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            return Err(format!("there is no tool {}; the tools are: {}", cut::quoted(&call.tool), known.join(", ")));
        };
        if arguments_bytes > ARGUMENTS_BYTES_MAX {
            return Err(format!(
                "the arguments of {} have {arguments_bytes} bytes, the limit is {ARGUMENTS_BYTES_MAX}",
                call.tool
            ));
        }
        entry.arguments.check(&call.arguments).map_err(|why| format!("the arguments of {} do not fit: {why}", call.tool))?;
        // Unwind safety: what a panicking tool leaves behind is its own business, the toolbox itself holds nothing mutable.
        // The future is made inside, so that a panic before its first await is caught as well.
        let work = AssertUnwindSafe(async { entry.tool.call(call.arguments.clone(), ctx).await }).catch_unwind();
        match timeout(TOOL_TIMEOUT, work).await {
            Ok(Ok(Ok(output))) => Ok(output),
            Ok(Ok(Err(ToolError(why)))) => Err(cut::text(&why, ERROR_BYTES_MAX)),
            Ok(Err(_panic)) => Err(format!("{} broke down on these arguments", call.tool)),
            Err(_elapsed) => Err(format!("{} took longer than {} s and was stopped", call.tool, TOOL_TIMEOUT.as_secs())),
        }
    }
}

/// Longest error of a tool, in bytes.
const ERROR_BYTES_MAX: usize = 2 << 10;
