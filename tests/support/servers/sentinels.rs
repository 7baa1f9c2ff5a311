//! A Redis with replicas, and three Sentinels that watch over them.

use std::net::Ipv4Addr;
use std::process::Command;

use redis::FromRedisValue;
use tokio::time::{Duration, Instant, sleep};

use super::certificates::Certificates;
use super::redis::PrivateRedis;
use super::{free_port, program};
use crate::process::Process;
use crate::stack::PATIENCE;

/// The name that Sentinels know the primary by.
const NAME: &str = "main";
/// A primary that is silent for so many milliseconds is down. Half a minute is the default.
const DOWN_AFTER_MS: u32 = 2000;

/// One primary, two replicas, three Sentinels; all but one of the latter must agree.
pub struct Sentinels {
    /// The servers; which is the primary changes.
    pub servers: Vec<PrivateRedis>,
    watchers: Vec<Sentinel>,
}

struct Sentinel {
    _folder: tempfile::TempDir,
    port: u16,
    /// The port for TLS, if there is one.
    secured: Option<u16>,
    _process: Process,
}

impl Sentinels {
    /// Starts all of them and waits until the Sentinels know each other and the replicas.
    pub async fn start() -> Self {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(PrivateRedis::start(&[]).await);
        }
        for replica in &servers[1..] {
            replica.replicate(Some(&servers[0])).await;
        }
        let address = servers[0].address().replace(':', " ");
        let watchers = (0..3).map(|_| Sentinel::start(&address, 2, &[])).collect();
        let all = Self { servers, watchers };
        let deadline = Instant::now() + PATIENCE;
        while !all.complete().await {
            assert!(Instant::now() < deadline, "the Sentinels do not find each other");
            sleep(Duration::from_millis(100)).await;
        }
        all
    }

    /// One server and one Sentinel; both listen for TLS, and clients are told the server's port for it.
    pub async fn start_secured(certificates: &Certificates) -> Self {
        let server = PrivateRedis::start_secured(certificates, &[]).await;
        let mut lines = vec!["tls-replication yes".to_owned()];
        let port = free_port();
        lines.extend(certificates.of_redis(port).iter().map(|(name, value)| format!("{name} {value}")));
        let mut watcher = Sentinel::start(&format!("{} {}", Ipv4Addr::LOCALHOST, server.secured_port()), 1, &lines);
        watcher.secured = Some(port);
        let deadline = Instant::now() + PATIENCE;
        while watcher.ask::<(String, String)>(&["get-master-addr-by-name", NAME]).await.is_none() {
            assert!(Instant::now() < deadline, "the Sentinel does not answer");
            sleep(Duration::from_millis(100)).await;
        }
        Self { servers: vec![server], watchers: vec![watcher] }
    }

    /// What `REDIS_URL` must be, over TLS.
    pub fn secured_url(&self) -> String {
        format!("rediss+sentinel://localhost:{}/{NAME}", self.watchers[0].secured.expect("the Sentinel listens for TLS"))
    }

    /// What `REDIS_URL` must be.
    pub fn url(&self) -> String {
        let hosts = self.watchers.iter().map(|watcher| format!("{}:{}", Ipv4Addr::LOCALHOST, watcher.port));
        format!("redis+sentinel://{}/{NAME}", hosts.collect::<Vec<_>>().join(","))
    }

    /// The primary, as an index into the servers, as far as the Sentinels know.
    pub async fn primary(&self) -> Option<usize> {
        let (host, port) = self.watchers[0].ask::<(String, String)>(&["get-master-addr-by-name", NAME]).await?;
        self.servers.iter().position(|server| server.address() == format!("{host}:{port}"))
    }

    async fn complete(&self) -> bool {
        for watcher in &self.watchers {
            let known = async |of: &str| watcher.ask::<Vec<redis::Value>>(&[of, NAME]).await.map_or(0, |found| found.len());
            if known("sentinels").await < 2 || known("replicas").await < 2 {
                return false;
            }
        }
        // A Sentinel chooses among replicas that copy.
        for replica in &self.servers[1..] {
            let said = replica.command::<String>(&["INFO", "replication"]).await.unwrap_or_default();
            if !said.contains("master_link_status:up") {
                return false;
            }
        }
        true
    }
}

impl Sentinel {
    fn start(primary: &str, quorum: u32, settings: &[String]) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder for a Sentinel"), free_port());
        let file = folder.path().join("sentinel.conf");
        // It writes what it learns into its own configuration.
        let mut lines = vec![
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", folder.path().display()),
            format!("sentinel monitor {NAME} {primary} {quorum}"),
            format!("sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}"),
            format!("sentinel failover-timeout {NAME} 10000"),
        ];
        lines.extend_from_slice(settings);
        std::fs::write(&file, lines.join("\n") + "\n").expect("a file is written");
        let mut command = Command::new(program("redis-server", &["/usr/bin"]));
        command.arg(&file).arg("--sentinel");
        let process = Process::spawn(&mut command, folder.path().join("sentinel.log"));
        Self { _folder: folder, port, secured: None, _process: process }
    }

    async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let url = format!("redis://{}:{}", Ipv4Addr::LOCALHOST, self.port);
        let mut connection = redis::Client::open(url).ok()?.get_multiplexed_async_connection().await.ok()?;
        redis::cmd("SENTINEL").arg(words).query_async(&mut connection).await.ok()
    }
}
