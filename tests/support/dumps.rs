//! What Redis holds of a run, as text that people can read: taken from one release, it is given to the next.

use std::collections::{BTreeMap, BTreeSet};

use common::id::RunId;
use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde::{Deserialize, Serialize};

use crate::stores::connection;

/// Every key of a run, and its hints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    /// The run.
    pub run_id: RunId,
    /// When it was taken, by the server's clock, in milliseconds since 1970.
    pub at_ms: i64,
    /// By their names after `<prefix>:{<run>}:`.
    pub keys: BTreeMap<String, Key>,
    /// The run's place in the shared sorted sets, by their names after `<prefix>:`.
    pub hints: BTreeMap<String, f64>,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// How long it was still kept, in milliseconds; for ever if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<i64>,
    /// The value.
    #[serde(flatten)]
    pub value: Value,
}

/// A value of each type that is in use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum Value {
    /// A string.
    String(String),
    /// A hash.
    Hash(BTreeMap<String, String>),
    /// A set.
    Set(BTreeSet<String>),
    /// A sorted set.
    Zset(BTreeMap<String, f64>),
    /// A stream: ids with fields.
    Stream(Vec<(String, BTreeMap<String, String>)>),
}

/// Fields of the `run` hash that are times. Of the `steps` hash it is every `<slot>:since`, of sorted sets every score.
const TIMES: [&str; 4] = ["created_at", "finished_at", "deadline_at", "approval_until"];

impl Dump {
    /// All that Redis holds of `run` under `prefix`.
    pub async fn take(prefix: &str, run: &RunId) -> Self {
        let mut connection = connection().await;
        let (secs, micros): (i64, i64) = cmd("TIME").query_async(&mut connection).await.expect("TIME");
        let of_run = format!("{prefix}:{{{run}}}:");
        let mut keys = BTreeMap::new();
        for key in matching(&mut connection, &format!("{of_run}*")).await {
            let value = Value::read(&mut connection, &key).await;
            let ttl: i64 = cmd("PTTL").arg(&key).query_async(&mut connection).await.expect("PTTL");
            keys.insert(key[of_run.len()..].to_owned(), Key { ttl_ms: Some(ttl).filter(|ttl| *ttl >= 0), value });
        }
        let mut hints = BTreeMap::new();
        for key in matching(&mut connection, &format!("{prefix}:*")).await.iter().filter(|key| !key.contains('{')) {
            let score = cmd("ZSCORE").arg(key).arg(run.as_str()).query_async(&mut connection).await;
            hints.extend(score.ok().flatten().map(|score: f64| (key[prefix.len() + 1..].to_owned(), score)));
        }
        Self { run_id: run.clone(), at_ms: secs * 1000 + micros / 1000, keys, hints }
    }

    /// The same, as if it had been taken `later_ms` later.
    #[must_use]
    pub fn shifted(mut self, later_ms: i64) -> Self {
        let later = |text: &mut String| {
            if let Ok(at) = text.parse::<i64>() {
                *text = (at + later_ms).to_string();
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970")]
        let later_score = later_ms as f64;
        for (name, key) in &mut self.keys {
            match &mut key.value {
                Value::Hash(fields) if name == "run" => {
                    fields.iter_mut().filter(|(field, _)| TIMES.contains(&field.as_str())).for_each(|(_, text)| later(text));
                }
                Value::Hash(fields) if name == "steps" => {
                    fields.iter_mut().filter(|(field, _)| field.ends_with(":since")).for_each(|(_, text)| later(text));
                }
                Value::Zset(members) => members.values_mut().for_each(|score| *score += later_score),
                Value::Stream(entries) => {
                    for (id, _) in entries {
                        let (ms, count) = id.split_once('-').expect("an id of a stream");
                        *id = format!("{}-{count}", ms.parse::<i64>().expect("a time") + later_ms);
                    }
                }
                Value::Hash(_) | Value::String(_) | Value::Set(_) => {}
            }
        }
        self.hints.values_mut().for_each(|score| *score += later_score);
        self.at_ms += later_ms;
        self
    }

    /// Puts it into Redis under `prefix`, as if it had been taken just now.
    pub async fn restore(self, prefix: &str) {
        let mut connection = connection().await;
        let (secs, micros): (i64, i64) = cmd("TIME").query_async(&mut connection).await.expect("TIME");
        let now = self.shifted_to(secs * 1000 + micros / 1000);
        for (name, key) in &now.keys {
            let full = format!("{prefix}:{{{}}}:{name}", now.run_id);
            key.value.write(&mut connection, &full).await;
            if let Some(ttl) = key.ttl_ms {
                let () = cmd("PEXPIRE").arg(&full).arg(ttl).query_async(&mut connection).await.expect("PEXPIRE");
            }
        }
        for (name, score) in &now.hints {
            let full = format!("{prefix}:{name}");
            let hint = cmd("ZADD").arg(&full).arg(*score).arg(now.run_id.as_str()).query_async(&mut connection).await;
            let () = hint.expect("ZADD");
        }
    }

    fn shifted_to(self, at_ms: i64) -> Self {
        let later_ms = at_ms - self.at_ms;
        self.shifted(later_ms)
    }
}

impl Value {
    async fn read(connection: &mut MultiplexedConnection, key: &str) -> Self {
        let kind: String = cmd("TYPE").arg(key).query_async(connection).await.expect("TYPE");
        match kind.as_str() {
            "string" => Self::String(cmd("GET").arg(key).query_async(connection).await.expect("GET")),
            "hash" => Self::Hash(cmd("HGETALL").arg(key).query_async(connection).await.expect("HGETALL")),
            "set" => Self::Set(cmd("SMEMBERS").arg(key).query_async(connection).await.expect("SMEMBERS")),
            "zset" => {
                let members = cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES").query_async(connection).await;
                let members: Vec<(String, f64)> = members.expect("ZRANGE");
                Self::Zset(members.into_iter().collect())
            }
            "stream" => Self::Stream(cmd("XRANGE").arg(key).arg("-").arg("+").query_async(connection).await.expect("XRANGE")),
            other => panic!("{key} is a {other}: teach this file to dump it"),
        }
    }

    async fn write(&self, connection: &mut MultiplexedConnection, key: &str) {
        let commands: Vec<redis::Cmd> = match self {
            Self::String(text) => vec![cmd("SET").arg(key).arg(text).to_owned()],
            Self::Hash(fields) => vec![cmd("HSET").arg(key).arg(fields).to_owned()],
            Self::Set(members) => vec![cmd("SADD").arg(key).arg(members).to_owned()],
            Self::Zset(members) => {
                members.iter().map(|(member, score)| cmd("ZADD").arg(key).arg(*score).arg(member).to_owned()).collect()
            }
            Self::Stream(entries) => {
                entries.iter().map(|(id, fields)| cmd("XADD").arg(key).arg(id).arg(fields).to_owned()).collect()
            }
        };
        for command in commands {
            let () = command.query_async(connection).await.expect("a value is written");
        }
    }
}

async fn matching(connection: &mut MultiplexedConnection, pattern: &str) -> Vec<String> {
    // The braces of a run's keys are plain characters to `KEYS`.
    let keys: Vec<String> = cmd("KEYS").arg(pattern).query_async(connection).await.expect("KEYS");
    keys
}
