//! A Redis of a test's own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use redis::{FromRedisValue, RedisError};
use tokio::time::Instant;

use super::certificates::Certificates;
use super::{free_port, program};
use crate::process::Process;
use crate::stack::PATIENCE;

/// A Redis server. By default it loses nothing: every write is on disk before it is answered.
pub struct PrivateRedis {
    folder: tempfile::TempDir,
    port: u16,
    /// The port for TLS, if there is one.
    secured: Option<u16>,
    settings: Vec<(String, String)>,
    process: Process,
}

impl PrivateRedis {
    /// Starts a server and waits until it answers. `settings` are those of redis.conf: `("maxmemory", "10mb")`.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder for Redis"), free_port());
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let process = spawn(folder.path(), port, &settings);
        let server = Self { folder, port, secured: None, settings, process };
        server.answers().await;
        server
    }

    /// Starts a server that also listens for TLS.
    pub async fn start_secured(certificates: &Certificates, settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        let secured = certificates.of_redis(port);
        let secured: Vec<(&str, &str)> = secured.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut server = Self::start(&[&secured, settings].concat()).await;
        server.secured = Some(port);
        server
    }

    /// Starts a server that also listens for TLS, and is a Redis Cluster by itself.
    pub async fn start_secured_cluster(certificates: &Certificates) -> Self {
        let bus = free_port().to_string();
        // Clients over TLS are told of ports for TLS only by servers that speak it among themselves.
        let settings = [("cluster-enabled", "yes"), ("cluster-port", bus.as_str()), ("tls-cluster", "yes")];
        let server = Self::start_secured(certificates, &settings).await;
        let _ok: String = server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await.expect("slots are given");
        let deadline = Instant::now() + PATIENCE;
        while !server.command::<String>(&["CLUSTER", "INFO"]).await.unwrap_or_default().contains("cluster_state:ok") {
            assert!(Instant::now() < deadline, "the server is no cluster:\n{}", server.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    /// What `REDIS_URL` must be, over TLS.
    pub fn secured_url(&self) -> String {
        format!("rediss://localhost:{}", self.secured_port())
    }

    /// The port for TLS.
    pub fn secured_port(&self) -> u16 {
        self.secured.expect("the server listens for TLS")
    }

    /// Starts a server that wants to be part of a Redis Cluster.
    pub(super) async fn start_in_cluster(node_timeout_ms: &str) -> Self {
        // The bus would be at port + 10000 otherwise, among the ports of clients.
        let bus = free_port().to_string();
        Self::start(&[
            ("cluster-enabled", "yes"),
            ("cluster-port", &bus),
            ("cluster-node-timeout", node_timeout_ms),
            // However long it has not heard of its primary, and whatever happens to others.
            ("cluster-replica-validity-factor", "0"),
            ("cluster-allow-replica-migration", "no"),
        ])
        .await
    }

    /// What `REDIS_URL` must be.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on what is on its disk, and waits until it answers.
    pub async fn start_again(&mut self) {
        self.process = spawn(self.folder.path(), self.port, &self.settings);
        self.answers().await;
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Remembers what is on disk now; all that was answered is, with `appendfsync always`.
    pub fn checkpoint(&self) {
        let kept = self.kept();
        let _none_yet = std::fs::remove_dir_all(&kept);
        std::fs::create_dir(&kept).expect("a folder for the checkpoint");
        copy(&self.data(), &kept);
    }

    /// Kills it, and starts it again with what was on its disk at the last checkpoint: everything since then was answered and is
    /// lost, as by a power cut without `appendfsync always`, or by a failover to a replica that lagged behind.
    pub async fn lose_writes_since_checkpoint(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("the data are deleted");
        std::fs::create_dir(self.data()).expect("a folder for the data");
        copy(&self.kept(), &self.data());
        self.start_again().await;
    }

    /// Loses everything, in a moment.
    pub async fn flush(&self) {
        let _ok: String = self.command(&["FLUSHALL"]).await.expect("FLUSHALL");
    }

    /// Copies another server from now on and refuses writes; `None`: writes are taken again.
    pub async fn replicate(&self, primary: Option<&Self>) {
        let port = primary.map_or_else(|| "ONE".to_owned(), |primary| primary.port.to_string());
        let host = if primary.is_some() { "127.0.0.1" } else { "NO" };
        let _ok: String = self.command(&["REPLICAOF", host, &port]).await.expect("REPLICAOF");
    }

    /// Whether it is `master` or `slave` in its own eyes, if it answers.
    pub async fn role(&self) -> Option<String> {
        let asked = tokio::time::timeout(Duration::from_secs(2), self.command::<Vec<::redis::Value>>(&["ROLE"]));
        String::from_redis_value(asked.await.ok()?.ok()?.into_iter().next()?).ok()
    }

    /// Its log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.process.log).unwrap_or_default()
    }

    /// CONFIG SET.
    pub async fn set(&self, name: &str, value: &str) {
        let _ok: String = self.command(&["CONFIG", "SET", name, value]).await.expect("CONFIG SET");
    }

    /// Any command, over a connection of its own.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> Result<T, RedisError> {
        let mut connection = ::redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        let (name, arguments) = words.split_first().expect("a command has a name");
        ::redis::cmd(name).arg(arguments).query_async(&mut connection).await
    }

    async fn answers(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.command::<String>(&["PING"]).await.is_err() {
            assert!(Instant::now() < deadline, "Redis does not answer on port {}:\n{}", self.port, self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("appendonlydir")
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("checkpoint")
    }
}

fn spawn(folder: &Path, port: u16, settings: &Vec<(String, String)>) -> Process {
    let mut command = Command::new(program("redis-server", &["/usr/bin"]));
    command.current_dir(folder).args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder);
    // Rewriting the log would move what a checkpoint remembers.
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]);
    for (name, value) in settings {
        command.arg(format!("--{name}")).arg(value);
    }
    Process::spawn(&mut command, folder.join("redis.log"))
}

/// Copies the files of a flat folder.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder to copy") {
        let entry = entry.expect("an entry of the folder");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a file is copied");
    }
}
