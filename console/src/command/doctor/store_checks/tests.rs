use common::store::redis::inspect::Persistence;

use super::super::check::Status;
use super::*;

fn facts(version: &str) -> Facts {
    Facts {
        kind: "Redis",
        version: version.into(),
        in_cluster: false,
        copies: None,
        replicas: Some(2),
        used_bytes: Some(10 << 20),
        max_bytes: Some(0),
        policy: Some("noeviction".into()),
        persistence: Persistence::default(),
        clock: None,
        cluster: None,
        rights: Rights::All,
    }
}

fn node(facts: Result<Facts, Refusal>) -> Node {
    Node { url: "redis://u:***@h:6380/1".into(), discovered: false, facts }
}

fn first(facts: Result<Facts, Refusal>) -> Check {
    let inspection = Inspection { nodes: vec![node(facts)], clustered: false, dead_letters: None };
    checks(&inspection, "p").remove(0)
}

#[test]
fn versions_that_are_too_old_are_refused() {
    let fine = first(Ok(facts("6.2.0")));
    assert_eq!((fine.status, &*fine.found), (Status::Ok, "Redis 6.2.0, takes writes, 2 replicas"));
    let valkey = first(Ok(Facts { kind: "Valkey", ..facts("8.1.1") }));
    assert_eq!((valkey.status, &*valkey.found), (Status::Ok, "Valkey 8.1.1, takes writes, 2 replicas"));
    let old = first(Ok(facts("6.0.16")));
    assert_eq!((old.status, &*old.found), (Status::Failed(Fault::Broken), "Redis 6.0.16: planrelay needs 6.2 or newer"));
}

#[test]
fn a_server_that_does_not_serve_yet_is_told() {
    let loading = first(Err(Refusal::Other("LOADING Redis is loading the dataset in memory".into())));
    assert_eq!(loading.status, Status::Failed(Fault::Unreachable));
    assert_eq!(loading.mend.as_deref(), Some("redis-cli -h h -p 6380 INFO"));
}

#[test]
fn memory_that_is_nearly_full_is_told_before_it_is() {
    let status = |used_mib: u64| {
        let facts = Facts { used_bytes: Some(used_mib << 20), max_bytes: Some(100 << 20), ..facts("7.0.15") };
        memory(&node(Err(Refusal::Other(String::new()))), &facts, "p").status
    };
    assert_eq!([89, 91, 100].map(status), [Status::Ok, Status::Warning, Status::Failed(Fault::Broken)]);
}

#[test]
fn commands_name_the_server_and_no_password() {
    for (url, expected) in [
        ("redis://u:***@h:6380/1", "redis-cli -h h -p 6380"),
        ("rediss://h", "redis-cli --tls -h h -p 6379"),
        ("10.0.0.1:7000", "redis-cli -h 10.0.0.1 -p 7000"),
    ] {
        let node = Node { url: url.into(), discovered: false, facts: Err(Refusal::Other(String::new())) };
        assert_eq!(cli(&node), expected);
    }
}
