//! The two stores side by side: every call goes to both, past a seam that may spoil it on both alike, and the answers must be the same.
//! Beside that, what must never happen is watched for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use common::id::{Slot, StepNumber};
use common::run::{RunStatus, StepRecord, StepState};
use common::seam::Fate;
use common::store::{Claimed, RunRules, Snapshot, Store};
use proptest::prelude::*;
use support::seam::{Kind, Script};
use support::stores::{self, Saved};

use super::calls::{Answer, Call, Verb};
use super::{Seen, run_id};

/// The two stores, their time, and what callers remember.
pub(super) struct Pair {
    pub(super) memory: Store,
    pub(super) redis: Store,
    scripts: [Arc<Script>; 2],
    pub(super) time: Arc<AtomicU64>,
    pub(super) rules: Vec<RunRules>,
    /// The epochs that claims were given, the last one at the end; also those that the stores have forgotten.
    epochs: BTreeMap<(usize, Slot), Vec<u64>>,
    /// Whose they are: the nonce of the claim.
    holders: BTreeMap<(usize, Slot, u64), String>,
    /// Everything that was sent.
    sent: Vec<Call>,
    /// What is to become of the next call.
    pub(super) fate: Fate,
    /// Whether the next call is made a second time, as by a process whose first answer was lost.
    pub(super) repeat: bool,
    /// Whether the clock has gone back in this sequence.
    pub(super) went_back: bool,
    /// What must not change from here on, and where to go back to.
    watch: Watch,
    saved: Option<(Saved, Saved, Watch)>,
    /// Counts claims and reservations.
    pub(super) count: u64,
    pub(super) seen: Seen,
}

/// What stands once and for all, as long as the stores lose nothing.
#[derive(Debug, Clone, Default)]
struct Watch {
    /// Epochs that they know of.
    known: BTreeSet<(usize, Slot, u64)>,
    succeeded: BTreeMap<(usize, StepNumber), StepRecord>,
    ended: BTreeMap<usize, (RunStatus, Option<String>)>,
}

impl Pair {
    pub(super) fn new(memory: Store, redis: Store, time: Arc<AtomicU64>, rules: Vec<RunRules>, seen: Seen) -> Self {
        let scripts = [Script::new(), Script::new()];
        let (memory, redis) = (scripts[0].before_store(memory), scripts[1].before_store(redis));
        Self {
            memory,
            redis,
            scripts,
            time,
            rules,
            epochs: BTreeMap::new(),
            holders: BTreeMap::new(),
            sent: Vec::new(),
            fate: Fate::Passes,
            repeat: false,
            went_back: false,
            watch: Watch::default(),
            saved: None,
            count: 0,
            seen,
        }
    }

    /// Counts an answer by its name: what stands before its first number, text or field.
    pub(super) fn saw(&mut self, verb: &str, answer: &impl Debug) {
        self.saw_text(verb, &format!("{answer:?}"));
    }

    fn saw_text(&mut self, verb: &str, text: &str) {
        let name = text.split(['{', '"', '[']).next().unwrap_or_default().trim();
        self.came_to(format!("{verb} {name}"));
    }

    pub(super) fn came_to(&mut self, what: String) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(super) fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// The epoch that a caller names who is `back` claims behind.
    pub(super) fn epoch(&self, run: usize, slot: Slot, back: usize) -> u64 {
        let given = self.epochs.get(&(run, slot)).map_or(&[][..], Vec::as_slice);
        given.get(given.len().saturating_sub(1 + back)).copied().unwrap_or(99)
    }

    pub(super) async fn snapshot(&self, run: usize) -> Option<Snapshot> {
        self.memory.snapshot(&run_id(run)).await.unwrap()
    }

    /// Makes a call on both stores. Its fate may be that it is lost, or its answer; then it is sent again, as a service does.
    pub(super) async fn send(&mut self, run: usize, verb: Verb) -> Result<Answer, TestCaseError> {
        let call = Call { run, verb };
        let fate = std::mem::replace(&mut self.fate, Fate::Passes);
        for script in &self.scripts {
            script.then(Kind::Verb(call.name()), fate);
        }
        if fate != Fate::Passes {
            self.came_to(format!("{fate:?} {}", call.name()));
        }
        let answer = match fate {
            Fate::Passes | Fate::Twice | Fate::Cut(_) => self.make(&call).await?,
            Fate::Lost | Fate::Unanswered => {
                let (memory, redis) = (call.send(&self.memory).await, call.send(&self.redis).await);
                prop_assert!(memory.is_err() && redis == memory, "{call:?} was spoiled: {redis:?}, {memory:?}");
                self.make(&call).await?
            }
        };
        if std::mem::take(&mut self.repeat) {
            let second = self.make(&call).await?;
            // What was made ready before the clock went back becomes due again.
            let same = call.repeats(&answer, &second) || self.went_back && second.is_of_the_kind_of(&answer);
            prop_assert!(same, "{call:?}\nfirst: {answer:?}\nrepeated: {second:?}");
            self.came_to(format!("repeated {}", call.name()));
        }
        self.sent.push(call);
        Ok(answer)
    }

    /// Sends something again that was sent `back` calls before.
    pub(super) async fn send_again(&mut self, back: usize) -> Result<(), TestCaseError> {
        let Some(call) = self.sent.iter().rev().nth(back % self.sent.len().max(1)).cloned() else { return Ok(()) };
        self.check(call.run).await?;
        let answer = self.make(&call).await?;
        self.saw_text(&format!("again {}", call.name()), &answer.text());
        self.check(call.run).await
    }

    async fn make(&mut self, call: &Call) -> Result<Answer, TestCaseError> {
        let forgotten = call.held().filter(|(slot, epoch)| {
            let claim = (call.run, *slot, *epoch);
            self.holders.contains_key(&claim) && !self.watch.known.contains(&claim)
        });
        let before = if forgotten.is_some() { self.snapshot(call.run).await } else { None };
        let (memory, redis) = (call.send(&self.memory).await, call.send(&self.redis).await);
        prop_assert_eq!(&redis, &memory, "redis (left) and memory (right) differ in {:?}", call);
        let answer = memory.expect("memory always answers");
        self.saw_text(call.name(), &answer.text());
        if forgotten.is_some() {
            prop_assert!(!answer.accepts(), "a stranger is taken for the holder: {call:?}: {answer:?}");
            prop_assert_eq!(self.snapshot(call.run).await, before, "a stranger changed something: {:?}", call);
            self.saw_text(&format!("forgotten {}", call.name()), &answer.text());
        }
        self.note(call, &answer)?;
        if self.saved.is_some() {
            self.check(call.run).await?;
        }
        Ok(answer)
    }

    fn note(&mut self, call: &Call, answer: &Answer) -> Result<(), TestCaseError> {
        let (Verb::Claim { slot, nonce, .. }, Answer::Claimed(Claimed::Execute(claim) | Claimed::Poisoned(claim))) =
            (&call.verb, answer)
        else {
            return Ok(());
        };
        let key = (call.run, *slot, claim.epoch);
        let holder = self.holders.entry(key).or_insert_with(|| nonce.clone());
        prop_assert_eq!(&*holder, nonce, "epoch {} of {} was given twice", claim.epoch, slot);
        self.watch.known.insert(key);
        let epochs = self.epochs.entry((call.run, *slot)).or_default();
        if epochs.last() != Some(&claim.epoch) {
            epochs.push(claim.epoch);
        }
        Ok(())
    }

    /// Nothing that stands once and for all has changed.
    pub(super) async fn check(&mut self, run: usize) -> Result<(), TestCaseError> {
        let Some(snapshot) = self.snapshot(run).await else { return Ok(()) };
        for step in snapshot.view.steps.iter().chain(&snapshot.view.superseded) {
            let key = (run, step.step.step_number);
            if let Some(record) = self.watch.succeeded.get(&key) {
                prop_assert_eq!(Some(record), step.record.as_ref(), "step {} succeeded before", key.1);
            }
            if let (StepState::Succeeded, Some(record)) = (step.state, &step.record) {
                self.watch.succeeded.insert(key, record.clone());
            }
        }
        let status = snapshot.view.status;
        let now = (status, self.memory.result(&run_id(run)).await.unwrap());
        if let Some(ended) = self.watch.ended.get(&run) {
            prop_assert_eq!(ended, &now, "the run had ended");
        }
        if matches!(status, RunStatus::Succeeded | RunStatus::Cancelled) {
            self.watch.ended.insert(run, now);
        }
        Ok(())
    }

    /// Remembers what the stores hold now.
    pub(super) async fn save(&mut self) {
        let watch = self.watch.clone();
        self.saved = Some((stores::save(&self.memory).await, stores::save(&self.redis).await, watch));
    }

    /// The stores lose everything since [`Pair::save`]. Those who called them in between know nothing of that.
    pub(super) async fn lose(&mut self) {
        let Some((memory, redis, watch)) = &self.saved else { return };
        stores::restore(&self.memory, memory).await;
        stores::restore(&self.redis, redis).await;
        let forgotten = self.watch.known.len() - watch.known.len();
        self.watch = watch.clone();
        if forgotten > 0 {
            self.came_to("claims lost".to_owned());
        }
    }
}
