//! What every store promises, as scenarios that run on memory and on Redis alike. Time is the test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::event::{EventDraft, EventType};
use common::id::{RunId, Slot, StepNumber};
use common::limits::{CLAIMS_MAX, DISPATCH_TIMEOUT, WAKEUP_LOOK_MAX};
use common::message::{Answer, Command, ReplanPolicy};
use common::meter::Need;
use common::patch::Revision;
use common::plan::{OnFailedDependency, Plan, Step};
use common::run::{Budget, Halt, HaltKind, Outcome, RunStatus, RunView, StepRecord, StepState, Usage};
use common::store::{
    Account, Advance, Again, ApprovalRule, ApprovalTimeout, Claim, ClaimRequest, Claimed, Control, Controlled, Finish, Held,
    NewRun, Opened, Owed, PlanNote, Put, Reported, Reserved, RunRules, Store, StoreTime, TakenBack,
};
use serde_json::json;
use support::stores::{self, Saved};

mod budgets;
mod claims;
mod commands;
mod decisions;
mod limits;
mod lost_writes;
mod repair;
mod runs;
mod versions;

/// The trace of every run.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const LEASE: Duration = Duration::from_secs(30);

/// Steps with what they depend on.
type Edges<'a> = &'a [(u32, &'a [u32])];

/// A store with its time, and one run.
struct Bench {
    store: Store,
    time: Arc<AtomicU64>,
    run: RunId,
}

impl Bench {
    fn pass(&self, duration: Duration) {
        self.time.fetch_add(u64::try_from(duration.as_millis()).unwrap(), Ordering::SeqCst);
    }

    async fn save(&self) -> Saved {
        stores::save(&self.store).await
    }

    async fn restore(&self, saved: &Saved) {
        stores::restore(&self.store, saved).await;
    }

    async fn open(&self, window: u32) -> Opened {
        self.open_with(window, RunRules::default()).await
    }

    async fn open_with(&self, window: u32, rules: RunRules) -> Opened {
        let new = NewRun {
            request: "{\"objective\":\"goal\"}".into(),
            objective: "goal".into(),
            window,
            reply_to: Some("reply".into()),
            correlation_id: None,
            traceparent: Some(TRACE.into()),
            rules,
        };
        self.store.open_run(&self.run, &new).await.unwrap()
    }

    async fn claim(&self, slot: Slot, message_id: &str, nonce: &str) -> Claimed {
        self.claim_of(slot, message_id, false, nonce).await
    }

    /// The broker hands the message out once more.
    async fn reclaim(&self, slot: Slot, message_id: &str, nonce: &str) -> Claimed {
        self.claim_of(slot, message_id, true, nonce).await
    }

    async fn claim_of(&self, slot: Slot, message_id: &str, redelivered: bool, nonce: &str) -> Claimed {
        self.claim_by(nonce, slot, message_id, redelivered, nonce).await
    }

    async fn claim_by(&self, worker: &str, slot: Slot, message_id: &str, redelivered: bool, nonce: &str) -> Claimed {
        let request = ClaimRequest { slot, message_id, redelivered, nonce, attempt: None, lease: LEASE, worker };
        self.store.claim(&self.run, &request).await.unwrap()
    }

    /// Claims and expects to get it.
    async fn hold(&self, slot: Slot, message_id: &str) -> Claim {
        let claimed = self.claim(slot, message_id, &format!("{message_id}-{slot}")).await;
        let Claimed::Execute(claim) = claimed else { panic!("{slot}: {claimed:?}") };
        *claim
    }

    /// Opens the run and stores a plan of `edges`: (step, its dependencies).
    async fn planned(&self, window: u32, edges: Edges<'_>) {
        self.planned_with(window, RunRules::default(), edges).await;
    }

    async fn planned_with(&self, window: u32, rules: RunRules, edges: Edges<'_>) {
        assert_eq!(self.open_with(window, rules).await, Opened::Created);
        let epoch = self.hold(Slot::Plan, "objective").await.epoch;
        let stored = self.put(epoch, 0, &Revision::first(plan(edges)), &[]).await;
        assert!(matches!(stored, Put::Stored(Owed::Planner | Owed::Nothing)), "{stored:?}");
    }

    async fn put(&self, epoch: u64, current: u32, revision: &Revision, handled: &[u32]) -> Put {
        let (note, handled) = (PlanNote::default(), numbers(handled));
        let account = Account::default();
        self.store.put_plan(&self.run, epoch, current, revision, &note, &handled, &account).await.unwrap()
    }

    async fn keep(&self, epoch: u64, handled: &[u32], counts: bool) -> (Held, Owed) {
        self.store.keep_plan(&self.run, epoch, &numbers(handled), counts, &Account::default()).await.unwrap()
    }

    async fn control(&self, id: &str, command: Command) -> Controlled {
        self.control_of(id, command, "", None).await
    }

    async fn control_of(&self, id: &str, command: Command, text: &str, revision: Option<u32>) -> Controlled {
        let control = Control { id, command, by: "ann", reason: "so", text, revision, feedback: "", refused: "" };
        self.store.control(&self.run, &control).await.unwrap()
    }

    async fn take(&self, token: &str) -> Vec<u32> {
        let taken = self.store.take_ready(&self.run, token).await.unwrap();
        taken.steps.iter().map(|d| d.step.step_number.0).collect()
    }

    async fn report(&self, number: u32, epoch: u64, outcome: Outcome) -> Reported {
        let record = record(outcome, number);
        self.store.report(&self.run, StepNumber(number), epoch, &record, &Account::default()).await.unwrap()
    }

    /// Claims and reports a step.
    async fn done(&self, number: u32, outcome: Outcome) -> Owed {
        let claim = self.hold(step(number), &format!("m{number}")).await;
        let reported = self.report(number, claim.epoch, outcome).await;
        let Reported::Recorded(owed) = reported else { panic!("step {number}: {reported:?}") };
        owed
    }

    async fn reserve(&self, slot: Slot, epoch: u64, number: u64, need: Need) -> Reserved {
        self.store.reserve(&self.run, slot, epoch, number, &need).await.unwrap()
    }

    /// Claims the answer and ends the run.
    async fn end(&self, status: RunStatus) -> Held {
        let epoch = self.hold(Slot::Summary, "completion").await.epoch;
        let end = end(status);
        self.store.finish(&self.run, Slot::Summary, epoch, &end, &Account::default()).await.unwrap()
    }

    async fn view(&self) -> RunView {
        self.store.snapshot(&self.run).await.unwrap().unwrap().view
    }

    async fn states(&self) -> Vec<StepState> {
        self.view().await.steps.iter().map(|step| step.state).collect()
    }

    async fn status(&self) -> RunStatus {
        self.store.status(&self.run).await.unwrap().unwrap()
    }

    async fn count(&self, kind: EventType) -> usize {
        let events = self.store.events(&self.run, "", 1000).await.unwrap();
        events.iter().filter(|event| event.kind == kind).count()
    }
}

fn step(number: u32) -> Slot {
    Slot::Step(StepNumber(number))
}

fn numbers(steps: &[u32]) -> Vec<StepNumber> {
    steps.iter().copied().map(StepNumber).collect()
}

fn record(outcome: Outcome, number: u32) -> StepRecord {
    match outcome {
        Outcome::Succeeded => StepRecord { result: json!({"of": number}), ..StepRecord::without_result(outcome, String::new()) },
        Outcome::Failed | Outcome::Skipped | Outcome::Cancelled => {
            StepRecord::without_result(outcome, format!("{number} is broken"))
        }
    }
}

fn end(status: RunStatus) -> Finish {
    Finish { status, error: None, document: "{}".into(), retention: Duration::from_secs(60) }
}

fn planned_step(number: u32, depends_on: &[u32]) -> Step {
    Step {
        step_number: StepNumber(number),
        description: format!("step {number}"),
        tool_hint: None,
        arguments: None,
        depends_on: numbers(depends_on),
        done_when: None,
        check: None,
        on_failed_dependency: OnFailedDependency::Skip,
    }
}

fn plan(edges: Edges<'_>) -> Plan {
    Plan { steps: edges.iter().map(|(number, depends_on)| planned_step(*number, depends_on)).collect() }
}

/// The plan of `edges`, in which `put` are new or changed.
fn revision(edges: Edges<'_>, put: &[u32], retired: &[u32]) -> Revision {
    let plan = plan(edges);
    let put = plan.steps.iter().filter(|step| put.contains(&step.step_number.0)).cloned().collect();
    Revision { plan, put, retired: numbers(retired) }
}

/// Re-plans after failures, at most `max`.
fn replans(max_replans: u32) -> RunRules {
    RunRules { replan: ReplanPolicy::OnFailure, max_replans, ..RunRules::default() }
}

/// Runs a scenario on both stores.
async fn on_both(scenario: impl AsyncFn(&Bench)) {
    let time = Arc::new(AtomicU64::new(1_700_000_000_000));
    let run = RunId::parse("r").unwrap();
    let memory = stores::memory(StoreTime::Given(time.clone()));
    scenario(&Bench { store: memory, time: time.clone(), run: run.clone() }).await;
    let redis = stores::redis(StoreTime::Given(time.clone())).await;
    scenario(&Bench { store: Store::Redis(redis.clone()), time, run }).await;
    redis.delete_all().await.unwrap();
}
