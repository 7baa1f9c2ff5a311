//! The servers under the services: one of each, or a cluster of each.

use super::board::Board;
use super::dice::Dice;
use super::{Plan, backends, clusters};
use crate::servers::{Backlog, PrivateRabbit, PrivateRedis, RabbitCluster, RedisCluster};

/// Where everything runs.
pub(super) enum Servers {
    Single(PrivateRabbit, PrivateRedis),
    Clusters(RabbitCluster, RedisCluster),
}

impl Servers {
    pub(super) async fn start(clusters: bool) -> Self {
        if clusters {
            let (rabbit, redis) = tokio::join!(RabbitCluster::start(), RedisCluster::start());
            return Self::Clusters(rabbit, redis);
        }
        let (rabbit, redis) = tokio::join!(PrivateRabbit::start(&[]), PrivateRedis::start(&[]));
        Self::Single(rabbit, redis)
    }

    /// What `AMQP_URL` and `REDIS_URL` must be.
    pub(super) fn urls(&self) -> (String, String) {
        match self {
            Self::Single(rabbit, redis) => (rabbit.url(), redis.url()),
            Self::Clusters(rabbit, redis) => (rabbit.url(), redis.url()),
        }
    }

    /// Every kind of fault that must happen to them.
    pub(super) fn kinds(&self) -> Vec<String> {
        match self {
            Self::Single(..) => backends::kinds(),
            Self::Clusters(..) => clusters::kinds(),
        }
    }

    /// Does harm to them until the faults are over.
    pub(super) async fn torment(&mut self, board: &Board, prefix: &str, plan: &Plan) {
        let (one, other) = (Dice::new(plan.seed, "RabbitMQ"), Dice::new(plan.seed, "Redis"));
        match self {
            Self::Single(rabbit, redis) => {
                tokio::join!(
                    backends::torment_rabbit(rabbit, board, prefix, one, plan.pace),
                    backends::torment_redis(redis, board, other, plan.pace)
                );
            }
            Self::Clusters(rabbit, redis) => {
                tokio::join!(
                    clusters::torment_rabbit(rabbit, board, prefix, one, plan.pace),
                    clusters::torment_redis(redis, board, other, plan.pace)
                );
            }
        }
    }

    /// Who consumes, and which channel holds how many messages, for people.
    pub(super) async fn holders(&self) -> String {
        let node = match self {
            Self::Single(rabbit, _) => rabbit,
            Self::Clusters(rabbit, _) => &rabbit.nodes[0],
        };
        let channels = ["list_channels", "name", "pid", "messages_unacknowledged", "consumer_count"];
        let connections = ["list_connections", "name", "pid", "state", "channels", "client_properties"];
        [node.ctl(&["list_consumers"]).await, node.ctl(&channels).await, node.ctl(&connections).await].join("\n")
    }

    /// What is in the queues whose names begin with `prefix`.
    pub(super) async fn backlog(&self, prefix: &str) -> Vec<Backlog> {
        match self {
            Self::Single(rabbit, _) => rabbit.backlog(prefix).await,
            Self::Clusters(rabbit, _) => rabbit.nodes[0].backlog(prefix).await,
        }
    }
}
