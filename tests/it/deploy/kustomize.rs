//! As much of kustomize as `deploy/k8s` uses; whatever else a kustomization says is an error here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{at, documents, path, read, text};

/// A `kustomization.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Kustomization {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    #[serde(default)]
    resources: Vec<PathBuf>,
    #[serde(default)]
    components: Vec<PathBuf>,
    #[serde(default)]
    config_map_generator: Vec<Generator>,
    #[serde(default)]
    images: Vec<Image>,
    #[serde(default)]
    patches: Vec<Patch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Generator {
    name: String,
    #[serde(default)]
    behavior: Behavior,
    #[serde(default)]
    envs: Vec<PathBuf>,
    #[serde(default)]
    literals: Vec<String>,
}

#[derive(Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Behavior {
    #[default]
    Create,
    Merge,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Image {
    name: String,
    new_name: String,
    new_tag: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    target: Target,
    patch: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, tag = "op", rename_all = "lowercase")]
enum Operation {
    Remove { path: String },
}

/// The objects that `kubectl kustomize FOLDER` prints, but for the hashes at the ends of generated names.
pub(super) fn render(folder: &str) -> Vec<Value> {
    let mut objects = Vec::new();
    build(Path::new(folder), "Kustomization", &mut objects);
    assert!(!objects.is_empty(), "{folder}");
    objects
}

/// The objects of one kind.
pub(super) fn of_kind<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The object of that kind and name.
pub(super) fn named<'o>(objects: &'o [Value], kind: &str, name: &str) -> &'o Value {
    let found = of_kind(objects, kind).into_iter().find(|object| object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

fn build(folder: &Path, kind: &str, objects: &mut Vec<Value>) {
    let said: Kustomization = read(folder.join("kustomization.yaml"));
    let version = if kind == "Component" { "v1alpha1" } else { "v1beta1" };
    assert_eq!(
        (said.kind.as_str(), said.api_version),
        (kind, format!("kustomize.config.k8s.io/{version}")),
        "{}",
        folder.display()
    );
    for resource in &said.resources {
        let resource = folder.join(resource);
        if path(&resource).is_dir() {
            build(&resource, "Kustomization", objects);
        } else {
            objects.extend(documents(resource));
        }
    }
    for component in &said.components {
        build(&folder.join(component), "Component", objects);
    }
    for generator in &said.config_map_generator {
        generate(folder, generator, objects);
    }
    for patch in &said.patches {
        apply(patch, objects);
    }
    for object in objects {
        if let Some(namespace) = &said.namespace {
            place(object, namespace);
        }
        for image in &said.images {
            rename(object, image);
        }
    }
}

fn generate(folder: &Path, generator: &Generator, objects: &mut Vec<Value>) {
    let files: Vec<String> = generator.envs.iter().map(|file| text(folder.join(file))).collect();
    let lines = files.iter().flat_map(|file| file.lines()).chain(generator.literals.iter().map(String::as_str));
    let data: BTreeMap<&str, &str> = lines.map(|line| line.split_once('=').expect("NAME=value")).collect();
    match generator.behavior {
        Behavior::Create => objects.push(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator.name}, "data": data,
        })),
        Behavior::Merge => {
            let mut found = objects.iter_mut().filter(|o| o["kind"] == "ConfigMap" && o["metadata"]["name"] == *generator.name);
            let merged = found.next().expect("something to merge with");
            for (name, value) in data {
                merged["data"][name] = json!(value);
            }
        }
    }
}

fn apply(patch: &Patch, objects: &mut [Value]) {
    let target = objects.iter_mut().find(|o| o["kind"] == patch.target.kind && o["metadata"]["name"] == patch.target.name);
    let target = target.expect("the target of a patch");
    let operations: Vec<Operation> = serde_saphyr::from_str(&patch.patch).expect("a JSON patch");
    for Operation::Remove { path } in operations {
        let (parent, field) = path.rsplit_once('/').expect("a pointer");
        let parent = target.pointer_mut(parent).and_then(Value::as_object_mut).expect("the place of a patch");
        parent.remove(field).expect("what is removed is there");
    }
}

fn place(object: &mut Value, namespace: &str) {
    let field = if object["kind"] == "Namespace" { "name" } else { "namespace" };
    object["metadata"][field] = json!(namespace);
}

fn rename(object: &mut Value, image: &Image) {
    let containers = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        let (name, _tag) = at(container, "/image").rsplit_once(':').expect("an image with a tag");
        if name == image.name {
            container["image"] = json!(format!("{}:{}", image.new_name, image.new_tag));
        }
    }
}
