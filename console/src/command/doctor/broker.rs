//! What was found of RabbitMQ, as checks. Pure.

use std::time::Duration;

use common::broker::rabbit::inspect::{
    Counts, Denial, HostFacts, Inspection, Login, QueueFacts, QueueState, QueuesFacts, Refusal,
};
use common::broker::rabbit::management::{Managed, Management, Unmanaged};
use common::message::Queue;

use super::check::{Check, Fault};
use super::version::Version;
use crate::text::{count, list, one_line, span};

/// The oldest RabbitMQ that knows everything our queues are declared with.
const OLDEST: Version = Version(3, 10);
/// What a policy may not do to our queues without being worth a word.
const HARMFUL: [&str; 7] =
    ["message-ttl", "expires", "max-length", "max-length-bytes", "overflow", "delivery-limit", "dead-letter-exchange"];

/// Everything about the broker but the time-outs.
pub(super) fn checks(inspection: &Inspection, management: Option<&Management>, prefix: &str) -> Vec<Check> {
    let usable = inspection.hosts.iter().any(|host| host.session.is_ok());
    let mut checks: Vec<Check> =
        inspection.hosts.iter().map(|host| host_check(host, &inspection.login, prefix, usable)).collect();
    match &inspection.queues {
        Some(queues) => {
            checks.push(permissions(queues, &inspection.login, prefix));
            checks.push(publishing(&queues.write, &inspection.login, prefix));
            checks.extend(queues.queues.iter().map(|queue| queue_check(queue, &inspection.login, managed(management, queue))));
        }
        None => checks.extend(skipped("no host of RabbitMQ lets us in")),
    }
    checks
}

/// The same when nothing can be asked.
pub(super) fn skipped(why: &str) -> Vec<Check> {
    let names = ["rabbitmq_permissions", "rabbitmq_publishing"].into_iter().chain(Queue::ALL.map(name_of));
    names.map(|name| Check::skipped(name, why)).collect()
}

fn name_of(queue: Queue) -> &'static str {
    match queue {
        Queue::Objectives => "queue_objectives",
        Queue::Steps => "queue_steps",
        Queue::Reports => "queue_reports",
        Queue::Completions => "queue_completions",
        Queue::Controls => "queue_controls",
        Queue::Dead => "queue_dead",
    }
}

/// The service that consumes a queue.
fn consumer(queue: Queue) -> &'static str {
    match queue {
        Queue::Objectives | Queue::Reports | Queue::Controls | Queue::Dead => "planner",
        Queue::Steps => "executor",
        Queue::Completions => "summarizer",
    }
}

fn managed<'a>(management: Option<&'a Management>, queue: &QueueFacts) -> Option<&'a Managed> {
    management?.queues.iter().find(|managed| managed.name == queue.name)
}

/// One host. `usable`: some host lets us in, so that planrelay works without this one.
fn host_check(host: &HostFacts, login: &Login, prefix: &str, usable: bool) -> Check {
    let name = "rabbitmq";
    let failed = |found: String, mend: String| match usable {
        true => Check::warning(name, found, mend),
        false => Check::failed(name, Fault::Unreachable, found, mend),
    };
    let Login { user, vhost, .. } = login;
    let said = host.greeting.as_ref().map(|greeting| {
        let cluster = if greeting.cluster.is_empty() { String::new() } else { format!(", cluster {}", greeting.cluster) };
        one_line(&format!("{} {}{cluster}", greeting.product, greeting.version))
    });
    let said = said.unwrap_or_default();
    let check = match &host.session {
        Ok(_) if host.greeting.as_ref().is_ok_and(|greeting| Version::read(&greeting.version).is_some_and(|v| v < OLDEST)) => {
            let mend = "sudo apt-get install --only-upgrade rabbitmq-server";
            Check::failed(name, Fault::Broken, format!("{said}: planrelay needs {OLDEST} or newer"), mend)
        }
        Ok(took) => Check::ok(name, format!("{said}, a session in {}", span(common::clock::millis(*took)))),
        Err(Refusal::Unreachable(why)) => failed(
            format!("cannot be reached: {}", one_line(why)),
            "sudo systemctl start rabbitmq-server # or set AMQP_URL".into(),
        ),
        Err(Refusal::Credentials(why)) => {
            let mend = format!("rabbitmqctl change_password {user} PASSWORD # or: rabbitmqctl add_user {user} PASSWORD");
            failed(format!("{said} refuses user {user}: {}", one_line(why)), mend)
        }
        Err(Refusal::NoVirtualHost(_)) => {
            let mend = format!("rabbitmqctl add_vhost {vhost} && {}", set_permissions(login, prefix));
            failed(format!("{said} has no virtual host {vhost}"), mend)
        }
        Err(Refusal::VirtualHost(_)) => {
            failed(format!("{said} does not let user {user} into virtual host {vhost}"), set_permissions(login, prefix))
        }
        Err(Refusal::Other(why)) => failed(format!("{said} refuses: {}", one_line(why)), "rabbitmqctl status".into()),
    };
    check.of(host.url.clone())
}

/// What a planner needs, and so is enough for everybody.
fn set_permissions(login: &Login, prefix: &str) -> String {
    let Login { user, vhost, .. } = login;
    let ours = format!("^{}\\.v1\\.", prefix.replace('.', "\\."));
    format!("rabbitmqctl set_permissions -p {vhost} {user} '{ours}' '^amq\\.default$' '{ours}'")
}

/// Which queues the user may declare and consume, and what that is enough for.
fn permissions(queues: &QueuesFacts, login: &Login, prefix: &str) -> Check {
    let name = "rabbitmq_permissions";
    let user = &login.user;
    let all = &queues.queues;
    let roles = |which: &dyn Fn(&QueueFacts) -> bool| {
        let roles: Vec<String> = all.iter().filter(|facts| which(facts)).map(|facts| facts.queue.role().to_owned()).collect();
        list(&roles)
    };
    let forbidden = |right: &Result<(), Denial>| matches!(right, Err(Denial::Forbidden(_)));
    let orphans = roles(&|facts| facts.state == QueueState::Missing && forbidden(&facts.configure));
    if !orphans.is_empty() {
        let found = format!("user {user} may not declare {orphans}, and nobody has");
        return Check::failed(name, Fault::Unreachable, found, format!("planner & # or: {}", set_permissions(login, prefix)));
    }
    let unknown = all.iter().flat_map(|facts| [&facts.configure, &facts.read]).find_map(|right| match right {
        Err(Denial::Unknown(why)) => Some(one_line(why)),
        Ok(()) | Err(Denial::Forbidden(_) | Denial::Blocked) => None,
    });
    if let Some(why) = unknown {
        return Check::warning(name, format!("not known of every queue: {why}"), "rabbitmqctl list_permissions");
    }
    let services = ["planner", "executor", "summarizer"]
        .into_iter()
        .filter(|service| all.iter().filter(|facts| consumer(facts.queue) == *service).all(|facts| facts.read.is_ok()));
    let services: Vec<String> = services.map(str::to_owned).collect();
    let consumes = match roles(&|facts| facts.read.is_ok()) {
        none if none.is_empty() => "none of the queues".to_owned(),
        _all if services.len() == 3 => "every queue".to_owned(),
        some => some,
    };
    if services.is_empty() {
        let found = format!("user {user} may consume {consumes}: enough to submit, for no service");
        return Check::warning(name, found, set_permissions(login, prefix));
    }
    let declares =
        if all.iter().any(|facts| forbidden(&facts.configure)) { "does not declare, and " } else { "may declare, and " };
    Check::ok(name, format!("user {user} {declares}may consume {consumes}: enough for {}", list(&services)))
}

fn publishing(write: &Result<(), Denial>, login: &Login, prefix: &str) -> Check {
    let name = "rabbitmq_publishing";
    let user = &login.user;
    match write {
        Ok(()) => Check::ok(name, "a message to a queue that nobody has came back"),
        Err(Denial::Forbidden(_)) => {
            let found = format!("user {user} may not publish to the default exchange");
            Check::failed(name, Fault::Unreachable, found, set_permissions(login, prefix))
        }
        Err(Denial::Blocked) => {
            let found = "nobody may publish: RabbitMQ is short of memory or disk";
            Check::failed(name, Fault::Unreachable, found, "rabbitmq-diagnostics alarms # then add memory or free the disk")
        }
        Err(Denial::Unknown(why)) => Check::failed(name, Fault::Unreachable, one_line(why), "rabbitmqctl status"),
    }
}

fn queue_check(facts: &QueueFacts, login: &Login, managed: Option<&Managed>) -> Check {
    let (name, service) = (name_of(facts.queue), consumer(facts.queue));
    let vhost = &login.vhost;
    let counts = match &facts.state {
        QueueState::Missing => {
            return Check::warning(name, format!("{} is not there yet; the first service declares it", facts.name), service);
        }
        QueueState::Otherwise(counts, why) => {
            let found = format!("{} has other arguments: {}", facts.name, one_line(why));
            let lost =
                if counts.ready > 0 { format!(" # loses what waits in it: {}", messages(counts.ready)) } else { String::new() };
            let mend = format!("rabbitmqctl -p {vhost} delete_queue {}{lost}", facts.name);
            return Check::failed(name, Fault::Configuration, found, mend);
        }
        QueueState::Unknown(why) => {
            return Check::failed(
                name,
                Fault::Unreachable,
                format!("{}: {}", facts.name, one_line(why)),
                "rabbitmqctl list_queues",
            );
        }
        QueueState::Found(counts) => counts,
    };
    let compared = if facts.configure.is_ok() { "as declared" } else { "its arguments are not known" };
    let held = managed.map(|managed| format!(", {} in work", managed.messages_unacknowledged)).unwrap_or_default();
    let Counts { ready, consumers } = counts;
    let found = format!("{compared}; {ready} waiting{held}, {}", count(*consumers as usize, "consumer"));
    if *consumers == 0 {
        return Check::warning(name, format!("{found}: no {service} runs"), format!("{service} &"));
    }
    if let Some((policy, keys)) = managed.and_then(harm) {
        let mend = format!("rabbitmqctl clear_policy -p {vhost} {policy}");
        return Check::warning(name, format!("{found}; the policy {policy} sets {keys}"), mend);
    }
    if let Some(down) = managed.and_then(down) {
        return Check::warning(name, format!("{found}; {down} of its nodes are down"), "rabbitmqctl cluster_status");
    }
    Check::ok(name, found)
}

fn messages(n: u32) -> String {
    count(n as usize, "message")
}

/// The policy that changes how a queue behaves, and what it sets.
fn harm(managed: &Managed) -> Option<(String, String)> {
    let keys = managed.effective_policy_definition.keys().map(String::as_str).filter(|key| HARMFUL.contains(key));
    let keys: Vec<&str> = keys.collect();
    let policy = managed.policy.clone().unwrap_or_else(|| "(an operator policy)".to_owned());
    (!keys.is_empty()).then(|| (policy, keys.join(", ")))
}

/// How many of a queue's nodes are down.
fn down(managed: &Managed) -> Option<usize> {
    Some(managed.members.len().saturating_sub(managed.online.len())).filter(|down| *down > 0 && !managed.online.is_empty())
}

/// The management API. It is optional: only where it was named it must answer.
pub(super) fn management(asked: &Result<Management, Unmanaged>, urls: &[String], named: bool, login: &Login) -> Check {
    let name = "rabbitmq_management";
    let place = urls.join(", ");
    let without = "policies, and what is in work, are not seen";
    match asked {
        Ok(management) => management_says(management),
        Err(Unmanaged::Unreachable(why)) if named => {
            let mend = "rabbitmq-plugins enable rabbitmq_management";
            Check::failed(name, Fault::Unreachable, format!("{place} cannot be reached: {}", one_line(why)), mend)
        }
        Err(Unmanaged::Unreachable(_)) => {
            Check::skipped(name, format!("nobody answers at {place}: {without} (--management-url says where it is)"))
        }
        Err(Unmanaged::Forbidden(why)) => {
            let mend = format!("rabbitmqctl set_user_tags {} monitoring", login.user);
            Check::warning(name, format!("{place} does not let user {} in: {why}; {without}", login.user), mend)
        }
        Err(Unmanaged::Other(why)) => {
            let mend = "planrelay doctor --management-url http://HOST:15672";
            Check::warning(name, format!("{place} is of no use: {}; {without}", one_line(why)), mend)
        }
    }
}

fn management_says(management: &Management) -> Check {
    let name = "rabbitmq_management";
    let url = &management.url;
    let short = |alarm: fn(&common::broker::rabbit::management::Node) -> bool| {
        let names: Vec<&str> = management.nodes.iter().filter(|node| alarm(node)).map(|node| &*node.name).collect();
        names.join(", ")
    };
    let (memory, disk, stopped) = (short(|node| node.mem_alarm), short(|node| node.disk_free_alarm), short(|node| !node.running));
    for (nodes, what) in [(memory, "memory"), (disk, "disk")] {
        if !nodes.is_empty() {
            let found = format!("{nodes} is short of {what}: nobody may publish");
            return Check::failed(name, Fault::Unreachable, found, "rabbitmq-diagnostics alarms");
        }
    }
    if !stopped.is_empty() {
        return Check::warning(name, format!("{stopped} does not run"), "sudo systemctl start rabbitmq-server");
    }
    let nodes =
        if management.nodes.is_empty() { String::new() } else { format!(", {} up", count(management.nodes.len(), "node")) };
    Check::ok(name, format!("{url}{nodes}"))
}

/// How long somebody may hold a message, and how long RabbitMQ lets them.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    /// Whose.
    pub(super) service: &'static str,
    /// Of which queue.
    pub(super) queue: String,
    /// For how long at the most.
    pub(super) time: Duration,
    /// What that is made of.
    pub(super) because: String,
    /// The settings that bound it.
    pub(super) setting: &'static str,
}

/// The version that tells time-outs by queue apart: from here on a policy can set one.
const BY_QUEUE: Version = Version(3, 12);
/// The broker looks for consumers that take too long once a minute.
const MARGIN: Duration = Duration::from_secs(60);

/// How long messages may be held against how long the broker lets them be held. `usual`: its default, which nobody can ask for.
pub(super) fn consumer_timeout(holds: &[Hold], version: &str, management: Option<&Management>, usual: Duration) -> Check {
    let name = "consumer_timeout";
    let minutes = |time: Duration| span(common::clock::millis(time));
    let policy = |hold: &Hold| management?.queues.iter().find(|queue| queue.name == hold.queue)?.consumer_timeout();
    let limit = |hold: &Hold| policy(hold).unwrap_or(usual);
    let lines = holds.iter().map(|hold| {
        let by = if policy(hold).is_some() { "by policy" } else { "its default" };
        let (service, because) = (hold.service, &hold.because);
        let (held, kept) = (minutes(hold.time), minutes(limit(hold)));
        format!("{service} holds a message for up to {held} ({because}); RabbitMQ takes it back after {kept} ({by})")
    });
    let by_queue = Version::read(version).is_some_and(|version| version >= BY_QUEUE);
    let basis = match (management, by_queue) {
        (Some(_), true) => "policies were seen; a global consumer_timeout in rabbitmq.conf cannot be",
        (Some(_), false) => {
            "this version has only a global consumer_timeout, in rabbitmq.conf, which cannot be seen from outside"
        }
        (None, _) => "whether rabbitmq.conf or a policy says otherwise cannot be seen from here",
    };
    let ask = "`rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'` tells it, in ms";
    let found = lines.chain([format!("{basis}: {ask}")]).collect::<Vec<_>>().join("\n");
    let Some(over) = holds.iter().find(|hold| hold.time + MARGIN > limit(hold)) else { return Check::ok(name, found) };
    match policy(over) {
        Some(limit) => {
            let most = limit.saturating_sub(MARGIN).as_secs().max(1);
            Check::failed(
                name,
                Fault::Configuration,
                found,
                format!("export {}={most} # or lift the policy's consumer-timeout", over.setting),
            )
        }
        None => {
            let needed = common::clock::millis(over.time + MARGIN * 2);
            Check::warning(
                name,
                found,
                format!("echo 'consumer_timeout = {needed}' | sudo tee -a /etc/rabbitmq/rabbitmq.conf # then restart it"),
            )
        }
    }
}

#[cfg(test)]
mod tests;
