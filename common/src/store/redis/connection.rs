//! The connection: one server or a cluster, with time-outs, a few tries, and the checks of the first contact.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, Script, ScriptInvocation, Value};
use secrecy::ExposeSecret;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tracing::warn;

use super::scripts::{self, Verb};
use super::single::{Single, leads_nowhere, refuses};
use crate::config::StoreConfig;
use crate::limits::{CONNECT_TIMEOUT, STORE_TIMEOUT};
use crate::metrics::{Metrics, Server};
use crate::store::StoreError;

/// Tries of one operation over a connection that breaks; every verb may be repeated.
const TRIES: u32 = 3;

/// Why Redis cannot be used at all: the process should end with a clear sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers, or the password is wrong. Exit code 5.
    #[error("cannot use Redis at {url}: {why}")]
    Unreachable {
        /// The URL, password masked.
        url: String,
        /// What happened.
        why: String,
    },
    /// The server may throw away what it is given. Exit code 2.
    #[error(
        "Redis at {url} has maxmemory-policy {policy}, which may drop live runs; run: CONFIG SET maxmemory-policy noeviction"
    )]
    Evicts {
        /// The URL, password masked.
        url: String,
        /// The policy.
        policy: String,
    },
    /// The URL cannot be used. Exit code 2.
    #[error("REDIS_URL: {0}")]
    BadUrl(String),
}

#[derive(Clone)]
pub(super) struct Connection {
    link: Link,
    scripts: Arc<Vec<Script>>,
    /// The last operation found nobody.
    lost: Arc<AtomicBool>,
    metrics: Metrics,
}

/// What is sent; it may be sent again.
#[derive(Clone, Copy)]
enum Operation<'a> {
    Script(&'a ScriptInvocation<'a>),
    Command(&'a Cmd),
}

#[derive(Clone)]
enum Link {
    Single(Single),
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.link {
            Link::Single(_) => "Connection(single)",
            Link::Cluster(_) => "Connection(cluster)",
        })
    }
}

impl Connection {
    pub(super) async fn open(config: &StoreConfig, metrics: &Metrics) -> Result<Self, ConnectError> {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let url = masked(config.urls.first().map_or("", |url| url.expose_secret()));
        let link = match timeout(CONNECT_TIMEOUT, Link::open(config)).await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) if error.kind() == ErrorKind::InvalidClientConfig => {
                return Err(ConnectError::BadUrl(error.to_string()));
            }
            Ok(Err(error)) => return Err(ConnectError::Unreachable { url, why: error.to_string() }),
            Err(_elapsed) => {
                return Err(ConnectError::Unreachable { url, why: format!("no answer within {CONNECT_TIMEOUT:?}") });
            }
        };
        let connection = Self { link, scripts: Arc::new(scripts::compile()), lost: Arc::default(), metrics: metrics.clone() };
        connection.check(&url).await?;
        Ok(connection)
    }

    /// Refuses a server that drops keys when memory is short; warns about one that forgets them when it restarts.
    async fn check(&self, url: &str) -> Result<(), ConnectError> {
        let unreachable = |error: StoreError| ConnectError::Unreachable { url: url.to_owned(), why: error.to_string() };
        self.command("PING", &[]).await.map_err(unreachable)?;
        // Managed services forbid CONFIG: then nothing can be said.
        let Some(policy) = self.setting("maxmemory-policy").await else { return Ok(()) };
        if policy != "noeviction" {
            return Err(ConnectError::Evicts { url: url.to_owned(), policy });
        }
        let persists = self.setting("appendonly").await.is_some_and(|on| on == "yes")
            || self.setting("save").await.is_some_and(|save| !save.is_empty());
        if !persists {
            warn!("Redis at {url} keeps nothing on disk: live runs are lost when it restarts (set appendonly yes)");
        }
        Ok(())
    }

    async fn setting(&self, name: &str) -> Option<String> {
        let value = self.command("CONFIG", &["GET", name]).await.ok()?;
        let pairs: Vec<(String, String)> = FromRedisValue::from_redis_value(value).ok()?;
        pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Runs a script; loads it when the server does not know it yet.
    pub(super) async fn eval(
        &self,
        verb: Verb,
        keys: Vec<String>,
        given: String,
        arguments: Vec<String>,
    ) -> Result<Value, StoreError> {
        let script = self.scripts.get(verb as usize).ok_or_else(|| StoreError::Unusable(format!("no script {verb:?}")))?;
        let mut invocation = script.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        invocation.arg(given);
        for argument in arguments {
            invocation.arg(argument);
        }
        self.tried(Operation::Script(&invocation)).await
    }

    /// Runs a plain command that may be repeated.
    pub(super) async fn command(&self, name: &str, arguments: &[&str]) -> Result<Value, StoreError> {
        let mut command = redis::cmd(name);
        command.arg(arguments);
        self.tried(Operation::Command(&command)).await
    }

    /// Deletes the keys that match, on every node.
    pub(super) async fn delete_matching(&self, pattern: &str) -> Result<(), StoreError> {
        let keys = self.command("KEYS", &[pattern]).await?;
        let keys: Vec<String> = FromRedisValue::from_redis_value(keys).unwrap_or_default();
        for key in keys {
            self.command("DEL", &[&key]).await?;
        }
        Ok(())
    }

    async fn tried(&self, operation: Operation<'_>) -> Result<Value, StoreError> {
        let mut link = self.link.clone();
        let mut tries = 0;
        loop {
            let answer = link.run(operation).await;
            let why = match answer {
                Ok(Ok(value)) => {
                    if self.lost.swap(false, Ordering::Relaxed) {
                        self.metrics.reconnected(Server::Store);
                    }
                    return Ok(value);
                }
                Ok(Err(error)) if !may_pass(&error) => return Err(StoreError::Unusable(error.to_string())),
                Ok(Err(error)) => {
                    if error.is_connection_dropped() || error.is_connection_refusal() || error.is_io_error() {
                        self.lost.store(true, Ordering::Relaxed);
                    }
                    error.to_string()
                }
                Err(_elapsed) => format!("no answer within {STORE_TIMEOUT:?}"),
            };
            tries += 1;
            if tries >= TRIES {
                return Err(StoreError::Unreachable(why));
            }
            tokio::time::sleep(Duration::from_millis(50) * tries).await;
        }
    }
}

/// Whether the same operation may succeed later. Everything may (a server that is loading, full, failing over, or that has its
/// passwords changed) but a mistake in what was sent or in what is stored.
fn may_pass(error: &RedisError) -> bool {
    let ours = matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType | ErrorKind::InvalidClientConfig);
    let code = error.code().unwrap_or_default();
    let refused = ["READONLY", "OOM", "MISCONF", "NOREPLICAS"].into_iter().any(|code| refuses(error, code));
    let of_a_script = code == "ERR" && error.to_string().contains("script");
    let mistaken = matches!(code, "WRONGTYPE" | "CROSSSLOT") || (of_a_script && !refused);
    !ours && !mistaken
}

impl Link {
    async fn open(config: &StoreConfig) -> Result<Self, RedisError> {
        let infos = config
            .urls
            .iter()
            .map(|url| {
                let info = url.expose_secret().into_connection_info()?;
                Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
            })
            .collect::<Result<Vec<_>, RedisError>>()?;
        if infos.len() > 1 {
            let client = ClusterClient::builder(infos)
                .retries(3)
                .min_retry_wait(100)
                .max_retry_wait(1000)
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(STORE_TIMEOUT)
                .overall_response_timeout(Some(STORE_TIMEOUT))
                .build()?;
            return Ok(Self::Cluster(client.get_async_connection().await?));
        }
        let info = infos.into_iter().next().ok_or_else(|| RedisError::from((ErrorKind::InvalidClientConfig, "no URL")))?;
        Ok(Self::Single(Single::open(info).await?))
    }

    /// One try, within [`STORE_TIMEOUT`].
    async fn run(&mut self, operation: Operation<'_>) -> Result<Result<Value, RedisError>, Elapsed> {
        match self {
            Link::Cluster(connection) => timeout(STORE_TIMEOUT, operation.run(connection)).await,
            Link::Single(single) => {
                let (mut connection, since) = single.current();
                let answer = timeout(STORE_TIMEOUT, operation.run(&mut connection)).await;
                if answer.as_ref().map_or(true, |answer| answer.as_ref().is_err_and(leads_nowhere)) {
                    single.replace(since);
                }
                answer
            }
        }
    }
}

impl Operation<'_> {
    async fn run(self, connection: &mut (impl ConnectionLike + Clone)) -> Result<Value, RedisError> {
        match self {
            Operation::Script(script) => script.invoke_async(connection).await,
            Operation::Command(command) => command.query_async(connection).await,
        }
    }
}

/// The URL without its password.
fn masked(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => format!("{}***{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap().extract_error().unwrap_err()
    }

    #[test]
    fn a_server_that_has_become_a_replica_or_refuses_the_password_leads_nowhere() {
        for replaced in [
            said("READONLY You can't write against a read only replica. script: 71, on @user_script:385."),
            said(
                "ERR Error running script (call to f_71): @user_script:385: -READONLY You can't write against a read only replica.",
            ),
            RedisError::from((ErrorKind::AuthenticationFailed, "Password authentication failed")),
        ] {
            assert!(leads_nowhere(&replaced) && may_pass(&replaced), "{replaced}");
        }
        for kept in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "ERR Error running script (call to f_71): @user_script:385: -OOM command not allowed when used memory > 'maxmemory'.",
            "ERR Error running script (call to f_71): @user_script:12: attempt to index a nil value",
        ] {
            assert!(!leads_nowhere(&said(kept)), "{kept}");
        }
    }

    #[test]
    fn only_mistakes_are_final() {
        for passes in [
            "READONLY You can't write against a read only replica. script: 71, on @user_script:385.",
            "OOM command not allowed when used memory > 'maxmemory'. script: 71, on @user_script:385.",
            // As Redis 6.2 says the same.
            "ERR Error running script (call to f_71): @user_script:385: -READONLY You can't write against a read only replica.",
            "ERR Error running script (call to f_71): @user_script:385: -OOM command not allowed when used memory > 'maxmemory'.",
            "LOADING Redis is loading the dataset in memory",
            "NOAUTH Authentication required.",
        ] {
            assert!(may_pass(&said(passes)), "{passes}");
        }
        for stays in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "ERR Error running script (call to f_71): @user_script:12: attempt to index a nil value",
            "ERR user_script:12: Script attempted to access nonexistent global variable 'x' script: 71, on @user_script:12.",
        ] {
            assert!(!may_pass(&said(stays)), "{stays}");
        }
    }
}
