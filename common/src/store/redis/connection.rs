//! The connection: one server or a cluster, with time-outs, a few tries, and the checks of the first contact.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use redis::aio::ConnectionLike;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, Value};
use secrecy::ExposeSecret;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tracing::warn;

use super::address::{self, Address};
use super::scripts::{self, Script, Verb};
use super::single::{Single, refuses};
use crate::config::{StoreConfig, mask_url};
use crate::limits::{CONNECT_TIMEOUT, STORE_TIMEOUT};
use crate::metrics::{Metrics, Server};
use crate::store::StoreError;
use crate::trust;

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
    /// A script by its hash, and whole for a server that does not know it.
    Script(&'a Cmd, &'a Cmd),
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
        let urls: Vec<&str> = config.urls.iter().map(|url| url.expose_secret()).collect();
        let url = mask_url(&urls.join(","));
        let link: BoxFuture<'_, _> = Box::pin(Link::open(config));
        let link = match timeout(CONNECT_TIMEOUT, link).await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) if error.kind() == ErrorKind::InvalidClientConfig => {
                return Err(ConnectError::BadUrl(error.to_string()));
            }
            Ok(Err(error)) => {
                let why = error.to_string();
                return Err(ConnectError::Unreachable { url, why: format!("{why}{}", trust::advice(&why)) });
            }
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
        let call = |name: &str, script: &str| {
            let mut call = redis::cmd(name);
            call.arg(script).arg(keys.len()).arg(&keys).arg(&given).arg(&arguments);
            call
        };
        self.tried(Operation::Script(&call("EVALSHA", &script.hash), &call("EVAL", &script.text))).await
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
            // Boxed: what is beneath is deep, and part of the type of everything above.
            let answer: BoxFuture<'_, _> = Box::pin(link.run(operation));
            let answer = answer.await;
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
        let urls: Vec<&str> = config.urls.iter().map(|url| url.expose_secret()).collect();
        let servers = match Address::parse(&urls, &config.trust)? {
            Address::Single(server) => return Ok(Self::Single(Single::open(server).await?)),
            Address::Sentinels(sentinels) => return Ok(Self::Single(Single::watched(sentinels, &config.trust).await?)),
            Address::Cluster(servers) => servers,
        };
        let mut client = ClusterClient::builder(servers)
            .retries(3)
            .min_retry_wait(100)
            .max_retry_wait(1000)
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(STORE_TIMEOUT)
            .overall_response_timeout(Some(STORE_TIMEOUT))
            .tcp_settings(address::tcp());
        if let Some(certificates) = address::certificates(&config.trust) {
            client = client.certs(certificates);
        }
        Ok(Self::Cluster(client.build()?.get_async_connection().await?))
    }

    /// One try, within [`STORE_TIMEOUT`].
    async fn run(&mut self, operation: Operation<'_>) -> Result<Result<Value, RedisError>, Elapsed> {
        match self {
            Link::Cluster(connection) => timeout(STORE_TIMEOUT, operation.run(connection)).await,
            Link::Single(single) => {
                let (mut connection, since) = match timeout(STORE_TIMEOUT, single.current()).await? {
                    Ok(current) => current,
                    Err(error) => return Ok(Err(error)),
                };
                let answer = timeout(STORE_TIMEOUT, operation.run(&mut connection)).await;
                match &answer {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => single.failed(since, Some(error)),
                    Err(_elapsed) => single.failed(since, None),
                }
                answer
            }
        }
    }
}

impl Operation<'_> {
    async fn run(self, connection: &mut impl ConnectionLike) -> Result<Value, RedisError> {
        match self {
            // Not loaded beforehand: in a cluster that would go to every server, and fail as long as one of them is down.
            Operation::Script(by_hash, whole) => match by_hash.query_async(connection).await {
                Err(error) if refuses(&error, "NOSCRIPT") => whole.query_async(connection).await,
                answer => answer,
            },
            Operation::Command(command) => command.query_async(connection).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::single::leads_nowhere;
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
