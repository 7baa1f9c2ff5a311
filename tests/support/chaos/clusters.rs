//! A RabbitMQ cluster and a Redis Cluster, and what is done to their nodes. One node of each is harmed at a time, and the next one only
//! when that is well again: more than that no such cluster is made to bear.

use common::message::Queue;
use tokio::time::sleep;

use super::backends::{next, purged};
use super::board::Board;
use super::dice::Dice;
use super::user::User;
use crate::servers::{RabbitCluster, RedisCluster};

/// What is done to RabbitMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RabbitHarm {
    KillLeader,
    Kill,
    Hang,
    Stop,
    CloseConnections,
    Purge,
}

const RABBIT_CARDS: [RabbitHarm; 7] = [
    RabbitHarm::KillLeader,
    RabbitHarm::KillLeader,
    RabbitHarm::Kill,
    RabbitHarm::Hang,
    RabbitHarm::Stop,
    RabbitHarm::CloseConnections,
    RabbitHarm::Purge,
];

impl RabbitHarm {
    fn name(self) -> &'static str {
        match self {
            RabbitHarm::KillLeader => "RabbitMQ cluster: SIGKILL of a queue's leader",
            RabbitHarm::Kill => "RabbitMQ cluster: SIGKILL of a node",
            RabbitHarm::Hang => "RabbitMQ cluster: SIGSTOP of a node",
            RabbitHarm::Stop => "RabbitMQ cluster: a node is stopped and started",
            RabbitHarm::CloseConnections => "RabbitMQ cluster: every connection of a node closed",
            RabbitHarm::Purge => "RabbitMQ cluster: messages purged",
        }
    }
}

/// What is done to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RedisHarm {
    KillPrimary,
    HangPrimary,
    KillReplica,
}

const REDIS_CARDS: [RedisHarm; 4] =
    [RedisHarm::KillPrimary, RedisHarm::KillPrimary, RedisHarm::HangPrimary, RedisHarm::KillReplica];

impl RedisHarm {
    fn name(self) -> &'static str {
        match self {
            RedisHarm::KillPrimary => "Redis Cluster: SIGKILL of a primary",
            RedisHarm::HangPrimary => "Redis Cluster: SIGSTOP of a primary, until its replica has taken over",
            RedisHarm::KillReplica => "Redis Cluster: SIGKILL of a replica",
        }
    }
}

/// Every kind of fault that must happen.
pub(super) fn kinds() -> Vec<String> {
    let mut all: Vec<String> = RABBIT_CARDS.map(|card| card.name().to_owned()).to_vec();
    all.extend(REDIS_CARDS.map(|card| card.name().to_owned()));
    all.sort();
    all.dedup();
    all
}

/// Does harm to RabbitMQ until the faults are over.
pub(super) async fn torment_rabbit(cluster: &mut RabbitCluster, board: &Board, prefix: &str, mut dice: Dice, pace: f64) {
    let mut operator = User::new(&cluster.url());
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    loop {
        for card in dice.shuffled(&RABBIT_CARDS) {
            if !next(board, dice.millis(3000, 14_000).div_f64(pace)).await {
                return;
            }
            let victim = dice.pick(&all);
            match card {
                RabbitHarm::KillLeader => {
                    let queue = dice.pick(&[Queue::Objectives, Queue::Steps, Queue::Steps, Queue::Reports, Queue::Completions]);
                    let leader = cluster.leader_of(&queue.name(prefix), victim).await.unwrap_or(victim);
                    kill(cluster, leader, &mut dice).await;
                }
                RabbitHarm::Kill => kill(cluster, victim, &mut dice).await,
                RabbitHarm::Hang => {
                    cluster.nodes[victim].pause();
                    sleep(dice.millis(500, 8000)).await;
                    cluster.nodes[victim].resume();
                }
                RabbitHarm::Stop => {
                    cluster.nodes[victim].stop_app().await;
                    sleep(dice.millis(0, 3000)).await;
                    cluster.nodes[victim].start_app().await;
                }
                RabbitHarm::CloseConnections => cluster.nodes[victim].close_all_connections().await,
                RabbitHarm::Purge => {
                    // Not the queues of users: what they publish is nowhere else yet.
                    let queue = dice.pick(&[Queue::Steps, Queue::Steps, Queue::Reports, Queue::Completions]);
                    if !purged(&mut operator, &queue.name(prefix)).await {
                        continue;
                    }
                }
            }
            board.fault(card.name().to_owned());
        }
    }
}

async fn kill(cluster: &mut RabbitCluster, victim: usize, dice: &mut Dice) {
    cluster.nodes[victim].kill();
    sleep(dice.millis(0, 5000)).await;
    cluster.nodes[victim].start_again().await;
}

/// Does harm to Redis until the faults are over.
pub(super) async fn torment_redis(cluster: &mut RedisCluster, board: &Board, mut dice: Dice, pace: f64) {
    loop {
        for card in dice.shuffled(&REDIS_CARDS) {
            if !next(board, dice.millis(3000, 14_000).div_f64(pace)).await {
                return;
            }
            let primaries = cluster.primaries().await;
            let replicas: Vec<usize> = (0..cluster.nodes.len()).filter(|node| !primaries.contains(node)).collect();
            match card {
                RedisHarm::KillPrimary => {
                    let victim = dice.pick(&primaries);
                    cluster.nodes[victim].kill();
                    cluster.taken_over().await;
                    sleep(dice.millis(0, 3000)).await;
                    cluster.nodes[victim].start_again().await;
                }
                RedisHarm::HangPrimary => {
                    let victim = dice.pick(&primaries);
                    cluster.nodes[victim].pause();
                    cluster.taken_over().await;
                    cluster.nodes[victim].resume();
                }
                RedisHarm::KillReplica => {
                    let victim = dice.pick(&replicas);
                    cluster.nodes[victim].kill();
                    sleep(dice.millis(0, 3000)).await;
                    cluster.nodes[victim].start_again().await;
                }
            }
            cluster.is_whole().await;
            board.fault(card.name().to_owned());
        }
    }
}
