//! Arguments against a tool's JSON Schema, with complaints that a model can act on.

use common::limits::TOOL_COMPLAINTS_MAX;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, types::JsonType};
use serde_json::Value;

use super::cut;

/// A compiled schema. References to files or URLs are never followed: the features for it are off.
pub(super) struct Validator {
    compiled: jsonschema::Validator,
    /// The names of the properties, for complaints.
    properties: String,
}

impl Validator {
    pub(super) fn new(schema: &Value) -> Result<Self, String> {
        let compiled = jsonschema::validator_for(schema).map_err(|e| e.to_string())?;
        let names = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let properties = names.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        Ok(Self { compiled, properties })
    }

    /// Complains about at most [`TOOL_COMPLAINTS_MAX`] things, in one text.
    pub(super) fn check(&self, arguments: &Value) -> Result<(), String> {
        let mut errors = self.compiled.iter_errors(arguments);
        let complaints: Vec<String> = errors.by_ref().take(TOOL_COMPLAINTS_MAX).map(|error| self.sentence(&error)).collect();
        if complaints.is_empty() {
            return Ok(());
        }
        let more = if errors.next().is_some() { "; and more" } else { "" };
        Err(complaints.join("; ") + more)
    }

    /// Where it is wrong, what is wrong, and what would be right.
    fn sentence(&self, error: &ValidationError<'_>) -> String {
        let path = error.instance_path().to_string();
        let at = if path.is_empty() { "the arguments".to_owned() } else { cut::quoted(path.trim_start_matches('/')) };
        let got = cut::quoted_json(error.instance());
        #[expect(clippy::wildcard_enum_match_arm, reason = "the schema language has more keywords than our tools use")]
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let names: Vec<String> = unexpected.iter().take(TOOL_COMPLAINTS_MAX).map(|name| cut::quoted(name)).collect();
                format!("unknown property {}, the properties are: {}", names.join(", "), self.properties)
            }
            ValidationErrorKind::Required { property } => format!("the property {property} is missing"),
            ValidationErrorKind::Type { kind } => format!("{at} must be {}, not {got}", type_names(kind)),
            ValidationErrorKind::Minimum { limit } => format!("{at} must be at least {limit}, not {got}"),
            ValidationErrorKind::Maximum { limit } => format!("{at} must be at most {limit}, not {got}"),
            ValidationErrorKind::MinLength { .. } => format!("{at} must not be empty"),
            ValidationErrorKind::Enum { options } => format!("{at} must be one of {options}, not {got}"),
            _ => format!("{at}: {}", cut::text(&error.masked().to_string(), 200)),
        }
    }
}

fn type_names(kind: &TypeKind) -> String {
    let article = |kind: JsonType| match kind {
        JsonType::Array => "a list",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "null",
        JsonType::Number => "a number",
        JsonType::Object => "an object",
        JsonType::String => "a text",
    };
    match kind {
        TypeKind::Single(kind) => article(*kind).to_owned(),
        TypeKind::Multiple(kinds) => {
            // Null last: it is what one may also say.
            let (null, others): (Vec<_>, Vec<_>) = kinds.iter().partition(|kind| *kind == JsonType::Null);
            others.into_iter().chain(null).map(article).collect::<Vec<_>>().join(" or ")
        }
    }
}
