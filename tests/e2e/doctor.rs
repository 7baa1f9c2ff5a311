//! `planrelay doctor` as an operator runs it: on a stack that is well, and on servers that each have something else wrong.

use std::process::Output;

use common::message::Queue;
use insta::{assert_json_snapshot, assert_snapshot};
use serde_json::{Value, json};
use support::fake_openai::{Behaviour, FakeOpenAi, Script, ScriptedMove};
use support::servers::PrivateRedis;
use support::stack::{Stack, amqp_url};

mod broker;
mod model;
mod store;

/// What one run of `doctor -o json` said.
struct Report {
    code: i32,
    document: Value,
}

/// What is expected of a check: its name, its status, a part of what it found and a part of the command that mends it.
type Expected<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Report {
    fn read(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(stderr, "", "stdout: {stdout}");
        assert!(!stdout.contains("s3cret"), "{stdout}");
        let document = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
        Self { code: output.status.code().unwrap(), document }
    }

    fn checks(&self) -> &[Value] {
        self.document["checks"].as_array().unwrap()
    }

    /// Expects the exit code and these checks, and that nothing else has failed.
    #[track_caller]
    fn is(&self, code: i32, expected: &[Expected<'_>]) {
        let all = self.checks().iter().map(|check| format!("\n  {check}")).collect::<String>();
        for (name, status, found, mend) in expected {
            let fits = |check: &Value| {
                let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
                text("name") == *name
                    && text("status") == *status
                    && format!("{}: {}", text("subject"), text("found")).contains(found)
                    && text("mend").contains(mend)
            };
            assert!(self.checks().iter().any(fits), "no {name} {status} {found:?} {mend:?} in {all}");
        }
        let failed = |check: &&Value| check["status"] == "failed";
        let wanted = expected.iter().filter(|(_, status, _, _)| *status == "failed").count();
        assert_eq!(self.checks().iter().filter(failed).count(), wanted, "failures in {all}");
        assert_eq!(self.code, code, "{all}");
    }
}

/// Runs the doctor with further settings.
async fn doctor(stack: &Stack, settings: &[(&str, &str)], arguments: &[&str]) -> Report {
    let mut command = stack.command("planrelay");
    command.args(["doctor", "-o", "json"]).args(arguments).envs(settings.iter().copied());
    Report::read(&tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
}

/// Waits until every service of a running stack consumes: that they have started is said a moment before.
async fn consuming(stack: &Stack) {
    let all = async || {
        let said = doctor(stack, &[], &["--no-model"]).await.document.to_string();
        said.contains("2 consumers") && !said.contains("0 consumers")
    };
    stack.until("every service consumes", all).await;
}

/// `text` without what differs from one machine and one moment to the next.
fn masked(text: &str, replacements: &[(&str, &str)]) -> String {
    let text = replacements.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    for at in 0..words.len() {
        let next = words.get(at + 1).cloned().unwrap_or_default();
        let measured = ["ms", "MiB"].iter().any(|unit| next.split(|c: char| !c.is_alphabetic()).next() == Some(unit));
        let word = words[at].clone();
        let number = word.trim_start_matches('(');
        // On a slow day what is meant to take milliseconds takes seconds.
        let seconds = number.contains('.') && is_number(number) && next.split(|c: char| !c.is_alphabetic()).next() == Some("s");
        if seconds {
            words[at + 1] = format!("m{next}");
        }
        if seconds || measured && is_number(number) {
            words[at] = word.replace(number, "N");
        } else if is_number(word.trim_end_matches(',')) && word.matches('.').count() == 2 {
            words[at] = word.replace(word.trim_end_matches(','), "VERSION");
        } else if word.contains('@') && !word.contains("://") {
            words[at] = "CLUSTER,".to_owned();
        }
    }
    words.join(" ")
}

/// A model that lists itself, plans, and calls tools; and a management API that knows nothing.
fn good_model() -> impl Fn(&support::fake_openai::Request) -> Behaviour + Send + Sync + 'static {
    let script = Script::default().act(|_| ScriptedMove::Call("calculate", json!({"expression": "6 * 7"})));
    move |request| match request.path.as_str() {
        path if path.starts_with("/api/") => Behaviour::json(json!([])),
        "/v1/models" => Behaviour::json(json!({"object": "list", "data": [{"id": "fake-1"}, {"id": "fake-2"}]})),
        _ => script.respond(request),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_that_is_well_has_nothing_to_mend() {
    let fake = FakeOpenAi::start(good_model()).await;
    let redis = PrivateRedis::start(&[]).await;
    let url = fake.base_url();
    let stack = Stack::on(
        &amqp_url(),
        &redis.url(),
        &[
            ("OPENAI_BASE_URL", &url),
            ("OPENAI_MODEL", "fake-1"),
            ("OPENAI_API_KEY", "sk-s3cret-key"),
            ("PLANRELAY_PRICES", "fake-1=0.15/0.60"),
        ],
    )
    .await;
    let (stack, _services) = stack.with_services().await;
    consuming(&stack).await;
    let management = url.replace("/v1", "");
    let report = doctor(&stack, &[], &["--management-url", &management]).await;
    report.is(0, &[("model_tools", "ok", "native tool calls", "")]);
    let kinds = ["ok", "warnings", "failed"].map(|kind| report.document[kind].as_u64());
    assert_eq!(kinds, [Some(24), Some(0), Some(0)], "{}", report.document);
    let asked = fake.requests();
    let rungs: Vec<&str> = asked.iter().filter(|request| request.method == "POST").map(|request| request.rung()).collect();
    assert_eq!(rungs, ["text", "json_schema", "tools"], "three small questions");

    // The same for people.
    let output = stack.planrelay(&["doctor", "--management-url", &management]).await;
    assert_eq!(output.status.code(), Some(0));
    let replacements =
        [(stack.prefix(), "PREFIX"), (&*amqp_url(), "AMQP_URL"), (&*redis.address(), "REDIS"), (&*management, "http://FAKE")];
    let amqp = amqp_url().replace("guest:guest", "guest:***");
    let text = masked(std::str::from_utf8(&output.stdout).unwrap(), &[&replacements[..], &[(&*amqp, "AMQP_URL")]].concat());
    assert_snapshot!("a_stack_that_is_well", text);
    // And for programs, one check a line.
    let output = stack.planrelay(&["doctor", "-o", "jsonl", "--no-model"]).await;
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    assert!(lines.map(|line| serde_json::from_str::<Value>(line).unwrap()).all(|check| check["name"].is_string()));
    assert_eq!(fake.requests().iter().filter(|request| request.method == "POST").count(), 6, "--no-model asks nothing");
    stack.clean().await;
}

/// Everything at once: nothing hides anything else, and no secret is shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_does_not_stop_at_the_first_failure() {
    let stack = Stack::new(&[]).await;
    let settings = [
        ("AMQP_URL", "amqp://me:s3cret@127.0.0.1:9/%2f"),
        ("REDIS_URL", "redis://:s3cret@127.0.0.1:9"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1"),
        ("OPENAI_MODEL", "m"),
        ("OPENAI_API_KEY", "sk-s3cret"),
        ("PLANRELAY_SEARCH_DIR", "/no/such/folder"),
    ];
    let report = doctor(&stack, &settings, &["--management-url", "http://127.0.0.1:9"]).await;
    report.is(
        5,
        &[
            ("search_folder", "failed", "/no/such/folder", "mkdir -p"),
            ("rabbitmq", "failed", "amqp://me:***@127.0.0.1:9/%2f: cannot be reached", "systemctl start"),
            ("rabbitmq_permissions", "skipped", "no host", ""),
            ("queue_steps", "skipped", "no host", ""),
            ("rabbitmq_management", "failed", "http://127.0.0.1:9 cannot be reached", "rabbitmq-plugins enable"),
            ("redis", "failed", "redis://:***@127.0.0.1:9: cannot be reached", "systemctl start"),
            ("redis_eviction", "skipped", "no server", ""),
            ("model_endpoint", "failed", "cannot connect", "export OPENAI_BASE_URL="),
            ("model_plan", "skipped", "", ""),
            ("clock", "skipped", "", ""),
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_cannot_be_used_is_told_setting_by_setting() {
    let stack = Stack::new(&[]).await;
    let bad = [("PLANRELAY_CONCURENCY", "2"), ("PLANRELAY_LEASE_SECS", "soon")];
    let report = doctor(&stack, &bad, &[]).await;
    report.is(2, &[("configuration", "failed", "did you mean PLANRELAY_CONCURRENCY?", "unset PLANRELAY_")]);
    assert_json_snapshot!("a_configuration_that_cannot_be_used", report.document);

    let file = stack.file("planrelay.toml", "concurrency = \"many\"\n");
    doctor(&stack, &[], &[]).await.is(2, &[("configuration", "failed", "concurrency", "${EDITOR:-vi} ./planrelay.toml")]);
    std::fs::remove_file(file).unwrap();
    doctor(&stack, &[("AMQP_URL", "amqp://h:99999")], &[]).await.is(2, &[("rabbitmq", "failed", "AMQP_URL", "unset AMQP_URL")]);
    let redis = [("REDIS_URL", "redis://127.0.0.1:6379/none")];
    doctor(&stack, &redis, &[]).await.is(2, &[("redis", "failed", "REDIS_URL", "unset REDIS_URL")]);

    let folder = stack.file("notes.md", "a note").parent().unwrap().to_path_buf();
    let settings =
        [("PLANRELAY_SEARCH_DIR", folder.to_str().unwrap()), ("OPENAI_BASE_URL", "http://h/v1"), ("PLANRELAY_MODEL", "offline")];
    let report = doctor(&stack, &settings, &["--prefix", "other", "--model", "offline"]).await;
    report.is(
        0,
        &[
            ("configuration", "ok", "prefix = other (flag --prefix)", ""),
            ("configuration", "ok", "amqp_url = amqp://guest:***@", ""),
            ("configuration", "warning", "http://h/v1 is not asked", "export PLANRELAY_MODEL=auto"),
            ("search_folder", "ok", "can be read", ""),
            ("model_endpoint", "ok", "offline", ""),
            ("queue_objectives", "warning", "other.v1.objectives is not there yet", "planner"),
        ],
    );
    // What it asks about changes nothing.
    assert_eq!(stack.messages(Queue::Objectives).await, None, "no queue was declared");
    assert!(stack.redis.delete_all().await.is_ok());
}
