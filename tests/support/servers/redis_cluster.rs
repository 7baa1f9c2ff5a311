//! Six Redis servers that are one cluster: three primaries, each with a replica.

use std::process::Command;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::program;
use super::redis::PrivateRedis;
use crate::stack::PATIENCE;

/// After so many milliseconds without a word from a primary, its replica takes over. Redis's default is 15 s.
const NODE_TIMEOUT_MS: &str = "2000";

/// A cluster.
pub struct RedisCluster {
    /// Its servers; which are primaries changes.
    pub nodes: Vec<PrivateRedis>,
}

impl RedisCluster {
    /// Starts six servers and waits until every primary has its replica.
    pub async fn start() -> Self {
        let nodes = join_all((0..6).map(|_| PrivateRedis::start_in_cluster(NODE_TIMEOUT_MS))).await;
        let addresses: Vec<String> = nodes.iter().map(PrivateRedis::address).collect();
        let mut create = Command::new(program("redis-cli", &["/usr/bin"]));
        create.args(["--cluster", "create"]).args(&addresses).args(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = tokio::task::spawn_blocking(move || create.output().expect("redis-cli runs")).await;
        let output = output.expect("redis-cli ends");
        assert!(output.status.success(), "redis-cli: {}", String::from_utf8_lossy(&output.stdout));
        let cluster = Self { nodes };
        cluster.is_whole().await;
        cluster
    }

    /// What `REDIS_URL` must be.
    pub fn url(&self) -> String {
        self.nodes.iter().map(PrivateRedis::url).collect::<Vec<_>>().join(",")
    }

    /// Which servers are primaries now, as far as they say so themselves.
    pub async fn primaries(&self) -> Vec<usize> {
        let roles = join_all(self.nodes.iter().map(PrivateRedis::role)).await;
        (0..self.nodes.len()).filter(|index| roles[*index].as_deref() == Some("master")).collect()
    }

    /// Waits until all servers run, three of them primaries with a replica that is up to date.
    pub async fn is_whole(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.whole().await {
            let said = || self.nodes.iter().map(PrivateRedis::said).collect::<Vec<_>>().join("\n");
            assert!(Instant::now() < deadline, "the Redis Cluster does not become whole:\n{}", said());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until three servers that answer are primaries: somebody has taken over from one that does not.
    pub async fn taken_over(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.primaries().await.len() < 3 {
            let said = || self.nodes.iter().map(PrivateRedis::said).collect::<Vec<_>>().join("\n");
            assert!(Instant::now() < deadline, "no replica takes over:\n{}", said());
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn whole(&self) -> bool {
        let each = join_all(self.nodes.iter().map(async |node| {
            let cluster = node.command::<String>(&["CLUSTER", "INFO"]).await.unwrap_or_default();
            let replication = node.command::<String>(&["INFO", "replication"]).await.unwrap_or_default();
            let primary = replication.contains("role:master") && replication.contains("state=online");
            let replica = replication.contains("role:slave") && replication.contains("master_link_status:up");
            (cluster.contains("cluster_state:ok") && cluster.contains("cluster_size:3"), primary, replica)
        }))
        .await;
        let primaries = each.iter().filter(|(_, primary, _)| *primary).count();
        each.iter().all(|(ok, primary, replica)| *ok && (*primary || *replica)) && primaries == 3
    }
}
