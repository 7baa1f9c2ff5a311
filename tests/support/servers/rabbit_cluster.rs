//! Three RabbitMQ nodes that are one cluster.

use common::ids::Ids;
use serde_json::Value;

use super::rabbit::{PrivateRabbit, node_name};

/// A cluster. Queues that are declared on it have a member on every node.
pub struct RabbitCluster {
    /// Its nodes. All but one must run, or the queues stand still.
    pub nodes: Vec<PrivateRabbit>,
}

impl RabbitCluster {
    /// Starts three nodes and waits until all of them answer and know each other.
    pub async fn start() -> Self {
        let (names, cookie) = ([node_name(), node_name(), node_name()], Ids::random().unique());
        let keys = ["1", "2", "3"].map(|number| format!("cluster_formation.classic_config.nodes.{number}"));
        let mut settings = vec![
            ("cluster_formation.peer_discovery_backend", "classic_config"),
            // What is recommended for three nodes: one that sees no other stops serving.
            ("cluster_partition_handling", "pause_minority"),
        ];
        settings.extend(keys.iter().zip(&names).map(|(key, name)| (key.as_str(), name.as_str())));
        let [first, second, third] = names.clone();
        // The first becomes a cluster of one, which the others join when they start.
        let first = PrivateRabbit::start_as(first, &cookie, &settings).await;
        let (second, third) =
            tokio::join!(PrivateRabbit::start_as(second, &cookie, &settings), PrivateRabbit::start_as(third, &cookie, &settings));
        let cluster = Self { nodes: vec![first, second, third] };
        let status = parsed(&cluster.nodes[0].ctl(&["cluster_status", "--formatter", "json", "--quiet"]).await);
        assert_eq!(status["running_nodes"].as_array().map(Vec::len), Some(3), "the nodes are no cluster: {status}");
        cluster
    }

    /// What `AMQP_URL` must be.
    pub fn url(&self) -> String {
        self.nodes.iter().map(PrivateRabbit::url).collect::<Vec<_>>().join(",")
    }

    /// Where the leader of a queue is, as an index into the nodes. Asks the node `asked`.
    pub async fn leader_of(&self, queue: &str, asked: usize) -> Option<usize> {
        let listed = self.nodes[asked].ctl(&["list_queues", "--formatter", "json", "--quiet", "name", "leader"]).await;
        let all = parsed(&listed);
        let leader = all.as_array()?.iter().find(|found| found["name"] == queue)?["leader"].as_str()?.to_owned();
        self.nodes.iter().position(|node| node.node() == leader)
    }

    /// How many members each queue of the prefix has.
    pub async fn members(&self, prefix: &str) -> Vec<(String, usize)> {
        let listed = self.nodes[0].ctl(&["list_queues", "--formatter", "json", "--quiet", "name", "members"]).await;
        let all = parsed(&listed);
        let count = |queue: &Value| queue["members"].as_array().map_or(0, Vec::len);
        let named =
            all.as_array().into_iter().flatten().filter_map(|queue| Some((queue["name"].as_str()?.to_owned(), count(queue))));
        named.filter(|(name, _)| name.starts_with(prefix)).collect()
    }
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}
