//! The services as real processes on real RabbitMQ and Redis, under a prefix of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use common::id::RunId;
use common::message::Queue;
use common::run::RunDocument;
use common::store::redis::Redis;
use common::store::{Store, StoreTime};
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;
use tokio::time::Instant;

use crate::proxy::Proxy;
use crate::stores::{redis_config, redis_url, unique_prefix};

/// How long anything in a test may take before the test has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `AMQP_URL`, or the local default.
pub fn amqp_url() -> String {
    std::env::var("AMQP_URL").unwrap_or_else(|_unset| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

/// A proxy in front of the server that `url` names, and the URL through it. `port` is the scheme's own.
pub async fn through(url: &str, port: u16) -> (Proxy, String) {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (authority, path) = rest.split_once('/').map_or((rest, String::new()), |(a, p)| (a, format!("/{p}")));
    let (user, host) = authority.rsplit_once('@').map_or((String::new(), authority), |(u, h)| (format!("{u}@"), h));
    let upstream = if host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
    let proxy = Proxy::start(upstream).await.expect("a proxy starts");
    let url = format!("{scheme}://{user}{}{path}", proxy.address());
    (proxy, url)
}

/// One of the workspace's binaries, next to this test's own.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let target = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let path = target.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first, as tests/run does", path.display());
    path
}

/// A stack: settings for its processes, and the connections of a plain user.
pub struct Stack {
    prefix: String,
    settings: Vec<(String, String)>,
    logs: tempfile::TempDir,
    /// What a user reads with.
    pub redis: Redis,
    connection: Connection,
    channel: Channel,
    started: std::cell::Cell<u32>,
}

/// A service process. It is killed when it is dropped.
pub struct Process {
    child: Child,
    /// Where its log goes.
    pub log: PathBuf,
}

impl Process {
    /// SIGKILL: no chance to tidy up.
    pub fn kill(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// SIGTERM, then waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(sent.success(), "process {pid} is gone already");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "process {pid} does not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Stack {
    /// Connects and sets the prefix; no service runs yet. `settings` are environment variables of every process.
    pub async fn new(settings: &[(&str, &str)]) -> Self {
        let prefix = unique_prefix();
        let mut all = vec![
            ("AMQP_URL".to_owned(), amqp_url()),
            ("REDIS_URL".to_owned(), redis_url()),
            ("PLANRELAY_PREFIX".to_owned(), prefix.clone()),
            ("PLANRELAY_LEASE_SECS".to_owned(), "3".to_owned()),
            ("PLANRELAY_LOG".to_owned(), "info,planner=debug,executor=debug,summarizer=debug,common=debug".to_owned()),
        ];
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let redis = Redis::connect(&redis_config(), &prefix, StoreTime::Own).await.expect("tests need Redis at REDIS_URL");
        let connection =
            Connection::connect(&amqp_url(), ConnectionProperties::default()).await.expect("tests need RabbitMQ at AMQP_URL");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let logs = tempfile::tempdir().expect("a folder for logs");
        Self { prefix, settings: all, logs, redis, connection, channel, started: std::cell::Cell::new(0) }
    }

    /// A stack with one planner, two executors and one summarizer.
    pub async fn running(settings: &[(&str, &str)]) -> (Self, Vec<Process>) {
        let stack = Self::new(settings).await;
        let services = ["planner", "executor", "executor", "summarizer"];
        let processes: Vec<Process> = services.iter().map(|service| stack.start(service)).collect();
        let started = |process: &Process| std::fs::read_to_string(&process.log).is_ok_and(|log| log.contains(" started, model "));
        stack.until("all services have started", async || processes.iter().all(started)).await;
        (stack, processes)
    }

    /// The prefix of queues and keys.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The store as a user of the library sees it.
    pub fn store(&self) -> Store {
        Store::Redis(self.redis.clone())
    }

    /// A command with this stack's settings and nothing else from the environment that could change them.
    pub fn command(&self, binary_name: &str) -> Command {
        let mut command = Command::new(binary(binary_name));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLANRELAY_") || name.starts_with("OPENAI_")) {
            command.env_remove(name);
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value))).current_dir(self.logs.path()).stdin(Stdio::null());
        command
    }

    /// Starts a service.
    pub fn start(&self, service: &str) -> Process {
        self.start_with(service, &[])
    }

    /// Starts a service with further settings.
    pub fn start_with(&self, service: &str, settings: &[(&str, &str)]) -> Process {
        self.started.set(self.started.get() + 1);
        let log = self.logs.path().join(format!("{service}-{}.log", self.started.get()));
        let file = File::create(&log).expect("a log file");
        let mut command = self.command(service);
        command.envs(settings.iter().copied()).stdout(Stdio::null()).stderr(file);
        Process { child: command.spawn().expect("the service starts"), log }
    }

    /// A file in the folder in which commands run.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.logs.path().join(name);
        std::fs::write(&path, text).expect("a file is written");
        path
    }

    /// Runs `planrelay` to its end.
    pub async fn planrelay(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("planrelay");
        command.args(arguments);
        tokio::task::spawn_blocking(move || command.output().expect("planrelay runs")).await.expect("planrelay ends")
    }

    /// Waits until the services have declared their queues.
    pub async fn queues_exist(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let channel = self.connection.create_channel().await.expect("a channel");
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let name = Queue::Completions.name(&self.prefix);
            if channel.queue_declare(name.into(), passive, FieldTable::default()).await.is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "no service has declared its queues:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Publishes to one of our queues as any AMQP client would.
    pub async fn publish(&self, queue: Queue, body: &[u8], properties: BasicProperties) {
        let name = queue.name(&self.prefix);
        let published =
            self.channel.basic_publish("".into(), name.into(), BasicPublishOptions::default(), body, properties).await;
        published.expect("published").await.expect("confirmed");
    }

    /// Publishes an objective with `run_id` in its body.
    pub async fn objective(&self, run_id: &str, mut body: Value) -> RunId {
        body["run_id"] = run_id.into();
        self.publish(Queue::Objectives, body.to_string().as_bytes(), BasicProperties::default()).await;
        RunId::parse(run_id).expect("a run id")
    }

    /// A queue of the user's own, for replies.
    pub async fn reply_queue(&self) -> String {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare("".into(), options, FieldTable::default()).await.expect("a reply queue");
        queue.name().to_string()
    }

    /// Waits for a message on `queue` and gives its body and properties.
    pub async fn receive(&self, queue: &str) -> (Vec<u8>, BasicProperties) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let options = BasicGetOptions { no_ack: true };
            if let Some(message) = self.channel.basic_get(queue.into(), options).await.expect("the queue exists") {
                return (message.delivery.data.clone(), message.delivery.properties.clone());
            }
            assert!(Instant::now() < deadline, "nothing arrives on {queue}:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads the result as the README says: `GET <prefix>:{<run>}:result`, with a plain client, until it is there.
    pub async fn result(&self, run: &RunId) -> RunDocument {
        let client = redis::Client::open(redis_url()).expect("a Redis URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
        let key = format!("{}:{{{run}}}:result", self.prefix);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text: Option<String> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.expect("GET");
            if let Some(text) = text {
                return serde_json::from_str(&text).expect("a result document");
            }
            assert!(Instant::now() < deadline, "run {run} has no result after {PATIENCE:?}:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until `condition` holds.
    pub async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition().await {
            assert!(Instant::now() < deadline, "{what} does not come true:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Messages that are ready in a queue.
    pub async fn depth(&self, queue: Queue) -> u32 {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let name = queue.name(&self.prefix);
        let declared = self.channel.queue_declare(name.into(), passive, FieldTable::default()).await;
        declared.expect("the queue exists").message_count()
    }

    /// The last lines of every process's log.
    pub fn logs(&self) -> String {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.logs.path())
            .expect("the folder for logs")
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        files.sort();
        files.iter().map(|path| format!("--- {}\n{}\n", path.display(), tail(path))).collect()
    }

    /// Deletes queues and keys. A test that fails leaves them for a look.
    pub async fn clean(self) {
        self.redis.delete_all().await.expect("keys deleted");
        for queue in Queue::ALL {
            let name = queue.name(&self.prefix);
            self.channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.expect("queue deleted");
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
