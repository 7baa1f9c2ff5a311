//! What the verbs are given and what they answer.

use std::time::Duration;

use crate::event::EventDraft;
use crate::id::{RunId, Slot, StepNumber};
use crate::llm::ModelCall;
use crate::message::{Answer, Command, ReplanPolicy};
use crate::meter::Need;
use crate::plan::{Plan, Step};
use crate::run::{Budget, RunStatus, RunView, StepInput, StepState, Usage};

/// What the planner knows of a new run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// The objective message as JSON, kept for planning again.
    pub request: String,
    /// The objective itself.
    pub objective: String,
    /// Steps in flight at once.
    pub window: u32,
    /// Where the result document is to be published, if anywhere.
    pub reply_to: Option<String>,
    /// What it is to carry then.
    pub correlation_id: Option<String>,
    /// The W3C trace context that the run hangs under: of the submission, or the one that the planner began.
    pub traceparent: Option<String>,
    /// What it may do and use.
    pub rules: RunRules,
}

/// What a run may do and use. Without: no re-plan, no approval, no deadline, no budget.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunRules {
    /// When the planner looks at the plan again.
    pub replan: ReplanPolicy,
    /// How often the plan may be revised.
    pub max_replans: u32,
    /// Whether the plan waits for approval.
    pub approval: Option<ApprovalRule>,
    /// How long steps may run, from the opening of the run.
    pub deadline: Option<Duration>,
    /// What it may use.
    pub budget: Budget,
    /// The part of it that only the answer may use.
    pub reserve: Need,
}

/// How a plan waits for approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalRule {
    /// How long.
    pub timeout: Duration,
    /// What is done then.
    pub otherwise: ApprovalTimeout,
}

/// What is done with a plan that nobody has decided on in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ApprovalTimeout {
    /// The run is cancelled.
    #[default]
    Cancel,
    /// It runs.
    Approve,
}

impl ApprovalTimeout {
    /// The action as it stands in Redis and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            ApprovalTimeout::Cancel => "cancel",
            ApprovalTimeout::Approve => "approve",
        }
    }
}

/// The answer of [`Store::open_run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// There was no such run before.
    Created,
    /// There was, and it stands like this.
    Exists(RunStatus),
}

/// Who claims a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest<'a> {
    /// The slot.
    pub slot: Slot,
    /// The message in hand.
    pub message_id: &'a str,
    /// Whether the broker has handed that message out before: then it takes the slot over from its own earlier holder.
    pub redelivered: bool,
    /// Unique to this claim, so that repeating it is not a second claim.
    pub nonce: &'a str,
    /// The attempt that the message starts, for steps.
    pub attempt: Option<u32>,
    /// How long the claim holds.
    pub lease: Duration,
    /// The claiming process.
    pub worker: &'a str,
}

/// The answer of [`Store::claim`].
#[derive(Debug, Clone, PartialEq)]
pub enum Claimed {
    /// The slot is the caller's until the lease ends.
    Execute(Box<Claim>),
    /// The same, but the slot has ended so many holders that it must be closed instead.
    Poisoned(Box<Claim>),
    /// The slot has ended.
    Done {
        /// What its last holder may still have owed.
        owed: Owed,
        /// How it ended.
        state: StepState,
    },
    /// Another message's holder runs it.
    Duplicate {
        /// The holder.
        worker: String,
    },
    /// The message means nothing any more.
    Stale {
        /// Why.
        why: String,
    },
    /// The run has ended.
    Finished(RunStatus),
}

/// A slot in hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The fencing epoch: every write for the slot names it.
    pub epoch: u64,
    /// The attempt, from 1.
    pub attempt: u32,
    /// How often this slot has been parked.
    pub parks: u32,
    /// For the plan: the objective message as JSON. Else the objective.
    pub text: String,
    /// What the run may use.
    pub budget: Budget,
    /// The step, if the slot is one.
    pub step: Option<Step>,
    /// The turns that were journaled, as JSON, in order.
    pub journal: Vec<String>,
    /// What the step's dependencies produced.
    pub inputs: Vec<StepInput>,
}

/// Who must act next on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// Nobody because of this.
    Nothing,
    /// The planner: steps are ready.
    Planner,
    /// The summarizer: every step has reported.
    Summary,
}

/// The answer of verbs that only the holder may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The caller still holds the slot; the verb was done.
    Kept,
    /// Somebody else holds it, or nobody; nothing was done.
    Lost,
    /// The run has ended; nothing was done.
    Ended,
}

/// A step that is to be published now.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// The revision of the plan.
    pub revision: u32,
    /// The attempt that the message starts.
    pub attempt: u32,
    /// The step.
    pub step: Step,
}

/// The answer of [`Store::take_ready`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Taken {
    /// The steps that are to be published now.
    pub steps: Vec<Dispatch>,
    /// Whether the plan is owed: somebody has to ask for it.
    pub plan: bool,
}

/// The answer of [`Store::put_plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The revision is stored.
    Stored(Owed),
    /// There is that revision already, or the caller lost the slot; nothing was done.
    Lost,
    /// A step that the revision changes has started or ended since the caller looked; nothing was done.
    Moved,
}

/// The answer of [`Store::reserve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// The call may be made.
    Granted,
    /// Not now: calls under way have reserved what is left, and may give some of it back.
    Busy {
        /// Which limit.
        what: String,
    },
    /// It may not, and the run ends with what there is.
    Exhausted {
        /// Which limit, in words.
        what: String,
    },
    /// Somebody else holds the slot, or nobody, or the run has ended.
    Lost,
}

/// What somebody wants of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Control<'a> {
    /// The message's id: the same again is the same command.
    pub id: &'a str,
    /// What is wanted.
    pub command: Command,
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// For `reject`: the feedback. For `edit`: the checked plan as JSON.
    pub text: &'a str,
    /// The revision that was looked at, if said.
    pub revision: Option<u32>,
    /// The feedback, cut, for the audit trail.
    pub feedback: &'a str,
    /// Why it cannot be done wherever the run stands (an edited plan that the validator refuses); empty if it can.
    pub refused: &'a str,
}

/// The answer of [`Store::control`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controlled {
    /// Whether it was done.
    pub answer: Answer,
    /// What was decided, in one sentence.
    pub message: String,
    /// Where the run stands now; `None` when there is no such run.
    pub status: Option<RunStatus>,
    /// The plan is to be made.
    pub plan: bool,
    /// Ready steps are to be dispatched.
    pub dispatch: bool,
    /// The answer is to be written.
    pub summary: bool,
}

impl Controlled {
    /// The answer where there is no run to do it with.
    pub(super) fn no_such_run() -> Self {
        let message = "there is no such run".to_owned();
        Self { answer: Answer::Refused, message, status: None, plan: false, dispatch: false, summary: false }
    }
}

/// What a verb adds to the run beside its own effect.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Account {
    /// What was used and is not recorded yet.
    pub usage: Usage,
    /// Entries for the audit trail.
    pub events: Vec<EventDraft>,
}

impl Account {
    /// Adds answered requests to a model.
    pub fn add(&mut self, calls: &[ModelCall], purpose: &str) {
        for call in calls {
            self.usage += call.usage;
            self.events.push(call.event(purpose));
        }
    }
}

/// The answer of [`Store::report`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// The outcome is recorded (now, or when the same call was made before).
    Recorded(Owed),
    /// The caller is not the holder any more; nothing was recorded.
    Stale,
    /// The run has ended; nothing was recorded.
    Finished(RunStatus),
}

/// Whether a slot that is given back starts a new attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Again {
    /// It does: something failed.
    Retry,
    /// It does not: an endpoint asked for patience.
    Park,
    /// It does, and goes on from nothing but this entry of the journal: what was tried has failed.
    Anew(String),
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The final status.
    pub status: RunStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// The result document as JSON.
    pub document: String,
    /// How long the run is kept.
    pub retention: Duration,
}

/// The answer of [`Store::advance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// There is no such run, or it has ended.
    Gone,
    /// It is live.
    Live {
        /// When to look again at the latest.
        next_look: Duration,
        /// The plan is to be made.
        plan: bool,
        /// Ready steps are to be dispatched.
        dispatch: bool,
        /// The answer is to be written.
        summary: bool,
    },
}

/// The answer of [`Store::take_back`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenBack {
    /// There is no such run, or it has ended.
    Gone,
    /// Somebody works on the slot, or nobody needs to.
    Kept,
    /// The plan is to be made.
    Plan,
    /// Ready steps are to be dispatched.
    Dispatch,
    /// The answer is to be written.
    Summary,
    /// The slot's messages have died too often: whoever claims it now closes it.
    Poisoned,
}

/// Everything about one run at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What readers see.
    pub view: RunView,
    /// The current plan; without steps before the first.
    pub plan: Plan,
    /// Where the result document is to be published.
    pub reply_to: Option<String>,
    /// What it is to carry then.
    pub correlation_id: Option<String>,
    /// The W3C trace context that the run hangs under.
    pub traceparent: Option<String>,
    /// The objective message as JSON.
    pub request: String,
    /// Steps whose end asks for a decision of the planner.
    pub news: Vec<StepNumber>,
    /// When the planner looks at the plan again.
    pub replan: ReplanPolicy,
    /// How often the plan may still be revised.
    pub replans_left: u32,
    /// Every step that was ever in the plan and is not in it now, as it was planned.
    pub retired: Vec<Step>,
    /// What a person said who sent the current plan back.
    pub feedback: Option<String>,
    /// The plan as JSON that a person put in place of the current one.
    pub edited: Option<String>,
    /// How the plan waits for approval, if it has to.
    pub approval: Option<ApprovalRule>,
}

/// How a run does, for whoever watches many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Where it stands.
    pub status: RunStatus,
    /// Since the last entry of its audit trail, in milliseconds.
    pub quiet_ms: u64,
    /// How long the oldest of its messages that nobody has claimed has waited, in milliseconds; 0: there is none.
    pub unclaimed_ms: u64,
}

/// The runs that have not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// How many there are.
    pub count: u64,
    /// By how much the earliest wake-up is late, in milliseconds. More than some seconds: no planner looks.
    pub late_ms: u64,
    /// Some of them.
    pub runs: Vec<RunId>,
}

/// One line of a list of runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RunLine {
    /// The run.
    pub run_id: RunId,
    /// Where it stands; `Running` if a newer planrelay has written a word here that this one does not know.
    pub status: RunStatus,
    /// The version of its keys, if that is too new for this one: upgrade this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer_schema: Option<u32>,
    /// What was asked.
    pub objective: String,
    /// When it was opened, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
}
