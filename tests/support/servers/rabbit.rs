//! A RabbitMQ node of a test's own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::ids::Ids;
use lapin::{Connection, ConnectionProperties};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::{free_port, program};
use crate::process::Process;
use crate::stack::PATIENCE;

/// Where Debian's package keeps the programs themselves: those on `PATH` change to a user of their own first.
const USUAL: &[&str] = &["/usr/lib/rabbitmq/bin"];

/// How long a node may take to start. Six seconds are usual; on a machine that has much else to do it can be more than a minute, and no
/// test is about that.
const START_MAX: Duration = Duration::from_secs(240);

/// A RabbitMQ node.
pub struct PrivateRabbit {
    folder: tempfile::TempDir,
    node: String,
    port: u16,
    distribution: u16,
    process: Process,
}

/// What is in a queue. The broker counts quorum queues every half second here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Backlog {
    /// The queue.
    pub name: String,
    /// Messages that wait.
    #[serde(rename = "messages_ready")]
    pub ready: u64,
    /// Messages in somebody's hands.
    #[serde(rename = "messages_unacknowledged")]
    pub unacknowledged: u64,
}

impl PrivateRabbit {
    /// Starts a node and waits until it answers. `settings` are lines of rabbitmq.conf: `("consumer_timeout", "3000")`. Channels
    /// look every second whether a consumer has timed out.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for RabbitMQ");
        let (port, distribution) = (free_port(), free_port());
        let node = format!("planrelay-{}@localhost", &Ids::random().unique()[..12]);
        let mut lines = format!("listeners.tcp.1 = {}:{port}\n", Ipv4Addr::LOCALHOST);
        for (name, value) in settings {
            lines.push_str(&format!("{name} = {value}\n"));
        }
        let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file is written");
        file("rabbitmq.conf", &lines);
        // Both are 60 s and 5 s otherwise, and have no place in rabbitmq.conf.
        file("advanced.config", "[{rabbit, [{channel_tick_interval, 1000}, {quorum_tick_interval, 500}]}].\n");
        let managed = lines.contains("\nmanagement.");
        file("enabled_plugins", if managed { "[rabbitmq_management].\n" } else { "[].\n" });
        let process = spawn(folder.path(), &node, distribution);
        let mut server = Self { folder, node, port, distribution, process };
        server.answers().await;
        server
    }

    /// A node with the management API, and the API's URL.
    pub async fn managed() -> (Self, String) {
        let port = free_port().to_string();
        let server = Self::start(&[("management.tcp.ip", "127.0.0.1"), ("management.tcp.port", &port)]).await;
        (server, format!("http://{}:{port}", Ipv4Addr::LOCALHOST))
    }

    /// What `AMQP_URL` must be.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}:{}/%2f", Ipv4Addr::LOCALHOST, self.port)
    }

    /// SIGKILL. Its helper processes see the end of their pipes and go as well.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on its data, and waits until it answers.
    pub async fn start_again(&mut self) {
        self.process = spawn(self.folder.path(), &self.node, self.distribution);
        self.answers().await;
    }

    /// Kills it and starts it without data: no queue, no message.
    pub async fn lose_everything(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.folder.path().join("data")).expect("the data are deleted");
        self.start_again().await;
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Ends the broker, and leaves its Erlang node up.
    pub async fn stop_app(&self) {
        self.ctl(&["stop_app"]).await;
    }

    /// Starts the broker on its node, and waits until it answers.
    pub async fn start_app(&mut self) {
        self.ctl(&["start_app"]).await;
        self.answers().await;
    }

    /// Raises or clears a memory alarm, and waits until the broker has noticed: nobody may publish while it lasts.
    pub async fn memory_alarm(&self, on: bool) {
        let watermark: &[&str] = if on { &["absolute", "1MB"] } else { &["0.6"] };
        self.ctl(&[&["set_vm_memory_high_watermark"], watermark].concat()).await;
        let deadline = Instant::now() + PATIENCE;
        while self.eval("rabbit_alarm:get_alarms().").await.contains("memory") != on {
            assert!(Instant::now() < deadline, "the memory alarm does not change");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sets a policy for the queues whose names match, for example `{"max-length": 0, "overflow": "reject-publish"}`.
    pub async fn policy(&self, name: &str, pattern: &str, definition: &serde_json::Value) {
        self.ctl(&["set_policy", "--apply-to", "queues", name, pattern, &definition.to_string()]).await;
    }

    /// Lifts a policy.
    pub async fn clear_policy(&self, name: &str) {
        self.ctl(&["clear_policy", name]).await;
    }

    /// Closes every connection, as an operator would.
    pub async fn close_all_connections(&self) {
        self.ctl(&["close_all_connections", "closed by a test"]).await;
    }

    /// Sends every open channel a channel error (`406 PRECONDITION_FAILED`), which its client has not earned.
    pub async fn fail_all_channels(&self) {
        let close = "{'channel.close', 406, <<\"PRECONDITION_FAILED - by a test\">>, 0, 0}";
        self.eval(&format!("[rabbit_channel:send_command(Channel, {close}) || Channel <- rabbit_channel:list_local()].")).await;
    }

    /// How long a consumer may keep a message, on channels that are opened from now on. RabbitMQ's default is half an hour.
    pub async fn consumer_timeout(&self, limit: Duration) {
        self.eval(&format!("application:set_env(rabbit, consumer_timeout, {}).", limit.as_millis())).await;
    }

    /// What is in the queues whose names begin with `prefix`.
    pub async fn backlog(&self, prefix: &str) -> Vec<Backlog> {
        let columns = ["name", "messages_ready", "messages_unacknowledged"];
        let listed = self.ctl(&[["list_queues", "--formatter", "json", "--quiet"].as_slice(), &columns].concat()).await;
        let all: Vec<Backlog> = serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{error}: {listed}"));
        all.into_iter().filter(|queue| queue.name.starts_with(prefix)).collect()
    }

    /// Evaluates an Erlang expression on the node.
    pub async fn eval(&self, expression: &str) -> String {
        self.ctl(&["eval", expression]).await
    }

    /// Runs `rabbitmqctl` and gives what it printed; it must succeed.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.try_ctl(arguments).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    async fn try_ctl(&self, arguments: &[&str]) -> Output {
        let mut command = command("rabbitmqctl", self.folder.path(), &self.node, self.distribution);
        command.args(arguments);
        let run = move || command.output().expect("rabbitmqctl runs");
        tokio::task::spawn_blocking(run).await.expect("rabbitmqctl ends")
    }

    async fn answers(&mut self) {
        let (url, deadline) = (self.url(), Instant::now() + START_MAX);
        let log = self.folder.path().join("log");
        loop {
            let connected = timeout(PATIENCE, Connection::connect(&url, ConnectionProperties::default())).await;
            if let Ok(Ok(connection)) = connected {
                let _closed_or_not = connection.close(200, "OK".into()).await;
                return self.is_the_node();
            }
            let ended = self.process.ended();
            let said = || std::fs::read_to_string(&self.process.log).unwrap_or_default();
            assert!(ended.is_none(), "RabbitMQ ended with {ended:?}, see {}:\n{}", log.display(), said());
            assert!(Instant::now() < deadline, "RabbitMQ does not answer on port {}:\n{}", self.port, said());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A signal to a script before the node would leave the node as it is, and the test would prove nothing.
    fn is_the_node(&self) {
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).unwrap_or_default();
        assert_eq!(pid.trim(), self.process.pid().to_string(), "the node is another process than the one that was started");
    }
}

fn spawn(folder: &Path, node: &str, distribution: u16) -> Process {
    Process::spawn(&mut command("rabbitmq-server", folder, node, distribution), folder.join("output.log"))
}

/// A program of RabbitMQ's with this node's environment, and nothing of another's.
fn command(name: &str, folder: &Path, node: &str, distribution: u16) -> Command {
    let mut command = Command::new(program(name, USUAL));
    for (foreign, _) in std::env::vars().filter(|(name, _)| name.starts_with("RABBITMQ_") || name.starts_with("ERL_")) {
        command.env_remove(foreign);
    }
    let path = |name: &str| -> PathBuf { folder.join(name) };
    command
        .current_dir(folder)
        // The cookie is made here: nobody else's is read or written.
        .env("HOME", folder)
        .env("RABBITMQ_CONF_ENV_FILE", path("no-such-file"))
        .env("RABBITMQ_NODENAME", node)
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", path("data"))
        .env("RABBITMQ_LOG_BASE", path("log"))
        .env("RABBITMQ_PID_FILE", path("pid"))
        // The script becomes the node, in place of standing before it: signals are for the node itself.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_FLAGS", "-kernel inet_dist_use_interface {127,0,0,1}");
    command
}
