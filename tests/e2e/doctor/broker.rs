//! A RabbitMQ with something wrong.

use std::io::Write;

use common::message::Queue;
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;
use support::fake_openai::{Behaviour, FakeOpenAi};
use support::servers::PrivateRabbit;
use support::stack::Stack;
use support::stores::redis_url;

use super::{consuming, doctor};

/// `url` with another user, host or virtual host.
fn with(url: &str, from: &str, to: &str) -> String {
    assert!(url.contains(from), "{from} in {url}");
    url.replace(from, to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_enter_is_told_how_to_be_let_in() {
    let rabbit = PrivateRabbit::start(&[]).await;
    let url = rabbit.url();
    let stack = Stack::on(&url, &redis_url(), &[]).await;
    let prefix = stack.prefix().to_owned();
    rabbit.ctl(&["add_user", "small", "s3cret"]).await;
    rabbit.ctl(&["add_vhost", "other"]).await;
    let small = with(&url, "guest:guest", "small:s3cret");
    let at = async |url: &str| doctor(&stack, &[("AMQP_URL", url)], &[]).await;

    let refused = with(&url, "guest:guest", "guest:s3cret");
    at(&refused).await.is(5, &[("rabbitmq", "failed", "refuses user guest", "rabbitmqctl change_password guest")]);
    at(&with(&url, "/%2f", "/nowhere")).await.is(
        5,
        &[("rabbitmq", "failed", "has no virtual host nowhere", "rabbitmqctl add_vhost nowhere && rabbitmqctl set_permissions")],
    );
    let entry = "rabbitmqctl set_permissions -p / small";
    at(&small).await.is(5, &[("rabbitmq", "failed", "does not let user small into virtual host /", entry)]);
    // What answers there is something else.
    let ssh = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = ssh.local_addr().unwrap();
    let serving = std::thread::spawn(move || ssh.accept().unwrap().0.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap());
    let report = at(&format!("amqp://{address}")).await;
    serving.join().unwrap();
    report.is(5, &[("rabbitmq", "failed", "does not speak AMQP", "set AMQP_URL")]);

    // Inside, and allowed nothing; then one thing after the other.
    let allow = async |configure: &str, write: &str, read: &str| {
        rabbit.ctl(&["set_permissions", "small", configure, write, read]).await;
    };
    let refused = ("rabbitmq_publishing", "failed", "small may not publish", entry);
    allow("^$", "^$", "^$").await;
    let nothing = "small may not declare objectives, steps, reports, completions, controls and dead, and nobody has";
    at(&small).await.is(5, &[("rabbitmq_permissions", "failed", nothing, entry), refused]);
    // Where the queues exist, nobody but the planner needs to declare them.
    let planner = stack.start("planner");
    stack.queues_exist().await;
    let little = "may consume none of the queues: enough to submit, for no service";
    at(&small).await.is(5, &[("rabbitmq_permissions", "warning", little, entry), refused]);
    drop(planner);
    allow("^$", "^amq\\.default$", &format!("^{prefix}\\.v1\\.(steps|reports)$")).await;
    let executor = "user small does not declare, and may consume steps and reports: enough for executor";
    at(&small).await.is(0, &[("rabbitmq_permissions", "ok", executor, ""), ("rabbitmq_publishing", "ok", "came back", "")]);
    allow("^$", "^amq\\.default$", "^$").await;
    at(&small)
        .await
        .is(0, &[("rabbitmq_permissions", "warning", little, entry), ("queue_steps", "warning", "are not known", "")]);
    // The command that it prints is enough.
    let report = at(&small).await;
    let mend = report.checks().iter().find_map(|check| check["mend"].as_str().filter(|mend| mend.contains("set_permissions")));
    let words: Vec<String> = mend.unwrap().split(' ').skip(1).map(|word| word.trim_matches('\'').to_owned()).collect();
    rabbit.ctl(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
    at(&small).await.is(
        0,
        &[(
            "rabbitmq_permissions",
            "ok",
            "small may declare, and may consume every queue: enough for planner, executor and summarizer",
            "",
        )],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_compared_and_not_touched() {
    let (rabbit, management) = PrivateRabbit::managed().await;
    let stack = Stack::on(&rabbit.url(), &redis_url(), &[]).await;
    let look = async || doctor(&stack, &[], &["--management-url", &management]).await;
    look()
        .await
        .is(0, &[("queue_steps", "warning", "is not there yet", "executor"), ("rabbitmq_management", "ok", "1 node up", "")]);
    assert_eq!(rabbit.backlog(stack.prefix()).await, [], "nothing was declared");

    let mut executor = stack.start("executor");
    stack.queues_exist().await;
    executor.stop().await;
    stack.publish(Queue::Steps, b"{}", BasicProperties::default()).await;
    look().await.is(
        0,
        &[
            ("queue_steps", "warning", "as declared; 1 waiting, 0 in work, 0 consumers: no executor runs", "executor &"),
            ("queue_completions", "warning", "no summarizer runs", "summarizer &"),
            ("queue_dead", "warning", "no planner runs", "planner &"),
        ],
    );
    // The message has not been in anybody's hands.
    let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let steps = Queue::Steps.name(stack.prefix());
    let message = channel.basic_get(steps.clone().into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
    let headers = message.delivery.properties.headers().clone().unwrap_or_default();
    let count = headers.inner().get("x-delivery-count").and_then(|count| count.as_long_long_int());
    assert_eq!((message.delivery.redelivered, count.unwrap_or_default()), (false, 0), "{headers:?}");
    assert_eq!(rabbit.backlog(stack.prefix()).await.len(), Queue::ALL.len(), "no queue more, no queue less");

    // A queue of the same name that somebody else made.
    stack.delete_queue(Queue::Steps).await;
    channel.queue_declare(steps.clone().into(), QueueDeclareOptions::durable(), FieldTable::default()).await.unwrap();
    let report = look().await;
    let mend = format!("rabbitmqctl -p / delete_queue {steps}");
    report.is(2, &[("queue_steps", "failed", "inequivalent arg", &mend)]);
    rabbit.ctl(&mend.split(' ').skip(1).collect::<Vec<_>>()).await;
    look().await.is(0, &[("queue_steps", "warning", "is not there yet", "executor")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_or_blocks_is_told_within_the_time_limits() {
    let rabbit = PrivateRabbit::start(&[]).await;
    let url = rabbit.url();
    let stack = Stack::on(&url, &redis_url(), &[]).await;
    // Of several hosts one is down: planrelay goes on with the others.
    let both = format!("amqp://guest:guest@127.0.0.1:9/%2f,{url}");
    doctor(&stack, &[("AMQP_URL", &both)], &[]).await.is(
        0,
        &[
            ("rabbitmq", "warning", "127.0.0.1:9/%2f: cannot be reached", "systemctl start"),
            ("rabbitmq", "ok", "a session in", ""),
        ],
    );
    rabbit.memory_alarm(true).await;
    let short = ("rabbitmq_publishing", "failed", "short of memory or disk", "rabbitmq-diagnostics alarms");
    doctor(&stack, &[], &[]).await.is(5, &[short]);
    rabbit.memory_alarm(false).await;
    rabbit.pause();
    doctor(&stack, &[], &[]).await.is(5, &[("rabbitmq", "failed", "no answer within 5 s", "systemctl start")]);
    rabbit.resume();
}

/// RabbitMQ's management API, as far as it is asked: of a version that has time-outs by queue, which may not be the one that is here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_management_api_tells_policies_and_alarms() {
    let stack = Stack::new(&[]).await;
    let (stack, _services) = stack.with_services().await;
    consuming(&stack).await;
    let steps = Queue::Steps.name(stack.prefix());
    let queue = |definition: serde_json::Value, online: &[&str]| {
        json!([{"name": steps, "policy": "p", "effective_policy_definition": definition, "messages_unacknowledged": 3,
                "members": ["a", "b"], "online": online}])
    };
    let node =
        |name: &str, running, memory| json!({"name": name, "running": running, "mem_alarm": memory, "disk_free_alarm": false});
    let well = json!([node("a", true, false)]);
    let quick = queue(json!({"consumer-timeout": 300_000, "message-ttl": 1}), &["a", "b"]);
    let cases = [
        (
            quick,
            well.clone(),
            2,
            vec![
                ("rabbitmq_management", "ok", "1 node up", ""),
                ("queue_steps", "warning", "3 in work, 2 consumers; the policy p sets message-ttl", "clear_policy -p / p"),
                (
                    "consumer_timeout",
                    "failed",
                    "takes it back after 5 min 00 s (by policy)",
                    "export PLANRELAY_STEP_TIMEOUT_SECS=240",
                ),
            ],
        ),
        (
            queue(json!([]), &["a"]),
            json!([node("a", true, false), node("b", false, false)]),
            0,
            vec![
                ("rabbitmq_management", "warning", "b does not run", "systemctl start"),
                ("queue_steps", "warning", "1 of its nodes are down", "rabbitmqctl cluster_status"),
                ("consumer_timeout", "ok", "30 min 00 s (its default)", ""),
            ],
        ),
        (
            queue(json!({}), &[]),
            json!([node("a", true, true)]),
            5,
            vec![("rabbitmq_management", "failed", "a is short of memory", "rabbitmq-diagnostics alarms")],
        ),
    ];
    for (queues, nodes, code, expected) in cases {
        let fake = FakeOpenAi::start(move |request| match request.path.as_str() {
            "/api/queues/%2F" => Behaviour::json(queues.clone()).header("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            _ => Behaviour::json(nodes.clone()),
        })
        .await;
        let url = fake.base_url().replace("/v1", "/");
        let report = doctor(&stack, &[], &["--management-url", &url]).await;
        report.is(code, &expected);
        report.is(code, &[&expected[..], &[("clock", "warning", "RabbitMQ is", "timedatectl set-ntp true")]].concat());
        assert!(fake.requests()[0].headers["authorization"].starts_with("Basic "));
    }
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_management_api_that_refuses_is_no_failure() {
    let stack = Stack::new(&[]).await;
    let refusals = [
        (
            Behaviour::error(401, "not_authorised", "Not management user"),
            "does not let user guest in",
            "set_user_tags guest monitoring",
        ),
        (Behaviour::status(404, "no"), "answered 404", "--management-url"),
        (Behaviour::status(200, "<html>"), "is not as expected", "--management-url"),
    ];
    for (behaviour, found, mend) in refusals {
        let fake = FakeOpenAi::start(move |_| behaviour.clone()).await;
        let url = fake.base_url().replace("/v1", "");
        doctor(&stack, &[], &["--management-url", &url]).await.is(0, &[("rabbitmq_management", "warning", found, mend)]);
    }
}

/// Requests to a model may take longer than the broker waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_outs_that_do_not_fit_together_are_told() {
    let stack = Stack::new(&[]).await;
    let fake = FakeOpenAi::start(super::good_model()).await;
    let url = fake.base_url();
    let slow = [
        ("OPENAI_BASE_URL", &*url),
        ("OPENAI_MODEL", "fake-1"),
        ("PLANRELAY_MODEL_TIMEOUT_SECS", "1000"),
        ("PLANRELAY_STEP_TIMEOUT_SECS", "900"),
    ];
    doctor(&stack, &slow, &["--no-model"]).await.is(
        0,
        &[
            (
                "configuration",
                "warning",
                "a request to a model may take 1000 s, but a step only 900 s",
                "PLANRELAY_MODEL_TIMEOUT_SECS=900",
            ),
            (
                "consumer_timeout",
                "warning",
                "a planner holds a message for up to 50 min 00 s (3 requests",
                "consumer_timeout = 3120000",
            ),
        ],
    );
}
