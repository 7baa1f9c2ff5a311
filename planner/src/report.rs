//! A `reports` message: a step ended, and others became ready or the plan is to be looked at again.

use common::broker::Envelope;
use common::message::{self, ReportMessage};
use common::worker::Outcome;

use crate::{Planner, dispatch};

/// Handles one message of the reports queue.
pub async fn handle(planner: &Planner, envelope: &Envelope) -> Outcome {
    let report: ReportMessage = match message::parse(&envelope.body) {
        Ok(report) => report,
        Err(refusal) => return Outcome::Park { why: refusal.to_string() },
    };
    let token = &envelope.message_id;
    match dispatch::dispatch(planner, envelope.traceparent.as_deref(), &report.run_id, token).await {
        Ok(()) => Outcome::Done,
        Err(error) => error.into(),
    }
}
