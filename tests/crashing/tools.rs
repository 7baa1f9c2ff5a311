//! The built-in tools, and one with an effect: a line in a file, which cannot be taken back.

use std::io::Write;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use common::config::ToolConfig;
use common::tool::{self, ToolCall, ToolSpec};
use executor::tool::{CallContext, Tool, ToolError, Toolbox};
use serde_json::{Value, json};
use support::points::{EFFECT_TOOL, EFFECTS, Place};

use crate::trap::Trap;

/// How long it takes to repeat an effect.
const REPEATING: Duration = Duration::from_secs(1);

type Calling<'a> = Pin<Box<dyn Future<Output = Result<Value, ToolError>> + Send + 'a>>;

/// Every built-in tool, the one with an effect in place of the one of that name.
pub(crate) fn toolbox(config: &ToolConfig, trap: Option<Arc<Trap>>) -> anyhow::Result<Toolbox> {
    let builtin = Toolbox::builtin(config)?;
    let file = std::env::var_os(EFFECTS).map(PathBuf::from).ok_or_else(|| anyhow::anyhow!("{EFFECTS} is not set"))?;
    let mut tools: Vec<Box<dyn Tool>> = vec![Box::new(Effect { file, trap })];
    for spec in builtin.specs().into_iter().filter(|spec| spec.name != EFFECT_TOOL) {
        tools.push(Box::new(Builtin { spec, toolbox: builtin.clone() }));
    }
    Ok(Toolbox::new(tools)?)
}

/// A tool of another toolbox.
struct Builtin {
    spec: ToolSpec,
    toolbox: Toolbox,
}

impl Tool for Builtin {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn call<'a>(&'a self, arguments: Value, ctx: &'a CallContext) -> Calling<'a> {
        let call = ToolCall { tool: self.spec.name.to_owned(), arguments };
        Box::pin(async move { self.toolbox.call(&call, ctx).await.output.map_err(ToolError) })
    }
}

/// Leaves its idempotency key in a file, as often as it is called.
struct Effect {
    file: PathBuf,
    trap: Option<Arc<Trap>>,
}

impl Tool for Effect {
    fn spec(&self) -> ToolSpec {
        debug_assert_eq!(tool::search().name, EFFECT_TOOL);
        ToolSpec { side_effects: true, ..tool::search() }
    }

    fn call<'a>(&'a self, _arguments: Value, ctx: &'a CallContext) -> Calling<'a> {
        Box::pin(async move {
            if let Some(trap) = self.trap.as_ref().filter(|trap| trap.at(Place::BeforeEffect)) {
                trap.reached().await;
            }
            // Whoever repeats an effect takes its time: a zombie is back before its heir is done.
            if std::fs::read_to_string(&self.file).is_ok_and(|effects| effects.contains(&ctx.idempotency_key)) {
                tokio::time::sleep(REPEATING).await;
            }
            let mut file = std::fs::File::options().create(true).append(true).open(&self.file).map_err(broken)?;
            file.write_all(format!("{}\n", ctx.idempotency_key).as_bytes()).map_err(broken)?;
            if let Some(trap) = &self.trap {
                trap.after_effect().await;
            }
            Ok(json!("it is done"))
        })
    }
}

fn broken(error: std::io::Error) -> ToolError {
    ToolError(error.to_string())
}
