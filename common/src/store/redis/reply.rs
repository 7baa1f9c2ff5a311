//! Reads what scripts answer. A script's array is read from its front; whatever does not fit is [`StoreError::Unusable`].

use std::collections::{BTreeMap, VecDeque};

use redis::Value;
use serde::Deserialize;

use crate::event::{Event, EventType};
use crate::id::{RunId, Slot, StepNumber};
use crate::message::ControlReply;
use crate::plan::Step;
use crate::run::{Budget, RunStatus, StepInput, StepRecord, StepState};
use crate::store::assemble::{Parts, RunFields, SlotFields, assemble, retired};
use crate::store::{
    Claim, Controlled, Dispatch, Held, KEYS_VERSION, Live, Owed, Pulse, RunLine, Snapshot, StoreError, StoredPlan, Taken,
};

/// An answer, read from the front.
#[derive(Debug)]
pub(super) struct Reply(VecDeque<Value>);

/// The error for an answer nobody expects.
pub(super) fn unusable(what: &str, got: &str) -> StoreError {
    StoreError::Unusable(format!("{what}: {got}"))
}

impl Reply {
    /// An array's items, or the one value that is no array.
    #[expect(clippy::wildcard_enum_match_arm, reason = "redis::Value is not ours")]
    pub(super) fn new(value: Value) -> Self {
        match value {
            Value::Array(items) => Self(items.into()),
            _ => Self(VecDeque::from([value])),
        }
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.0.pop_front() {
            None | Some(Value::Nil) => Ok(None),
            Some(Value::BulkString(bytes)) => {
                String::from_utf8(bytes).map(Some).map_err(|error| unusable("text", &error.to_string()))
            }
            Some(Value::SimpleString(text)) => Ok(Some(text)),
            Some(Value::Int(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(unusable("text", &format!("{other:?}"))),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        self.optional_text()?.ok_or_else(|| unusable("text", "nothing"))
    }

    pub(super) fn number<N: std::str::FromStr>(&mut self) -> Result<N, StoreError> {
        let text = self.text()?;
        text.parse().map_err(|_not_a_number| unusable("number", &text))
    }

    /// The version of a run's keys, where a script says that it is too new for it.
    pub(super) fn newer(&mut self) -> Result<Option<u32>, StoreError> {
        match self.0.front() {
            Some(Value::BulkString(word)) if word == b"newer" => {
                self.0.pop_front();
                self.number().map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The field `schema` of a run; absent means 1.
    pub(super) fn schema(&mut self) -> Result<u32, StoreError> {
        let text = self.optional_text()?.unwrap_or_else(|| "1".to_owned());
        text.parse().map_err(|_not_a_number| unusable("schema", &text))
    }

    fn json<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, StoreError> {
        let text = self.text()?;
        serde_json::from_str(&text).map_err(|error| unusable("JSON", &error.to_string()))
    }

    fn list(&mut self) -> Result<Self, StoreError> {
        self.0.pop_front().map(Self::new).ok_or_else(|| unusable("list", "nothing"))
    }

    pub(super) fn texts(mut self) -> Result<Vec<String>, StoreError> {
        let mut texts = Vec::with_capacity(self.0.len());
        while let Some(text) = self.optional_text()? {
            texts.push(text);
        }
        Ok(texts)
    }

    fn fields(self) -> Result<BTreeMap<String, String>, StoreError> {
        let mut texts = self.texts()?.into_iter();
        let mut fields = BTreeMap::new();
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            fields.insert(name, value);
        }
        Ok(fields)
    }

    pub(super) fn status(&mut self) -> Result<RunStatus, StoreError> {
        let text = self.text()?;
        RunStatus::parse(&text).ok_or_else(|| unusable("status", &text))
    }

    pub(super) fn state(&mut self) -> Result<StepState, StoreError> {
        let text = self.text()?;
        StepState::parse(&text).ok_or_else(|| unusable("state", &text))
    }

    pub(super) fn owed(&mut self) -> Result<Owed, StoreError> {
        match self.text()?.as_str() {
            "nothing" => Ok(Owed::Nothing),
            "planner" => Ok(Owed::Planner),
            "summary" => Ok(Owed::Summary),
            other => Err(unusable("owed", other)),
        }
    }

    pub(super) fn held(mut self) -> Result<Held, StoreError> {
        match self.text()?.as_str() {
            "kept" => Ok(Held::Kept),
            "lost" => Ok(Held::Lost),
            "ended" => Ok(Held::Ended),
            other => Err(unusable("held", other)),
        }
    }

    pub(super) fn claim(&mut self) -> Result<Claim, StoreError> {
        let (epoch, attempt, parks, text) = (self.number()?, self.number()?, self.number()?, self.text()?);
        let budget = self.list()?.budget()?;
        let spec = self.text()?;
        let step = match spec.as_str() {
            "" => None,
            json => Some(serde_json::from_str::<Step>(json).map_err(|error| unusable("step", &error.to_string()))?),
        };
        let journal = self.list()?.texts()?;
        let mut list = self.list()?;
        let mut inputs = Vec::new();
        while !list.0.is_empty() {
            let (step_number, step, record) = (StepNumber(list.number()?), list.json::<Step>()?, list.json::<StepRecord>()?);
            inputs.push(StepInput {
                step_number,
                description: step.description,
                outcome: record.outcome,
                result: record.result,
                error: record.error,
            });
        }
        Ok(Claim { epoch, attempt, parks, text, budget, step, journal, inputs })
    }

    pub(super) fn held_and_owed(mut self) -> Result<(Held, Owed), StoreError> {
        match self.text()?.as_str() {
            "kept" => Ok((Held::Kept, self.owed()?)),
            _lost => Ok((Held::Lost, Owed::Nothing)),
        }
    }

    /// The limits of a run, each empty where there is none; no limits at all.
    fn budget(mut self) -> Result<Budget, StoreError> {
        let mut limit = || Ok(self.optional_text()?.and_then(|text| text.parse().ok()));
        Ok(Budget { model_calls: limit()?, tool_calls: limit()?, tokens: limit()?, cost_nanos: limit()? })
    }

    /// A number that stands for yes or no.
    fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.number::<u8>()? == 1)
    }

    pub(super) fn taken(mut self) -> Result<Taken, StoreError> {
        let (plan, revision) = (self.flag()?, self.number()?);
        let mut steps = Vec::new();
        while !self.0.is_empty() {
            let _number: u32 = self.number()?;
            steps.push(Dispatch { revision, attempt: self.number()?, step: self.json()? });
        }
        Ok(Taken { steps, plan })
    }

    pub(super) fn controlled(mut self) -> Result<Controlled, StoreError> {
        let reply = self.text()?;
        if reply == "none" {
            return Ok(Controlled::no_such_run());
        }
        let reply: ControlReply = serde_json::from_str(&reply).map_err(|error| unusable("reply", &error.to_string()))?;
        let (plan, dispatch, summary) = (self.flag()?, self.flag()?, self.flag()?);
        Ok(Controlled { answer: reply.answer, message: reply.message, status: reply.status, plan, dispatch, summary })
    }

    pub(super) fn events(mut self) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::with_capacity(self.0.len());
        while !self.0.is_empty() {
            let mut entry = self.list()?;
            let id = entry.text()?;
            let fields = entry.list()?.fields()?;
            // A newer version may know more types: those are left out, not an error.
            let Some(kind) = fields.get("type").and_then(|kind| serde_json::from_value::<EventType>(kind.as_str().into()).ok())
            else {
                continue;
            };
            let at_ms = id.split('-').next().and_then(|ms| ms.parse().ok()).ok_or_else(|| unusable("event id", &id))?;
            let data = fields.get("data").map_or("{}", String::as_str);
            events.push(Event {
                at_ms,
                kind,
                slot: fields.get("slot").cloned(),
                attempt: fields.get("attempt").and_then(|n| n.parse().ok()),
                epoch: fields.get("epoch").and_then(|n| n.parse().ok()),
                data: serde_json::from_str(data).map_err(|error| unusable("event data", &error.to_string()))?,
                id,
            });
        }
        Ok(events)
    }

    pub(super) fn pulse(mut self) -> Result<Option<Pulse>, StoreError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let status = self.status()?;
        Ok(Some(Pulse { status, quiet_ms: self.number()?, unclaimed_ms: self.number()? }))
    }

    /// Adds one shard.
    pub(super) fn live(mut self, live: &mut Live) -> Result<(), StoreError> {
        live.count += self.number::<u64>()?;
        live.late_ms = live.late_ms.max(self.number()?);
        live.runs.extend(self.list()?.texts()?.iter().filter_map(|id| RunId::parse(id).ok()));
        Ok(())
    }

    pub(super) fn run_line(mut self, run: &RunId) -> Result<Option<RunLine>, StoreError> {
        let schema = self.schema()?;
        let Some(status) = self.optional_text()? else { return Ok(None) };
        let newer_schema = Some(schema).filter(|schema| *schema > KEYS_VERSION);
        let known = RunStatus::parse(&status).or(newer_schema.map(|_| RunStatus::Running));
        Ok(Some(RunLine {
            run_id: run.clone(),
            status: known.ok_or_else(|| unusable("status", &status))?,
            newer_schema,
            // A newer release may keep these elsewhere.
            objective: if newer_schema.is_some() { self.optional_text()?.unwrap_or_default() } else { self.text()? },
            created_at_ms: match newer_schema {
                Some(_) => self.optional_text()?.and_then(|ms| ms.parse().ok()).unwrap_or(0),
                None => self.number()?,
            },
            finished_at_ms: self.optional_text()?.and_then(|ms| ms.parse().ok()),
        }))
    }

    /// Members of a sorted set with their scores.
    fn scores(self) -> Result<BTreeMap<String, u64>, StoreError> {
        let fields = self.fields()?;
        Ok(fields.into_iter().map(|(name, score)| (name, score.parse::<f64>().map_or(0, |score| score as u64))).collect())
    }

    pub(super) fn snapshot(mut self, run: &RunId) -> Result<Option<Snapshot>, StoreError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let now_ms = self.number()?;
        let fields = self.list()?.fields()?;
        let plan = match self.text()?.as_str() {
            "" => StoredPlan::default(),
            text => serde_json::from_str(text).map_err(|error| unusable("plan", &error.to_string()))?,
        };
        let (steps, records) = (self.list()?.fields()?, self.list()?.fields()?);
        let (flight, ready) = (self.list()?.scores()?, self.list()?.scores()?);
        let news = self.list()?.texts()?.iter().filter_map(|n| n.parse().ok().map(StepNumber)).collect();
        let mut specs = self.list()?;
        let mut all: Vec<Step> = Vec::new();
        while !specs.0.is_empty() {
            all.push(specs.json()?);
        }
        let slot = |slot: Slot| {
            let name = slot.to_string();
            let at = |queue: &BTreeMap<String, u64>| queue.get(&name).copied();
            SlotFields::read(|field| steps.get(&format!("{name}:{field}")).cloned(), at(&flight), at(&ready))
        };
        let record = |step: StepNumber| records.get(&step.to_string()).and_then(|json| serde_json::from_str(json).ok());
        let run_fields = RunFields::read(|field| fields.get(field).cloned());
        let in_flight = flight.keys().filter(|name| matches!(Slot::parse(name), Some(Slot::Step(_)))).count() as u64;
        let retired = retired(all.iter(), &plan);
        let parts = Parts { now_ms, plan, retired, news, in_flight, slot: &slot, record: &record };
        Ok(Some(assemble(run, run_fields, parts)))
    }
}
