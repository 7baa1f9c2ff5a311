//! The Grafana dashboard: what it asks for exists, and it is laid out as a dashboard must be.

use std::collections::BTreeSet;

use serde_json::Value;

use super::exposed::Exposed;
use super::{alerts, at, read};

const PROVISIONED: &str = "deploy/grafana/provisioning";
const DASHBOARD: &str = "deploy/grafana/provisioning/dashboards/planrelay.json";

/// What Grafana puts in place of its variables, for Prometheus' own parser.
const VARIABLES: [(&str, &str); 2] = [("$__rate_interval", "5m"), ("$__range", "1h")];

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().map(Vec::as_slice).expect("panels")
}

/// Every expression of the dashboard, with where it stands.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((at(panel, "/title").to_owned(), at(target, "/expr").to_owned()));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().into_iter().flatten() {
        found.extend(annotation["expr"].as_str().map(|expr| (at(annotation, "/name").to_owned(), expr.to_owned())));
    }
    let filled = |expression: &str| VARIABLES.iter().fold(expression.to_owned(), |text, (from, to)| text.replace(from, to));
    found.into_iter().map(|(place, expression)| (place, filled(&expression))).collect()
}

#[test]
fn every_panel_asks_for_what_there_is() {
    let dashboard: Value = read(DASHBOARD);
    let exposed = Exposed::all();
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 40, "{} expressions", expressions.len());
    for (place, expression) in &expressions {
        assert_eq!(exposed.check(expression), Ok(()), "{place}: {expression}");
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if variable["type"] == "query" {
            let query = at(variable, "/query/query");
            let (metric, label) = query.strip_prefix("label_values(").expect("label_values").rsplit_once(", ").expect("a label");
            let asked = format!("count by ({}) ({metric})", label.trim_end_matches(')'));
            assert_eq!(exposed.check(&asked), Ok(()), "{query}");
        }
    }
    alerts::check_syntax(&expressions);
}

/// Only variables that are there, and Grafana's own.
#[test]
fn every_variable_is_declared() {
    let dashboard: Value = read(DASHBOARD);
    let declared: BTreeSet<&str> =
        dashboard["templating"]["list"].as_array().expect("variables").iter().map(|variable| at(variable, "/name")).collect();
    let text = dashboard.to_string();
    let used: BTreeSet<&str> = text
        .split('$')
        .skip(1)
        .map(|rest| rest.trim_start_matches('{'))
        .map(|rest| &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())])
        .filter(|name| !name.starts_with("__") && !name.chars().all(|c| c.is_ascii_digit()))
        .collect();
    assert_eq!(used, declared);
}

#[test]
fn the_layout_fits_the_grid() {
    let dashboard: Value = read(DASHBOARD);
    let number = |panel: &Value, pointer: &str| panel.pointer(pointer).and_then(Value::as_u64).expect("a number");
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        assert!(ids.insert(number(panel, "/id")), "two panels with the id {}", panel["id"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| number(panel, &format!("/gridPos/{side}")));
        assert!(w > 0 && h > 0 && x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            assert!(cells.insert(cell), "{} lies upon another panel", panel["title"]);
        }
        assert!(["row", "stat", "timeseries", "state-timeline"].contains(&at(panel, "/type")), "{}", panel["title"]);
        if panel["type"] != "row" {
            assert_eq!(at(panel, "/datasource/uid"), "${datasource}", "{}", panel["title"]);
        }
    }
}

/// The data source that the dashboard begins with is the provisioned one, and Prometheus' and Grafana's files name each other.
#[test]
fn what_is_provisioned_fits_together() {
    let dashboard: Value = read(DASHBOARD);
    let source: Value = read(format!("{PROVISIONED}/datasources/prometheus.yaml"));
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let variable = variables.iter().find(|variable| variable["name"] == "datasource").expect("a variable for the data source");
    assert_eq!(at(variable, "/current/value"), at(&source, "/datasources/0/uid"));
    assert_eq!(at(&source, "/datasources/0/url"), "http://prometheus:9090");
    // The folder is mounted as /etc/grafana/provisioning.
    let provider: Value = read(format!("{PROVISIONED}/dashboards/planrelay.yaml"));
    assert_eq!(at(&provider, "/providers/0/options/path"), "/etc/grafana/provisioning/dashboards");
    let prometheus: Value = read("deploy/prometheus/prometheus.yml");
    assert_eq!(prometheus["rule_files"], serde_json::json!(["rules.yaml"]));
}
