//! Following a run to its end: events in, progress or JSON lines out, until it ends, Ctrl-C, or the wait is over.

use std::time::Duration;

use common::client::{Client, WaitError};
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
use crate::progress::Progress;

/// Time without any event after which the user is told what may be missing.
const SILENCE_NOTED: Duration = Duration::from_secs(3);
/// How long a store that does not answer is waited for.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
/// Time between two tries to reach it.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// Why the run is not followed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Followed {
    /// It ended.
    Ended { status: RunStatus, error: Option<String> },
    /// Ctrl-C.
    Interrupted,
    /// The wait is over.
    TimedOut,
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
    let mut display = Display::new(globals);
    let mut progress = Progress::new(globals.verbose);
    let followed = follow_with(client, run, after, timeout, globals, (&mut display, &mut progress)).await;
    display.close(&progress, Clock::System.now_ms());
    followed
}

async fn follow_with(
    client: &Client,
    run: &RunId,
    after: &str,
    timeout: Option<Duration>,
    globals: &Globals,
    (display, progress): (&mut Display, &mut Progress),
) -> Result<Followed, Failure> {
    let mut watch = client.watch(run, after);
    let started = Instant::now();
    let (mut silent, mut answered, mut waiting) = (after.is_empty(), started, false);
    let mut interrupt = Box::pin(tokio::signal::ctrl_c());
    let mut ticks = tokio::time::interval(Duration::from_millis(TURN_MS));
    loop {
        let happening = {
            let next = async {
                if waiting {
                    tokio::time::sleep(STORE_RETRY).await;
                }
                watch.next().await
            };
            tokio::pin!(next);
            loop {
                tokio::select! {
                    biased;
                    _ = &mut interrupt => break Happening::Interrupted,
                    () = until(timeout.map(|timeout| started + timeout)) => break Happening::TimedOut,
                    // Before the events, so that a busy run cannot stop the picture.
                    _ = ticks.tick(), if display.is_alive() => display.draw(progress, Clock::System.now_ms()),
                    event = &mut next => break Happening::Event(event),
                    () = until(silent.then_some(started + SILENCE_NOTED)) => break Happening::Silence,
                }
            }
        };
        match happening {
            Happening::Event(Ok(Some(event))) => {
                (silent, answered, waiting) = (false, Instant::now(), false);
                if globals.output == Format::Jsonl {
                    output::json(&event, Format::Jsonl)?;
                }
                let changes = progress.apply(&event);
                if event.kind == EventType::RunFinished {
                    display.close(progress, Clock::System.now_ms());
                    display.show(progress, &changes);
                    return Ok(ended(&event));
                }
                display.show(progress, &changes);
            }
            Happening::Event(Ok(None)) => return ended_before(client, run).await,
            Happening::Event(Err(StoreError::Unreachable(why))) if !waiting || answered.elapsed() < STORE_PATIENCE => {
                if !waiting {
                    display.note(&format!("Redis does not answer, trying again: {why}"));
                    (answered, waiting) = (Instant::now(), true);
                }
            }
            Happening::Event(Err(error)) => {
                let again = format!("planrelay watch {run}");
                return Err(Failure::from(error).hint(again));
            }
            Happening::Silence => {
                silent = false;
                display.note("no planner has taken the run yet; is one running?");
            }
            Happening::Interrupted => {
                display.freeze();
                return Ok(Followed::Interrupted);
            }
            Happening::TimedOut => return Ok(Followed::TimedOut),
        }
    }
}

/// What the last event of a run says.
fn ended(event: &Event) -> Followed {
    let field = |name: &str| event.data.get(name).and_then(Value::as_str);
    // A status of a newer version is no success that this one could vouch for.
    let status = field("status").and_then(RunStatus::parse).unwrap_or(RunStatus::Failed);
    Followed::Ended { status, error: field("error").map(str::to_owned) }
}

/// The end of a run whose last event came before the one that was asked for, or is not kept any more.
async fn ended_before(client: &Client, run: &RunId) -> Result<Followed, Failure> {
    match client.show(run).await? {
        Some(view) => Ok(Followed::Ended { status: view.status, error: view.error }),
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
