//! `planrelay schema`: the shapes on the wire, for those who write an executor or a submitter in another language.

use clap::ValueEnum;
use common::message::{CompletionMessage, ControlMessage, ControlReply, ObjectiveMessage, ReportMessage, StepMessage};
use common::run::RunDocument;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

use crate::args::{Globals, SchemaArgs, SchemaName};
use crate::exit::{Exit, Failure};
use crate::output;

pub(crate) fn run(args: &SchemaArgs, globals: &Globals) -> Result<Exit, Failure> {
    match args.name {
        Some(name) => output::json(&schema(name), globals.output)?,
        None => output::json(&all(), globals.output)?,
    }
    Ok(Exit::Ok)
}

fn schema(name: SchemaName) -> Schema {
    match name {
        SchemaName::Objective => accepted::<ObjectiveMessage>(),
        SchemaName::Step => accepted::<StepMessage>(),
        SchemaName::Report => accepted::<ReportMessage>(),
        SchemaName::Completion => accepted::<CompletionMessage>(),
        SchemaName::Control => accepted::<ControlMessage>(),
        SchemaName::ControlReply => written::<ControlReply>(),
        SchemaName::Result => written::<RunDocument>(),
    }
}

/// The schema of what a service takes: fields with a default may be absent.
fn accepted<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_deserialize().into_generator().into_root_schema_for::<T>()
}

/// The schema of what a service writes: every field is there.
fn written<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// Every schema, by name.
fn all() -> Map<String, Value> {
    SchemaName::value_variants()
        .iter()
        .filter_map(|name| Some((name.to_possible_value()?.get_name().to_owned(), schema(*name).to_value())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(name: SchemaName) -> Vec<String> {
        let fields = schema(name).to_value()["required"].as_array().cloned().unwrap_or_default();
        fields.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    #[test]
    fn an_objective_needs_nothing_but_itself() {
        assert_eq!(required(SchemaName::Objective), ["objective"]);
    }

    #[test]
    fn a_result_has_every_field() {
        let fields = schema(SchemaName::Result).to_value()["properties"].as_object().cloned().unwrap_or_default();
        assert_eq!(required(SchemaName::Result).len(), fields.len());
        assert!(fields.contains_key("final_response"));
    }

    #[test]
    fn all_schemas_stand_by_their_names() {
        let names: Vec<String> = all().keys().cloned().collect();
        assert_eq!(names, ["completion", "control", "control-reply", "objective", "report", "result", "step"]);
        assert!(all().values().all(|schema| schema["$schema"].is_string()));
    }
}
