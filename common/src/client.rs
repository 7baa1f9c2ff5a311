//! What the command line, the HTTP API and the tests do with runs: submit, read, watch. No service is needed to read.

use std::time::Duration;

use tokio::time::Instant;

use crate::broker::{Broker, Envelope, PublishError, Target};
use crate::clock::Clock;
use crate::event::{Event, EventType};
use crate::id::RunId;
use crate::ids::Ids;
use crate::message::{ControlMessage, ControlReply, ObjectiveMessage, Queue};
use crate::run::{RunDocument, RunStatus, RunView};
use crate::store::{RunLine, Store, StoreError};

/// Entries of the audit trail that one look takes.
const EVENTS_PER_LOOK: usize = 500;
/// Time between two looks at a run that is being watched, while nothing happens.
const LOOK_INTERVAL: Duration = Duration::from_millis(150);
/// The first such wait after something happened; doubled each time. Much of what happens next happens soon.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(5);
/// Time between two looks for the answer to a command.
const REPLY_LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// Looks in vain, one after the other, after which it is asked whether the run is still there.
const LOOKS_IN_VAIN_MAX: u32 = 20;

/// A user's view of planrelay. A cheap handle.
#[derive(Debug, Clone)]
pub struct Client {
    store: Store,
    ids: Ids,
    clock: Clock,
}

/// Why a wait for a result ended without one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// There is no such run, or its time to live is over.
    #[error("there is no run {0}")]
    NoSuchRun(RunId),
    /// The run goes on; only the wait is over.
    #[error("run {0} has not ended within {1:?}")]
    TimedOut(RunId, Duration),
    /// The store has no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why there is no answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such run, or its time to live is over.
    #[error("there is no run {0}")]
    NoSuchRun(RunId),
    /// The command is published; no planner has looked at it yet.
    #[error("no planner has answered the command {0} within {1:?}; it may still be carried out")]
    Unanswered(&'static str, Duration),
    /// The broker did not take the command.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The store has no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Client {
    /// A client of `store`.
    pub fn new(store: Store, ids: Ids, clock: Clock) -> Self {
        Self { store, ids, clock }
    }

    /// Publishes an objective and gives the id of its run: the message's own, or a new one that sorts by time.
    ///
    /// Good once the broker has confirmed it; the run itself appears when a planner has taken it.
    pub async fn submit(&self, broker: &Broker, mut objective: ObjectiveMessage) -> Result<RunId, PublishError> {
        let run_id = objective.run_id.take().unwrap_or_else(|| self.ids.run_id(self.clock.now_ms()));
        objective.run_id = Some(run_id.clone());
        let body = serde_json::to_vec(&objective).map_err(|error| PublishError::Unconfirmed(error.to_string()))?;
        let envelope = Envelope::new(run_id.to_string(), "objective", body);
        broker.publish(Target::Queue(Queue::Objectives), envelope).await?;
        Ok(run_id)
    }

    /// Publishes a command and waits for what becomes of it. Without an answer in time it may still be carried out later.
    pub async fn control(
        &self,
        broker: &Broker,
        message: &ControlMessage,
        timeout: Duration,
    ) -> Result<ControlReply, ControlError> {
        let run = &message.run_id;
        if self.status(run).await?.is_none() {
            return Err(ControlError::NoSuchRun(run.clone()));
        }
        let id = self.ids.unique();
        let body = serde_json::to_vec(message).map_err(|error| PublishError::Unconfirmed(error.to_string()))?;
        broker.publish(Target::Queue(Queue::Controls), Envelope::new(id.clone(), "control", body)).await?;
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(reply) = self.store.control_reply(run, &id).await? {
                return Ok(reply);
            }
            if Instant::now() >= deadline {
                return Err(ControlError::Unanswered(message.command.as_str(), timeout));
            }
            tokio::time::sleep(REPLY_LOOK_INTERVAL).await;
        }
    }

    /// Where the run stands; `None` when there is no such run.
    pub async fn status(&self, run: &RunId) -> Result<Option<RunStatus>, StoreError> {
        self.store.status(run).await
    }

    /// The run with all its steps at this moment.
    pub async fn show(&self, run: &RunId) -> Result<Option<RunView>, StoreError> {
        Ok(self.store.snapshot(run).await?.map(|snapshot| snapshot.view))
    }

    /// The newest runs first.
    pub async fn list(&self, limit: usize) -> Result<Vec<RunLine>, StoreError> {
        self.store.list(0, limit).await
    }

    /// The newest runs first, at most `limit`, without the first `offset`.
    pub async fn page(&self, offset: usize, limit: usize) -> Result<Vec<RunLine>, StoreError> {
        self.store.list(offset, limit).await
    }

    /// The result document, once the run has ended.
    pub async fn result(&self, run: &RunId) -> Result<Option<RunDocument>, StoreError> {
        let Some(text) = self.store.result(run).await? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| StoreError::Unusable(format!("result document: {error}")))
    }

    /// Entries of the run's audit trail after the one called `after` (empty: from the first), at most `limit`.
    pub async fn events(&self, run: &RunId, after: &str, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.store.events(run, after, limit).await
    }

    /// Starts to follow the run's audit trail after the entry called `after` (empty: from the first).
    pub fn watch(&self, run: &RunId, after: &str) -> Watch {
        Watch {
            store: self.store.clone(),
            run: run.clone(),
            after: after.to_owned(),
            buffer: Vec::new().into_iter(),
            in_vain: 0,
            ended: false,
        }
    }

    /// Waits until the run has ended and gives its result document. A run that does not exist yet is waited for, too.
    pub async fn wait(&self, run: &RunId, timeout: Duration) -> Result<RunDocument, WaitError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(document) = self.result(run).await? {
                return Ok(document);
            }
            if Instant::now() >= deadline {
                return Err(match self.status(run).await? {
                    Some(_live) => WaitError::TimedOut(run.clone(), timeout),
                    None => WaitError::NoSuchRun(run.clone()),
                });
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// A run's audit trail as it grows. Ends after the entry that ended the run, unless somebody had it run again since then: that
/// entry may come more than once. Ends as well when nothing can come any more: the run ended before the entry that was asked
/// for, or it is not kept any more.
#[derive(Debug)]
pub struct Watch {
    store: Store,
    run: RunId,
    after: String,
    buffer: std::vec::IntoIter<Event>,
    /// Looks since the last one that found something.
    in_vain: u32,
    /// Whether the last entry given ended the run.
    ended: bool,
}

impl Watch {
    /// The next entry; `None` after the last one. Waits as long as it takes, also for a run that does not exist yet.
    pub async fn next(&mut self) -> Result<Option<Event>, StoreError> {
        loop {
            if let Some(event) = self.buffer.next() {
                self.after = event.id.clone();
                self.ended = event.kind == EventType::RunFinished;
                return Ok(Some(event));
            }
            let events = self.store.events(&self.run, &self.after, EVENTS_PER_LOOK).await?;
            if events.is_empty() {
                if self.ended {
                    return Ok(None);
                }
                self.in_vain += 1;
                if self.in_vain.is_multiple_of(LOOKS_IN_VAIN_MAX) && self.is_over().await? {
                    return Ok(None);
                }
                tokio::time::sleep(LOOK_INTERVAL.min(LOOK_INTERVAL_MIN * 2u32.pow(self.in_vain.min(10)))).await;
            } else {
                self.in_vain = 0;
                self.buffer = events.into_iter();
            }
        }
    }

    /// Whether nothing can come any more. What ended the run may have come since the last look, so it looks again.
    async fn is_over(&self) -> Result<bool, StoreError> {
        let gone = match self.store.status(&self.run).await? {
            Some(status) => status.is_final(),
            None => !self.after.is_empty(),
        };
        Ok(gone && self.store.events(&self.run, &self.after, 1).await?.is_empty())
    }

    /// The id of the last entry given: watch again after it.
    pub fn position(&self) -> &str {
        &self.after
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::EventDraft;
    use crate::id::Slot;
    use crate::store::memory::Memory;
    use crate::store::{Account, ClaimRequest, Claimed, Finish, NewRun, RunRules, StoreTime};

    /// A client of a store that holds a live run, and the epoch of who holds its plan.
    async fn live(run: &RunId) -> (Client, u64) {
        let clock = Clock::Tokio { epoch_ms: 1_000, started: Instant::now() };
        let store = Store::Memory(Arc::new(Memory::new(StoreTime::Clock(clock))));
        let new = NewRun {
            request: "{}".into(),
            objective: "x".into(),
            window: 1,
            reply_to: None,
            correlation_id: None,
            traceparent: None,
            rules: RunRules::default(),
        };
        store.open_run(run, &new).await.unwrap();
        let lease = Duration::from_secs(30);
        let claim =
            ClaimRequest { slot: Slot::Plan, message_id: "m", redelivered: false, nonce: "n", attempt: None, lease, worker: "w" };
        let Claimed::Execute(claim) = store.claim(run, &claim).await.unwrap() else { panic!("not claimed") };
        (Client::new(store, Ids::seeded(1), clock), claim.epoch)
    }

    async fn end(client: &Client, run: &RunId, epoch: u64) {
        let retention = Duration::from_secs(60);
        let end = Finish { status: RunStatus::Failed, error: None, document: "{}".into(), retention };
        let event = EventDraft::new(EventType::RunFinished, serde_json::json!({"status": "failed"}));
        let account = Account { events: vec![event], ..Account::default() };
        client.store.finish(run, Slot::Plan, epoch, &end, &account).await.unwrap();
    }

    /// What comes next within a minute of the paused clock: an entry, the end, or still nothing.
    async fn next(watch: &mut Watch) -> Result<Option<EventType>, tokio::time::error::Elapsed> {
        tokio::time::timeout(Duration::from_secs(60), watch.next()).await.map(|entry| entry.unwrap().map(|event| event.kind))
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_with_its_run() {
        let run = RunId::parse("r").unwrap();
        let (client, epoch) = live(&run).await;
        let mut watch = client.watch(&run, "");
        assert_eq!(next(&mut watch).await, Ok(Some(EventType::RunOpened)));
        assert_eq!(next(&mut watch).await, Ok(Some(EventType::Claimed)));
        assert!(next(&mut watch).await.is_err(), "a live run is watched however quiet it is");
        end(&client, &run, epoch).await;
        assert_eq!(next(&mut watch).await, Ok(Some(EventType::RunFinished)));
        assert_eq!(next(&mut watch).await, Ok(None));
    }

    /// A trail that goes on after an end, as that of a run that was retried does.
    #[tokio::test(start_paused = true)]
    async fn a_watch_goes_on_after_an_end_that_was_not_the_last() {
        let run = RunId::parse("r").unwrap();
        let (client, epoch) = live(&run).await;
        let entry = |kind| EventDraft::new(kind, serde_json::json!({}));
        let trail = [EventType::RunFinished, EventType::Controlled, EventType::RunFinished];
        let end = Finish { status: RunStatus::Failed, error: None, document: "{}".into(), retention: Duration::from_secs(60) };
        let account = Account { events: trail.map(entry).to_vec(), ..Account::default() };
        client.store.finish(&run, Slot::Plan, epoch, &end, &account).await.unwrap();
        let mut all = client.watch(&run, "");
        for kind in [EventType::RunOpened, EventType::Claimed].into_iter().chain(trail) {
            assert_eq!(next(&mut all).await, Ok(Some(kind)));
        }
        assert_eq!(next(&mut all).await, Ok(None));
        // One that had just given the first end when the rest came.
        let events = client.store.events(&run, "", 3).await.unwrap();
        let mut late = client.watch(&run, "");
        (late.buffer, late.after) = (vec![events[2].clone()].into_iter(), events[1].id.clone());
        for kind in trail {
            assert_eq!(next(&mut late).await, Ok(Some(kind)));
        }
        assert_eq!(next(&mut late).await, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_from_the_end_of_an_ended_run_ends() {
        let run = RunId::parse("r").unwrap();
        let (client, epoch) = live(&run).await;
        end(&client, &run, epoch).await;
        assert_eq!(next(&mut client.watch(&run, "9999999999999-0")).await, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_when_its_run_is_not_kept_any_more() {
        let run = RunId::parse("r").unwrap();
        let (client, epoch) = live(&run).await;
        end(&client, &run, epoch).await;
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(next(&mut client.watch(&run, "1000-0")).await, Ok(None));
        let mut unborn = client.watch(&RunId::parse("s").unwrap(), "");
        assert!(next(&mut unborn).await.is_err(), "a run that does not exist yet is waited for");
    }
}
