use common::broker::rabbit::inspect::Greeting;

use super::super::check::Status;
use super::*;

fn login() -> Login {
    Login { user: "u".into(), vhost: "/".into(), host: "h".into() }
}

fn host(version: &str, session: Result<Duration, Refusal>) -> HostFacts {
    let greeting = Greeting { product: "RabbitMQ".into(), version: version.into(), cluster: String::new() };
    HostFacts { url: "amqp://u:***@h:5672/%2f".into(), address: "h:5672".into(), greeting: Ok(greeting), session }
}

#[test]
fn versions_that_are_too_old_are_refused() {
    let check = |version: &str| host_check(&host(version, Ok(Duration::ZERO)), &login(), "p", true);
    for version in ["3.10.0", "3.13.7", "4.1.0", "", "something"] {
        assert_eq!(check(version).status, Status::Ok, "{version}");
    }
    let old = check("3.9.29");
    assert_eq!((old.status, &*old.found), (Status::Failed(Fault::Broken), "RabbitMQ 3.9.29: planrelay needs 3.10 or newer"));
}

#[test]
fn what_else_a_broker_says_is_handed_on() {
    let refused = host("3.10.8", Err(Refusal::Other("NOT_ALLOWED - vhost '/' is down".into())));
    let check = host_check(&refused, &login(), "p", false);
    let found = "RabbitMQ 3.10.8 refuses: NOT_ALLOWED - vhost '/' is down";
    assert_eq!((check.status, &*check.found), (Status::Failed(Fault::Unreachable), found));
    assert_eq!(host_check(&refused, &login(), "p", true).status, Status::Warning, "another host lets us in");
    let facts = QueueFacts {
        queue: Queue::Steps,
        name: "p.v1.steps".into(),
        state: QueueState::Unknown("NOT_FOUND - no leader".into()),
        configure: Err(Denial::Unknown("NOT_FOUND".into())),
        read: Ok(()),
    };
    let check = queue_check(&facts, &login(), None);
    assert_eq!((check.status, &*check.found), (Status::Failed(Fault::Unreachable), "p.v1.steps: NOT_FOUND - no leader"));
    let queues = QueuesFacts { queues: vec![facts], write: Err(Denial::Unknown("no answer within 10 s".into())) };
    assert_eq!(permissions(&queues, &login(), "p").status, Status::Warning);
    assert_eq!(publishing(&queues.write, &login(), "p").status, Status::Failed(Fault::Unreachable));
}

#[test]
fn permissions_match_the_names_and_nothing_else() {
    let expected = r"rabbitmqctl set_permissions -p / u '^a\.b\.v1\.' '^amq\.default$' '^a\.b\.v1\.'";
    assert_eq!(set_permissions(&login(), "a.b"), expected);
}

#[test]
fn a_version_says_whether_queues_have_time_outs_of_their_own() {
    let hold = Hold {
        service: "an executor",
        queue: "p.v1.steps".into(),
        time: Duration::from_secs(600),
        because: "S".into(),
        setting: "S",
    };
    let management = Management { url: "http://h".into(), queues: Vec::new(), nodes: Vec::new(), clock: None };
    let basis = |version: &str, management: Option<&Management>| {
        let found = consumer_timeout(std::slice::from_ref(&hold), version, management, Duration::from_secs(1800)).found;
        found.lines().last().unwrap_or_default().split(": ").next().unwrap_or_default().to_owned()
    };
    assert!(basis("3.10.8", Some(&management)).starts_with("this version has only a global consumer_timeout"));
    assert!(basis("4.1.0", Some(&management)).starts_with("policies were seen"));
    assert!(basis("4.1.0", None).starts_with("whether rabbitmq.conf or a policy says otherwise"));
}
