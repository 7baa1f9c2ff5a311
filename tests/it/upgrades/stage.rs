//! The services, one by one, on queues in memory and keys in Redis: a scene is played up to a moment at which everybody dies.

use std::sync::Arc;
use std::time::Duration;

use common::broker::{Broker, Envelope, Target, memory};
use common::client::Client;
use common::config::Config;
use common::env::Env;
use common::id::RunId;
use common::llm::Llm;
use common::message::{ControlMessage, Queue};
use common::run::{RunDocument, RunView};
use common::store::redis::Redis;
use common::store::{Store, StoreTime};
use executor::tool::Toolbox;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::fake_openai::FakeOpenAi;
use support::seam::Script;
use support::stack::PATIENCE;
use support::world::{self, llm_config};
use support::{dumps::Dump, stores};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Where the results of all runs are wanted.
const ANSWERS: &str = "answers";

/// A message that was in a queue, or in somebody's hands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Message {
    /// By its role.
    queue: String,
    message_id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    /// Somebody had it: it is handed out once more.
    redelivered: bool,
    body: Value,
}

/// See the module.
pub(super) struct Stage {
    pub(super) env: Env,
    pub(super) client: Client,
    pub(super) redis: Redis,
    config: Config,
    services: JoinSet<anyhow::Result<()>>,
    started: usize,
}

impl Stage {
    /// An empty one, with this model.
    pub(super) async fn new(model: &FakeOpenAi) -> Self {
        let redis = stores::redis(StoreTime::Own).await;
        let memory = memory::Memory::new(redis.prefix());
        memory.declare(ANSWERS);
        let broker = Broker::Memory(memory);
        let llm = Llm::from_config(&llm_config(&model.base_url())).unwrap();
        let env = Env { store: Store::Redis(redis.clone()), llm, ..world::env(broker) };
        let client = Client::new(env.store.clone(), env.ids.clone(), env.clock);
        Self { env, client, redis, config: world::config(), services: JoinSet::new(), started: 0 }
    }

    /// Starts one of the services, behind `seam`.
    pub(super) fn start(&mut self, service: &'static str, seam: Option<&Arc<Script>>) {
        self.started += 1;
        let mut env = Env { worker: format!("{service}-{}", self.started).into(), ..self.env.clone() };
        if let Some(seam) = seam {
            env.broker = seam.before_broker(env.broker);
            env.store = seam.before_store(env.store);
        }
        let (config, stop) = (self.config.clone(), CancellationToken::new());
        self.services.spawn(async move {
            match service {
                "planner" => planner::run(env, &config, stop).await,
                "executor" => executor::run(env, &config, Toolbox::builtin(&config.tools).unwrap(), stop).await,
                "summarizer" => summarizer::run(env, &config, stop).await,
                other => panic!("no service {other}"),
            }
        });
    }

    pub(super) fn start_all(&mut self) {
        for service in ["planner", "executor", "summarizer"] {
            self.start(service, None);
        }
    }

    pub(super) async fn submit(&self, objective: &Value) -> RunId {
        let run = RunId::parse(objective["run_id"].as_str().unwrap()).unwrap();
        let envelope = Envelope::new(run.to_string(), "objective", objective.to_string().into_bytes());
        let (reply_to, correlation_id) = (Some(ANSWERS.to_owned()), Some("mine".to_owned()));
        let envelope = Envelope { reply_to, correlation_id, ..envelope };
        self.env.broker.publish(Target::Queue(Queue::Objectives), envelope).await.unwrap();
        run
    }

    /// Whether an answer has come to who submitted the run, and that it is the document.
    pub(super) async fn replied(&self, document: &RunDocument) -> bool {
        let Broker::Memory(memory) = &self.env.broker else { panic!("queues are in memory") };
        let Ok(reply) = timeout(Duration::from_millis(200), memory.receive(ANSWERS)).await else { return false };
        assert_eq!((reply.kind.as_str(), reply.correlation_id.as_deref()), ("result", Some("mine")));
        assert_eq!(serde_json::from_slice::<RunDocument>(&reply.body).unwrap(), *document);
        true
    }

    pub(super) async fn control(&self, run: &RunId, command: &str) {
        let message: ControlMessage =
            serde_json::from_value(json!({"run_id": run, "command": command, "by": "ann", "reason": "so"})).unwrap();
        self.client.control(&self.env.broker, &message, PATIENCE).await.unwrap();
    }

    pub(super) async fn until(&self, run: &RunId, what: &str, condition: impl Fn(&RunView) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = self.client.show(run).await.unwrap();
            if view.as_ref().is_some_and(&condition) {
                return;
            }
            assert!(Instant::now() < deadline, "{what} does not come true: {view:#?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) async fn result(&self, run: &RunId) -> RunDocument {
        self.client.wait(run, PATIENCE).await.unwrap()
    }

    /// Everybody dies where they stand.
    pub(super) async fn kill(&mut self) {
        self.services.shutdown().await;
    }

    /// What is left behind.
    pub(super) async fn left(&self, run: &RunId) -> (Dump, Vec<Message>) {
        let mut messages = Vec::new();
        for queue in Queue::ALL {
            let mut consumer = self.env.broker.consume(queue, 100);
            while let Ok(delivery) = timeout(Duration::from_millis(20), consumer.next()).await {
                let Envelope { message_id, kind, body, reply_to, correlation_id, .. } = delivery.envelope().clone();
                let (redelivered, body) = (delivery.redelivered(), serde_json::from_slice(&body).unwrap());
                let queue = queue.role().to_owned();
                messages.push(Message { queue, message_id, kind, reply_to, correlation_id, redelivered, body });
                assert!(delivery.ack().await);
            }
        }
        (Dump::take(self.redis.prefix(), run).await, messages)
    }

    /// Puts back what was left behind.
    pub(super) async fn restore(&self, dump: Dump, messages: Vec<Message>) {
        dump.restore(self.redis.prefix()).await;
        let (in_hand, ready): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| message.redelivered);
        for message in in_hand {
            let queue = self.publish(message).await;
            // Taken and dropped: it comes back, marked so.
            drop(self.env.broker.consume(queue, 1).next().await);
        }
        for message in ready {
            self.publish(message).await;
        }
    }

    async fn publish(&self, message: Message) -> Queue {
        let Message { queue, message_id, kind, reply_to, correlation_id, body, .. } = message;
        let queue = Queue::ALL.into_iter().find(|one| one.role() == queue).unwrap();
        let envelope = Envelope::new(message_id, &kind, body.to_string().into_bytes());
        let envelope = Envelope { reply_to, correlation_id, ..envelope };
        self.env.broker.publish(Target::Queue(queue), envelope).await.unwrap();
        queue
    }

    pub(super) async fn clean(mut self) {
        self.kill().await;
        self.redis.delete_all().await.unwrap();
    }
}
