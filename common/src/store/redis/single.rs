//! One server: a connection that is made again when it is lost, and replaced when it leads nowhere.
//!
//! The client library makes a connection again that was closed. It keeps one on which nothing is answered (a host that is gone does not
//! say so, and the system goes on trying for a quarter of an hour), and one to a server that has become a replica and refuses writes,
//! although the name in the URL may long stand for another server. Where Sentinels know the server, they are asked whenever a connection
//! has failed: another one may be the primary by now.

use std::sync::{Arc, Mutex, PoisonError};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionInfo, ErrorKind, RedisError};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::address::{Sentinels, certificates, tcp};
use crate::limits::{CONNECT_TIMEOUT, RECONNECT_BACKOFF_MAX, SENTINELS_ASKED_AFTER, STORE_REPLACED_AFTER, STORE_TIMEOUT};
use crate::trust::Trust;

/// See the module. Clones share the connection.
#[derive(Clone)]
pub(super) struct Single(Arc<Shared>);

struct Shared {
    server: Server,
    /// None: to be asked for.
    current: Mutex<Option<Current>>,
}

/// Who knows where the server is.
enum Server {
    /// The URL.
    Fixed(Client),
    /// Sentinels; with when, and how, they last could not help.
    Watched(AsyncMutex<(SentinelClient, Option<(Instant, RedisError)>)>),
}

#[derive(Clone)]
struct Current {
    connection: ConnectionManager,
    since: Instant,
}

impl Single {
    /// Connects.
    pub(super) async fn open(info: ConnectionInfo) -> Result<Self, RedisError> {
        Self::connect(Server::Fixed(Client::open(info)?)).await
    }

    /// Asks the Sentinels for the primary, and connects to it.
    pub(super) async fn watched(sentinels: Sentinels, trust: &Trust) -> Result<Self, RedisError> {
        let client = client(sentinels, trust)?;
        Self::connect(Server::Watched(AsyncMutex::new((client, None)))).await
    }

    async fn connect(server: Server) -> Result<Self, RedisError> {
        let single = Self(Arc::new(Shared { server, current: Mutex::new(None) }));
        single.current().await?;
        Ok(single)
    }

    /// The connection to use now, and since when it is the one.
    pub(super) async fn current(&self) -> Result<(ConnectionManager, Instant), RedisError> {
        if let Some(Current { connection, since }) = self.known() {
            return Ok((connection, since));
        }
        let connection = match &self.0.server {
            Server::Fixed(client) => ConnectionManager::new_with_config(client.clone(), settings()).await?,
            Server::Watched(sentinels) => {
                // One asks, the others wait for the answer.
                let mut sentinels = sentinels.lock().await;
                if let Some(Current { connection, since }) = self.known() {
                    return Ok((connection, since));
                }
                match &sentinels.1 {
                    Some((when, why)) if when.elapsed() < SENTINELS_ASKED_AFTER => return Err(why.clone()),
                    Some(_) | None => {}
                }
                match ask(&mut sentinels.0).await {
                    Ok(connection) => connection,
                    Err(error) => {
                        sentinels.1 = Some((Instant::now(), error.clone()));
                        return Err(error);
                    }
                }
            }
        };
        let current = Current { connection, since: Instant::now() };
        *self.0.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(current.clone());
        Ok((current.connection, current.since))
    }

    fn known(&self) -> Option<Current> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Told of an error on the connection of `since`: replaces it, if another one may do what this one could not, unless it is another one
    /// by now. The next operation connects.
    pub(super) fn failed(&self, since: Instant, error: Option<&RedisError>) {
        let gone = error.is_none_or(|error| match &self.0.server {
            Server::Fixed(_) => leads_nowhere(error),
            Server::Watched(_) => leads_nowhere(error) || error.is_io_error(),
        });
        let mut current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        let it_is = current.as_ref().is_some_and(|current| current.since == since);
        if !gone || !it_is || since.elapsed() < STORE_REPLACED_AFTER {
            return;
        }
        match &self.0.server {
            Server::Fixed(client) => {
                if let Ok(connection) = ConnectionManager::new_lazy_with_config(client.clone(), settings()) {
                    tracing::warn!("the connection to Redis leads nowhere, connecting anew");
                    *current = Some(Current { connection, since: Instant::now() });
                }
            }
            Server::Watched(_) => {
                tracing::warn!("the connection to Redis has failed, asking the Sentinels for the primary");
                *current = None;
            }
        }
    }
}

/// The primary that the Sentinels name.
pub(super) async fn primary(sentinels: Sentinels, trust: &Trust) -> Result<ConnectionInfo, RedisError> {
    Ok(client(sentinels, trust)?.async_get_client().await?.get_connection_info().clone())
}

/// A connection to the primary, which has said itself that it is one.
async fn ask(sentinels: &mut SentinelClient) -> Result<ConnectionManager, RedisError> {
    let client = sentinels.async_get_client().await?;
    tracing::info!("the primary of Redis is at {}", client.get_connection_info().addr());
    ConnectionManager::new_with_config(client, settings()).await
}

fn client(sentinels: Sentinels, trust: &Trust) -> Result<SentinelClient, RedisError> {
    let Sentinels { hosts, service, redis, username, password, tls } = sentinels;
    let mut builder = SentinelClientBuilder::new(hosts, service, SentinelServerType::Master)?
        .set_client_to_redis_db(redis.db())
        .set_client_to_redis_protocol(redis.protocol())
        .set_client_to_redis_tcp_settings(tcp())
        .set_client_to_sentinel_tcp_settings(tcp());
    if let Some(username) = redis.username() {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = redis.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(username) = username {
        builder = builder.set_client_to_sentinel_username(username);
    }
    if let Some(password) = password {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if let Some(tls) = tls {
        builder = builder.set_client_to_redis_tls_mode(tls).set_client_to_sentinel_tls_mode(tls);
        if let Some(certificates) = certificates(trust) {
            builder =
                builder.set_client_to_redis_certificates(certificates.clone()).set_client_to_sentinel_certificates(certificates);
        }
    }
    builder.build()
}

fn settings() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(STORE_TIMEOUT))
        .set_number_of_retries(2)
        .set_max_delay(RECONNECT_BACKOFF_MAX)
}

/// Whether another connection may do what this one could not. A password that is refused while the connection is made again is kept by
/// the client library as the answer to everything, even when it is the right one by then.
pub(super) fn leads_nowhere(error: &RedisError) -> bool {
    error.is_timeout() || error.kind() == ErrorKind::AuthenticationFailed || refuses(error, "READONLY")
}

/// Whether the server refuses with `code`. Before version 7 Redis reports what a script ran into as an error of the script.
pub(super) fn refuses(error: &RedisError, code: &str) -> bool {
    match error.code() {
        Some("ERR") => error.to_string().contains(&format!(": -{code} ")),
        said => said == Some(code),
    }
}
