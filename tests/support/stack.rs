//! The services as real processes on real RabbitMQ and Redis, under a prefix of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::config::StoreConfig;
use common::id::RunId;
use common::message::Queue;
use common::metrics::Metrics;
use common::run::RunDocument;
use common::store::redis::Redis;
use common::store::{Store, StoreTime};
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

pub use crate::process::Process;
use crate::proxy::Proxy;
use crate::stores::{redis_url, unique_prefix};

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
    // A program of this package stands in `target/<profile>` itself.
    let target = if target.join("deps").is_dir() { target } else { test.parent().expect("target/<profile>/<program>") };
    let path = target.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first, as tests/run does", path.display());
    path
}

/// A stack: settings for its processes, and the connections of a plain user.
pub struct Stack {
    prefix: String,
    amqp_url: String,
    redis_url: String,
    settings: Vec<(String, String)>,
    logs: tempfile::TempDir,
    /// What a user reads with.
    pub redis: Redis,
    /// What a user publishes with: made anew when the broker has been away.
    connected: Mutex<Option<(Connection, Channel)>>,
    started: std::cell::Cell<u32>,
}

impl Stack {
    /// On the servers that everybody shares; see [`Stack::on`].
    pub async fn new(settings: &[(&str, &str)]) -> Self {
        Self::on(&amqp_url(), &redis_url(), settings).await
    }

    /// Connects to these servers and sets the prefix; no service runs yet. `settings` are environment variables of every process:
    /// services may reach the servers another way (`AMQP_URL`, `REDIS_URL`), for example through a proxy.
    pub async fn on(amqp_url: &str, redis_url: &str, settings: &[(&str, &str)]) -> Self {
        let prefix = unique_prefix();
        let mut all = vec![
            ("AMQP_URL".to_owned(), amqp_url.to_owned()),
            ("REDIS_URL".to_owned(), redis_url.to_owned()),
            ("PLANRELAY_PREFIX".to_owned(), prefix.clone()),
            ("PLANRELAY_LEASE_SECS".to_owned(), "3".to_owned()),
            ("PLANRELAY_LOG".to_owned(), "info,planner=debug,executor=debug,summarizer=debug,common=debug".to_owned()),
        ];
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let config = StoreConfig { urls: redis_url.split(',').map(|url| url.to_owned().into()).collect() };
        let redis =
            Redis::connect(&config, &prefix, StoreTime::Own, &Metrics::new("test")).await.expect("tests need Redis at REDIS_URL");
        let logs = tempfile::tempdir().expect("a folder for logs");
        let (amqp_url, redis_url) = (amqp_url.to_owned(), redis_url.to_owned());
        let (connected, started) = (Mutex::default(), std::cell::Cell::new(0));
        let stack = Self { prefix, amqp_url, redis_url, settings: all, logs, redis, connected, started };
        stack.channel().await;
        stack
    }

    /// The user's confirm channel, on a new connection if the old one is gone.
    async fn channel(&self) -> Channel {
        let mut connected = self.connected.lock().await;
        if let Some((connection, channel)) = connected.as_ref().filter(|(connection, _)| connection.status().connected()) {
            if channel.status().connected() {
                return channel.clone();
            }
            // Gone alone: a queue was asked for that is not there.
            if let Ok(channel) = confirm_channel(connection).await {
                let (connection, _) = connected.take().expect("it was there");
                connected.replace((connection, channel.clone()));
                return channel;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let why = match Connection::connect(&self.amqp_url, ConnectionProperties::default()).await {
                Ok(connection) => match confirm_channel(&connection).await {
                    Ok(channel) => {
                        connected.replace((connection, channel.clone()));
                        return channel;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            assert!(Instant::now() < deadline, "tests need RabbitMQ at AMQP_URL: {why}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A stack with one planner, two executors and one summarizer, on the servers that everybody shares.
    pub async fn running(settings: &[(&str, &str)]) -> (Self, Vec<Process>) {
        Self::new(settings).await.with_services().await
    }

    /// Starts one planner, two executors and one summarizer, and waits until they have started.
    pub async fn with_services(self) -> (Self, Vec<Process>) {
        let services = ["planner", "executor", "executor", "summarizer"];
        let processes: Vec<Process> = services.iter().map(|service| self.start(service)).collect();
        let started = |process: &Process| std::fs::read_to_string(&process.log).is_ok_and(|log| log.contains(" started, model "));
        self.until("all services have started", async || processes.iter().all(started)).await;
        (self, processes)
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
        self.command_of(&binary(binary_name))
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let ours = |name: &String| ["PLANRELAY_", "OPENAI_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix));
        for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
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
        self.start_program(&binary(service), service, settings)
    }

    /// The same of a service that another release has built.
    pub fn start_program(&self, program: &Path, service: &str, settings: &[(&str, &str)]) -> Process {
        self.started.set(self.started.get() + 1);
        let log = self.logs.path().join(format!("{service}-{}.log", self.started.get()));
        let mut command = self.command_of(program);
        command.envs(settings.iter().copied());
        Process::spawn(&mut command, log)
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
        self.until("a service has declared its queues", async || self.messages(Queue::Completions).await.is_some()).await;
    }

    /// Publishes to one of our queues as any AMQP client would.
    pub async fn publish(&self, queue: Queue, body: &[u8], properties: BasicProperties) {
        let name = queue.name(&self.prefix);
        let published =
            self.channel().await.basic_publish("".into(), name.into(), BasicPublishOptions::default(), body, properties).await;
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
        let queue = self.channel().await.queue_declare("".into(), options, FieldTable::default()).await.expect("a reply queue");
        queue.name().to_string()
    }

    /// Waits for a message on `queue` and gives its body and properties.
    pub async fn receive(&self, queue: &str) -> (Vec<u8>, BasicProperties) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let options = BasicGetOptions { no_ack: true };
            if let Some(message) = self.channel().await.basic_get(queue.into(), options).await.expect("the queue exists") {
                return (message.delivery.data.clone(), message.delivery.properties.clone());
            }
            assert!(Instant::now() < deadline, "nothing arrives on {queue}:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Takes what is on `queue` now.
    pub async fn take_all(&self, queue: &str) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = self.channel().await.basic_get(queue.into(), options).await.expect("the queue exists") {
            bodies.push(message.delivery.data);
        }
        bodies
    }

    /// Reads the result as the README says: `GET <prefix>:{<run>}:result`, with a plain client, until it is there.
    pub async fn result(&self, run: &RunId) -> RunDocument {
        self.result_within(run, PATIENCE).await
    }

    /// The same, with another patience.
    pub async fn result_within(&self, run: &RunId, patience: Duration) -> RunDocument {
        let client = redis::Client::open(self.redis_url.as_str()).expect("a Redis URL");
        let key = format!("{}:{{{run}}}:result", self.prefix);
        let deadline = Instant::now() + patience;
        loop {
            // Redis may be away for a while, or forget.
            let text = async || -> Result<Option<String>, redis::RedisError> {
                let mut connection = client.get_multiplexed_async_connection().await?;
                redis::cmd("GET").arg(&key).query_async(&mut connection).await
            };
            let answer = text().await;
            if let Ok(Some(text)) = &answer {
                return serde_json::from_str(text).expect("a result document");
            }
            assert!(Instant::now() < deadline, "run {run} has no result after {patience:?}: {answer:?}\n{}", self.logs());
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
        self.messages(queue).await.expect("the queue exists")
    }

    /// Messages that are ready in a queue, if it exists.
    pub async fn messages(&self, queue: Queue) -> Option<u32> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let name = queue.name(&self.prefix);
        let declared = self.channel().await.queue_declare(name.into(), passive, FieldTable::default()).await;
        declared.ok().map(|queue| queue.message_count())
    }

    /// Takes every message that is ready out of a queue; gives how many there were.
    pub async fn purge(&self, queue: Queue) -> u32 {
        let name = queue.name(&self.prefix);
        self.channel().await.queue_purge(name.into(), QueuePurgeOptions::default()).await.expect("the queue is purged")
    }

    /// Deletes a queue, as an operator might by mistake.
    pub async fn delete_queue(&self, queue: Queue) {
        let name = queue.name(&self.prefix);
        self.channel().await.queue_delete(name.into(), QueueDeleteOptions::default()).await.expect("the queue is deleted");
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

    /// Gives up the stack, and leaves its folder with every log.
    pub fn keep_logs(self) -> PathBuf {
        self.logs.keep()
    }

    /// Deletes queues and keys. A test that fails leaves them for a look.
    pub async fn clean(self) {
        self.redis.delete_all().await.expect("keys deleted");
        for queue in Queue::ALL {
            self.delete_queue(queue).await;
        }
    }
}

async fn confirm_channel(connection: &Connection) -> Result<Channel, lapin::Error> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
