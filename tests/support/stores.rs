//! Stores to test against: memory, and Redis under a prefix of its own.

use std::sync::Arc;

use common::config::StoreConfig;
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

/// An empty store in memory.
pub fn memory(time: StoreTime) -> Store {
    Store::Memory(Arc::new(Memory::new(time)))
}
