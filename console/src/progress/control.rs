//! The part of a run's progress that its owner, its limits and its planner's second thoughts bring about.

use common::event::Event;
use common::message::{Answer, Command};
use common::quote::Quote;
use common::run::{HaltKind, Outcome};
use serde::Deserialize;
use serde_json::Value;

use super::{Change, Phase, Progress, Standing, number, word};
use crate::wait;

impl Progress {
    pub(super) fn approval_awaited(&mut self, event: &Event) -> Vec<Change> {
        self.phase = Phase::Approving;
        let data = &event.data;
        let until = number(data, "until_ms").map(|until| wait::limit(&word(data, "otherwise"), until, event.at_ms));
        let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
        let quote = data.get("quote").and_then(|quote| Quote::deserialize(quote).ok());
        let quote = quote.map(|quote| format!("\n  {}", wait::quote(&quote))).unwrap_or_default();
        let how = self.run.as_ref().map(|run| format!("\n  planrelay approve {run}, or planrelay reject {run} --feedback TEXT"));
        vec![Change::Note(format!("the plan waits for approval{until}{quote}{}", how.unwrap_or_default()))]
    }

    /// Somebody wanted something; what was done of it changes where steps stand.
    pub(super) fn controlled(&mut self, data: &Value) -> Vec<Change> {
        let (command, by, message) = (word(data, "command"), word(data, "by"), word(data, "message"));
        let known = Command::ALL.into_iter().find(|known| known.as_str() == command);
        let answer = data.get("answer").and_then(|answer| Answer::deserialize(answer).ok());
        let refused = match (answer, known) {
            (Some(Answer::Accepted), Some(command)) => {
                self.obey(command);
                ""
            }
            (Some(Answer::Refused), _) => " refused",
            (Some(Answer::Accepted | Answer::Repeated) | None, _) => "",
        };
        let by = if by.is_empty() { by } else { format!(" by {by}") };
        let reason = word(data, "reason");
        let reason = if reason.is_empty() || message.contains(&reason) { String::new() } else { format!(" ({reason})") };
        vec![Change::Note(format!("{command}{by}{refused}: {message}{reason}"))]
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Pause => self.phase = Phase::Paused,
            Command::Cancel | Command::Resume | Command::Approve => self.phase = Phase::Quiet,
            Command::Reject | Command::Edit => {
                self.phase = Phase::Quiet;
                self.steps.clear();
                self.dropped.clear();
            }
            Command::Retry => {
                self.halt = None;
                let ended = |standing| matches!(standing, Standing::Ended(outcome) if outcome != Outcome::Succeeded);
                for step in self.steps.values_mut().filter(|step| ended(step.standing)) {
                    (step.standing, step.why, step.took_ms) = (Standing::Waiting, None, None);
                }
            }
        }
    }

    /// Nothing new starts; unless only a budget is used up, what runs is aborted.
    pub(super) fn halted(&mut self, event: &Event) -> Vec<Change> {
        let kind = word(&event.data, "kind");
        let reason = word(&event.data, "reason");
        let reason = if reason.is_empty() { kind.clone() } else { reason };
        self.phase = Phase::Quiet;
        let spared = match HaltKind::parse(&kind) {
            Some(HaltKind::Budget) => Some(Standing::Running),
            Some(HaltKind::Cancelled | HaltKind::Deadline | HaltKind::Unreachable) | None => None,
        };
        for step in self.steps.values_mut() {
            if !matches!(step.standing, Standing::Ended(_)) && Some(step.standing) != spared {
                step.standing = Standing::Ended(Outcome::Cancelled);
                (step.since_ms, step.why) = (event.at_ms, None);
            }
        }
        let note = vec![Change::Note(format!("stopped: {reason}"))];
        self.halt = Some(reason);
        note
    }
}

/// Why the planner looks at the plan again.
pub(super) fn replan_owed(data: &Value) -> String {
    let (why, after) = (word(data, "why"), word(data, "after"));
    match (why.is_empty(), after.is_empty()) {
        (false, _) => format!("planning again: {why}"),
        (true, false) => format!("planning again, after step {after}"),
        (true, true) => "planning again".to_owned(),
    }
}

/// A re-plan that changed nothing.
pub(super) fn plan_kept(data: &Value) -> String {
    let reason = word(data, "reason");
    if reason.is_empty() { "the plan stays as it is".to_owned() } else { format!("the plan stays as it is: {reason}") }
}
