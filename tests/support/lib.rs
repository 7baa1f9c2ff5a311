//! What the tests share: one faithful fake per outside system, and a world of services around them.
#![expect(clippy::expect_used, reason = "test support: a fake that cannot start fails its test")]

pub mod chaos;
pub mod collector;
pub mod dumps;
pub mod fake_openai;
pub mod http;
pub mod invariants;
pub mod plans;
pub mod points;
pub mod process;
pub mod proxy;
pub mod seam;
pub mod servers;
pub mod stack;
pub mod stores;
pub mod world;
