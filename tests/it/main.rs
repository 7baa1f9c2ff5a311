//! Conformance of every seam against every variant. Needs RabbitMQ (`AMQP_URL`) and Redis (`REDIS_URL`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod broker_conformance;
mod corpus;
mod dead_letters;
mod deploy;
mod documents;
mod invariants;
mod llm_hostile;
mod obedience;
mod pipeline;
mod replans;
mod steps;
mod stops;
mod store_conformance;
mod store_differential;
mod upgrades;
mod waits;
mod wire;
