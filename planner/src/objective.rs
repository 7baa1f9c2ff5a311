//! An `objectives` message: open the run, plan it, dispatch its first steps.

use std::time::Duration;

use common::broker::{Envelope, Target, backoff};
use common::id::{BadRunId, RunId};
use common::limits::{ANSWER_TOKENS_RESERVE, DEADLINE_RESERVE_MAX, HANDLE_BACKOFF_MAX, RETRY_BACKOFF_MIN};
use common::message::{self, Approve, ObjectiveMessage, Options, Queue, Respond};
use common::meter::Need;
use common::recorded;
use common::relay;
use common::run::Budget;
use common::store::{ApprovalRule, NewRun, Opened, RunRules, Snapshot, StoreError};
use common::telemetry::{self, spans::Arrival};
use common::worker::Outcome;
use tracing::{info, warn};

use crate::Planner;
use crate::planning;

/// Handles one message of the objectives queue.
pub async fn handle(planner: &Planner, envelope: &Envelope, redelivered: bool) -> Outcome {
    let arrival = planner.env.traces.arrival();
    let mut message: ObjectiveMessage = match message::parse(&envelope.body) {
        Ok(message) => message,
        Err(refusal) => return Outcome::Park { why: refusal.to_string() },
    };
    let run = match name(envelope, &mut message) {
        Ok(Some(run)) => run,
        Ok(None) => {
            stamp(planner, envelope, message).await;
            return Outcome::Done;
        }
        Err(bad) => return Outcome::Park { why: format!("message_id is taken as run_id: {bad}") },
    };
    match open_and_plan(planner, envelope, &run, &message, redelivered, arrival).await {
        Ok(outcome) => outcome,
        Err(error) => error.into(),
    }
}

/// The run that a message names, by its body or its id; taken out of the body.
pub(crate) fn name(envelope: &Envelope, message: &mut ObjectiveMessage) -> Result<Option<RunId>, BadRunId> {
    match (message.run_id.take(), envelope.message_id.as_str()) {
        (Some(run), _) => Ok(Some(run)),
        (None, "") => Ok(None),
        (None, id) => RunId::parse(id).map(Some),
    }
}

/// Publishes the objective again with an id, so that a redelivery of it cannot make a second run.
pub(crate) async fn stamp(planner: &Planner, envelope: &Envelope, mut message: ObjectiveMessage) {
    let env = &planner.env;
    let run = env.ids.run_id(env.clock.now_ms());
    message.run_id = Some(run.clone());
    let stamped = Envelope {
        message_id: run.to_string(),
        kind: "objective".to_owned(),
        body: serde_json::to_vec(&message).unwrap_or_default(),
        // It may be a dead letter that gets another life.
        reason: None,
        origin: None,
        returned: false,
        ..envelope.clone()
    };
    // The id is drawn once: a try whose confirm was lost and the next one are the same run.
    let mut tries = 0;
    while let Err(error) = env.broker.publish(Target::Queue(Queue::Objectives), stamped.clone()).await {
        let wait = backoff(tries, RETRY_BACKOFF_MIN, HANDLE_BACKOFF_MAX, env.ids.fraction());
        env.metrics.publishing_again();
        warn!(run_id = %run, "run {run}: objective not confirmed, publishing again in {wait:?}: {error}");
        tokio::time::sleep(wait).await;
        tries += 1;
    }
}

async fn open_and_plan(
    planner: &Planner,
    envelope: &Envelope,
    run: &RunId,
    message: &ObjectiveMessage,
    redelivered: bool,
    arrival: Arrival,
) -> Result<Outcome, StoreError> {
    let Some(Live { trace }) = open(planner, envelope, run, message, redelivered).await? else { return Ok(Outcome::Done) };
    let trace = trace.as_deref();
    let span = planner.env.traces.handling((Queue::Objectives, envelope, arrival), run, None, trace);
    span.around(planning::plan_and_dispatch(planner, run, envelope, redelivered, trace)).await
}

/// A run that has not ended.
pub(crate) struct Live {
    /// What its messages carry.
    pub(crate) trace: Option<String>,
}

/// Opens the run that a message asks for, unless it exists; answers for one that has ended.
pub(crate) async fn open(
    planner: &Planner,
    envelope: &Envelope,
    run: &RunId,
    message: &ObjectiveMessage,
    redelivered: bool,
) -> Result<Option<Live>, StoreError> {
    let env = &planner.env;
    let new = new_run(planner, envelope, run, message);
    match recorded!(env, env.store.open_run(run, &new))? {
        Opened::Created => {
            env.metrics.run_opened();
            let trace = env.traces.of_run(run, new.traceparent.as_deref());
            telemetry::about(run, None, trace.as_deref());
            info!("run {run}: opened");
            Ok(Some(Live { trace }))
        }
        Opened::Exists(status) if status.is_final() => {
            // A plan that is owed does not ask for an answer; but the delivery before this one may have died before its reply.
            if redelivered || envelope.kind != relay::PLAN_OWED {
                answer(planner, envelope, run).await?;
            }
            Ok(None)
        }
        // The first submission's trace is the run's.
        Opened::Exists(_live) => Ok(Some(Live { trace: relay::trace(env, run).await? })),
    }
}

/// Asked again: whoever waits for this reply gets the answer that there is.
async fn answer(planner: &Planner, envelope: &Envelope, run: &RunId) -> Result<(), StoreError> {
    let env = &planner.env;
    if let Some(snapshot) = recorded!(env, env.store.snapshot(run))?
        && let Some(document) = recorded!(env, env.store.result(run))?
    {
        let (reply_to, correlation_id) = (envelope.reply_to.clone(), envelope.correlation_id.clone());
        relay::reply(env, run, &Snapshot { reply_to, correlation_id, ..snapshot }, document).await;
    }
    Ok(())
}

/// The run that a message asks for.
fn new_run(planner: &Planner, envelope: &Envelope, run: &RunId, message: &ObjectiveMessage) -> NewRun {
    let allowed = planner.config.parallel_steps;
    let env = &planner.env;
    NewRun {
        request: serde_json::to_string(message).unwrap_or_default(),
        objective: message.objective.clone(),
        window: message.options.max_parallel_steps.unwrap_or(allowed).clamp(1, allowed),
        reply_to: envelope.reply_to.clone(),
        correlation_id: envelope.correlation_id.clone(),
        traceparent: env.traces.begin_run(run, envelope.traceparent.as_deref(), &env.ids),
        rules: rules(planner, &message.options),
    }
}

/// What the submitter asks for, within what the deployment allows.
fn rules(planner: &Planner, options: &Options) -> RunRules {
    let allowed = &planner.config;
    let timeout = options.approval_timeout_secs.map_or(allowed.approval.timeout, Duration::from_secs);
    let budget = Budget {
        model_calls: options.max_model_calls,
        tool_calls: options.max_tool_calls,
        tokens: options.max_tokens,
        cost_nanos: options.max_cost.map(|cost| (cost * 1e9).round() as u64),
    };
    let part = |limit: Option<u64>| limit.unwrap_or(0) / 5;
    let reserve = match options.respond {
        Respond::Results => Need::default(),
        Respond::Answer => Need {
            model_calls: 1,
            tool_calls: 0,
            tokens: part(budget.tokens).min(ANSWER_TOKENS_RESERVE),
            cost_nanos: part(budget.cost_nanos),
        },
    };
    RunRules {
        replan: options.replan,
        max_replans: options.max_replans.unwrap_or(allowed.max_replans).min(allowed.max_replans),
        approval: options.approve.map(|Approve::Plan| ApprovalRule { timeout, ..allowed.approval }),
        deadline: options.deadline_secs.map(Duration::from_secs).map(|all| all - (all / 10).min(DEADLINE_RESERVE_MAX)),
        budget,
        reserve,
    }
}
