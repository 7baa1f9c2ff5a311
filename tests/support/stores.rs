//! Stores to test against: memory, and Redis under a prefix of its own.

use std::sync::Arc;

use common::config::StoreConfig;
use common::id::RunId;
use common::ids::Ids;
use common::store::memory::Memory;
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
    Redis::connect(&redis_config(), &unique_prefix(), time).await.expect("tests need Redis at REDIS_URL")
}

/// The keys of a run in Redis with their time to live, in milliseconds; -1 for one that does not expire.
pub async fn times_to_live(prefix: &str, run: &RunId) -> Vec<(String, i64)> {
    let client = redis::Client::open(redis_url()).expect("REDIS_URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("tests need Redis at REDIS_URL");
    let pattern = format!("{prefix}:{{{run}}}:*");
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.expect("KEYS");
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
