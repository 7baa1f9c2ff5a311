//! Servers of a test's own: started, killed, paused, started again and reconfigured without disturbing anybody else.
//!
//! Each has a folder, ports and (RabbitMQ) a node name of its own and runs as the user of the test, so any number of tests may do
//! this at once. Everything ends when it is dropped.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use common::ids::Ids;

mod rabbit;
mod redis;

pub use rabbit::{Backlog, PrivateRabbit};
pub use redis::PrivateRedis;

/// Ports for servers. Below 32768, where the system's own choice for outgoing connections begins: a server that is down could find
/// its port taken by a mere client when it comes back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that nobody listens on. Drawn at random, since other processes draw at the same time.
pub fn free_port() -> u16 {
    let ids = Ids::random();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a small count")]
    let draw = || PORTS.start + (f64::from(PORTS.end - PORTS.start) * ids.fraction()) as u16;
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(draw).take(1000).find(free).expect("a free port for a server")
}

/// Where a server's program is: `usual` places first, then `PATH`.
fn program(name: &str, usual: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = usual.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    let found = places.map(|place| place.join(name)).find(|path| path.is_file());
    found
        .unwrap_or_else(|| panic!("{name} is missing: these tests start servers of their own, tests/run installs what they need"))
}
