//! What a run has used and may use: `reserve`, and the account of every verb.

use super::run::Run;
use crate::id::Slot;
use crate::meter::Need;
use crate::run::{Budget, Halt, HaltKind};
use crate::store::{Account, Reserved};

impl Run {
    /// Gives back what the slot's holder had reserved. `spent`: nobody will say what the calls took, so they count at their
    /// estimate.
    pub(super) fn unreserve(&mut self, slot: Slot, spent: bool) {
        let held = std::mem::take(&mut self.slot(slot).held);
        self.held = combine(self.held, held, u64::saturating_sub);
        if spent && held != Need::default() {
            self.usage.model_calls += held.model_calls;
            self.usage.tool_calls += held.tool_calls;
            self.usage.input_tokens += held.tokens;
            self.usage.cost_nanos += held.cost_nanos;
            self.usage.estimated = true;
        }
    }

    /// Settles what the slot's holder had reserved, and adds usage and events that a verb brings along.
    pub(super) fn account(&mut self, slot: Slot, attempt: u32, epoch: u64, account: &Account) {
        self.unreserve(slot, false);
        self.usage += account.usage;
        for draft in &account.events {
            self.event_of(draft.kind, slot, Some(attempt), Some(epoch), draft.data.clone());
        }
    }

    pub(super) fn reserve(&mut self, slot: Slot, epoch: u64, number: u64, need: &Need) -> Reserved {
        if self.status.is_final() || self.fenced(slot, epoch).is_none() {
            return Reserved::Lost;
        }
        let for_answer = slot == Slot::Summary;
        if let Some(halt) = self.halt.as_ref().filter(|_| !for_answer) {
            return Reserved::Exhausted { what: halt.reason.clone() };
        }
        if self.slot(slot).reservation == Some(number) {
            return Reserved::Granted;
        }
        if let Some(limit) = self.exceeded_by(need, Need::default(), for_answer) {
            let what = format!("{limit} is used up");
            if !for_answer {
                self.halt(Halt { kind: HaltKind::Budget, reason: what.clone() }, false);
            }
            return Reserved::Exhausted { what };
        }
        // What others have reserved stands in the way for now.
        let others = combine(self.held, self.slot(slot).held, u64::saturating_sub);
        if let Some(limit) = self.exceeded_by(need, others, for_answer) {
            return Reserved::Busy { what: limit.to_owned() };
        }
        self.held = combine(others, *need, u64::saturating_add);
        let standing = self.slot(slot);
        standing.held = *need;
        standing.reservation = Some(number);
        Reserved::Granted
    }

    /// The first limit that does not leave room for `need` beside what is used and `held`. A part of the budget is there for the answer
    /// alone.
    fn exceeded_by(&self, need: &Need, held: Need, for_answer: bool) -> Option<&'static str> {
        let Budget { model_calls, tool_calls, tokens, cost_nanos } = self.new.rules.budget;
        let used = Need {
            model_calls: self.usage.model_calls,
            tool_calls: self.usage.tool_calls,
            tokens: self.usage.input_tokens + self.usage.output_tokens,
            cost_nanos: self.usage.cost_nanos,
        };
        let reserve = if for_answer { Need::default() } else { self.new.rules.reserve };
        let taken = combine(combine(used, held, u64::saturating_add), reserve, u64::saturating_add);
        let limits = [
            ("max_model_calls", model_calls, need.model_calls, taken.model_calls),
            ("max_tool_calls", tool_calls, need.tool_calls, taken.tool_calls),
            ("max_tokens", tokens, need.tokens, taken.tokens),
            ("max_cost", cost_nanos, need.cost_nanos, taken.cost_nanos),
        ];
        let too_little = |most: Option<u64>, need: u64, taken: u64| most.is_some_and(|most| need > most.saturating_sub(taken));
        limits.into_iter().find(|(_, most, need, taken)| too_little(*most, *need, *taken)).map(|(name, ..)| name)
    }
}

fn combine(a: Need, b: Need, with: fn(u64, u64) -> u64) -> Need {
    Need {
        model_calls: with(a.model_calls, b.model_calls),
        tool_calls: with(a.tool_calls, b.tool_calls),
        tokens: with(a.tokens, b.tokens),
        cost_nanos: with(a.cost_nanos, b.cost_nanos),
    }
}
