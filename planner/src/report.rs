//! A `reports` message: a step ended and others became ready, or a wake-up found something owed.

use common::broker::Envelope;
use common::message::{self, ReportMessage};
use common::worker::Outcome;

use crate::{Planner, dispatch, planning};

/// Handles one message of the reports queue.
pub async fn handle(planner: &Planner, envelope: &Envelope) -> Outcome {
    let report: ReportMessage = match message::parse(&envelope.body) {
        Ok(report) => report,
        Err(refusal) => return Outcome::Park { why: refusal.to_string() },
    };
    let token = &envelope.message_id;
    let done = match report.outcome {
        Some(_step_ended) => dispatch::dispatch(planner, &report.run_id, token).await.map(|()| Outcome::Done),
        None => planning::plan_and_dispatch(planner, &report.run_id, token).await,
    };
    done.unwrap_or_else(|error| Outcome::Park { why: error.to_string() })
}
