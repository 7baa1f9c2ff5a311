//! What models and validators know of a tool: its name, what it does, and the JSON schema of its arguments.

use serde_json::Value;

/// A tool as a model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Its name: `[a-z0-9_]+`.
    pub name: &'static str,
    /// What it does and what it returns, in one or two sentences for a model.
    pub description: &'static str,
    /// The JSON Schema of its arguments: an object with `additionalProperties: false`.
    pub parameters: Value,
}

/// A call of a tool that somebody asks for; nothing about it is checked yet.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ToolCall {
    /// The name of the tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
}
