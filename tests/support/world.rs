//! The three services in this process, over memory or over real servers.

use std::sync::Arc;
use std::time::Duration;

use common::broker::rabbit::Rabbit;
use common::broker::{Broker, memory};
use common::client::Client;
use common::clock::Clock;
use common::config::{
    BrokerConfig, Config, HttpConfig, LlmConfig, LogConfig, LogFormat, ModelChoice, RunConfig, StoreConfig, ToolConfig,
};
use common::env::Env;
use common::event::Event;
use common::id::RunId;
use common::ids::Ids;
use common::llm::Llm;
use common::message::{ControlMessage, ControlReply, ObjectiveMessage};
use common::metrics::Metrics;
use common::run::{RunDocument, RunView};
use common::store::redis::Redis;
use common::store::{Store, StoreTime};
use common::telemetry::Traces;
use executor::tool::Toolbox;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::stack::amqp_url;
use crate::stores;

/// Services that run until this is dropped.
pub struct World {
    /// What they run on.
    pub env: Env,
    /// A user's view.
    pub client: Client,
    stop: CancellationToken,
    services: JoinSet<anyhow::Result<()>>,
    /// The servers' things to delete at the end.
    real: Option<Redis>,
}

/// What a world runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// This process.
    Memory,
    /// RabbitMQ and Redis, under a prefix of its own.
    Servers,
}

/// A configuration with every default, offline.
pub fn config() -> Config {
    Config {
        prefix: "planrelay".to_owned(),
        broker: BrokerConfig { urls: Vec::new() },
        store: StoreConfig { urls: Vec::new() },
        llm: llm_config("http://127.0.0.1:9/v1"),
        run: RunConfig { shutdown_grace: Duration::from_millis(100), ..RunConfig::default() },
        tools: ToolConfig::default(),
        http: HttpConfig::default(),
        log: LogConfig { filter: "warn".to_owned(), format: LogFormat::Text },
    }
}

/// An endpoint without a key, with short time-outs.
pub fn llm_config(base_url: &str) -> LlmConfig {
    LlmConfig {
        choice: ModelChoice::OpenAi,
        api_key: None,
        base_url: base_url.to_owned(),
        model: "fake-1".to_owned(),
        planner_model: None,
        executor_model: None,
        summarizer_model: None,
        timeout: Duration::from_secs(2),
        prices: std::collections::BTreeMap::new(),
    }
}

/// A world around a broker, with a store in memory and no model.
pub fn env(broker: Broker) -> Env {
    let store = stores::memory(StoreTime::Own);
    let (clock, ids, metrics) = (Clock::System, Ids::random(), Metrics::new("test"));
    Env { clock, ids, broker, store, llm: Llm::Offline, metrics, traces: Traces::Off, worker: "test".into() }
}

fn builtin(config: &Config) -> Toolbox {
    Toolbox::builtin(&config.tools).expect("tools")
}

impl World {
    /// Everything in memory.
    pub fn in_memory(llm: Llm, config: &Config) -> Self {
        let mut world = Self::in_memory_without_executor(llm, config);
        world.start_executor(config);
        world
    }

    /// Everything on `backend`.
    pub async fn on(backend: Backend, llm: Llm, config: &Config) -> Self {
        Self::with_tools(backend, llm, config, builtin(config)).await
    }

    /// Everything on `backend`, with an executor that has these tools. Plans may name those of the built-in ones all the same.
    pub async fn with_tools(backend: Backend, llm: Llm, config: &Config, tools: Toolbox) -> Self {
        let mut world = Self::without_executor(backend, llm, config).await;
        world.start_executor_with(config, tools);
        world
    }

    /// Everything on `backend`, but nobody to run steps yet.
    pub async fn without_executor(backend: Backend, llm: Llm, config: &Config) -> Self {
        match backend {
            Backend::Memory => Self::in_memory_without_executor(llm, config),
            Backend::Servers => Self::on_servers_without_executor(llm, config).await,
        }
    }

    async fn on_servers_without_executor(llm: Llm, config: &Config) -> Self {
        let redis = stores::redis(StoreTime::Own).await;
        let broker_config = BrokerConfig { urls: vec![amqp_url().into()] };
        let rabbit = Rabbit::connect(&broker_config, redis.prefix(), "test", Ids::random(), &Metrics::new("test")).await;
        let broker = Broker::Rabbit(rabbit.expect("these tests need RabbitMQ at AMQP_URL"));
        let mut world = Self::start(broker, Store::Redis(redis.clone()), llm, config, Clock::System);
        world.real = Some(redis);
        world
    }

    /// Everything in memory, but nobody to run steps yet.
    pub fn in_memory_without_executor(llm: Llm, config: &Config) -> Self {
        let broker = Broker::Memory(memory::Memory::new(&config.prefix));
        // Tokio's clock, so that a test may pause it and let minutes pass in no time.
        let clock = Clock::Tokio { epoch_ms: 1_700_000_000_000, started: tokio::time::Instant::now() };
        Self::start(broker, stores::memory(StoreTime::Clock(clock)), llm, config, clock)
    }

    /// Starts an executor.
    pub fn start_executor(&mut self, config: &Config) {
        self.start_executor_with(config, builtin(config));
    }

    fn start_executor_with(&mut self, config: &Config, tools: Toolbox) {
        let (env, config, stop) = (self.env.clone(), config.clone(), self.stop.clone());
        self.services.spawn(async move { executor::run(env, &config, tools, stop).await });
    }

    fn start(broker: Broker, store: Store, llm: Llm, config: &Config, clock: Clock) -> Self {
        let ids = Ids::random();
        let client = Client::new(store.clone(), ids.clone(), clock);
        let env = Env { clock, ids, store, llm, ..env(broker) };
        let stop = CancellationToken::new();
        let mut services = JoinSet::new();
        let config = Arc::new(config.clone());
        let (e, c, s) = (env.clone(), config.clone(), stop.clone());
        services.spawn(async move { planner::run(e, &c, s).await });
        let (e, c, s) = (env.clone(), config, stop.clone());
        services.spawn(async move { summarizer::run(e, &c, s).await });
        Self { env, client, stop, services, real: None }
    }

    /// What the names of its queues begin with.
    pub fn prefix(&self) -> &str {
        self.real.as_ref().map_or("planrelay", Redis::prefix)
    }

    /// Publishes an objective.
    pub async fn submit(&self, objective: Value) -> RunId {
        let message: ObjectiveMessage = serde_json::from_value(objective).expect("an objective");
        self.client.submit(&self.env.broker, message).await.expect("the broker confirms")
    }

    /// Publishes an objective and waits for its result.
    pub async fn run(&self, objective: Value) -> RunDocument {
        let run = self.submit(objective).await;
        self.client.wait(&run, crate::stack::PATIENCE).await.expect("the run ends")
    }

    /// Publishes a command and gives the answer.
    pub async fn control(&self, run: &RunId, command: Value) -> ControlReply {
        let mut message = command;
        message["run_id"] = run.as_str().into();
        let message: ControlMessage = serde_json::from_value(message).expect("a command");
        self.client.control(&self.env.broker, &message, crate::stack::PATIENCE).await.expect("an answer")
    }

    /// Waits until the run looks like that.
    pub async fn until(&self, run: &RunId, what: &str, condition: impl Fn(&RunView) -> bool) -> RunView {
        let deadline = Instant::now() + crate::stack::PATIENCE;
        loop {
            let view = self.client.show(run).await.expect("the store answers");
            if let Some(view) = view.as_ref().filter(|view| condition(view)) {
                return view.clone();
            }
            assert!(Instant::now() < deadline, "{what} does not come true: {view:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Every entry of the run's audit trail so far.
    pub async fn events(&self, run: &RunId) -> Vec<Event> {
        self.env.store.events(run, "", 10_000).await.expect("the store answers")
    }

    /// Stops the services and waits for their end.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.services.join_next().await {
            ended.expect("a service does not panic").expect("a service does not fail");
        }
        if let Some(redis) = self.real {
            self.env.broker.close().await;
            let config = BrokerConfig { urls: vec![amqp_url().into()] };
            Rabbit::delete_queues(&config, redis.prefix()).await.expect("queues are deleted");
            redis.delete_all().await.expect("keys are deleted");
        }
    }
}
