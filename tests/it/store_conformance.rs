//! What every store promises, as scenarios that run on memory and on Redis alike. Time is the test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::event::{EventDraft, EventType};
use common::id::{RunId, Slot, StepNumber};
use common::limits::{CLAIMS_MAX, DISPATCH_TIMEOUT};
use common::plan::{Plan, Step};
use common::run::{Outcome, RunStatus, StepRecord, StepState, Usage};
use common::store::{
    Account, Advance, Again, Claim, ClaimRequest, Claimed, Finish, Held, NewRun, Opened, Owed, Reported, Store, StoreTime,
    TakenBack,
};
use serde_json::json;
use support::stores;

mod claims;
mod repair;
mod runs;

const LEASE: Duration = Duration::from_secs(30);

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

    async fn open(&self, window: u32) -> Opened {
        let new = NewRun {
            request: "{\"objective\":\"goal\"}".into(),
            objective: "goal".into(),
            window,
            reply_to: Some("reply".into()),
            correlation_id: None,
            traceparent: None,
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
        let request = ClaimRequest { slot, message_id, redelivered, nonce, attempt: None, lease: LEASE, worker: "w" };
        self.store.claim(&self.run, &request).await.unwrap()
    }

    /// Claims and expects to get it.
    async fn hold(&self, slot: Slot, message_id: &str) -> Claim {
        let claimed = self.claim(slot, message_id, &format!("{message_id}-{slot}")).await;
        let Claimed::Execute(claim) = claimed else { panic!("{slot}: {claimed:?}") };
        *claim
    }

    /// Opens the run and stores a plan of `edges`: (step, its dependencies).
    async fn planned(&self, window: u32, edges: &[(u32, &[u32])]) {
        assert_eq!(self.open(window).await, Opened::Created);
        let epoch = self.hold(Slot::Plan, "objective").await.epoch;
        let stored = self.store.put_plan(&self.run, epoch, 0, &plan(edges), "first", &Account::default()).await.unwrap();
        assert_eq!(stored, Held::Kept);
    }

    async fn take(&self, token: &str) -> Vec<u32> {
        self.store.take_ready(&self.run, token).await.unwrap().iter().map(|d| d.step.step_number.0).collect()
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

    async fn states(&self) -> Vec<StepState> {
        let snapshot = self.store.snapshot(&self.run).await.unwrap().unwrap();
        snapshot.view.steps.iter().map(|step| step.state).collect()
    }
}

fn step(number: u32) -> Slot {
    Slot::Step(StepNumber(number))
}

fn record(outcome: Outcome, number: u32) -> StepRecord {
    StepRecord {
        outcome,
        result: json!({"of": number}),
        error: None,
        tool: None,
        usage: Usage::default(),
        duration_ms: 1,
        worker: None,
    }
}

fn plan(edges: &[(u32, &[u32])]) -> Plan {
    let step = |(number, depends_on): &(u32, &[u32])| Step {
        step_number: StepNumber(*number),
        description: format!("step {number}"),
        tool_hint: None,
        arguments: None,
        depends_on: depends_on.iter().copied().map(StepNumber).collect(),
    };
    Plan { steps: edges.iter().map(step).collect() }
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
