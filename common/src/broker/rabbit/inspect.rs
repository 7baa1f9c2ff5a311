//! What a broker can be asked without changing anything, for `planrelay doctor`.
//!
//! A host is greeted before anybody logs in: that tells its version even where the password is wrong. Queues are declared passively,
//! and again with our arguments where they exist, which compares them and does no more. Permissions show in requests that the broker
//! checks for permission first and refuses as invalid then; should a broker ever take one, it ends with the connection.

use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, Event};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout};

use super::address::Address;
pub use super::greeting::Greeting;
use super::greeting::greet;
use super::topology;
use super::wire::short;
use crate::broker::ConnectError;
use crate::config::BrokerConfig;
use crate::ids::Ids;
use crate::limits::{CONNECT_TIMEOUT, DOCTOR_TIMEOUT};
use crate::message::Queue;

/// What was found of the configured broker.
#[derive(Debug)]
pub struct Inspection {
    /// Every host, in the order of the configuration.
    pub hosts: Vec<HostFacts>,
    /// Who is logged in, and where.
    pub login: Login,
    /// The queues and what may be done with them, by the first host that lets us in.
    pub queues: Option<QueuesFacts>,
}

/// The parts of a URL that commands are made of.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The virtual host.
    pub vhost: String,
    /// The host of the first URL.
    pub host: String,
}

/// One host.
#[derive(Debug)]
pub struct HostFacts {
    /// The URL, password masked.
    pub url: String,
    /// `host:port`.
    pub address: String,
    /// What it says before a login; the error is why it says nothing.
    pub greeting: Result<Greeting, String>,
    /// How long the way to a session took, or why there is none.
    pub session: Result<Duration, Refusal>,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody answers, or not in AMQP.
    Unreachable(String),
    /// User or password.
    Credentials(String),
    /// The virtual host is not there.
    NoVirtualHost(String),
    /// The user may not enter it.
    VirtualHost(String),
    /// Anything else that the broker says.
    Other(String),
}

/// The queues, and what the user may do.
#[derive(Debug)]
pub struct QueuesFacts {
    /// Each queue.
    pub queues: Vec<QueueFacts>,
    /// Publishing, to a queue that does not exist.
    pub write: Result<(), Denial>,
}

/// One queue.
#[derive(Debug)]
pub struct QueueFacts {
    /// Which.
    pub queue: Queue,
    /// Its full name.
    pub name: String,
    /// What is there.
    pub state: QueueState,
    /// Whether the user may declare it.
    pub configure: Result<(), Denial>,
    /// Whether the user may consume it.
    pub read: Result<(), Denial>,
}

/// What is there under the name of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueState {
    /// Nothing.
    Missing,
    /// A queue as it should be, or whose arguments cannot be compared because the user may not declare it.
    Found(Counts),
    /// A queue with other arguments; what the broker says about them.
    Otherwise(Counts, String),
    /// The broker gave no answer that says.
    Unknown(String),
}

/// What a passive declare tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Messages that wait.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// Why something could not be done, or is not known to be possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The user may not.
    Forbidden(String),
    /// Nobody may publish now: the broker is short of memory or disk.
    Blocked,
    /// The broker said something else, or nothing in time.
    Unknown(String),
}

/// Looks at every host and, over the first that lets us in, at the queues of `prefix`. Changes nothing.
pub async fn inspect(config: &BrokerConfig, prefix: &str, ids: &Ids) -> Result<Inspection, ConnectError> {
    let uris = config.urls.iter().map(read_url).collect::<Result<Vec<_>, _>>()?;
    let first = uris.first().map(|(uri, _)| uri).ok_or_else(|| ConnectError::BadUrl("no URL is given".to_owned()))?;
    let login =
        Login { user: first.authority.userinfo.username.clone(), vhost: first.vhost.clone(), host: first.authority.host.clone() };
    let looks = futures::future::join_all(uris.into_iter().map(|(uri, shown)| host(uri, shown))).await;
    let (mut hosts, mut queues) = (Vec::new(), None);
    for (facts, connection) in looks {
        hosts.push(facts);
        let Some(connection) = connection else { continue };
        if queues.is_none() {
            queues = Some(look(&connection, prefix, ids).await);
        }
        // A broker that does not answer this is left alone.
        let _closed_or_not = timeout(Duration::from_secs(1), connection.close(200, "OK".into())).await;
    }
    Ok(Inspection { hosts, login, queues })
}

/// A URL as the client library reads it, and as people may see it.
pub(super) fn read_url(url: &SecretString) -> Result<(AMQPUri, String), ConnectError> {
    let Address { full, shown } = Address::parse(url.expose_secret())?;
    let uri = AMQPUri::from_str(&full).map_err(|_repeats_it| ConnectError::BadUrl("cannot be read".to_owned()))?;
    Ok((uri, shown))
}

async fn host(uri: AMQPUri, url: String) -> (HostFacts, Option<Connection>) {
    let address = format!("{}:{}", uri.authority.host, uri.authority.port);
    let greeting = match timeout(CONNECT_TIMEOUT, greet(&uri)).await {
        Ok(Ok(greeting)) => Ok(greeting),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(late(CONNECT_TIMEOUT)),
    };
    if let Err(why) = &greeting {
        let session = Err(Refusal::Unreachable(why.clone()));
        return (HostFacts { url, address, greeting, session }, None);
    }
    let started = Instant::now();
    let properties = ConnectionProperties::default().with_connection_name("planrelay doctor".into());
    let (session, connection) = match timeout(CONNECT_TIMEOUT, Connection::connect_uri(uri, properties)).await {
        Ok(Ok(connection)) => (Ok(started.elapsed()), Some(connection)),
        Ok(Err(error)) => (Err(refusal(&error)), None),
        Err(_elapsed) => (Err(Refusal::Unreachable(late(CONNECT_TIMEOUT))), None),
    };
    (HostFacts { url, address, greeting, session }, connection)
}

fn refusal(error: &lapin::Error) -> Refusal {
    let ErrorKind::ProtocolError(said) = error.kind() else { return Refusal::Unreachable(error.to_string()) };
    let why = said.get_message().to_string();
    let is = |hard: AMQPHardError| matches!(said.kind(), AMQPErrorKind::Hard(kind) if *kind == hard);
    match said.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Refusal::Credentials(why),
        _ if is(AMQPHardError::NOTALLOWED) && why.contains("not found") => Refusal::NoVirtualHost(why),
        _ if is(AMQPHardError::NOTALLOWED) && why.contains("refused") => Refusal::VirtualHost(why),
        AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => Refusal::Other(why),
    }
}

async fn look(connection: &Connection, prefix: &str, ids: &Ids) -> QueuesFacts {
    let queues = Queue::ALL.map(async |queue| {
        let name = queue.name(prefix);
        let (state, configure) = match timeout(DOCTOR_TIMEOUT, state(connection, queue, prefix, &name)).await {
            Ok(found) => found,
            Err(_elapsed) => (QueueState::Unknown(late(DOCTOR_TIMEOUT)), Err(Denial::Unknown(late(DOCTOR_TIMEOUT)))),
        };
        let read = timeout(DOCTOR_TIMEOUT, may_read(connection, &name)).await;
        let read = read.unwrap_or_else(|_elapsed| Err(Denial::Unknown(late(DOCTOR_TIMEOUT))));
        QueueFacts { queue, name, state, configure, read }
    });
    let queues = futures::future::join_all(queues).await;
    // Last: a broker that is short of memory hears nothing more of a connection that publishes.
    QueuesFacts { queues, write: may_write(connection, &format!("{prefix}.v1.{}", ids.unique())).await }
}

fn late(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs())
}

/// What is there under `name`, and whether it may be declared.
async fn state(connection: &Connection, queue: Queue, prefix: &str, name: &str) -> (QueueState, Result<(), Denial>) {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let counts = match declare(connection, name, passive, FieldTable::default()).await {
        Ok(counts) => counts,
        Err(error) if is_soft(&error, AMQPSoftError::NOTFOUND) => {
            return (QueueState::Missing, may_declare(connection, queue, prefix, name).await);
        }
        Err(error) => {
            let why = sentence(&error);
            return (QueueState::Unknown(why.clone()), Err(Denial::Unknown(why)));
        }
    };
    let arguments = topology::arguments(queue, prefix);
    match declare(connection, name, QueueDeclareOptions::durable(), arguments).await {
        Ok(counts) => (QueueState::Found(counts), Ok(())),
        Err(error) if is_soft(&error, AMQPSoftError::PRECONDITIONFAILED) => {
            (QueueState::Otherwise(counts, sentence(&error)), Ok(()))
        }
        Err(error) => (QueueState::Found(counts), Err(denial(&error))),
    }
}

/// Whether a queue that is not there could be declared: by a declaration that no broker can carry out, since a quorum queue is durable
/// and belongs to no connection. What it needs permission for is the same: the queue itself, and its dead letters' way out.
async fn may_declare(connection: &Connection, queue: Queue, prefix: &str, name: &str) -> Result<(), Denial> {
    let impossible = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    match declare(connection, name, impossible, topology::arguments(queue, prefix)).await {
        Ok(_) => Ok(()),
        Err(error) if is_soft(&error, AMQPSoftError::PRECONDITIONFAILED) => Ok(()),
        Err(error) => Err(denial(&error)),
    }
}

/// Whether a queue may be consumed: by a consumer with a priority that is no number.
async fn may_read(connection: &Connection, name: &str) -> Result<(), Denial> {
    let channel = connection.create_channel().await.map_err(|error| denial(&error))?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongString("none".into()));
    let name = short(name).map_err(Denial::Unknown)?;
    match channel.basic_consume(name, "planrelay-doctor".into(), BasicConsumeOptions::default(), arguments).await {
        Ok(_consumer) => Ok(()),
        Err(error) if is_soft(&error, AMQPSoftError::PRECONDITIONFAILED) || is_soft(&error, AMQPSoftError::NOTFOUND) => Ok(()),
        Err(error) => Err(denial(&error)),
    }
}

/// Whether messages may be published: those to a queue that nobody has come back. Two, because a broker that is short of memory still takes
/// the first.
async fn may_write(connection: &Connection, nobodys: &str) -> Result<(), Denial> {
    let mut events = connection.events_listener();
    let blocked = async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::ConnectionBlocked(_)) {
                return;
            }
        }
        futures::future::pending().await
    };
    let publishing = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let name = short(nobodys).map_err(std::io::Error::other)?;
        for _ in 0..2 {
            channel.basic_publish("".into(), name.clone(), options, b"", BasicProperties::default()).await?.await?;
        }
        Ok(())
    };
    match timeout(DOCTOR_TIMEOUT, select(pin!(publishing), pin!(blocked))).await {
        Ok(Either::Left((Ok(()), _))) => Ok(()),
        Ok(Either::Left((Err(error), _))) => Err(denial(&error)),
        Ok(Either::Right(((), _))) => Err(Denial::Blocked),
        Err(_elapsed) => Err(Denial::Unknown(late(DOCTOR_TIMEOUT))),
    }
}

/// Declares on a channel of its own: a refusal closes it.
async fn declare(
    connection: &Connection,
    name: &str,
    options: QueueDeclareOptions,
    arguments: FieldTable,
) -> Result<Counts, lapin::Error> {
    let channel: Channel = connection.create_channel().await?;
    let name = short(name).map_err(std::io::Error::other)?;
    let found = channel.queue_declare(name, options, arguments).await?;
    // The channels of refused requests are gone, this one would stay.
    let _closed_or_not = channel.close(200, "OK".into()).await;
    Ok(Counts { ready: found.message_count(), consumers: found.consumer_count() })
}

fn denial(error: &lapin::Error) -> Denial {
    let why = sentence(error);
    if is_soft(error, AMQPSoftError::ACCESSREFUSED) { Denial::Forbidden(why) } else { Denial::Unknown(why) }
}

fn is_soft(error: &lapin::Error, soft: AMQPSoftError) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(said) if matches!(said.kind(), AMQPErrorKind::Soft(kind) if *kind == soft))
}

fn sentence(error: &lapin::Error) -> String {
    if let ErrorKind::ProtocolError(said) = error.kind() {
        return said.get_message().to_string();
    }
    error.to_string()
}
