//! Stores to test against: memory, and Redis under a prefix of its own.

use std::sync::Arc;

use common::config::StoreConfig;
use common::id::RunId;
use common::ids::Ids;
use common::metrics::Metrics;
use common::store::memory::{Kept, Memory};
use common::store::redis::Redis;
use common::store::{Store, StoreTime};

/// `REDIS_URL`, or the local default.
pub fn redis_url() -> String {
    std::env::var("REDIS_URL").unwrap_or_else(|_unset| "redis://127.0.0.1:6379".to_owned())
}

/// How to reach the Redis under test.
pub fn redis_config() -> StoreConfig {
    StoreConfig { urls: redis_url().split(',').map(|url| url.to_owned().into()).collect() }
}

/// A prefix that no other test uses.
pub fn unique_prefix() -> String {
    format!("test-{}", &Ids::random().unique()[..12])
}

/// Redis under a prefix of its own; a test that cannot reach it fails. Delete its keys with [`Redis::delete_all`].
pub async fn redis(time: StoreTime) -> Redis {
    Redis::connect(&redis_config(), &unique_prefix(), time, &Metrics::new("test")).await.expect("tests need Redis at REDIS_URL")
}

/// The keys of a run in Redis with their time to live, in milliseconds; -1 for one that does not expire.
pub async fn times_to_live(prefix: &str, run: &RunId) -> Vec<(String, i64)> {
    let mut connection = connection().await;
    let keys = keys_of(&mut connection, &format!("{prefix}:{{{run}}}")).await;
    let mut ttls = Vec::new();
    for key in keys {
        let ttl = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.expect("PTTL");
        ttls.push((key, ttl));
    }
    ttls
}

/// An empty store in memory.
pub fn memory(time: StoreTime) -> Store {
    Store::Memory(Arc::new(Memory::new(time)))
}

/// All that a store held at one moment.
#[derive(Debug, Clone)]
pub enum Saved {
    /// In memory.
    Memory(Kept),
    /// In Redis: every key of the prefix, as it was dumped, with its time to live in milliseconds (0: for ever).
    Redis(Vec<(String, Vec<u8>, i64)>),
}

/// What `store` holds now.
pub async fn save(store: &Store) -> Saved {
    match store {
        Store::Memory(memory) => Saved::Memory(memory.save()),
        Store::Redis(redis) => {
            let mut connection = connection().await;
            let keys = keys_of(&mut connection, redis.prefix()).await;
            let mut all = redis::pipe();
            all.atomic();
            for key in &keys {
                all.cmd("DUMP").arg(key).cmd("PTTL").arg(key);
            }
            let dumps: Vec<redis::Value> = all.query_async(&mut connection).await.expect("DUMP");
            let kept = keys.into_iter().zip(dumps.chunks_exact(2)).map(|(key, kept)| {
                let dump = redis::from_redis_value_ref(&kept[0]).expect("a key that is there");
                let left: i64 = redis::from_redis_value_ref(&kept[1]).expect("a time to live");
                (key, dump, left.max(0))
            });
            Saved::Redis(kept.collect())
        }
        Store::Watched(watched) => Box::pin(save(&watched.inner)).await,
    }
}

/// Takes `store` back to what it held once: its later writes are lost, as by a server that dies before they are on disk.
pub async fn restore(store: &Store, saved: &Saved) {
    match (store, saved) {
        (Store::Memory(memory), Saved::Memory(kept)) => memory.restore(kept.clone()),
        (Store::Redis(redis), Saved::Redis(kept)) => {
            let mut connection = connection().await;
            let mut all = redis::pipe();
            all.atomic();
            for key in keys_of(&mut connection, redis.prefix()).await {
                all.cmd("DEL").arg(key).ignore();
            }
            for (key, dump, left) in kept {
                all.cmd("RESTORE").arg(key).arg(left).arg(dump).ignore();
            }
            let () = all.query_async(&mut connection).await.expect("RESTORE");
        }
        (Store::Watched(watched), saved) => Box::pin(restore(&watched.inner, saved)).await,
        (Store::Memory(_) | Store::Redis(_), Saved::Memory(_) | Saved::Redis(_)) => panic!("saved by another kind of store"),
    }
}

/// Makes a run one that a release with these keys has opened.
pub async fn set_schema(store: &Store, run: &RunId, schema: u32) {
    match store {
        Store::Memory(memory) => memory.set_schema(run, schema),
        Store::Redis(redis) => {
            let key = format!("{}:{{{run}}}:run", redis.prefix());
            let mut connection = connection().await;
            let () = redis::cmd("HSET").arg(key).arg("schema").arg(schema).query_async(&mut connection).await.expect("HSET");
        }
        Store::Watched(watched) => Box::pin(set_schema(&watched.inner, run, schema)).await,
    }
}

/// A connection to Redis itself, for what no verb shows.
pub async fn connection() -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(redis_url()).expect("REDIS_URL");
    client.get_multiplexed_async_connection().await.expect("tests need Redis at REDIS_URL")
}

async fn keys_of(connection: &mut redis::aio::MultiplexedConnection, prefix: &str) -> Vec<String> {
    redis::cmd("KEYS").arg(format!("{prefix}:*")).query_async(connection).await.expect("KEYS")
}
