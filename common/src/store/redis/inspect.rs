//! What a Redis server can be asked without writing anything, for `planrelay doctor`.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, RedisError, Value};
use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::address::Address;
use super::connection::ConnectError;
use super::scripts;
use super::single::primary;
use crate::clock::{Clock, Reading};
use crate::config::{StoreConfig, mask_url};
use crate::limits::{CONNECT_TIMEOUT, DOCTOR_NODES_MAX, DOCTOR_TIMEOUT};

/// Commands that are sent outside scripts.
const PLAIN: [&str; 13] =
    ["LLEN", "PING", "ZADD", "ZREMRANGEBYRANK", "HGET", "ZREM", "GET", "XRANGE", "ZRANGE", "HMGET", "LPUSH", "LTRIM", "LRANGE"];

/// What is enough to read runs and to submit them.
const READS: [&str; 14] = [
    "GET",
    "HGET",
    "HGETALL",
    "HMGET",
    "HVALS",
    "LLEN",
    "LRANGE",
    "SMEMBERS",
    "TIME",
    "XRANGE",
    "XREVRANGE",
    "ZCARD",
    "ZRANGE",
    "ZSCORE",
];

/// Asks which of the commands in `ARGV` (from the second on) the user may not use on the key `ARGV[1]`. Before Redis 7 scripts cannot
/// ask; then the answer is only that scripts run.
const MAY: &str = "\
local denied = {}
if redis.acl_check_cmd then
  for at = 2, #ARGV do
    local command = ARGV[at]
    local known, may = pcall(redis.acl_check_cmd, command, ARGV[1], ARGV[1], ARGV[1], ARGV[1])
    if known and not may then denied[#denied + 1] = command end
  end
end
return denied";

/// What was found at the configured URLs.
#[derive(Debug)]
pub struct Inspection {
    /// Every configured server, and with a cluster every further node that it names.
    pub nodes: Vec<Node>,
    /// Whether several URLs are configured, which makes them a cluster.
    pub clustered: bool,
    /// Dead letters that are kept for people, where they can be counted.
    pub dead_letters: Option<u64>,
}

/// One server.
#[derive(Debug)]
pub struct Node {
    /// The URL, password masked.
    pub url: String,
    /// Whether it was found through another node.
    pub discovered: bool,
    /// What it says.
    pub facts: Result<Facts, Refusal>,
}

/// Why a server says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody answers.
    Unreachable(String),
    /// User or password.
    Credentials(String),
    /// It is there and cannot serve, or is no Redis.
    Other(String),
}

/// What one server says. What it does not tell is `None`.
#[derive(Debug)]
pub struct Facts {
    /// `Redis`, `Valkey`.
    pub kind: &'static str,
    /// `7.0.15`; empty where it does not say.
    pub version: String,
    /// Whether it is a node of a cluster.
    pub in_cluster: bool,
    /// The server that it copies, if it is a replica.
    pub copies: Option<String>,
    /// Replicas that copy it.
    pub replicas: Option<u64>,
    /// Bytes in use.
    pub used_bytes: Option<u64>,
    /// Most bytes it may use; 0: no limit.
    pub max_bytes: Option<u64>,
    /// What it does when that is reached.
    pub policy: Option<String>,
    /// What it keeps on disk.
    pub persistence: Persistence,
    /// Its clock.
    pub clock: Option<Reading>,
    /// The state of the cluster as this node sees it.
    pub cluster: Option<Cluster>,
    /// What the user may not do.
    pub rights: Rights,
}

/// What a server keeps on disk.
#[derive(Debug, Default)]
pub struct Persistence {
    /// Whether it logs every write.
    pub appends: Option<bool>,
    /// When the log goes to disk: `always`, `everysec`, `no`.
    pub fsync: Option<String>,
    /// When it takes snapshots; empty: never.
    pub save: Option<String>,
    /// Writing to disk failed last time: what failed.
    pub failing: Option<&'static str>,
}

/// A cluster as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Whether it serves.
    pub ok: bool,
    /// Slots of 16,384 that somebody serves.
    pub slots: u64,
    /// Primaries.
    pub size: u64,
    /// `host:port` of its nodes that are not known to have failed.
    nodes: Vec<String>,
}

/// What the user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// Scripts run, and nothing that is needed is forbidden.
    All,
    /// Scripts run, but not with these commands on our keys: enough to read and to submit, for no service.
    Reads(Vec<String>),
    /// The same, and not even enough to read.
    Lacks(Vec<String>),
    /// Scripts do not run; what the server said.
    NoScripts(String),
    /// Nothing runs now; what the server said.
    Unknown(String),
}

/// Looks at every configured server and, in a cluster, at the others. Writes nothing.
pub async fn inspect(config: &StoreConfig, prefix: &str) -> Result<Inspection, ConnectError> {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let bad = |error: RedisError| ConnectError::BadUrl(error.to_string());
    let urls: Vec<&str> = config.urls.iter().map(|url| url.expose_secret()).collect();
    let (infos, clustered) = match Address::parse(&urls, &config.trust).map_err(bad)? {
        Address::Single(info) => (vec![info], false),
        Address::Cluster(infos) => (infos, true),
        Address::Sentinels(sentinels) => {
            let late = || Refusal::Unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
            let asked = timeout(CONNECT_TIMEOUT, primary(sentinels, &config.trust)).await.map_err(|_elapsed| late());
            match asked.and_then(|answer| answer.map_err(|error| refusal(&error))) {
                Ok(info) => (vec![info], false),
                Err(refusal) => {
                    let node = Node { url: mask_url(&urls.join(",")), discovered: false, facts: Err(refusal) };
                    return Ok(Inspection { nodes: vec![node], clustered: false, dead_letters: None });
                }
            }
        }
    };
    // One URL may stand for several servers.
    let shown = |number: usize, info: &ConnectionInfo| match urls.get(number) {
        Some(url) if urls.len() == infos.len() => mask_url(url),
        Some(_) | None => address(info.addr()),
    };
    let configured: Vec<(ConnectionInfo, String)> =
        infos.iter().enumerate().map(|(number, info)| (info.clone(), shown(number, info))).collect();
    let known: BTreeSet<String> = configured.iter().map(|(info, _)| address(info.addr())).collect();
    let like = configured.first().map(|(info, _)| info.clone());
    let looks = join_all(configured.into_iter().map(|(info, url)| node(info, url, false, prefix))).await;
    let (mut nodes, mut dead_letters) = split(looks);
    if let Some(like) = like.filter(|_| clustered) {
        let named = nodes.iter().find_map(|node| Some(node.facts.as_ref().ok()?.cluster.as_ref()?.nodes.clone()));
        let others = named.unwrap_or_default().into_iter().filter(|name| !known.contains(name)).take(DOCTOR_NODES_MAX);
        let others = others.filter_map(|name| Some((moved(&like, &name)?, name)));
        let more = split(join_all(others.map(|(info, name)| node(info, name, true, prefix))).await);
        nodes.extend(more.0);
        dead_letters = dead_letters.or(more.1);
    }
    Ok(Inspection { nodes, clustered, dead_letters })
}

fn split(looks: Vec<(Node, Option<u64>)>) -> (Vec<Node>, Option<u64>) {
    let (nodes, letters): (Vec<Node>, Vec<Option<u64>>) = looks.into_iter().unzip();
    (nodes, letters.into_iter().flatten().next())
}

async fn node(info: ConnectionInfo, url: String, discovered: bool, prefix: &str) -> (Node, Option<u64>) {
    let late = || Refusal::Unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
    let connected = timeout(CONNECT_TIMEOUT, connect(info)).await.unwrap_or_else(|_elapsed| Err(late()));
    let looked = match connected {
        Ok(mut server) => timeout(DOCTOR_TIMEOUT, look(&mut server, prefix)).await.unwrap_or_else(|_elapsed| Err(late())),
        Err(refusal) => Err(refusal),
    };
    let (facts, letters) = match looked {
        Ok((facts, letters)) => (Ok(facts), letters),
        Err(refusal) => (Err(refusal), None),
    };
    (Node { url, discovered, facts }, letters)
}

async fn connect(info: ConnectionInfo) -> Result<MultiplexedConnection, Refusal> {
    // Time limits are the caller's.
    let settings = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let client = Client::open(info).map_err(|error| refusal(&error))?;
    client.get_multiplexed_async_connection_with_config(&settings).await.map_err(|error| refusal(&error))
}

fn refusal(error: &RedisError) -> Refusal {
    let why = error.to_string();
    let asks = matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) || error.kind() == ErrorKind::AuthenticationFailed;
    if asks {
        Refusal::Credentials(why)
    } else if error.kind() == ErrorKind::Io || error.is_timeout() {
        Refusal::Unreachable(why)
    } else {
        Refusal::Other(why)
    }
}

/// Lines of `name:value`, as `INFO` and `CLUSTER INFO` have them.
struct Fields(BTreeMap<String, String>);

impl Fields {
    fn read(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.trim().split_once(':'));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

async fn ask<T: FromRedisValue>(server: &mut MultiplexedConnection, name: &str, arguments: &[&str]) -> Result<T, RedisError> {
    Cmd::new().arg(name).arg(arguments).query_async(server).await
}

async fn look(server: &mut MultiplexedConnection, prefix: &str) -> Result<(Facts, Option<u64>), Refusal> {
    if let Err(error) = ask::<()>(server, "PING", &[]).await
        // A user who may not even do that, and a server that cannot write: what that means is found below.
        && !matches!(error.code(), Some("NOPERM" | "MISCONF"))
    {
        return Err(refusal(&error));
    }
    let info = Fields::read(&ask::<String>(server, "INFO", &[]).await.unwrap_or_default());
    // Permitted to everybody, and tells a little of the same.
    let hello: BTreeMap<String, Value> = ask(server, "HELLO", &[]).await.unwrap_or_default();
    let hello = |name: &str| hello.get(name).and_then(|value| String::from_redis_value(value.clone()).ok());
    let text = |name: &str| info.text(name).map(str::to_owned);
    let valkey = text("server_name").or_else(|| hello("server")).as_deref() == Some("valkey");
    let version = if valkey { text("valkey_version") } else { text("redis_version") };
    let mode = text("redis_mode").or_else(|| text("server_mode")).or_else(|| hello("mode"));
    let in_cluster = mode.as_deref() == Some("cluster");
    let role = text("role").or_else(|| hello("role"));
    let replica = matches!(role.as_deref(), Some("slave" | "replica"));
    let of = || format!("{}:{}", info.text("master_host").unwrap_or("?"), info.text("master_port").unwrap_or("?"));
    let policy = setting(server, "maxmemory-policy").await;
    let limit = setting(server, "maxmemory").await.and_then(|bytes| bytes.parse().ok());
    let letters = ask(server, "LLEN", &[&format!("{prefix}:dead")]).await.ok();
    let facts = Facts {
        kind: if valkey { "Valkey" } else { "Redis" },
        version: version.or_else(|| hello("version")).unwrap_or_default(),
        in_cluster,
        copies: replica.then(of),
        replicas: info.number("connected_slaves"),
        used_bytes: info.number("used_memory"),
        max_bytes: info.number("maxmemory").or(limit),
        policy: text("maxmemory_policy").or(policy),
        persistence: persistence(server, &info).await,
        clock: clock(server).await,
        cluster: if in_cluster { cluster(server).await } else { None },
        rights: rights(server, prefix).await,
    };
    Ok((facts, letters))
}

async fn persistence(server: &mut MultiplexedConnection, info: &Fields) -> Persistence {
    let flag = |name: &str| info.text(name).map(|value| value == "1");
    let failed = |name: &str| info.text(name) == Some("err");
    let stops = setting(server, "stop-writes-on-bgsave-error").await.is_none_or(|stops| stops == "yes");
    let save = setting(server, "save").await;
    let appends = setting(server, "appendonly").await.map(|appends| appends == "yes");
    let snapshots = save.as_ref().is_none_or(|save| !save.is_empty());
    Persistence {
        appends: flag("aof_enabled").or(appends),
        fsync: setting(server, "appendfsync").await,
        save,
        failing: match (failed("aof_last_write_status"), failed("rdb_last_bgsave_status") && stops && snapshots) {
            (true, _) => Some("writing the append-only file"),
            (false, true) => Some("writing a snapshot"),
            (false, false) => None,
        },
    }
}

/// A line of the configuration; `None` where `CONFIG` is not permitted.
async fn setting(server: &mut MultiplexedConnection, name: &str) -> Option<String> {
    let pairs: BTreeMap<String, String> = ask(server, "CONFIG", &["GET", name]).await.ok()?;
    pairs.get(name).cloned()
}

async fn clock(server: &mut MultiplexedConnection) -> Option<Reading> {
    let sent_ms = Clock::System.now_ms();
    let (seconds, micros): (u64, u64) = ask(server, "TIME", &[]).await.ok()?;
    Some(Reading::new(seconds.saturating_mul(1000) + micros / 1000, 0, sent_ms, Clock::System.now_ms()))
}

async fn cluster(server: &mut MultiplexedConnection) -> Option<Cluster> {
    let state = Fields::read(&ask::<String>(server, "CLUSTER", &["INFO"]).await.ok()?);
    let nodes = ask::<String>(server, "CLUSTER", &["NODES"]).await.unwrap_or_default();
    Some(Cluster {
        ok: state.text("cluster_state") == Some("ok"),
        slots: state.number("cluster_slots_ok").unwrap_or_default(),
        size: state.number("cluster_size").unwrap_or_default(),
        nodes: nodes.lines().filter_map(cluster_node).collect(),
    })
}

/// `host:port` in a line of `CLUSTER NODES`, unless the node is known to have failed.
fn cluster_node(line: &str) -> Option<String> {
    let mut words = line.split(' ').skip(1);
    let (address, flags) = (words.next()?, words.next()?);
    let gone = flags.split(',').any(|flag| matches!(flag, "fail" | "noaddr" | "handshake"));
    // `127.0.0.1:7000@17000,hostname`.
    let address = address.split(['@', ',']).next().filter(|address| !address.starts_with(':'))?;
    (!gone).then(|| address.to_owned())
}

async fn rights(server: &mut MultiplexedConnection, prefix: &str) -> Rights {
    let key = format!("{prefix}:{{planrelay-doctor}}:run");
    let commands = PLAIN.into_iter().map(str::to_owned).chain(scripts::commands()).collect::<BTreeSet<_>>();
    let mut arguments: Vec<&str> = vec![MAY, "0", &key];
    arguments.extend(commands.iter().map(String::as_str));
    match ask::<Vec<String>>(server, "EVAL", &arguments).await {
        Ok(denied) if denied.is_empty() => {}
        Ok(denied) if denied.iter().any(|command| READS.contains(&command.as_str())) => return Rights::Lacks(denied),
        Ok(denied) => return Rights::Reads(denied),
        Err(error) if matches!(error.code(), Some("NOPERM" | "ERR")) => return Rights::NoScripts(error.to_string()),
        Err(error) => return Rights::Unknown(error.to_string()),
    }
    // Scripts are sent by their hash. This one is nobody's.
    match ask::<()>(server, "EVALSHA", &["0000000000000000000000000000000000000000", "0"]).await {
        Err(error) if error.code() == Some("NOPERM") => Rights::Lacks(vec!["EVALSHA".to_owned()]),
        Ok(()) | Err(_) => Rights::All,
    }
}

fn address(addr: &ConnectionAddr) -> String {
    addr.to_string()
}

/// `like` with another `host:port`.
fn moved(like: &ConnectionInfo, to: &str) -> Option<ConnectionInfo> {
    let (host, port) = to.rsplit_once(':')?;
    let (host, port) = (host.to_owned(), port.parse().ok()?);
    #[expect(clippy::wildcard_enum_match_arm, reason = "sockets of this machine have no host, and the enum is open")]
    let addr = match like.addr() {
        ConnectionAddr::Tcp(..) => ConnectionAddr::Tcp(host, port),
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => return None,
    };
    Some(like.clone().set_addr(addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_cluster_are_read() {
        for (line, expected) in [
            ("07c3 127.0.0.1:7004@17004 slave 67ed 0 1426238317239 4 connected", Some("127.0.0.1:7004")),
            ("67ed 10.0.0.1:7002@17002,redis-2 master - 0 1426 2 connected 5461-10922", Some("10.0.0.1:7002")),
            ("67ed 10.0.0.1:7002@17002 master,fail - 0 1426 2 connected", None),
            ("67ed :0@0 master,noaddr - 0 1426 2 disconnected", None),
            ("", None),
        ] {
            assert_eq!(cluster_node(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn every_command_of_a_script_is_asked_for() {
        let commands: Vec<String> = scripts::commands().collect();
        for name in ["HSET", "ZADD", "XADD", "PEXPIRE", "TIME"] {
            assert!(commands.iter().any(|command| command == name), "{name} in {commands:?}");
        }
        assert!(commands.len() > 20, "{commands:?}");
    }
}
