//! The alert rules: what they ask for exists, Prometheus' own parser takes them, and each fires when it must and not otherwise.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use super::exposed::Exposed;
use super::{path, read, text};

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
                assert!(expr.contains(&label[..end]), "{alert}: {:?} never has the label {}", labels.severity, &label[..end]);
            }
        }
        assert!(r#for.ends_with(['m', 'h']), "{alert}: {for}", for = r#for);
        assert!(guide.contains(&format!("`{alert}`")), "{alert} is not explained");
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

/// What one alert makes of some series.
struct Case {
    alert: &'static str,
    /// Series and their samples, one a minute: `0+1x60` grows by 1 sixty times, `0x9` stays for nine more, `_x9` is nine missing ones.
    series: &'static [(&'static str, &'static str)],
    /// Minutes in which it does not fire.
    silent: &'static [u32],
    /// Minutes in which it does.
    firing: &'static [u32],
    /// For what it fires then.
    labels: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        alert: "PlanrelayRunsStuck",
        series: &[("planrelay_stuck_runs", "0x4 2x20 0x20")],
        silent: &[4, 9, 30],
        firing: &[12, 24],
        labels: &["{}"],
    },
    Case {
        alert: "PlanrelayRunsFailing",
        series: &[
            (r#"planrelay_runs_ended_total{status="failed"}"#, "0+1x60"),
            (r#"planrelay_runs_ended_total{status="succeeded"}"#, "0+3x60"),
        ],
        silent: &[2],
        firing: &[20, 50],
        labels: &["{}"],
    },
    // One in ten fails, and cancelled runs do not count.
    Case {
        alert: "PlanrelayRunsFailing",
        series: &[
            (r#"planrelay_runs_ended_total{status="failed"}"#, "0+1x60"),
            (r#"planrelay_runs_ended_total{status="succeeded"}"#, "0+9x60"),
            (r#"planrelay_runs_ended_total{status="cancelled"}"#, "0+50x60"),
        ],
        silent: &[10, 30, 50],
        firing: &[],
        labels: &[],
    },
    // Every one fails, but they are two.
    Case {
        alert: "PlanrelayRunsFailing",
        series: &[(r#"planrelay_runs_ended_total{status="failed"}"#, "0x9 1x9 2x40")],
        silent: &[15, 30, 50],
        firing: &[],
        labels: &[],
    },
    Case {
        alert: "PlanrelayRunsPartial",
        series: &[
            (r#"planrelay_runs_ended_total{status="partial"}"#, "0+2x100"),
            (r#"planrelay_runs_ended_total{status="succeeded"}"#, "0+1x100"),
        ],
        silent: &[2],
        firing: &[30, 90],
        labels: &["{}"],
    },
    Case {
        alert: "PlanrelayRunsPartial",
        series: &[
            (r#"planrelay_runs_ended_total{status="partial"}"#, "0+1x100"),
            (r#"planrelay_runs_ended_total{status="succeeded"}"#, "0+2x100"),
        ],
        silent: &[30, 90],
        firing: &[],
        labels: &[],
    },
    Case {
        alert: "PlanrelayStepsFailing",
        series: &[
            (r#"planrelay_steps_total{outcome="failed",tool="search"}"#, "0+1x60"),
            (r#"planrelay_steps_total{outcome="succeeded",tool="search"}"#, "0+1x60"),
            (r#"planrelay_steps_total{outcome="failed",tool="analyze"}"#, "0+1x60"),
            (r#"planrelay_steps_total{outcome="succeeded",tool="analyze"}"#, "0+9x60"),
        ],
        silent: &[3],
        firing: &[20, 50],
        labels: &[r#"{tool="search"}"#],
    },
    // A series that begins with the event itself.
    Case {
        alert: "PlanrelayStepsPoisoned",
        series: &[
            (r#"planrelay_claims_total{slot="step",answer="poisoned",instance="a"}"#, "_x10 1x60"),
            (r#"planrelay_claims_total{slot="step",answer="execute",instance="a"}"#, "0+5x70"),
        ],
        silent: &[5, 30, 60],
        firing: &[15, 20],
        labels: &[r#"{slot="step"}"#],
    },
    Case {
        alert: "PlanrelayBacklogOld",
        series: &[("planrelay_backlog_age_seconds", "0x9 130+60x20 0x20")],
        silent: &[9, 13, 40],
        firing: &[17, 28],
        labels: &["{}"],
    },
    Case {
        alert: "PlanrelayNobodyConsumes",
        series: &[
            (r#"planrelay_queue_consumers{queue="steps"}"#, "2x9 0x20"),
            (r#"planrelay_queue_messages{queue="steps"}"#, "5x30"),
            (r#"planrelay_queue_consumers{queue="reports"}"#, "0x30"),
            (r#"planrelay_queue_messages{queue="reports"}"#, "0x30"),
        ],
        silent: &[9, 11],
        firing: &[14, 25],
        labels: &[r#"{queue="steps"}"#],
    },
    Case {
        alert: "PlanrelayNoPlannerPolls",
        series: &[("planrelay_overdue_seconds", "0x4 30 70+60x20")],
        silent: &[4, 7],
        firing: &[10, 20],
        labels: &["{}"],
    },
    // As long as an executor may take to stop, it is silent.
    Case {
        alert: "PlanrelayNotConsuming",
        series: &[
            (r#"planrelay_consuming{job="planrelay-executor",instance="a",queue="steps"}"#, "1x9 0x40"),
            (r#"planrelay_consuming{job="planrelay-executor",instance="b",queue="steps"}"#, "1x49"),
        ],
        silent: &[9, 21],
        firing: &[27, 40],
        labels: &[r#"{job="planrelay-executor",instance="a",queue="steps"}"#],
    },
    Case {
        alert: "PlanrelayDeadLetters",
        series: &[
            (r#"planrelay_dead_letters_total{queue="objectives",instance="a"}"#, "0x9 1x60"),
            (r#"planrelay_dead_letters_total{queue="controls",instance="a"}"#, "7x70"),
        ],
        // A counter that stands at 7 since before the first sample is news only to a Prometheus that has just begun.
        silent: &[30, 40, 60],
        firing: &[16, 20],
        labels: &[r#"{queue="objectives"}"#],
    },
    // A process that has just begun, and its first event is a dead letter.
    Case {
        alert: "PlanrelayDeadLetters",
        series: &[(r#"planrelay_dead_letters_total{queue="objectives",instance="new"}"#, "_x20 1x60")],
        silent: &[10, 40],
        firing: &[22, 30],
        labels: &[r#"{queue="objectives"}"#],
    },
    Case {
        alert: "PlanrelayModelFailing",
        series: &[
            (r#"planrelay_model_requests_total{model="m",outcome="transient"}"#, "0+1x60"),
            (r#"planrelay_model_requests_total{model="m",outcome="ok"}"#, "0+1x60"),
            (r#"planrelay_model_requests_total{model="n",outcome="exhausted"}"#, "0+9x60"),
            (r#"planrelay_model_requests_total{model="n",outcome="rate_limited"}"#, "0+9x60"),
            (r#"planrelay_model_requests_total{model="n",outcome="permanent"}"#, "0+1x60"),
        ],
        silent: &[3],
        firing: &[20, 50],
        labels: &[r#"{model="m"}"#],
    },
    Case {
        alert: "PlanrelayModelRateLimited",
        series: &[
            (r#"planrelay_model_requests_total{model="m",outcome="rate_limited"}"#, "0+1x60"),
            (r#"planrelay_model_requests_total{model="m",outcome="ok"}"#, "0+1x60"),
            (r#"planrelay_model_requests_total{model="n",outcome="rate_limited"}"#, "0+1x60"),
            (r#"planrelay_model_requests_total{model="n",outcome="ok"}"#, "0+9x60"),
        ],
        silent: &[10],
        firing: &[30, 50],
        labels: &[r#"{model="m"}"#],
    },
    Case {
        alert: "PlanrelayModelSlow",
        series: &[
            (r#"planrelay_model_duration_seconds_bucket{model="slow",le="60.0"}"#, "0+8x60"),
            (r#"planrelay_model_duration_seconds_bucket{model="slow",le="120.0"}"#, "0+10x60"),
            (r#"planrelay_model_duration_seconds_bucket{model="slow",le="+Inf"}"#, "0+10x60"),
            (r#"planrelay_model_duration_seconds_bucket{model="fast",le="60.0"}"#, "0+99x60"),
            (r#"planrelay_model_duration_seconds_bucket{model="fast",le="120.0"}"#, "0+100x60"),
            (r#"planrelay_model_duration_seconds_bucket{model="fast",le="+Inf"}"#, "0+100x60"),
        ],
        silent: &[10],
        firing: &[30, 50],
        labels: &[r#"{model="slow"}"#],
    },
    // One replica of two does not answer; of the executors none does, and nobody knows a console.
    Case {
        alert: "PlanrelayServiceDown",
        series: &[
            (r#"up{job="planrelay-planner",instance="a"}"#, "1x40"),
            (r#"up{job="planrelay-planner",instance="b"}"#, "0x40"),
            (r#"up{job="planrelay-executor",instance="c"}"#, "1x9 0x30"),
            (r#"up{job="planrelay-summarizer",instance="d"}"#, "1x40"),
        ],
        silent: &[1],
        firing: &[14, 30],
        labels: &[r#"{job="planrelay-executor"}"#, r#"{job="planrelay-console"}"#],
    },
    Case {
        alert: "PlanrelayCensusOld",
        series: &[("planrelay_census_age_seconds", "5x9 130+60x20 5x20")],
        silent: &[9, 13, 40],
        firing: &[17, 25],
        labels: &["{}"],
    },
    // A console that has never been able to look.
    Case {
        alert: "PlanrelayCensusOld",
        series: &[("planrelay_stuck_runs", "0x40")],
        silent: &[3],
        firing: &[10, 30],
        labels: &["{}"],
    },
    Case {
        alert: "PlanrelayReconnects",
        series: &[
            (r#"planrelay_reconnects_total{job="planrelay-planner",instance="a",server="broker"}"#, "0x9 0+1x20 20x30"),
            (r#"planrelay_reconnects_total{job="planrelay-planner",instance="b",server="broker"}"#, "0x20 1x40"),
        ],
        silent: &[9, 50],
        firing: &[20, 30],
        labels: &[r#"{job="planrelay-planner",instance="a",server="broker"}"#],
    },
    Case {
        alert: "PlanrelayPublishRefused",
        series: &[("planrelay_publish_retries_total", "0x9 0+60x20 1200x30")],
        silent: &[9, 12, 50],
        firing: &[20, 30],
        labels: &["{}"],
    },
    Case {
        alert: "PlanrelayBrokerAlarm",
        series: &[
            (r#"rabbitmq_alarms_memory_used_watermark{instance="a"}"#, "0x40"),
            (r#"rabbitmq_alarms_free_disk_space_watermark{instance="a"}"#, "0x9 1x20 0x20"),
            (r#"rabbitmq_alarms_memory_used_watermark{instance="b"}"#, "0x40"),
            (r#"rabbitmq_alarms_free_disk_space_watermark{instance="b"}"#, "0x40"),
        ],
        silent: &[9, 35],
        firing: &[13, 25],
        labels: &[r#"{instance="a"}"#],
    },
    Case {
        alert: "PlanrelayVersionsMixed",
        series: &[
            (r#"planrelay_build_info{version="1.0.0",instance="a"}"#, "1x200"),
            (r#"planrelay_build_info{version="1.0.0",instance="b"}"#, "1x9 _x190"),
            (r#"planrelay_build_info{version="1.1.0",instance="c"}"#, "_x9 1x190"),
        ],
        silent: &[9, 40],
        firing: &[90],
        labels: &["{}"],
    },
];

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
