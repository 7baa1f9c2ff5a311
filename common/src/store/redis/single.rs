//! One server: a connection that is made again when it is lost, and replaced when it leads nowhere.
//!
//! The client library makes a connection again that was closed. It keeps one on which nothing is answered (a host that is gone does not
//! say so, and the system goes on trying for a quarter of an hour), and one to a server that has become a replica and refuses writes,
//! although the name in the URL may long stand for another server.

use std::sync::{Arc, Mutex, PoisonError};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ConnectionInfo, ErrorKind, RedisError};
use tokio::time::Instant;

use crate::limits::{CONNECT_TIMEOUT, RECONNECT_BACKOFF_MAX, STORE_REPLACED_AFTER, STORE_TIMEOUT};

/// See the module. Clones share the connection.
#[derive(Clone)]
pub(super) struct Single(Arc<Shared>);

struct Shared {
    client: Client,
    current: Mutex<Current>,
}

struct Current {
    connection: ConnectionManager,
    since: Instant,
}

impl Single {
    /// Connects.
    pub(super) async fn open(info: ConnectionInfo) -> Result<Self, RedisError> {
        let client = Client::open(info)?;
        let connection = ConnectionManager::new_with_config(client.clone(), settings()).await?;
        let current = Current { connection, since: Instant::now() };
        Ok(Self(Arc::new(Shared { client, current: Mutex::new(current) })))
    }

    /// The connection to use now, and since when it is the one.
    pub(super) fn current(&self) -> (ConnectionManager, Instant) {
        let current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        (current.connection.clone(), current.since)
    }

    /// Replaces the connection of `since`, unless it is another one by now. The next operation connects.
    pub(super) fn replace(&self, since: Instant) {
        let mut current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.since != since || since.elapsed() < STORE_REPLACED_AFTER {
            return;
        }
        if let Ok(connection) = ConnectionManager::new_lazy_with_config(self.0.client.clone(), settings()) {
            tracing::warn!("the connection to Redis leads nowhere, connecting anew");
            *current = Current { connection, since: Instant::now() };
        }
    }
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
