//! A `reports` message: a step ended, and others became ready or the plan is to be looked at again.

use common::broker::Envelope;
use common::message::{self, Queue, ReportMessage};
use common::worker::Outcome;

use crate::{Planner, dispatch};

/// Handles one message of the reports queue.
pub async fn handle(planner: &Planner, envelope: &Envelope) -> Outcome {
    let arrival = planner.env.traces.arrival();
    let report: ReportMessage = match message::parse(&envelope.body) {
        Ok(report) => report,
        Err(refusal) => return Outcome::Park { why: refusal.to_string() },
    };
    let (token, run, trace) = (&envelope.message_id, &report.run_id, envelope.traceparent.as_deref());
    let span = planner.env.traces.handling((Queue::Reports, envelope, arrival), run, Some(report.step_number), trace);
    match span.around(dispatch::dispatch(planner, trace, run, token)).await {
        Ok(()) => Outcome::Done,
        Err(error) => error.into(),
    }
}
