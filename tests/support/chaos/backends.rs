//! RabbitMQ and Redis, and what is done to them.

use std::time::Duration;

use common::message::Queue;
use tokio::time::sleep;

use super::board::Board;
use super::dice::Dice;
use super::user::User;
use crate::servers::{PrivateRabbit, PrivateRedis};

/// What is done to RabbitMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RabbitHarm {
    Kill,
    Hang,
    Alarm,
    CloseConnections,
    FailChannels,
    Purge,
}

const RABBIT_CARDS: [RabbitHarm; 7] = [
    RabbitHarm::Kill,
    RabbitHarm::Hang,
    RabbitHarm::Alarm,
    RabbitHarm::CloseConnections,
    RabbitHarm::FailChannels,
    RabbitHarm::Purge,
    RabbitHarm::Purge,
];

impl RabbitHarm {
    fn name(self) -> &'static str {
        match self {
            RabbitHarm::Kill => "RabbitMQ: SIGKILL",
            RabbitHarm::Hang => "RabbitMQ: SIGSTOP",
            RabbitHarm::Alarm => "RabbitMQ: memory alarm",
            RabbitHarm::CloseConnections => "RabbitMQ: every connection closed",
            RabbitHarm::FailChannels => "RabbitMQ: every channel failed",
            RabbitHarm::Purge => "RabbitMQ: messages purged",
        }
    }
}

/// What is done to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RedisHarm {
    Kill,
    Hang,
}

impl RedisHarm {
    fn name(self) -> &'static str {
        match self {
            RedisHarm::Kill => "Redis: SIGKILL",
            RedisHarm::Hang => "Redis: SIGSTOP",
        }
    }
}

/// Every kind of fault that must happen.
pub(super) fn kinds() -> Vec<String> {
    let mut all = RABBIT_CARDS.map(|card| card.name().to_owned()).to_vec();
    all.dedup();
    all.extend([RedisHarm::Kill, RedisHarm::Hang].map(|card| card.name().to_owned()));
    all
}

/// Waits for the next fault; whether there is one.
pub(super) async fn next(board: &Board, pause: Duration) -> bool {
    let mut left = pause;
    while !left.is_zero() && !board.over() {
        let part = left.min(Duration::from_millis(100));
        sleep(part).await;
        left -= part;
    }
    !board.over()
}

/// Does harm to RabbitMQ until the faults are over.
pub(super) async fn torment_rabbit(rabbit: &mut PrivateRabbit, board: &Board, prefix: &str, mut dice: Dice, pace: f64) {
    let mut operator = User::new(&rabbit.url());
    loop {
        for card in dice.shuffled(&RABBIT_CARDS) {
            if !next(board, dice.millis(3000, 14_000).div_f64(pace)).await {
                return;
            }
            match card {
                RabbitHarm::Kill => {
                    rabbit.kill();
                    sleep(dice.millis(0, 2000)).await;
                    rabbit.start_again().await;
                }
                RabbitHarm::Hang => {
                    rabbit.pause();
                    sleep(dice.millis(500, 8000).div_f64(pace)).await;
                    rabbit.resume();
                }
                RabbitHarm::Alarm => {
                    rabbit.memory_alarm(true).await;
                    sleep(dice.millis(500, 8000).div_f64(pace)).await;
                    rabbit.memory_alarm(false).await;
                }
                RabbitHarm::CloseConnections => rabbit.close_all_connections().await,
                RabbitHarm::FailChannels => rabbit.fail_all_channels().await,
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

/// Takes messages out of a queue; false if none comes in a while.
pub(super) async fn purged(operator: &mut User, queue: &str) -> bool {
    for _ in 0..40 {
        if operator.purge(queue).await.is_some_and(|count| count > 0) {
            return true;
        }
        sleep(Duration::from_millis(50)).await;
    }
    false
}

/// Does harm to Redis until the faults are over.
pub(super) async fn torment_redis(redis: &mut PrivateRedis, board: &Board, mut dice: Dice, pace: f64) {
    loop {
        for card in dice.shuffled(&[RedisHarm::Kill, RedisHarm::Kill, RedisHarm::Hang]) {
            if !next(board, dice.millis(3000, 14_000).div_f64(pace)).await {
                return;
            }
            match card {
                RedisHarm::Kill => {
                    redis.kill();
                    sleep(dice.millis(0, 2000)).await;
                    redis.start_again().await;
                }
                RedisHarm::Hang => {
                    redis.pause();
                    sleep(dice.millis(500, 7000).div_f64(pace)).await;
                    redis.resume();
                }
            }
            board.fault(card.name().to_owned());
        }
    }
}
