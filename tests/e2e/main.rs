//! The services as real processes on real RabbitMQ and Redis, used as a user would. Needs the binaries to be built
//! (`cargo build --workspace --bins`), RabbitMQ (`AMQP_URL`) and Redis (`REDIS_URL`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chaos;
mod command_line;
mod doctor;
mod http;
mod kills;
mod matrix;
mod obedience;
mod outages;
mod pipeline;
mod privileges;
mod recovery;
mod refusals;
mod traces;
