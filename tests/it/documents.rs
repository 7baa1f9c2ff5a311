//! The documents say what the code does.

use std::path::PathBuf;

fn text(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_readme_lists_every_setting() {
    let table = common::config::settings_markdown();
    assert!(text("README.md").contains(table.trim()), "put this into README.md:\n{table}");
}

#[test]
fn the_readme_lists_every_route_of_the_api() {
    let (readme, code) = (text("README.md"), text("console/src/serve/api.rs"));
    let routes: Vec<&str> = code.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(routes.len() > 5, "{routes:?}");
    for route in routes {
        let shown = format!(" {}`", route.replace("{run}", "ID").replace("{command}", "COMMAND"));
        assert!(readme.contains(&shown), "README.md does not list {route}");
    }
}

/// But for the prefix: the permissions of RabbitMQ's user name it.
#[test]
fn compose_hands_every_setting_on() {
    let (table, compose) = (common::config::settings_markdown(), text("deploy/compose.yaml"));
    let variables: Vec<&str> = table.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    assert!(variables.len() > 20, "{variables:?}");
    for variable in variables.into_iter().filter(|variable| *variable != "PLANRELAY_PREFIX") {
        let key = format!("{variable}:");
        assert!(
            compose.lines().any(|line| line.trim_start().starts_with(&key)),
            "deploy/compose.yaml does not hand {variable} on"
        );
    }
}

/// Each third-party client is named in its own place and nowhere else.
#[test]
fn clients_stay_behind_their_seams() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["common", "planner", "executor", "summarizer", "console"] {
        sources(&root.join(folder).join("src"), &mut files);
    }
    assert!(files.len() > 50, "{} files", files.len());
    for (client, home) in [("lapin::", "broker/rabbit"), ("redis::", "store/redis"), ("async_openai::", "llm/openai")] {
        for file in files.iter().filter(|file| !file.to_string_lossy().contains(home)) {
            let code = std::fs::read_to_string(file).unwrap();
            let uses = |line: &&str| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains(&format!("use {client}"))
                    || code.contains(&format!(" {client}Client"))
                    || code.contains(&format!("use deadpool_{client}"))
            };
            assert_eq!(code.lines().find(uses), None, "{}", file.display());
        }
    }
}

/// Traces have their place as well, and their names a place in it.
#[test]
fn telemetry_stays_in_its_place() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["common", "planner", "executor", "summarizer", "console"] {
        sources(&root.join(folder).join("src"), &mut files);
    }
    for (word, home) in [
        ("opentelemetry", "common/src/telemetry"),
        ("tracing_subscriber", "common/src/telemetry"),
        ("\"gen_ai.", "common/src/telemetry/names.rs"),
        ("\"messaging.", "common/src/telemetry/names.rs"),
        ("\"planrelay.run.", "common/src/telemetry/names.rs"),
        ("\"planrelay.step.", "common/src/telemetry/names.rs"),
    ] {
        let (mut at_home, mut elsewhere) = (0, Vec::new());
        for file in &files {
            let code = std::fs::read_to_string(file).unwrap();
            let uses = code.lines().filter(|line| line.split("//").next().unwrap_or_default().contains(word)).count();
            if file.to_string_lossy().contains(home) {
                at_home += uses;
            } else if uses > 0 {
                elsewhere.push(file);
            }
        }
        assert!(at_home > 0, "nothing says {word} in {home} any more");
        assert!(elsewhere.is_empty(), "{word} belongs into {home}, and stands in {elsewhere:?}");
    }
}

/// The three services never depend on each other, and common on none of them.
#[test]
fn dependencies_point_one_way() {
    let services = ["planner", "executor", "summarizer"];
    for package in ["common", "planner", "executor", "summarizer"] {
        let manifest = text(&format!("{package}/Cargo.toml"));
        for other in services.iter().filter(|service| **service != package).chain(&["planrelay"]) {
            assert!(!manifest.lines().any(|line| line.starts_with(&format!("{other}."))), "{package} depends on {other}");
        }
    }
}

#[test]
fn the_main_files_only_wire() {
    for package in ["planner", "executor", "summarizer", "console"] {
        let lines = text(&format!("{package}/src/main.rs")).lines().count();
        assert!(lines <= 35, "{package}/src/main.rs has {lines} lines");
    }
}

fn sources(folder: &std::path::Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
