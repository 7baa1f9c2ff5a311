//! The gauges over all that goes on: every live run is looked at, now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use common::broker::PublishError;
use common::env::Env;
use common::limits::{CENSUS_INTERVAL, CENSUS_PARALLEL, CENSUS_RUNS_MAX, STUCK_AFTER};
use common::message::Queue;
use common::metrics::{Census, Fleet};
use common::run::RunStatus;
use common::store::{Pulse, StoreError};
use futures::{StreamExt, stream};
use tracing::warn;

/// Measures for ever. `step_timeout`: how long a run may be quiet because one of its steps runs.
pub(crate) async fn keep(env: &Env, fleet: &Fleet, step_timeout: Duration) {
    let stuck_after = STUCK_AFTER.max(step_timeout + STUCK_AFTER / 3);
    loop {
        match take(env, stuck_after).await {
            Ok(census) => fleet.show(&census),
            // The gauges keep what they show; their age tells.
            Err(why) => warn!("what goes on cannot be measured: {why}"),
        }
        tokio::time::sleep(CENSUS_INTERVAL).await;
    }
}

async fn take(env: &Env, stuck_after: Duration) -> anyhow::Result<Census> {
    let mut queues = Vec::new();
    for queue in Queue::ALL {
        match env.broker.look(queue).await {
            Ok(look) => queues.push((queue, look)),
            // What can be measured is measured: somebody has deleted it.
            Err(PublishError::Unroutable(_)) => {}
            Err(error @ PublishError::Unconfirmed(_)) => return Err(error.into()),
        }
    }
    let live = env.store.live(CENSUS_RUNS_MAX).await?;
    let pulses = stream::iter(&live.runs).map(|run| env.store.pulse(run)).buffer_unordered(CENSUS_PARALLEL);
    let pulses: Vec<_> = pulses.collect().await;
    // A run that a newer release has written, or that makes no sense, cannot be looked at by this one: it counts as that.
    let unseen = |pulse: &Result<_, StoreError>| matches!(pulse, Err(StoreError::Newer { .. } | StoreError::Unusable(_)));
    let (unseen, pulses): (Vec<_>, Vec<_>) = pulses.into_iter().partition(unseen);
    let pulses = pulses.into_iter().collect::<Result<Vec<_>, _>>()?;
    let not_looked_at = live.count.saturating_sub(live.runs.len() as u64) + unseen.len() as u64;
    let dead_letters = env.store.dead_letter_count().await?;
    let late = Duration::from_millis(live.late_ms);
    Ok(Census { late, queues, dead_letters, ..count(pulses.into_iter().flatten(), not_looked_at, stuck_after) })
}

/// What many runs come to. Pure.
fn count(pulses: impl Iterator<Item = Pulse>, not_looked_at: u64, stuck_after: Duration) -> Census {
    let mut census = Census { live: BTreeMap::from([(None, not_looked_at)]), ..Census::default() };
    for pulse in pulses {
        // A hint may outlive its run for a moment.
        if pulse.status.is_final() {
            continue;
        }
        *census.live.entry(Some(pulse.status)).or_default() += 1;
        census.backlog = census.backlog.max(Duration::from_millis(pulse.unclaimed_ms));
        let for_a_person = matches!(pulse.status, RunStatus::AwaitingApproval | RunStatus::Paused);
        census.stuck += u64::from(!for_a_person && Duration::from_millis(pulse.quiet_ms) > stuck_after);
    }
    census
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_by_what_they_do() {
        let pulse = |status, quiet_ms, unclaimed_ms| Pulse { status, quiet_ms, unclaimed_ms };
        let pulses = [
            pulse(RunStatus::Running, 10, 700),
            pulse(RunStatus::Running, 60_001, 0),
            pulse(RunStatus::Planning, 60_000, 300),
            pulse(RunStatus::Paused, 900_000, 0),
            pulse(RunStatus::AwaitingApproval, 900_000, 0),
            pulse(RunStatus::Succeeded, 900_000, 900_000),
        ];
        let census = count(pulses.into_iter(), 3, Duration::from_secs(60));
        let live = [
            (None, 3),
            (Some(RunStatus::Planning), 1),
            (Some(RunStatus::AwaitingApproval), 1),
            (Some(RunStatus::Running), 2),
            (Some(RunStatus::Paused), 1),
        ];
        assert_eq!((census.live, census.stuck), (BTreeMap::from(live), 1));
        assert_eq!(census.backlog, Duration::from_millis(700));
    }
}
