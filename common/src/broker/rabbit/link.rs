//! A link to the broker: one connection at a time to one of the configured hosts, made again when it is gone.
//!
//! The connection lives in a pool of one, which hands it out only while it is alive. Channels are opened on it and outlive the
//! loan. The client library's own recovery stays off: it loses consumers and mistakes old acknowledgements.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool_lapin::{Manager, Object, Pool, PoolError, Runtime};
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Channel, ConnectionProperties, ErrorKind};
use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::address::Address;
use super::tls::Secured;
use super::topology;
use crate::broker::{ConnectError, backoff};
use crate::config::BrokerConfig;
use crate::ids::Ids;
use crate::limits::{
    CONNECT_TIMEOUT, DECLARE_COLLISIONS_MAX, DECLARE_TIMEOUT, RECONNECT_BACKOFF_MAX, RECONNECT_BACKOFF_MIN, REDECLARE_DELAY,
};
use crate::message::Queue;
use crate::metrics::{Metrics, Server};
use crate::trust::{self, Trust};

/// See the module. Has no `Debug`: the pools hold passwords.
pub(super) struct Link {
    hosts: Vec<Host>,
    /// The host that worked last.
    at: AtomicUsize,
    prefix: String,
    queues: &'static [Queue],
    /// A queue was seen missing: declare again although the connection is old.
    stale: AtomicBool,
    /// Why there is no connection, if there is none.
    trouble: Mutex<Option<String>>,
    /// There has been a connection before.
    known: AtomicBool,
    metrics: Metrics,
    ids: Ids,
}

struct Host {
    shown: String,
    pool: Pool,
}

impl Link {
    /// Reads the URLs; connects to nobody yet. `queues` are declared on every new connection.
    pub(super) fn new(
        config: &BrokerConfig,
        prefix: &str,
        name: &str,
        queues: &'static [Queue],
        ids: &Ids,
        metrics: &Metrics,
    ) -> Result<Self, ConnectError> {
        let hosts =
            config.urls.iter().map(|url| Host::new(url.expose_secret(), name, &config.trust)).collect::<Result<Vec<_>, _>>()?;
        if hosts.is_empty() {
            return Err(ConnectError::BadUrl("no URL is given".to_owned()));
        }
        // Spread the processes over the hosts.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a small count")]
        let start = (hosts.len() as f64 * ids.fraction()) as usize;
        Ok(Self {
            at: AtomicUsize::new(start),
            hosts,
            prefix: prefix.to_owned(),
            queues,
            stale: AtomicBool::new(false),
            trouble: Mutex::new(None),
            known: AtomicBool::new(false),
            metrics: metrics.clone(),
            ids: ids.clone(),
        })
    }

    /// A new channel, on a new connection if need be; every host is tried once. When all fail, the most telling error.
    pub(super) async fn channel(&self) -> Result<Channel, ConnectError> {
        let start = self.at.load(Ordering::Relaxed);
        let mut failure = None;
        for offset in 0..self.hosts.len() {
            let index = (start + offset) % self.hosts.len();
            match self.channel_at(&self.hosts[index]).await {
                Ok(channel) => {
                    self.at.store(index, Ordering::Relaxed);
                    self.note(None);
                    return Ok(channel);
                }
                // One cluster has one topology: no other host will say anything else.
                Err(error @ (ConnectError::Topology { .. } | ConnectError::BadUrl(_))) => {
                    failure = Some(error);
                    break;
                }
                Err(error @ ConnectError::Refused { .. }) => failure = Some(error),
                Err(error @ ConnectError::Unreachable { .. }) => failure = failure.or(Some(error)),
            }
        }
        let failure = failure.unwrap_or_else(|| ConnectError::BadUrl("no URL is given".to_owned()));
        self.note(Some(failure.to_string()));
        Err(failure)
    }

    async fn channel_at(&self, host: &Host) -> Result<Channel, ConnectError> {
        let mut tries = 0;
        loop {
            match self.open_at(host).await {
                Ok(channel) => return Ok(channel),
                Err(Failure { collided: true, .. }) if tries < DECLARE_COLLISIONS_MAX => {
                    tokio::time::sleep(self.pause(tries)).await
                }
                Err(failure) => return Err(failure.error),
            }
            tries += 1;
        }
    }

    async fn open_at(&self, host: &Host) -> Result<Channel, Failure> {
        let connection = host.pool.get().await.map_err(|e| host.pool_error(e))?;
        if connection.status().blocked() {
            // Kept: a replacement would be blocked too, and this one cannot even be closed until the alarm is over.
            return Err(host.unreachable("the broker lets nobody publish (memory or disk alarm)").into());
        }
        let fresh = Object::metrics(&connection).recycle_count == 0;
        let opened = timeout(DECLARE_TIMEOUT, async {
            let stale = self.stale.swap(false, Ordering::Relaxed);
            if stale {
                tokio::time::sleep(REDECLARE_DELAY).await;
            }
            if stale || fresh {
                topology::declare(&connection, &self.prefix, self.queues).await.map_err(|(q, e)| host.declare_error(q, &e))?;
            }
            if fresh && self.known.swap(true, Ordering::Relaxed) {
                self.metrics.reconnected(Server::Broker);
            }
            connection.create_channel().await.map_err(|e| host.error(&e).into())
        });
        match opened.await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(failure)) => {
                drop(Object::take(connection));
                Err(failure)
            }
            Err(_elapsed) => {
                drop(Object::take(connection));
                Err(host.unreachable(&format!("no answer within {} s", DECLARE_TIMEOUT.as_secs())).into())
            }
        }
    }

    /// Somebody got no answer on a channel: the next channel gets a new connection, unless the broker has blocked this one. It is to
    /// another host: a node that is cut off from its cluster answers as ever, but confirms nothing.
    pub(super) fn distrust(&self) {
        let mut blocked = 0;
        for host in &self.hosts {
            blocked += host.pool.retain(|connection, _| connection.status().blocked()).retained;
        }
        if blocked == 0 {
            self.at.store((self.at.load(Ordering::Relaxed) + 1) % self.hosts.len(), Ordering::Relaxed);
        }
    }

    /// A queue is missing: the next channel declares all of them.
    pub(super) fn redeclare(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    /// Why there is no connection, if there is none.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// The wait before try `tries` (from 0) to connect.
    pub(super) fn pause(&self, tries: u32) -> Duration {
        backoff(tries, RECONNECT_BACKOFF_MIN, RECONNECT_BACKOFF_MAX, self.ids.fraction())
    }

    /// Closes the connection.
    pub(super) async fn close(&self) {
        for host in &self.hosts {
            for connection in host.pool.retain(|_, _| false).removed {
                // A peer that does not answer must not hold up the end of the process.
                let _closed_or_not = timeout(Duration::from_secs(1), connection.close(200, "OK".into())).await;
            }
            host.pool.close();
        }
    }
}

impl Host {
    fn new(url: &str, name: &str, trust: &Trust) -> Result<Self, ConnectError> {
        let Address { full, shown, secured } = Address::parse(url)?;
        let name = name.to_owned();
        let properties = move || ConnectionProperties::default().with_connection_name(name.as_str().into());
        let manager = match secured {
            None => Manager::new(full, properties, async_rs::Runtime::tokio_current()),
            Some(host) => {
                let runtime = Secured::runtime(trust.client(), &host).map_err(ConnectError::BadUrl)?;
                Manager::new(full, properties, runtime)
            }
        };
        let pool = Pool::builder(manager)
            .runtime(Runtime::Tokio1)
            .max_size(1)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|e| ConnectError::BadUrl(e.to_string()))?;
        Ok(Self { shown, pool })
    }

    fn unreachable(&self, why: &str) -> ConnectError {
        ConnectError::Unreachable { url: self.shown.clone(), why: format!("{why}{}", trust::advice(why)) }
    }

    fn pool_error(&self, error: PoolError) -> ConnectError {
        match error {
            PoolError::Backend(error) => self.error(&error),
            PoolError::Timeout(_) => self.unreachable(&format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
            PoolError::Closed => self.unreachable("the connection was closed by this process"),
            PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => self.unreachable(&error.to_string()),
        }
    }

    fn error(&self, error: &lapin::Error) -> ConnectError {
        if let ErrorKind::ProtocolError(said) = error.kind()
            && !going_down(said)
        {
            return ConnectError::Refused { url: self.shown.clone(), why: said.get_message().to_string() };
        }
        self.unreachable(&error.to_string())
    }

    fn declare_error(&self, queue: String, error: &lapin::Error) -> Failure {
        if let ErrorKind::ProtocolError(said) = error.kind() {
            if other_arguments(said) {
                return ConnectError::Topology { queue, why: said.get_message().to_string() }.into();
            }
            let collided = matches!(said.kind(), AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR));
            return Failure { error: self.error(error), collided };
        }
        self.error(error).into()
    }
}

/// Why there is no channel.
struct Failure {
    error: ConnectError,
    /// Somebody else declared the same new queue in the same moment, and the broker calls that an internal error: of services that are
    /// started together for the first time, one would not start.
    collided: bool,
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self { error, collided: false }
    }
}

/// Whether the broker speaks of its own end, not of us.
fn going_down(said: &AMQPError) -> bool {
    let kind = said.kind();
    [AMQPHardError::CONNECTIONFORCED, AMQPHardError::INTERNALERROR, AMQPHardError::RESOURCEERROR]
        .iter()
        .any(|hard| matches!(kind, AMQPErrorKind::Hard(kind) if kind == hard))
}

/// Whether the broker speaks of a queue that is there and is not ours.
fn other_arguments(said: &AMQPError) -> bool {
    matches!(said.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::RESOURCELOCKED))
}
