//! The seam to Redis.
/// The store.
#[derive(Debug, Clone)]
pub enum Store {}
