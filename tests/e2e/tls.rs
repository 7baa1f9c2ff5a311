//! `amqps://` and `rediss://` with certificates of an authority that the system does not know.

use serde_json::json;
use support::plans::exact;
use support::servers::{Certificates, PrivateRabbit, PrivateRedis, Sentinels};
use support::stack::{Stack, amqp_url};
use support::stores::redis_url;

/// How a planner with these settings ends, and what it says then.
async fn refused(stack: &Stack, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = stack.command("planner");
    command.envs(settings.iter().copied());
    let run = move || command.output().expect("planner runs");
    let output = tokio::task::spawn_blocking(run).await.expect("planner ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_an_authority_of_ones_own() {
    let (ours, theirs) = (Certificates::new(&["localhost", "127.0.0.1"]), Certificates::new(&["localhost"]));
    let elsewhere = ours.certify(&["elsewhere.example"]);
    let (rabbit, redis) = tokio::join!(PrivateRabbit::start_secured(&ours), PrivateRedis::start_secured(&ours, &[]));
    let misnamed = PrivateRedis::start_secured(&elsewhere, &[]).await;
    let (amqps, rediss, misnamed) = (rabbit.secured_url(), redis.secured_url(), misnamed.secured_url());
    let (ca, other) = (ours.authority(), theirs.authority());

    // Whoever uses the stack does so without TLS.
    let stack = Stack::on(&rabbit.url(), &redis.url(), &[("PLANRELAY_MODEL", "offline")]).await;
    let garbage = stack.file("garbage.pem", "no certificate");
    let garbage = garbage.to_string_lossy();
    let (amqp, plain) = (amqp_url(), redis_url());
    for (amqp, redis, ca, code, says) in [
        (amqps.as_str(), plain.as_str(), "", 5, ["cannot reach RabbitMQ", "certificate", "PLANRELAY_CA_FILE"]),
        (&amqps, &plain, &other, 5, ["cannot reach RabbitMQ", "certificate", "PLANRELAY_CA_FILE"]),
        (&amqp, &rediss, "", 5, ["cannot use Redis", "certificate", "PLANRELAY_CA_FILE"]),
        (&amqp, &rediss, &other, 5, ["cannot use Redis", "certificate", "PLANRELAY_CA_FILE"]),
        (&amqp, &misnamed, &ca, 5, ["cannot use Redis", "certificate not valid for name", "localhost"]),
        (&amqp, &plain, "/no/such/file.pem", 2, ["PLANRELAY_CA_FILE", "/no/such/file.pem", "No such file"]),
        (&amqp, &plain, &garbage, 2, ["PLANRELAY_CA_FILE", "garbage.pem", "no certificate"]),
    ] {
        let (ended, said) = refused(&stack, &[("AMQP_URL", amqp), ("REDIS_URL", redis), ("PLANRELAY_CA_FILE", ca)]).await;
        assert_eq!(ended, Some(code), "{amqp} {redis} {ca}: {said}");
        assert!(says.iter().all(|part| said.contains(part)), "{amqp} {redis} {ca}: {said}");
    }

    let (cluster, sentinels) = (PrivateRedis::start_secured_cluster(&ours).await, Sentinels::start_secured(&ours).await);
    let secured_cluster = format!("rediss+cluster://localhost:{}", cluster.secured_port());
    for (users, services) in [
        (redis.url(), rediss),
        (cluster.url().replace("redis://", "redis+cluster://"), secured_cluster),
        (sentinels.servers[0].url(), sentinels.secured_url()),
    ] {
        let stack = Stack::on(&rabbit.url(), &users, &[("PLANRELAY_MODEL", "offline")]).await;
        let settings = [("AMQP_URL", amqps.as_str()), ("REDIS_URL", services.as_str()), ("PLANRELAY_CA_FILE", ca.as_str())];
        runs_end(&stack, &rabbit, &settings).await;
        stack.clean().await;
    }
}

/// Services with these settings do what they should.
async fn runs_end(stack: &Stack, rabbit: &PrivateRabbit, settings: &[(&str, &str)]) {
    let _services = ["planner", "executor", "summarizer"].map(|service| stack.start_with(service, settings));
    stack.queues_exist().await;
    let plan = json!({"steps": [exact(1, "6*7", &[])]});
    let run =
        stack.objective("secured", json!({"objective": "a product", "plan": plan, "options": {"respond": "results"}})).await;
    assert_eq!(stack.result(&run).await.step_results[0].result, json!("42"), "{settings:?}");
    let mut doctor = stack.command("planrelay");
    doctor.arg("doctor").envs(settings.iter().copied());
    let looked = tokio::task::spawn_blocking(move || doctor.output().expect("planrelay runs")).await.expect("planrelay ends");
    assert!(looked.status.success(), "{settings:?}: {}", String::from_utf8_lossy(&looked.stdout));
    // The other connection to the broker, too: what has been worked on is acknowledged.
    let empty = async || rabbit.backlog(stack.prefix()).await.iter().all(|left| left.ready + left.unacknowledged == 0);
    stack.until("every queue is empty", empty).await;
}
