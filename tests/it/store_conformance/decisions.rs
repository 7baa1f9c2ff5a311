//! Plans that are looked at again: what waits for the decision, what each decision does, and that there is one.

use super::*;

use StepState::{Cancelled, Dispatched, Failed, Ready, Skipped, Succeeded, Waiting};

/// 1 fails, 2 depends on it, 3 is done, 4 depends on both 2 and 3.
const DIAMOND: Edges<'static> = &[(1, &[]), (2, &[1]), (3, &[]), (4, &[2, 3])];

/// The diamond after step 1 has failed and 3 is done; gives the epoch of the planner that looks at it.
async fn failed(bench: &Bench, rules: RunRules) -> u64 {
    bench.planned_with(8, rules, DIAMOND).await;
    bench.take("t1").await;
    bench.done(3, Outcome::Succeeded).await;
    assert_eq!(bench.done(1, Outcome::Failed).await, Owed::Planner);
    bench.hold(Slot::Plan, "report").await.epoch
}

#[tokio::test]
async fn what_waits_for_a_failed_step_waits_for_the_decision() {
    on_both(async |bench| {
        bench.planned_with(8, replans(1), DIAMOND).await;
        bench.take("t1").await;
        assert_eq!(bench.done(1, Outcome::Failed).await, Owed::Planner);
        assert_eq!(bench.states().await, [Failed, Waiting, Dispatched, Waiting]);
        assert_eq!(bench.done(3, Outcome::Succeeded).await, Owed::Nothing, "the run is not drained: the plan is owed");
        let snapshot = bench.store.snapshot(&bench.run).await.unwrap().unwrap();
        assert_eq!((snapshot.news, snapshot.replans_left), (numbers(&[1]), 1));
        let taken = bench.store.take_ready(&bench.run, "t2").await.unwrap();
        assert!(taken.plan && taken.steps.is_empty(), "whoever dispatches is told that the plan is owed");
        assert!(!bench.store.take_ready(&bench.run, "t3").await.unwrap().plan, "once");
        assert!(bench.store.take_ready(&bench.run, "t2").await.unwrap().plan, "the same one again");
    })
    .await;
}

#[tokio::test]
async fn a_patch_replaces_what_failed_and_keeps_what_is_done() {
    on_both(async |bench| {
        let epoch = failed(bench, replans(2)).await;
        let patch = revision(&[(2, &[5]), (3, &[]), (4, &[2, 3]), (5, &[])], &[2, 5], &[1]);
        assert_eq!(bench.put(epoch, 1, &patch, &[1]).await, Put::Stored(Owed::Planner));
        assert_eq!(bench.put(epoch, 1, &patch, &[1]).await, Put::Stored(Owed::Planner), "repeated call");
        assert_eq!(bench.states().await, [Waiting, Succeeded, Waiting, Ready]);
        let snapshot = bench.store.snapshot(&bench.run).await.unwrap().unwrap();
        assert_eq!((snapshot.view.revision, snapshot.replans_left, snapshot.news.len()), (2, 1, 0));
        let superseded = &snapshot.view.superseded;
        assert_eq!((superseded.len(), superseded[0].state), (1, Failed), "what failed can still be read");
        assert_eq!(bench.take("t2").await, [5]);
        assert_eq!(bench.done(5, Outcome::Succeeded).await, Owed::Planner);
        assert_eq!(bench.take("t3").await, [2]);
        assert_eq!(bench.done(2, Outcome::Succeeded).await, Owed::Planner);
        assert_eq!(bench.take("t4").await, [4]);
        let claim = bench.hold(step(4), "m4").await;
        let inputs: Vec<_> = claim.inputs.iter().map(|input| (input.step_number.0, input.result.clone())).collect();
        assert_eq!(inputs, [(2, json!({"of": 2})), (3, json!({"of": 3}))]);
        assert_eq!(bench.report(4, claim.epoch, Outcome::Succeeded).await, Reported::Recorded(Owed::Summary));
    })
    .await;
}

#[tokio::test]
async fn a_patch_takes_a_running_step_from_its_holder() {
    on_both(async |bench| {
        bench.planned_with(8, replans(1), &[(1, &[]), (2, &[])]).await;
        bench.take("t1").await;
        let dropped = bench.hold(step(2), "m2").await.epoch;
        assert_eq!(bench.done(1, Outcome::Failed).await, Owed::Planner);
        let epoch = bench.hold(Slot::Plan, "report").await.epoch;
        assert_eq!(bench.put(epoch, 1, &revision(&[(3, &[])], &[3], &[1, 2]), &[1]).await, Put::Stored(Owed::Planner));
        assert_eq!(bench.store.renew(&bench.run, step(2), dropped, LEASE).await.unwrap(), Held::Lost);
        assert_eq!(bench.report(2, dropped, Outcome::Succeeded).await, Reported::Stale);
        let states: Vec<_> = bench.view().await.superseded.iter().map(|step| step.state).collect();
        assert_eq!(states, [Failed, Cancelled]);
    })
    .await;
}

#[tokio::test]
async fn of_two_decisions_one_stands() {
    on_both(async |bench| {
        let first = failed(bench, replans(2)).await;
        bench.pass(LEASE);
        let second = bench.hold(Slot::Plan, "another").await.epoch;
        let one = revision(&[(2, &[5]), (3, &[]), (4, &[2, 3]), (5, &[])], &[2, 5], &[1]);
        let other = revision(&[(2, &[6]), (3, &[]), (4, &[2, 3]), (6, &[])], &[2, 6], &[1]);
        assert_eq!(bench.put(first, 1, &one, &[1]).await, Put::Lost, "its lease went to another planner");
        assert_eq!(bench.keep(first, &[1], true).await.0, Held::Lost);
        assert_eq!(bench.put(second, 1, &other, &[1]).await, Put::Stored(Owed::Planner));
        assert_eq!(bench.put(first, 1, &one, &[1]).await, Put::Lost);
        assert_eq!((bench.view().await.revision, bench.count(EventType::ReplanOwed).await), (2, 1));
    })
    .await;
}

#[tokio::test]
async fn a_patch_of_a_step_that_has_moved_changes_nothing() {
    on_both(async |bench| {
        bench.planned_with(8, replans(2), &[(1, &[]), (2, &[]), (3, &[2])]).await;
        bench.take("t1").await;
        bench.done(1, Outcome::Failed).await;
        let epoch = bench.hold(Slot::Plan, "report").await.epoch;
        let retires = revision(&[(3, &[4]), (4, &[])], &[3, 4], &[1, 2]);
        let refines = revision(&[(2, &[]), (3, &[4]), (4, &[])], &[3, 4], &[1]);
        bench.done(2, Outcome::Succeeded).await;
        assert_eq!(bench.put(epoch, 1, &retires, &[1]).await, Put::Moved, "step 2 has succeeded");
        bench.take("t2").await;
        assert_eq!(bench.put(epoch, 1, &refines, &[1]).await, Put::Moved, "step 3 is dispatched");
        let view = bench.view().await;
        assert_eq!((view.revision, view.steps.len()), (1, 3));
        assert_eq!(bench.keep(epoch, &[1], true).await, (Held::Kept, Owed::Nothing), "the planner still holds the slot");
    })
    .await;
}

#[tokio::test]
async fn out_of_re_plans_what_waits_is_skipped() {
    on_both(async |bench| {
        let epoch = failed(bench, replans(1)).await;
        let patch = revision(&[(2, &[5]), (3, &[]), (4, &[2, 3]), (5, &[])], &[2, 5], &[1]);
        bench.put(epoch, 1, &patch, &[1]).await;
        bench.take("t2").await;
        assert_eq!(bench.done(5, Outcome::Failed).await, Owed::Summary, "nobody is asked any more");
        assert_eq!(bench.states().await, [Skipped, Succeeded, Skipped, Failed]);
    })
    .await;
}

#[tokio::test]
async fn a_failure_during_the_decision_asks_for_another_one() {
    on_both(async |bench| {
        bench.planned_with(8, replans(2), &[(1, &[]), (2, &[]), (3, &[1]), (4, &[2])]).await;
        bench.take("t1").await;
        bench.done(1, Outcome::Failed).await;
        let epoch = bench.hold(Slot::Plan, "report").await.epoch;
        assert_eq!(bench.done(2, Outcome::Failed).await, Owed::Nothing, "somebody is at it already");
        assert_eq!(bench.keep(epoch, &[1], true).await, (Held::Kept, Owed::Planner));
        assert_eq!(bench.states().await, [Failed, Failed, Skipped, Waiting]);
        let again = bench.hold(Slot::Plan, "again").await.epoch;
        assert!(again > epoch);
        assert_eq!(bench.keep(again, &[2], true).await, (Held::Kept, Owed::Summary));
        assert_eq!(bench.keep(again, &[2], true).await, (Held::Kept, Owed::Summary), "repeated call");
        assert_eq!(bench.count(EventType::ReplanOwed).await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_step_that_runs_anyway_gets_the_error() {
    on_both(async |bench| {
        assert_eq!(bench.open_with(8, replans(1)).await, Opened::Created);
        let epoch = bench.hold(Slot::Plan, "objective").await.epoch;
        let mut plan = plan(&[(1, &[]), (2, &[1]), (3, &[1, 2])]);
        plan.steps[2].on_failed_dependency = OnFailedDependency::RunAnyway;
        bench.put(epoch, 0, &Revision::first(plan), &[]).await;
        bench.take("t1").await;
        assert_eq!(bench.done(1, Outcome::Failed).await, Owed::Planner);
        let epoch = bench.hold(Slot::Plan, "report").await.epoch;
        assert_eq!(bench.keep(epoch, &[1], true).await, (Held::Kept, Owed::Planner));
        assert_eq!(bench.states().await, [Failed, Skipped, Ready]);
        assert_eq!(bench.take("t2").await, [3]);
        let claim = bench.hold(step(3), "m3").await;
        let inputs: Vec<_> = claim.inputs.iter().map(|input| (input.outcome, input.error.as_deref())).collect();
        assert_eq!(inputs, [(Outcome::Failed, Some("1 is broken")), (Outcome::Skipped, Some("step 1 did not succeed"))]);
    })
    .await;
}

/// A refined step that runs anyway has a count from before: a step skipped in front of it must not use that up.
#[tokio::test]
async fn placed_steps_are_counted_before_any_is_told() {
    on_both(async |bench| {
        bench.planned_with(8, replans(3), &[(1, &[]), (2, &[]), (3, &[]), (4, &[2]), (5, &[2])]).await;
        bench.take("t1").await;
        bench.done(1, Outcome::Failed).await;
        let epoch = bench.hold(Slot::Plan, "r1").await.epoch;
        bench.keep(epoch, &[1], true).await;
        bench.done(3, Outcome::Failed).await;
        let epoch = bench.hold(Slot::Plan, "r2").await.epoch;
        let mut patch = revision(&[(1, &[]), (2, &[]), (4, &[1, 2]), (5, &[2, 4])], &[4, 5], &[3]);
        for step in patch.put.iter_mut().chain(&mut patch.plan.steps).filter(|step| step.step_number.0 == 5) {
            step.on_failed_dependency = OnFailedDependency::RunAnyway;
        }
        assert_eq!(bench.put(epoch, 1, &patch, &[3]).await, Put::Stored(Owed::Nothing));
        assert_eq!(bench.states().await, [Failed, Dispatched, Skipped, Waiting], "5 waits for 2");
        assert_eq!(bench.done(2, Outcome::Succeeded).await, Owed::Planner);
        assert_eq!(bench.take("t2").await, [5]);
    })
    .await;
}

#[tokio::test]
async fn after_each_step_nothing_starts_until_it_is_decided() {
    on_both(async |bench| {
        let rules = RunRules { replan: ReplanPolicy::AfterEachStep, max_replans: 5, ..RunRules::default() };
        bench.planned_with(8, rules, &[(1, &[]), (2, &[]), (3, &[1])]).await;
        assert_eq!(bench.take("t1").await, [1, 2]);
        assert_eq!(bench.done(1, Outcome::Succeeded).await, Owed::Planner);
        assert_eq!(bench.take("t2").await, [0u32; 0], "step 3 is ready, and is to be looked at first");
        assert!(matches!(bench.store.advance(&bench.run).await.unwrap(), Advance::Live { dispatch: false, .. }));
        let epoch = bench.hold(Slot::Plan, "report").await.epoch;
        assert_eq!(bench.keep(epoch, &[1], false).await, (Held::Kept, Owed::Planner), "what was held up is to be dispatched");
        assert_eq!(bench.take("t3").await, [3]);
        assert_eq!(bench.done(2, Outcome::Succeeded).await, Owed::Planner);
        let epoch = bench.hold(Slot::Plan, "report2").await.epoch;
        // The objective is reached early: the rest of the plan is dropped.
        let reached = revision(&[(1, &[]), (2, &[])], &[], &[3]);
        assert_eq!(bench.put(epoch, 1, &reached, &[2]).await, Put::Stored(Owed::Summary));
    })
    .await;
}
