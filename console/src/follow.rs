//! Following a run to its end: events in, progress or JSON lines out, until it ends, Ctrl-C, or the wait is over.

use std::time::Duration;

use common::client::{Client, WaitError, Watch};
use common::clock::Clock;
use common::event::{Event, EventType};
use common::id::RunId;
use common::run::RunStatus;
use common::store::StoreError;
use serde_json::Value;
use tokio::time::Instant;

use crate::args::Globals;
use crate::display::Display;
use crate::exit::Failure;
use crate::frame::TURN_MS;
use crate::output::{self, Format};
use crate::progress::{Change, Progress};

/// Time without any event after which the user is told what may be missing.
const SILENCE_NOTED: Duration = Duration::from_secs(3);
/// How long a store that does not answer is waited for.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
/// Time between two tries to reach it.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) status: RunStatus,
    pub(crate) error: Option<String>,
    /// What ended it early.
    pub(crate) halt: Option<String>,
}

/// Why the run is not followed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Followed {
    /// It ended.
    Ended(Ending),
    /// Its plan waits for the approval of who follows it.
    AwaitsApproval,
    /// Ctrl-C.
    Interrupted,
    /// The wait is over.
    TimedOut,
}

/// Who follows a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// Somebody who looks on; commands come from elsewhere.
    Reader,
    /// The only one who can decide about it.
    Owner,
}

/// What happens first.
enum Happening {
    Event(Result<Option<Event>, StoreError>),
    Silence,
    Interrupted,
    TimedOut,
}

/// Follows `run` from the entry after `after` (empty: from the first).
pub(crate) async fn follow(
    client: &Client,
    run: &RunId,
    after: &str,
    timeout: Option<Duration>,
    globals: &Globals,
) -> Result<Followed, Failure> {
    let mut follower = Follower::new(client, run, after, Follows::Reader, globals);
    let followed = follower.go(timeout).await;
    follower.close();
    followed
}

/// Somebody who follows a run. May stop at times, and go on where it stopped.
pub(crate) struct Follower<'a> {
    client: &'a Client,
    run: &'a RunId,
    globals: &'a Globals,
    role: Follows,
    watch: Watch,
    display: Display,
    progress: Progress,
    /// Whether nothing has been heard of the run yet.
    silent: bool,
    /// When the store answered last, and whether it is waited for.
    answered: Instant,
    waiting: bool,
    /// The end of the run with what is to be said of it, unless somebody has it run again.
    end: Option<(Ending, Vec<Change>)>,
}

impl<'a> Follower<'a> {
    pub(crate) fn new(client: &'a Client, run: &'a RunId, after: &str, role: Follows, globals: &'a Globals) -> Self {
        let told = match role {
            Follows::Reader => Some(run.clone()),
            Follows::Owner => None,
        };
        Self {
            client,
            run,
            globals,
            role,
            watch: client.watch(run, after),
            display: Display::new(globals),
            progress: Progress::new(globals.verbose, told),
            silent: after.is_empty(),
            answered: Instant::now(),
            waiting: false,
            end: None,
        }
    }

    /// Follows on, for at most `timeout`.
    pub(crate) async fn go(&mut self, timeout: Option<Duration>) -> Result<Followed, Failure> {
        let started = Instant::now();
        let mut interrupt = Box::pin(tokio::signal::ctrl_c());
        let mut ticks = tokio::time::interval(Duration::from_millis(TURN_MS));
        loop {
            let happening = {
                let next = async {
                    if self.waiting {
                        tokio::time::sleep(STORE_RETRY).await;
                    }
                    self.watch.next().await
                };
                tokio::pin!(next);
                loop {
                    tokio::select! {
                        biased;
                        _ = &mut interrupt => break Happening::Interrupted,
                        () = until(timeout.map(|timeout| started + timeout)) => break Happening::TimedOut,
                        // Before the events, so that a busy run cannot stop the picture.
                        _ = ticks.tick(), if self.display.is_alive() => self.display.draw(&self.progress, Clock::System.now_ms()),
                        event = &mut next => break Happening::Event(event),
                        () = until(self.silent.then_some(started + SILENCE_NOTED)) => break Happening::Silence,
                    }
                }
            };
            if let Some(followed) = self.take(happening).await? {
                return Ok(followed);
            }
        }
    }

    /// Takes in what happened; gives why the run is not followed any more.
    async fn take(&mut self, happening: Happening) -> Result<Option<Followed>, Failure> {
        match happening {
            Happening::Event(Ok(Some(event))) => return self.event(&event),
            Happening::Event(Ok(None)) => {
                return match self.end.take() {
                    Some(end) => Ok(Some(self.ended(end))),
                    None => ended_before(self.client, self.run).await.map(Some),
                };
            }
            Happening::Event(Err(error)) => {
                if let Some(end) = self.end.take() {
                    return Ok(Some(self.ended(end)));
                }
                self.patience(error)?;
            }
            Happening::Silence => {
                self.silent = false;
                self.display.note("no planner has taken the run yet; is one running?");
            }
            Happening::Interrupted => {
                self.display.freeze();
                return Ok(Some(Followed::Interrupted));
            }
            Happening::TimedOut => return Ok(Some(Followed::TimedOut)),
        }
        Ok(None)
    }

    fn event(&mut self, event: &Event) -> Result<Option<Followed>, Failure> {
        (self.silent, self.answered, self.waiting) = (false, Instant::now(), false);
        if let Some((_not_the_last, changes)) = self.end.take() {
            self.display.show(&self.progress, &changes);
        }
        if self.globals.output == Format::Jsonl {
            output::json(event, Format::Jsonl)?;
        }
        let changes = self.progress.apply(event);
        if event.kind == EventType::RunFinished {
            self.end = Some((ending(event, self.progress.halt.clone()), changes));
            return Ok(None);
        }
        let asked = event.kind == EventType::ApprovalAwaited && self.role == Follows::Owner;
        if asked {
            // Who is asked sees the plan itself.
            self.display.clear();
            return Ok(Some(Followed::AwaitsApproval));
        }
        self.display.show(&self.progress, &changes);
        Ok(None)
    }

    /// The last thing that there is to say.
    fn ended(&mut self, (ending, changes): (Ending, Vec<Change>)) -> Followed {
        self.close();
        self.display.show(&self.progress, &changes);
        Followed::Ended(ending)
    }

    /// Waits for a store that does not answer, but not for ever.
    fn patience(&mut self, error: StoreError) -> Result<(), Failure> {
        match error {
            StoreError::Unreachable(why) if !self.waiting || self.answered.elapsed() < STORE_PATIENCE => {
                if !self.waiting {
                    self.display.note(&format!("Redis does not answer, trying again: {why}"));
                    (self.answered, self.waiting) = (Instant::now(), true);
                }
                Ok(())
            }
            error @ (StoreError::Unreachable(_) | StoreError::Unusable(_)) => {
                Err(Failure::from(error).hint(format!("planrelay watch {}", self.run)))
            }
            // Watching again would not help: the error says what would.
            error @ StoreError::Newer { .. } => Err(error.into()),
        }
    }

    /// Draws what there is to draw for the last time.
    pub(crate) fn close(&mut self) {
        self.display.close(&self.progress, Clock::System.now_ms());
    }
}

/// What an event that ends a run says.
fn ending(event: &Event, halt: Option<String>) -> Ending {
    let field = |name: &str| event.data.get(name).and_then(Value::as_str);
    // A status of a newer version is no success that this one could vouch for.
    let status = field("status").and_then(RunStatus::parse).unwrap_or(RunStatus::Failed);
    Ending { status, error: field("error").map(str::to_owned), halt }
}

/// The end of a run whose last event came before the one that was asked for, or is not kept any more.
async fn ended_before(client: &Client, run: &RunId) -> Result<Followed, Failure> {
    match client.show(run).await? {
        Some(view) => {
            let halt = view.halt.map(|halt| halt.reason);
            Ok(Followed::Ended(Ending { status: view.status, error: view.error, halt }))
        }
        None => Err(WaitError::NoSuchRun(run.clone()).into()),
    }
}

/// Sleeps until `deadline`; for ever without one.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use common::event::EventDraft;
    use common::id::Slot;
    use common::ids::Ids;
    use common::store::memory::Memory;
    use common::store::{Account, ClaimRequest, Claimed, Finish, NewRun, RunRules, Store, StoreTime};
    use serde_json::json;

    use super::*;

    /// A client of a store with a run that has ended, and these entries at the end of its trail.
    async fn ended_with(run: &RunId, events: Vec<EventDraft>) -> Client {
        let store = Store::Memory(Arc::new(Memory::new(StoreTime::Own)));
        let (reply_to, correlation_id, traceparent) = (None, None, None);
        let (request, objective, rules) = ("{}".to_owned(), "x".to_owned(), RunRules::default());
        let new = NewRun { request, objective, window: 1, reply_to, correlation_id, traceparent, rules };
        store.open_run(run, &new).await.unwrap();
        let lease = Duration::from_secs(30);
        let (message_id, nonce, worker) = ("m", "n", "w");
        let claim = ClaimRequest { slot: Slot::Plan, message_id, redelivered: false, nonce, attempt: None, lease, worker };
        let Claimed::Execute(claim) = store.claim(run, &claim).await.unwrap() else { panic!("not claimed") };
        let retention = Duration::from_secs(60);
        let end = Finish { status: RunStatus::Failed, error: None, document: "{}".to_owned(), retention };
        store.finish(run, Slot::Plan, claim.epoch, &end, &Account { events, ..Account::default() }).await.unwrap();
        Client::new(store, Ids::random(), Clock::System)
    }

    async fn followed(events: Vec<EventDraft>) -> Followed {
        let run = RunId::parse("r").unwrap();
        let client = ended_with(&run, events).await;
        let globals = Globals { quiet: true, ..Globals::default() };
        follow(&client, &run, "", None, &globals).await.unwrap()
    }

    fn finished(status: &str, error: Option<&str>) -> EventDraft {
        EventDraft::new(EventType::RunFinished, json!({"status": status, "error": error}))
    }

    #[tokio::test]
    async fn the_last_end_is_the_one_that_counts() {
        let halted = EventDraft::new(EventType::Halted, json!({"kind": "budget", "reason": "max_tokens is used up"}));
        let retried = EventDraft::new(EventType::Controlled, json!({"command": "retry", "answer": "accepted", "message": "m"}));
        let first = [halted, finished("failed", Some("no step succeeded"))];
        let (error, halt) = (Some("no step succeeded".to_owned()), Some("max_tokens is used up".to_owned()));
        assert_eq!(followed(first.to_vec()).await, Followed::Ended(Ending { status: RunStatus::Failed, error, halt }));
        let all: Vec<EventDraft> = first.into_iter().chain([retried, finished("succeeded", None)]).collect();
        let (error, halt) = (None, None);
        assert_eq!(followed(all).await, Followed::Ended(Ending { status: RunStatus::Succeeded, error, halt }));
    }
}
