//! What operators deploy: manifests for Kubernetes, alert rules and the dashboard are held against the settings, queues and metrics that
//! the code has, and against the published schemas.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

mod alerts;
mod dashboard;
mod exposed;
mod expression;
mod kustomize;
mod manifests;

/// A file of the repository.
fn path(name: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn text(name: impl AsRef<Path>) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A YAML (or JSON) file.
fn read<T: DeserializeOwned>(name: impl AsRef<Path>) -> T {
    let name = name.as_ref();
    serde_saphyr::from_str(&text(name)).unwrap_or_else(|error| panic!("{}: {error}", name.display()))
}

/// Every document of a YAML file.
fn documents(name: impl AsRef<Path>) -> Vec<Value> {
    let name = name.as_ref();
    serde_saphyr::from_multiple(&text(name)).unwrap_or_else(|error| panic!("{}: {error}", name.display()))
}

/// The text at a JSON pointer.
fn at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer} of {value}"))
}
