//! What was found of Redis, as checks. Pure.

use common::limits::DEAD_LETTERS_KEPT;
use common::store::redis::inspect::{Facts, Inspection, Node, Refusal, Rights};

use super::check::{Check, Fault, merged};
use super::version::Version;
use crate::text::{count, one_line};

/// The oldest Redis that has every command that scripts use.
const OLDEST: Version = Version(6, 2);
/// Slots of a cluster.
const SLOTS: u64 = 16_384;
/// Checks of each server beside the first, in the order in which they are shown.
const NAMES: [&str; 4] = ["redis_eviction", "redis_memory", "redis_persistence", "redis_permissions"];

/// Everything about the store.
pub(super) fn checks(inspection: &Inspection, prefix: &str) -> Vec<Check> {
    let nodes = &inspection.nodes;
    let usable = nodes.iter().any(|node| node.facts.is_ok());
    let mut checks: Vec<Check> = nodes.iter().map(|node| node_check(node, inspection, usable)).collect();
    if !usable {
        return [checks, skipped("no server of Redis can be used")].concat();
    }
    let known: Vec<(&Node, &Facts)> = nodes.iter().filter_map(|node| Some((node, node.facts.as_ref().ok()?))).collect();
    if let Some(check) = known.iter().find_map(|(node, facts)| cluster(node, facts)).filter(|_| inspection.clustered) {
        checks.push(check);
    }
    for check in [eviction, memory, persistence, permissions] {
        let all = known.iter().map(|(node, facts)| {
            let check = check(node, facts, prefix);
            if known.len() > 1 { check.of(node.url.clone()) } else { check }
        });
        checks.extend(merged(all.collect()));
    }
    checks.push(dead_letters(inspection.dead_letters, prefix, &known));
    checks
}

/// The same when nothing can be asked.
pub(super) fn skipped(why: &str) -> Vec<Check> {
    NAMES.into_iter().chain(["dead_letters"]).map(|name| Check::skipped(name, why)).collect()
}

/// `redis-cli` for this server. Its password is for its user to give: commands end up in histories.
fn cli(node: &Node) -> String {
    let address = node.url.split_once("://").map_or(&*node.url, |(_, rest)| rest);
    let address = address.rsplit_once('@').map_or(address, |(_, host)| host);
    let address = address.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "6379"));
    let tls = if node.url.starts_with("rediss") { " --tls" } else { "" };
    format!("redis-cli{tls} -h {host} -p {port}")
}

fn node_check(node: &Node, inspection: &Inspection, usable: bool) -> Check {
    let name = "redis";
    let check = match &node.facts {
        Ok(facts) => server(node, facts, inspection),
        Err(refusal) => {
            let (found, mend) = match refusal {
                Refusal::Unreachable(why) => (
                    format!("cannot be reached: {}", one_line(why)),
                    "sudo systemctl start redis-server # or set REDIS_URL".to_owned(),
                ),
                Refusal::Credentials(why) => (
                    format!("it refuses user or password: {}", one_line(why)),
                    "export REDIS_URL=redis://USER:PASSWORD@HOST:PORT".to_owned(),
                ),
                Refusal::Other(why) => (format!("it does not serve: {}", one_line(why)), format!("{} INFO", cli(node))),
            };
            // A cluster works without one of its nodes.
            if usable && inspection.clustered {
                Check::warning(name, found, mend)
            } else {
                Check::failed(name, Fault::Unreachable, found, mend)
            }
        }
    };
    check.of(node.url.clone())
}

fn server(node: &Node, facts: &Facts, inspection: &Inspection) -> Check {
    let name = "redis";
    if facts.version.is_empty() {
        let mend = format!("{} ACL SETUSER USER +info", cli(node));
        return Check::warning(name, "it answers; its version is not known, neither by HELLO nor by INFO", mend);
    }
    let said = one_line(&format!("{} {}", facts.kind, facts.version));
    if Version::read(&facts.version).is_some_and(|version| version < OLDEST) {
        let mend = "sudo apt-get install --only-upgrade redis-server";
        return Check::failed(name, Fault::Broken, format!("{said}: planrelay needs {OLDEST} or newer"), mend);
    }
    if facts.in_cluster != inspection.clustered {
        let (found, mend) = if facts.in_cluster {
            (
                "is a node of a cluster, but REDIS_URL names one server only",
                "export REDIS_URL=redis://HOST1:PORT,redis://HOST2:PORT",
            )
        } else {
            ("is no node of a cluster, but REDIS_URL names several servers", "export REDIS_URL=redis://HOST:PORT")
        };
        return Check::failed(name, Fault::Configuration, format!("{said} {found}"), mend);
    }
    match (&facts.copies, inspection.clustered) {
        (Some(primary), false) => {
            let found = format!("{said} is a replica of {primary}: it takes no writes");
            Check::failed(name, Fault::Configuration, found, format!("export REDIS_URL=redis://{primary}"))
        }
        (Some(primary), true) => Check::ok(name, format!("{said}, a replica of {primary}")),
        (None, _) => {
            let replicas = facts.replicas.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
            let replicas = replicas.map(|n| format!(", {}", count(n, "replica")));
            Check::ok(name, format!("{said}, takes writes{}", replicas.unwrap_or_default()))
        }
    }
}

fn cluster(node: &Node, facts: &Facts) -> Option<Check> {
    let name = "redis_cluster";
    let cluster = facts.cluster.as_ref()?;
    let found = format!(
        "{} of {SLOTS} slots served, by {}",
        cluster.slots,
        count(usize::try_from(cluster.size).unwrap_or_default(), "primary node")
    );
    if cluster.ok && cluster.slots == SLOTS {
        return Some(Check::ok(name, found));
    }
    let address = cli(node).replace("redis-cli -h ", "").replace(" -p ", ":");
    Some(Check::failed(
        name,
        Fault::Broken,
        format!("the cluster does not serve: {found}"),
        format!("redis-cli --cluster fix {address}"),
    ))
}

fn eviction(node: &Node, facts: &Facts, _prefix: &str) -> Check {
    let name = "redis_eviction";
    match facts.policy.as_deref() {
        Some("noeviction") => Check::ok(name, "maxmemory-policy is noeviction"),
        Some(policy) => {
            let found = format!("maxmemory-policy is {}: live runs may be dropped, and no service starts", one_line(policy));
            Check::failed(name, Fault::Configuration, found, format!("{} CONFIG SET maxmemory-policy noeviction", cli(node)))
        }
        None => Check::warning(
            name,
            "not known: neither INFO nor CONFIG is permitted",
            format!("{} CONFIG GET maxmemory-policy", cli(node)),
        ),
    }
}

fn memory(node: &Node, facts: &Facts, _prefix: &str) -> Check {
    let name = "redis_memory";
    let (used, max) = match (facts.used_bytes, facts.max_bytes) {
        (Some(used), Some(0)) => return Check::ok(name, format!("no limit but the machine's ({} in use)", size(used))),
        (None, Some(0)) => return Check::ok(name, "no limit but the machine's"),
        (Some(used), Some(max)) => (used, max),
        (None, Some(_)) | (_, None) => return Check::skipped(name, "not known: INFO is not permitted"),
    };
    let found = format!("{} of {} in use", size(used), size(max));
    let mend = format!("{} CONFIG SET maxmemory {}mb", cli(node), max.max(used) / (1 << 20) * 2 + 64);
    if used >= max {
        return Check::failed(name, Fault::Broken, format!("{found}: writes are refused"), mend);
    }
    if used / 9 >= max / 10 {
        Check::warning(name, format!("{found}: soon writes are refused"), mend)
    } else {
        Check::ok(name, found)
    }
}

/// Whole mebibytes: of a server at rest the same every time.
fn size(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// What a restart or a power cut loses.
fn persistence(node: &Node, facts: &Facts, _prefix: &str) -> Check {
    let name = "redis_persistence";
    let found = &facts.persistence;
    let cli = cli(node);
    if let Some(what) = found.failing {
        return Check::failed(
            name,
            Fault::Broken,
            format!("{what} has failed: writes are refused"),
            "df -h # free the disk of Redis",
        );
    }
    let append = format!("{cli} CONFIG SET appendonly yes && {cli} CONFIG SET appendfsync always && {cli} CONFIG REWRITE");
    match (found.appends, found.fsync.as_deref(), found.save.as_deref()) {
        (None, _, _) => {
            Check::warning(name, "not known: neither INFO nor CONFIG is permitted", format!("{cli} CONFIG GET appendonly"))
        }
        (Some(true), Some("always"), _) => {
            Check::ok(name, "appendonly yes, appendfsync always: what was answered survives a power cut")
        }
        (Some(true), Some("everysec"), _) => {
            Check::ok(name, "appendonly yes, appendfsync everysec: a power cut loses the last second, which is then done again")
        }
        (Some(true), Some(fsync), _) => {
            let found =
                format!("appendonly yes, appendfsync {}: a power cut loses the last half minute or more", one_line(fsync));
            Check::warning(name, found, format!("{cli} CONFIG SET appendfsync everysec"))
        }
        (Some(true), None, _) => {
            let found = "appendonly yes; how often it goes to disk is not known, because CONFIG is not permitted";
            Check::warning(name, found, format!("{cli} CONFIG GET appendfsync"))
        }
        (Some(false), _, Some("")) => Check::warning(name, "nothing is kept on disk: a restart loses every run", append),
        (Some(false), _, Some(save)) => {
            let found = format!("snapshots only (save {}): a restart loses what came after the last one", one_line(save));
            Check::warning(name, found, append)
        }
        (Some(false), _, None) => {
            Check::warning(name, "appendonly no: a restart loses what came after the last snapshot, or everything", append)
        }
    }
}

/// The rules that allow these commands.
fn allow(commands: &[String]) -> String {
    let words: Vec<String> = commands.iter().map(|command| format!("+{}", command.to_ascii_lowercase())).collect();
    words.join(" ")
}

fn permissions(node: &Node, facts: &Facts, prefix: &str) -> Check {
    let name = "redis_permissions";
    let mend = |commands: &str| format!("{} ACL SETUSER USER '~{prefix}:*' {commands}", cli(node));
    match &facts.rights {
        Rights::All => Check::ok(name, format!("scripts run, with every command they need on {prefix}:*")),
        Rights::Reads(commands) => {
            let found = format!(
                "the user may not do {} on {prefix}:*: enough to read and to submit, for no service",
                commands.join(", ")
            );
            Check::warning(name, found, mend(&allow(commands)))
        }
        Rights::Lacks(commands) => {
            let found = format!("the user may not do {} on {prefix}:*", commands.join(", "));
            Check::failed(name, Fault::Unreachable, found, mend(&allow(commands)))
        }
        Rights::Unknown(why) => Check::skipped(name, format!("not known: {}", one_line(why))),
        Rights::NoScripts(why) => Check::failed(
            name,
            Fault::Unreachable,
            format!("scripts do not run: {}", one_line(why)),
            mend("+@scripting +@all -@admin -@dangerous"),
        ),
    }
}

fn dead_letters(kept: Option<u64>, prefix: &str, known: &[(&Node, &Facts)]) -> Check {
    let name = "dead_letters";
    let list = known.first().map(|(node, _)| format!("{} LRANGE {prefix}:dead 0 9", cli(node))).unwrap_or_default();
    match kept {
        None => Check::warning(name, format!("not known: {prefix}:dead cannot be counted"), list),
        Some(0) => Check::ok(name, "none"),
        Some(n) => {
            let more = if n >= DEAD_LETTERS_KEPT as u64 { " (older ones are gone)" } else { "" };
            Check::warning(name, format!("{n} kept for people to read{more}"), list)
        }
    }
}

#[cfg(test)]
mod tests;
