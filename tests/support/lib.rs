//! What the tests share: one faithful fake per outside system, and a world of services around them.

pub mod fake_openai;
pub mod proxy;
