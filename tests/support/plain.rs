//! Redis as a user's own program reads it: no code of planrelay's is in between.

use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelServerType};
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, Value};

/// Where a user's program connects to.
#[derive(Clone)]
pub enum PlainRedis {
    /// One server.
    Single(redis::Client),
    /// The primary that Sentinels know by a name.
    Watched(Vec<String>, String),
    /// A Redis Cluster, by the addresses of some of its servers.
    Cluster(Vec<String>),
}

/// A connection of it.
#[derive(Clone)]
pub enum PlainConnection {
    /// To one server.
    Single(MultiplexedConnection),
    /// To a cluster.
    Cluster(ClusterConnection),
}

impl PlainRedis {
    /// Reads a URL, or several of a cluster separated by commas.
    pub fn new(urls: &str) -> Self {
        if let Some((hosts, name)) = urls.strip_prefix("redis+sentinel://").and_then(|rest| rest.split_once('/')) {
            return Self::Watched(hosts.split(',').map(|host| format!("redis://{host}")).collect(), name.to_owned());
        }
        if let Some(hosts) = urls.strip_prefix("redis+cluster://") {
            return Self::Cluster(hosts.split(',').map(|host| format!("redis://{host}")).collect());
        }
        match urls.split_once(',') {
            None => Self::Single(redis::Client::open(urls).expect("a Redis URL")),
            Some(_several) => Self::Cluster(urls.split(',').map(str::to_owned).collect()),
        }
    }

    /// Connects.
    pub async fn connect(&self) -> Result<PlainConnection, RedisError> {
        match self {
            Self::Single(client) => Ok(PlainConnection::Single(client.get_multiplexed_async_connection().await?)),
            Self::Watched(urls, name) => {
                let client = SentinelClient::build(urls.clone(), name.clone(), None, SentinelServerType::Master);
                Ok(PlainConnection::Single(client?.get_async_connection().await?))
            }
            Self::Cluster(urls) => {
                let client = ClusterClient::builder(urls.clone()).retries(1).max_retry_wait(200).build()?;
                Ok(PlainConnection::Cluster(client.get_async_connection().await?))
            }
        }
    }
}

impl PlainConnection {
    /// Sends one command.
    pub async fn command(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::Single(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// Sends several commands, whose keys may be anywhere; no transaction.
    pub async fn ask<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> Result<T, RedisError> {
        if let Self::Single(connection) = self {
            return pipeline.query_async(connection).await;
        }
        let each = join_all(pipeline.cmd_iter().map(|command| {
            let mut connection = self.clone();
            async move { connection.command(command).await }
        }));
        let values = each.await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(T::from_redis_value(Value::Array(values))?)
    }
}
