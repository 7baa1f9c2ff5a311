//! The tool loop: model and tools take turns until the model answers. Every turn is journaled before the next one, so that a
//! step that is run again goes on from what was already paid for.

use common::limits::{TOOL_CALLS_PER_TURN_MAX, TOOL_TURNS_MAX};
use common::llm::{Failed, Judged, Move, StepTask, Turn};
use common::metrics::Purpose;
use common::recorded;
use common::run::Usage;
use common::store::{Account, Held};
use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Done, Failure};

/// What the journal holds: turns, after what earlier attempts have left.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    /// One turn.
    Turn {
        turn: Turn,
        /// What it used.
        usage: Usage,
    },
    /// The first entry of an attempt that began anew.
    Lessons {
        /// Why the attempts before came to nothing, and what they learned; oldest first.
        lessons: Vec<String>,
        /// Tool calls they made.
        calls: usize,
    },
}

/// What is to be done next.
enum Next {
    /// Make call `index` of the last move.
    Call(usize, common::tool::ToolCall),
    /// Ask the model; it has moved this often.
    Ask(usize),
    /// Nothing: this is how it ended.
    Conclude(Judged),
}

impl Attempt<'_> {
    /// Runs the loop to the model's own end of it.
    pub(crate) async fn turns(&mut self) -> Result<Done, Failure> {
        let mut turns = self.replay();
        loop {
            let turn = match next(&turns) {
                Next::Conclude(judged) => return judged.try_into(),
                Next::Call(index, call) => Turn::Returned { index, output: self.call(&call).await?.output },
                Next::Ask(moves) if moves < TOOL_TURNS_MAX => Turn::Moved(self.ask(&turns, moves + 1 == TOOL_TURNS_MAX).await?),
                Next::Ask(moves) => {
                    return Err(Failure::Permanent(format!(
                        "the model gave no answer within {moves} turns{}",
                        last_words(&turns)
                    )));
                }
            };
            self.record(turns.len(), &turn).await?;
            turns.push(turn);
        }
    }

    /// The turns of earlier holders. An entry that cannot be read, and what follows it, is done again.
    pub(crate) fn replay(&mut self) -> Vec<Turn> {
        let mut turns = Vec::new();
        for text in &self.claim.journal {
            let (turn, usage) = match serde_json::from_str(text) {
                Ok(Entry::Turn { turn, usage }) => (turn, usage),
                Ok(Entry::Lessons { lessons, calls }) if turns.is_empty() => {
                    (self.lessons, self.calls) = (lessons, calls);
                    continue;
                }
                Ok(Entry::Lessons { .. }) | Err(_) => break,
            };
            if let Turn::Returned { index, output: Ok(_) } = &turn
                && let Some(call) = called(&turns, *index)
            {
                self.tool = Some(call.tool.clone());
            }
            self.replayed(usage);
            turns.push(turn);
        }
        turns
    }

    /// The journal with which another attempt begins, after one that came to nothing for `why`.
    pub fn lesson(&self, why: &str, learned: Option<&str>) -> String {
        let mut lessons = self.lessons.clone();
        let learned = learned.map(|learned| format!(" (learned: {learned})")).unwrap_or_default();
        lessons.push(format!("attempt {}: {why}{learned}", self.claim.attempt));
        serde_json::to_string(&Entry::Lessons { lessons, calls: self.calls }).unwrap_or_default()
    }

    /// The model's next move.
    pub(crate) async fn ask(&mut self, turns: &[Turn], last: bool) -> Result<Move, Failure> {
        let specs = self.executor.tools.specs();
        let step = self.step();
        let task = StepTask {
            objective: &self.claim.text,
            description: step.map_or(&self.message.description, |step| &step.description),
            tool_hint: step.map_or(self.message.tool_hint.as_deref(), |step| step.tool_hint.as_deref()),
            tools: &specs,
            inputs: &self.claim.inputs,
            done_when: step.and_then(|step| step.done_when.as_deref()),
            lessons: &self.lessons,
            meter: &self.meter,
            turns,
            last,
        };
        let env = &self.executor.env;
        let answered = env.llm.act(&task).await;
        env.metrics.asked(Purpose::Act, env.llm.name(), &answered);
        let reply = match answered {
            Ok(reply) => reply,
            Err(Failed { error, calls }) => {
                self.asked(&calls);
                return Err(error.into());
            }
        };
        self.asked(&reply.calls);
        Ok(match reply.value {
            Move::Call(mut calls) => {
                calls.truncate(TOOL_CALLS_PER_TURN_MAX);
                Move::Call(calls)
            }
            other @ (Move::Conclude(_) | Move::Unusable { .. }) => other,
        })
    }

    /// Journals a turn with what it used.
    pub(crate) async fn record(&mut self, index: usize, turn: &Turn) -> Result<(), Failure> {
        let (env, run, slot, epoch) = (&self.executor.env, &self.message.run_id, self.slot(), self.claim.epoch);
        let account = std::mem::take(&mut self.account);
        let entry = serde_json::to_string(&Entry::Turn { turn: turn.clone(), usage: account.usage });
        let index = index + usize::from(!self.lessons.is_empty());
        let entry = entry.map_err(|error| Failure::Permanent(format!("a turn cannot be journaled: {error}")))?;
        match recorded!(env, env.store.journal(run, slot, epoch, index, &entry, &account)) {
            Ok(Held::Kept) => Ok(()),
            Ok(Held::Lost | Held::Ended) => Err(Failure::Lost),
            Err(error) => {
                self.account = Account::default();
                Err(Failure::Permanent(error.to_string()))
            }
        }
    }
}

/// Decides from the turns so far. Pure.
fn next(turns: &[Turn]) -> Next {
    let moves = turns.iter().filter(|turn| matches!(turn, Turn::Moved(_))).count();
    let Some(position) = turns.iter().rposition(|turn| matches!(turn, Turn::Moved(_))) else { return Next::Ask(0) };
    let done = turns.len() - position - 1;
    match &turns[position] {
        Turn::Moved(Move::Conclude(judged)) => Next::Conclude(judged.clone()),
        Turn::Moved(Move::Call(calls)) => calls.get(done).map_or(Next::Ask(moves), |call| Next::Call(done, call.clone())),
        Turn::Moved(Move::Unusable { .. }) | Turn::Returned { .. } => Next::Ask(moves),
    }
}

/// The call at `index` of the last move.
fn called(turns: &[Turn], index: usize) -> Option<&common::tool::ToolCall> {
    turns
        .iter()
        .rev()
        .find_map(|turn| match turn {
            Turn::Moved(Move::Call(calls)) => Some(calls),
            Turn::Moved(Move::Conclude(_) | Move::Unusable { .. }) | Turn::Returned { .. } => None,
        })?
        .get(index)
}

/// What was wrong with the model's last move, if something was.
fn last_words(turns: &[Turn]) -> String {
    match turns.last() {
        Some(Turn::Moved(Move::Unusable { complaint, .. })) => format!("; the last one: {complaint}"),
        Some(Turn::Returned { output: Err(error), .. }) => format!("; the last tool call failed: {error}"),
        Some(Turn::Moved(_) | Turn::Returned { .. }) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use common::tool::ToolCall;
    use serde_json::Value;

    use super::*;

    #[test]
    fn calls_are_made_in_order_then_the_model_is_asked() {
        let call = |tool: &str| ToolCall { tool: tool.to_owned(), arguments: Value::Null };
        let moved = Turn::Moved(Move::Call(vec![call("a"), call("b")]));
        let returned = |index| Turn::Returned { index, output: Ok(Value::Null) };
        assert!(matches!(next(&[]), Next::Ask(0)));
        assert!(matches!(next(std::slice::from_ref(&moved)), Next::Call(0, c) if c.tool == "a"));
        assert!(matches!(next(&[moved.clone(), returned(0)]), Next::Call(1, c) if c.tool == "b"));
        assert!(matches!(next(&[moved.clone(), returned(0), returned(1)]), Next::Ask(1)));
        let judged = Judged::succeeded("x".into());
        assert!(matches!(next(&[moved, Turn::Moved(Move::Conclude(judged))]), Next::Conclude(j) if j.result == "x"));
    }
}
