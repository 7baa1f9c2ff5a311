//! Redis: every verb is one script, and so one atomic round trip. Only files under `store/redis` name the crate.
//!
//! Beside the keys of runs (see `prelude.lua`) there are, under the configured prefix:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `<prefix>:wakeups:<k>` | sorted set | run → when to look at it, ms; a hint |
//! | `<prefix>:runs` | sorted set | run → when it was opened, ms; a hint, for listing |
//! | `<prefix>:dead` | list | dead letters as JSON, newest first |

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{
    Account, Advance, Again, ClaimRequest, Claimed, Control, Controlled, Finish, Held, Live, NewRun, Opened, Owed, PlanNote,
    Pulse, Put, Reported, Reserved, RunLine, Snapshot, StoreError, StoreTime, StoredPlan, Taken, TakenBack,
};
use crate::clock::millis;
use crate::event::Event;
use crate::id::{RunId, Slot, StepNumber};
use crate::limits::{
    CLAIMS_MAX, CONTROLS_KEPT_MAX, DEAD_LETTERS_KEPT, PULSE_SLOTS_MAX, REJECTIONS_MAX, RUNS_LISTED_MAX, UNOPENED_MAX,
    WAKEUP_INTERVAL_MAX, WAKEUP_SHARDS,
};
use crate::meter::Need;
use crate::metrics::Metrics;
use crate::patch::Revision;
use crate::plan::OnFailedDependency;
use crate::run::{Halt, RunStatus, StepRecord};

mod address;
mod connection;
pub mod inspect;
mod reply;
mod scripts;
mod single;

pub use connection::ConnectError;
use connection::Connection;
use reply::{Reply, unusable};
use scripts::Verb;

/// Runs in Redis. A cheap handle over one multiplexed connection.
#[derive(Debug, Clone)]
pub struct Redis {
    connection: Connection,
    prefix: Arc<str>,
    time: StoreTime,
    /// The shard of the wake-ups that the next look begins with.
    first_shard: Arc<AtomicU32>,
}

impl Redis {
    /// Connects to `urls` (several: a cluster) and checks that the server keeps what it is given. Fails fast.
    ///
    /// `time` is [`StoreTime::Own`] but in tests.
    pub async fn connect(
        config: &crate::config::StoreConfig,
        prefix: &str,
        time: StoreTime,
        metrics: &Metrics,
    ) -> Result<Self, ConnectError> {
        let connection = Connection::open(config, metrics).await?;
        Ok(Self { connection, prefix: prefix.into(), time, first_shard: Arc::default() })
    }

    /// The prefix of every key.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Deletes every key of the prefix. For tests.
    pub async fn delete_all(&self) -> Result<(), StoreError> {
        self.connection.delete_matching(&format!("{}:*", self.prefix)).await
    }

    fn given(&self) -> String {
        self.time.given_ms().map_or_else(String::new, |ms| ms.to_string())
    }

    fn key(&self, run: &RunId, name: &str) -> String {
        format!("{}:{{{run}}}:{name}", self.prefix)
    }

    fn shard(&self, run: &RunId) -> String {
        format!("{}:wakeups:{}", self.prefix, super::hash(run.as_str()) % WAKEUP_SHARDS)
    }

    /// Runs a verb's script on the run's keys. `arguments` come after the time.
    async fn verb(&self, verb: Verb, run: &RunId, arguments: Vec<String>) -> Result<Reply, StoreError> {
        let keys = scripts::RUN_KEYS.iter().map(|name| self.key(run, name)).collect();
        let mut reply = self.connection.eval(verb, keys, self.given(), arguments).await.map(Reply::new)?;
        reply.newer()?.map_or(Ok(()), |schema| super::known(run, schema))?;
        Ok(reply)
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        // Of a cluster, one server that answers will do: PING would ask them all.
        self.connection.command("ZCARD", &[&format!("{}:runs", self.prefix)]).await.map(drop)
    }

    pub(super) async fn open_run(&self, run: &RunId, new: &NewRun) -> Result<Opened, StoreError> {
        self.wake(run, WAKEUP_INTERVAL_MAX).await?;
        let created_ms = self.time.now_ms().to_string();
        let index = format!("{}:runs", self.prefix);
        self.connection.command("ZADD", &[&index, "NX", &created_ms, run.as_str()]).await?;
        self.connection.command("ZREMRANGEBYRANK", &[&index, "0", &format!("-{}", RUNS_LISTED_MAX + 1)]).await?;
        let deadline = new.rules.deadline.map_or_else(String::new, |deadline| millis(deadline).to_string());
        let mut arguments = vec![format!("{{\"objective_bytes\":{}}}", new.objective.len()), deadline];
        arguments.extend(scripts::new_run(new));
        let mut reply = self.verb(Verb::OpenRun, run, arguments).await?;
        match reply.text()?.as_str() {
            "created" => Ok(Opened::Created),
            _exists => Ok(Opened::Exists(reply.status()?)),
        }
    }

    pub(super) async fn claim(&self, run: &RunId, request: &ClaimRequest<'_>) -> Result<Claimed, StoreError> {
        let arguments = vec![
            request.slot.to_string(),
            request.message_id.to_owned(),
            request.nonce.to_owned(),
            request.attempt.map_or_else(String::new, |attempt| attempt.to_string()),
            millis(request.lease).to_string(),
            request.worker.to_owned(),
            super::claimed_data(request.worker),
            CLAIMS_MAX.to_string(),
            u8::from(request.redelivered).to_string(),
            super::salt(request.nonce).to_string(),
        ];
        let mut reply = self.verb(Verb::Claim, run, arguments).await?;
        match reply.text()?.as_str() {
            "execute" => Ok(Claimed::Execute(Box::new(reply.claim()?))),
            "poisoned" => Ok(Claimed::Poisoned(Box::new(reply.claim()?))),
            "done" => Ok(Claimed::Done { owed: reply.owed()?, state: reply.state()? }),
            "duplicate" => Ok(Claimed::Duplicate { worker: reply.text()? }),
            "stale" => Ok(Claimed::Stale { why: reply.text()? }),
            "finished" => Ok(Claimed::Finished(reply.status()?)),
            other => Err(unusable("claim", other)),
        }
    }

    pub(super) async fn renew(&self, run: &RunId, slot: Slot, epoch: u64, lease: Duration) -> Result<Held, StoreError> {
        self.verb(Verb::Renew, run, vec![slot.to_string(), epoch.to_string(), millis(lease).to_string()]).await?.held()
    }

    pub(super) async fn release(&self, run: &RunId, slot: Slot, epoch: u64) -> Result<Held, StoreError> {
        self.verb(Verb::Release, run, vec![slot.to_string(), epoch.to_string()]).await?.held()
    }

    pub(super) async fn journal(
        &self,
        run: &RunId,
        slot: Slot,
        epoch: u64,
        index: usize,
        entry: &str,
        account: &Account,
    ) -> Result<Held, StoreError> {
        let mut arguments = vec![slot.to_string(), epoch.to_string(), index.to_string(), entry.to_owned()];
        scripts::push_account(&mut arguments, account);
        self.verb(Verb::Journal, run, arguments).await?.held()
    }

    #[expect(clippy::too_many_arguments, reason = "one atomic operation")]
    pub(super) async fn put_plan(
        &self,
        run: &RunId,
        epoch: u64,
        current: u32,
        revision: &Revision,
        note: &PlanNote,
        handled: &[StepNumber],
        account: &Account,
    ) -> Result<Put, StoreError> {
        let stored = StoredPlan { revision: current + 1, note: note.clone(), plan: revision.plan.clone() };
        let mut arguments = vec![epoch.to_string(), current.to_string(), super::json(&stored), super::json(&note.quote)];
        scripts::push_account(&mut arguments, account);
        arguments.push(revision.put.len().to_string());
        for step in &revision.put {
            let anyway = step.on_failed_dependency == OnFailedDependency::RunAnyway;
            arguments.push(step.step_number.to_string());
            arguments.push(super::json(step));
            arguments.push(scripts::numbers(&step.depends_on));
            arguments.push(u8::from(anyway).to_string());
        }
        scripts::push_steps(&mut arguments, &revision.retired);
        let dependents = revision.plan.dependents();
        arguments.push(revision.plan.steps.len().to_string());
        for step in &revision.plan.steps {
            arguments.push(step.step_number.to_string());
            arguments.push(scripts::numbers(dependents.get(&step.step_number).map_or(&[], Vec::as_slice)));
        }
        scripts::push_steps(&mut arguments, handled);
        let mut reply = self.verb(Verb::PutPlan, run, arguments).await?;
        match reply.text()?.as_str() {
            "stored" => Ok(Put::Stored(reply.owed()?)),
            "moved" => Ok(Put::Moved),
            _lost => Ok(Put::Lost),
        }
    }

    pub(super) async fn keep_plan(
        &self,
        run: &RunId,
        epoch: u64,
        handled: &[StepNumber],
        counts: bool,
        account: &Account,
    ) -> Result<(Held, Owed), StoreError> {
        let mut arguments = vec![epoch.to_string(), u8::from(counts).to_string()];
        scripts::push_account(&mut arguments, account);
        scripts::push_steps(&mut arguments, handled);
        self.verb(Verb::KeepPlan, run, arguments).await?.held_and_owed()
    }

    pub(super) async fn halt(
        &self,
        run: &RunId,
        slot: Slot,
        epoch: u64,
        halt: &Halt,
        account: &Account,
    ) -> Result<Held, StoreError> {
        let mut arguments = vec![slot.to_string(), epoch.to_string(), halt.kind.as_str().to_owned(), halt.reason.clone()];
        scripts::push_account(&mut arguments, account);
        self.verb(Verb::Halt, run, arguments).await?.held()
    }

    pub(super) async fn reserve(
        &self,
        run: &RunId,
        slot: Slot,
        epoch: u64,
        number: u64,
        need: &Need,
    ) -> Result<Reserved, StoreError> {
        let mut arguments = vec![slot.to_string(), epoch.to_string(), number.to_string()];
        arguments.extend([need.model_calls, need.tool_calls, need.tokens, need.cost_nanos].map(|n| n.to_string()));
        let mut reply = self.verb(Verb::Reserve, run, arguments).await?;
        match reply.text()?.as_str() {
            "granted" => Ok(Reserved::Granted),
            "busy" => Ok(Reserved::Busy { what: reply.text()? }),
            "exhausted" => Ok(Reserved::Exhausted { what: reply.text()? }),
            _lost => Ok(Reserved::Lost),
        }
    }

    pub(super) async fn control(&self, run: &RunId, control: &Control<'_>) -> Result<Controlled, StoreError> {
        let arguments = vec![
            control.id.to_owned(),
            control.command.as_str().to_owned(),
            control.by.to_owned(),
            control.reason.to_owned(),
            control.text.to_owned(),
            control.revision.map_or_else(String::new, |revision| revision.to_string()),
            run.to_string(),
            REJECTIONS_MAX.to_string(),
            CONTROLS_KEPT_MAX.to_string(),
            control.refused.to_owned(),
            control.feedback.to_owned(),
        ];
        self.verb(Verb::Control, run, arguments).await?.controlled()
    }

    pub(super) async fn control_reply(&self, run: &RunId, id: &str) -> Result<Option<String>, StoreError> {
        Reply::new(self.connection.command("HGET", &[&self.key(run, "controls"), id]).await?).optional_text()
    }

    pub(super) async fn take_ready(&self, run: &RunId, token: &str) -> Result<Taken, StoreError> {
        self.verb(Verb::TakeReady, run, vec![token.to_owned()]).await?.taken()
    }

    pub(super) async fn report(
        &self,
        run: &RunId,
        step: StepNumber,
        epoch: u64,
        record: &StepRecord,
        account: &Account,
    ) -> Result<Reported, StoreError> {
        let outcome = super::reported_state(record).as_str().to_owned();
        let mut arguments = vec![step.to_string(), epoch.to_string(), outcome, super::json(record)];
        scripts::push_account(&mut arguments, account);
        let mut reply = self.verb(Verb::Report, run, arguments).await?;
        match reply.text()?.as_str() {
            "recorded" => Ok(Reported::Recorded(reply.owed()?)),
            "finished" => Ok(Reported::Finished(reply.status()?)),
            _stale => Ok(Reported::Stale),
        }
    }

    pub(super) async fn retry(
        &self,
        run: &RunId,
        slot: Slot,
        epoch: u64,
        again: Again,
        after: Duration,
        account: &Account,
    ) -> Result<(Held, Owed), StoreError> {
        let (kind, entry) = match again {
            Again::Retry => ("retry", String::new()),
            Again::Park => ("park", String::new()),
            Again::Anew(entry) => ("anew", entry),
        };
        let mut arguments = vec![slot.to_string(), epoch.to_string(), kind.to_owned(), millis(after).to_string(), entry];
        scripts::push_account(&mut arguments, account);
        self.verb(Verb::Retry, run, arguments).await?.held_and_owed()
    }

    pub(super) async fn finish(
        &self,
        run: &RunId,
        slot: Slot,
        epoch: u64,
        end: &Finish,
        account: &Account,
    ) -> Result<Held, StoreError> {
        let mut arguments = vec![
            slot.to_string(),
            epoch.to_string(),
            end.status.as_str().to_owned(),
            end.error.clone().unwrap_or_default(),
            end.document.clone(),
            millis(end.retention).to_string(),
        ];
        scripts::push_account(&mut arguments, account);
        let mut reply = self.verb(Verb::Finish, run, arguments).await?;
        if reply.text()? != "finished" {
            return Ok(Held::Lost);
        }
        self.settle(run).await?;
        Ok(Held::Kept)
    }

    pub(super) async fn advance(&self, run: &RunId) -> Result<Advance, StoreError> {
        let mut reply = self.verb(Verb::Advance, run, Vec::new()).await?;
        if reply.text()? == "gone" {
            return Ok(Advance::Gone);
        }
        let next_look = Duration::from_millis(reply.number()?);
        let (plan, dispatch, summary): (u8, u8, u8) = (reply.number()?, reply.number()?, reply.number()?);
        Ok(Advance::Live { next_look, plan: plan == 1, dispatch: dispatch == 1, summary: summary == 1 })
    }

    pub(super) async fn take_back(&self, run: &RunId, slot: Slot, message_id: &str, why: &str) -> Result<TakenBack, StoreError> {
        let arguments = vec![slot.to_string(), message_id.to_owned(), super::why_data(why), CLAIMS_MAX.to_string()];
        let mut reply = self.verb(Verb::TakeBack, run, arguments).await?;
        match reply.text()?.as_str() {
            "gone" => Ok(TakenBack::Gone),
            "kept" => Ok(TakenBack::Kept),
            "plan" => Ok(TakenBack::Plan),
            "dispatch" => Ok(TakenBack::Dispatch),
            "summary" => Ok(TakenBack::Summary),
            "poisoned" => Ok(TakenBack::Poisoned),
            other => Err(unusable("take_back", other)),
        }
    }

    pub(super) async fn wake(&self, run: &RunId, after: Duration) -> Result<(), StoreError> {
        self.hint(run, after, "0").await
    }

    pub(super) async fn looked(&self, run: &RunId, next: Duration) -> Result<(), StoreError> {
        self.hint(run, next, "1").await
    }

    async fn hint(&self, run: &RunId, after: Duration, looked: &str) -> Result<(), StoreError> {
        let arguments = vec![run.to_string(), millis(after).to_string(), looked.to_owned()];
        self.connection.eval(Verb::Wake, vec![self.shard(run)], self.given(), arguments).await?;
        Ok(())
    }

    pub(super) async fn due(&self, limit: usize) -> Result<Vec<RunId>, StoreError> {
        let mut due = Vec::new();
        // Another shard first each time, so that none starves behind a busy one.
        let first = self.first_shard.fetch_add(1, Ordering::Relaxed);
        for shard in (0..WAKEUP_SHARDS).map(|n| first.wrapping_add(n) % WAKEUP_SHARDS) {
            if due.len() >= limit {
                break;
            }
            let key = format!("{}:wakeups:{shard}", self.prefix);
            let arguments = vec![(limit - due.len()).to_string()];
            let reply = self.connection.eval(Verb::Due, vec![key], self.given(), arguments).await?;
            due.extend(Reply::new(reply).texts()?.iter().filter_map(|id| RunId::parse(id).ok()));
        }
        Ok(due)
    }

    pub(super) async fn settle(&self, run: &RunId) -> Result<(), StoreError> {
        self.connection.command("ZREM", &[&self.shard(run), run.as_str()]).await.map(|_removed| ())
    }

    pub(super) async fn snapshot(&self, run: &RunId) -> Result<Option<Snapshot>, StoreError> {
        self.verb(Verb::Read, run, Vec::new()).await?.snapshot(run)
    }

    pub(super) async fn pulse(&self, run: &RunId) -> Result<Option<Pulse>, StoreError> {
        self.verb(Verb::Pulse, run, vec![PULSE_SLOTS_MAX.to_string()]).await?.pulse()
    }

    pub(super) async fn live(&self, limit: usize) -> Result<Live, StoreError> {
        let mut live = Live::default();
        for shard in 0..WAKEUP_SHARDS {
            let key = format!("{}:wakeups:{shard}", self.prefix);
            let arguments = vec![(limit - live.runs.len()).to_string()];
            Reply::new(self.connection.eval(Verb::Live, vec![key], self.given(), arguments).await?).live(&mut live)?;
        }
        Ok(live)
    }

    pub(super) async fn status(&self, run: &RunId) -> Result<Option<RunStatus>, StoreError> {
        let mut reply = Reply::new(self.connection.command("HMGET", &[&self.key(run, "run"), "schema", "status"]).await?);
        reply.schema().and_then(|schema| super::known(run, schema))?;
        reply.optional_text()?.map(|text| RunStatus::parse(&text).ok_or_else(|| unusable("status", &text))).transpose()
    }

    pub(super) async fn traceparent(&self, run: &RunId) -> Result<Option<String>, StoreError> {
        let fields = [&self.key(run, "run"), "schema", "traceparent"];
        let mut reply = Reply::new(self.connection.command("HMGET", &fields).await?);
        reply.schema().and_then(|schema| super::known(run, schema))?;
        Ok(reply.optional_text()?.filter(|trace| !trace.is_empty()))
    }

    pub(super) async fn result(&self, run: &RunId) -> Result<Option<String>, StoreError> {
        let result = Reply::new(self.connection.command("GET", &[&self.key(run, "result")]).await?).optional_text()?;
        if result.is_some() {
            let mut reply = Reply::new(self.connection.command("HGET", &[&self.key(run, "run"), "schema"]).await?);
            reply.schema().and_then(|schema| super::known(run, schema))?;
        }
        Ok(result)
    }

    pub(super) async fn events(&self, run: &RunId, after: &str, limit: usize) -> Result<Vec<Event>, StoreError> {
        let from = if after.is_empty() { "-".to_owned() } else { format!("({after}") };
        let arguments = [&self.key(run, "events"), &from, "+", "COUNT", &limit.to_string()];
        Reply::new(self.connection.command("XRANGE", &arguments).await?).events()
    }

    pub(super) async fn list(&self, offset: usize, limit: usize) -> Result<Vec<RunLine>, StoreError> {
        let index = format!("{}:runs", self.prefix);
        let (first, last) = (offset.to_string(), (offset + limit).saturating_sub(1).to_string());
        let newest = self.connection.command("ZRANGE", &[&index, &first, &last, "REV"]).await?;
        let mut lines = Vec::new();
        for id in Reply::new(newest).texts()?.iter().filter_map(|id| RunId::parse(id).ok()) {
            let fields = [&self.key(&id, "run"), "schema", "status", "objective", "created_at", "finished_at"];
            match Reply::new(self.connection.command("HMGET", &fields).await?).run_line(&id)? {
                Some(line) => lines.push(line),
                // A young one is about to be opened: its hint comes first. An old one has outlived its run.
                None => self.forget_hint(&index, &id).await?,
            }
        }
        Ok(lines)
    }

    async fn forget_hint(&self, index: &str, id: &RunId) -> Result<(), StoreError> {
        let since = Reply::new(self.connection.command("ZSCORE", &[index, id.as_str()]).await?).optional_text()?;
        let since = since.and_then(|since| since.parse::<f64>().ok()).unwrap_or(0.0);
        let age_ms = self.time.now_ms() as f64 - since;
        if age_ms > millis(UNOPENED_MAX) as f64 {
            self.connection.command("ZREM", &[index, id.as_str()]).await?;
        }
        Ok(())
    }

    pub(super) async fn keep_dead_letter(&self, letter: &str) -> Result<(), StoreError> {
        let list = format!("{}:dead", self.prefix);
        self.connection.command("LPUSH", &[&list, letter]).await?;
        self.connection.command("LTRIM", &[&list, "0", &(DEAD_LETTERS_KEPT - 1).to_string()]).await.map(|_trimmed| ())
    }

    pub(super) async fn dead_letter_count(&self) -> Result<u64, StoreError> {
        Reply::new(self.connection.command("LLEN", &[&format!("{}:dead", self.prefix)]).await?).number()
    }

    pub(super) async fn dead_letters(&self, limit: usize) -> Result<Vec<String>, StoreError> {
        let last = limit.saturating_sub(1).to_string();
        Reply::new(self.connection.command("LRANGE", &[&format!("{}:dead", self.prefix), "0", &last]).await?).texts()
    }
}
