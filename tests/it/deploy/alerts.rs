//! The alert rules: what they ask for exists, Prometheus' own parser takes them, and each fires when it must and not otherwise.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use self::cases::{CASES, Case};
use super::exposed::Exposed;
use super::{path, read, text};

mod cases;

const RULES: &str = "deploy/prometheus/rules.yaml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    r#for: String,
    labels: Labels,
    annotations: Annotations,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    severity: Severity,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Critical,
    Warning,
}

/// What is told to whoever is woken up: what it is, what it means, what to do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotations {
    summary: String,
    description: String,
    action: String,
}

fn rules() -> Vec<Rule> {
    read::<Rules>(RULES).groups.into_iter().flat_map(|group| group.rules).collect()
}

#[test]
fn every_rule_asks_for_what_there_is() {
    let exposed = Exposed::all();
    let rules = rules();
    assert!(rules.len() > 15, "{} rules", rules.len());
    for rule in &rules {
        assert_eq!(exposed.check(&rule.expr), Ok(()), "{}: {}", rule.alert, rule.expr);
    }
    let names: BTreeSet<&str> = rules.iter().map(|rule| rule.alert.as_str()).collect();
    assert_eq!(names.len(), rules.len(), "two rules of one name");
    assert!(names.iter().all(|name| name.starts_with("Planrelay")), "{names:?}: the dashboard looks for them by name");
}

/// Every label in a text is one that the alert has, and operators can read up on each.
#[test]
fn every_rule_says_what_to_do() {
    let guides = std::fs::read_dir(path("deploy")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let guide: String = guides.filter(|name| name.ends_with(".md")).map(|name| text(format!("deploy/{name}"))).collect();
    for Rule { alert, expr, r#for, labels, annotations } in rules() {
        let Annotations { summary, description, action } = &annotations;
        for text in [summary, description, action] {
            assert!(text.len() > 15, "{alert}: {text}");
            for label in text.split("$labels.").skip(1) {
                let end = label.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(label.len());
                assert!(expr.contains(&label[..end]), "{alert} never has the label {}", &label[..end]);
            }
        }
        assert!(r#for.ends_with(['m', 'h']), "{alert}: {for}", for = r#for);
        let severity = format!("{:?}", labels.severity).to_lowercase();
        assert!(guide.contains(&format!("`{alert}`, {severity} |")), "{alert} is not explained, or not as {severity}");
    }
}

#[test]
fn prometheus_takes_rules_and_configuration() {
    promtool(&["check", "rules", "--lint-fatal", &file(RULES)]);
    promtool(&["check", "config", "--lint-fatal", &file("deploy/prometheus/prometheus.yml")]);
}

/// Asks Prometheus' own parser about expressions: `(where it stands, expression)`.
pub(super) fn check_syntax(expressions: &[(String, String)]) {
    let rule = |(number, (_, expr)): (usize, &(String, String))| json!({"record": format!("expression:{number}"), "expr": expr});
    let rules: Vec<Value> = expressions.iter().enumerate().map(rule).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, json!({"groups": [{"name": "expressions", "rules": rules}]}).to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}

fn file(name: &str) -> String {
    path(name).canonicalize().unwrap().to_str().unwrap().to_owned()
}

/// Runs promtool, which must be content.
fn promtool(arguments: &[&str]) {
    // Where tests/run puts it, or wherever there is one.
    let places = std::env::var_os("PATH").unwrap_or_default();
    let places = [path("target/tools/usr/bin")].into_iter().chain(std::env::split_paths(&places)).collect::<Vec<PathBuf>>();
    let program = places.into_iter().map(|place| place.join("promtool")).find(|program| program.is_file());
    let program = program.expect("promtool is missing (Debian: package prometheus): tests/run installs what the tests need");
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "promtool {}:\n{said}", arguments.join(" "));
}

#[test]
fn every_alert_fires_when_it_must() {
    let shown: BTreeSet<String> = CASES.iter().filter(|case| !case.firing.is_empty()).map(|case| case.alert.to_owned()).collect();
    assert_eq!(
        shown,
        rules().into_iter().map(|rule| rule.alert).collect(),
        "an alert without a case, or a case without an alert"
    );
    let tests: Vec<Value> = CASES.iter().map(as_test).collect();
    let folder = tempfile::tempdir().unwrap();
    let tests_file = folder.path().join("tests.yaml");
    let text = json!({"rule_files": [file(RULES)], "evaluation_interval": "1m", "tests": tests}).to_string();
    std::fs::write(&tests_file, text).unwrap();
    promtool(&["test", "rules", tests_file.to_str().unwrap()]);
}

/// A case as promtool wants it.
fn as_test(case: &Case) -> Value {
    assert!(!case.silent.is_empty(), "{}: an alert that always fires", case.alert);
    let series: Vec<Value> = case.series.iter().map(|(series, values)| json!({"series": series, "values": values})).collect();
    // The labels that the alert gives itself are taken away; those that are left say for what it fires.
    let expr =
        format!(r#"sum without (alertname, alertstate, severity) (ALERTS{{alertname="{}",alertstate="firing"}})"#, case.alert);
    let expected = |labels: &[&str]| labels.iter().map(|labels| json!({"labels": labels, "value": 1})).collect::<Vec<Value>>();
    let asked =
        |minute: &u32, labels: &[&str]| json!({"expr": expr, "eval_time": format!("{minute}m"), "exp_samples": expected(labels)});
    let silent = case.silent.iter().map(|minute| asked(minute, &[]));
    let firing = case.firing.iter().map(|minute| asked(minute, case.labels));
    json!({"interval": "1m", "input_series": series, "promql_expr_test": silent.chain(firing).collect::<Vec<Value>>()})
}
