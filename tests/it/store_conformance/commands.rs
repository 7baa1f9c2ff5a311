//! What the owner of a run wants: cancel, pause, resume, approve, reject, edit, retry. Decided once, and said.

use super::*;

use StepState::{Cancelled, Dispatched, Ready, Running, Succeeded, Waiting};

fn approval(otherwise: ApprovalTimeout) -> RunRules {
    let rule = ApprovalRule { timeout: Duration::from_secs(3600), otherwise };
    RunRules { approval: Some(rule), ..RunRules::default() }
}

fn said(controlled: &Controlled) -> (Answer, &str, Option<RunStatus>) {
    (controlled.answer, &controlled.message, controlled.status)
}

#[tokio::test]
async fn a_command_needs_a_run() {
    on_both(async |bench| {
        let nothing = bench.control("c", Command::Cancel).await;
        assert_eq!(said(&nothing), (Answer::Refused, "there is no such run", None));
        assert_eq!(bench.store.control_reply(&bench.run, "c").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn cancel_takes_everything_from_its_holders() {
    on_both(async |bench| {
        bench.planned(2, &[(1, &[]), (2, &[]), (3, &[]), (4, &[1])]).await;
        bench.take("t1").await;
        bench.done(2, Outcome::Succeeded).await;
        let held = bench.hold(step(1), "m1").await.epoch;
        let cancelled = bench.control("c1", Command::Cancel).await;
        assert_eq!(said(&cancelled), (Answer::Accepted, "the run is cancelled", Some(RunStatus::Summarizing)));
        assert!(cancelled.summary && !cancelled.plan && !cancelled.dispatch);
        assert_eq!(bench.states().await, [Cancelled, Succeeded, Cancelled, Cancelled]);

        let account = Account::default();
        assert_eq!(bench.store.renew(&bench.run, step(1), held, LEASE).await.unwrap(), Held::Lost);
        assert_eq!(bench.store.journal(&bench.run, step(1), held, 0, "{}", &account).await.unwrap(), Held::Lost);
        assert_eq!(bench.reserve(step(1), held, 0, Need { model_calls: 1, ..Need::default() }).await, Reserved::Lost);
        assert_eq!(bench.report(1, held, Outcome::Succeeded).await, Reported::Stale);
        let retried = bench.store.retry(&bench.run, step(1), held, Again::Retry, LEASE, &account).await.unwrap();
        assert_eq!(retried, (Held::Lost, Owed::Nothing));

        let again = bench.control("c1", Command::Cancel).await;
        assert_eq!(said(&again), said(&cancelled), "the same command");
        let second = bench.control("c2", Command::Cancel).await;
        assert_eq!((second.answer, &*second.message), (Answer::Repeated, "the run was cancelled before: cancelled by ann: so"));
        assert_eq!(bench.control("c3", Command::Pause).await.answer, Answer::Refused);
        let reply = bench.store.control_reply(&bench.run, "c2").await.unwrap().unwrap();
        assert_eq!((reply.answer, reply.message), (second.answer, second.message));
        assert_eq!(bench.count(EventType::Controlled).await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_run_never_changes() {
    on_both(async |bench| {
        bench.planned_with(2, replans(3), &[(1, &[]), (2, &[1])]).await;
        bench.take("t1").await;
        let worker = bench.hold(step(1), "m1").await.epoch;
        bench.control("c", Command::Cancel).await;
        assert_eq!(bench.end(RunStatus::Cancelled).await, Held::Kept);
        let before = bench.store.snapshot(&bench.run).await.unwrap();

        let (run, account) = (&bench.run, Account::default());
        bench.pass(Duration::from_secs(1));
        for command in Command::ALL {
            assert_ne!(bench.control(command.as_str(), command).await.answer, Answer::Accepted, "{command:?}");
        }
        for slot in [Slot::Plan, step(1), step(2), Slot::Summary] {
            assert_eq!(bench.claim(slot, "late", "late").await, Claimed::Finished(RunStatus::Cancelled));
            for epoch in 1..3 {
                bench.store.renew(run, slot, epoch, LEASE).await.unwrap();
                bench.store.release(run, slot, epoch).await.unwrap();
                bench.store.journal(run, slot, epoch, 0, "{}", &account).await.unwrap();
                bench.store.retry(run, slot, epoch, Again::Retry, LEASE, &account).await.unwrap();
                let halt = Halt { kind: HaltKind::Unreachable, reason: "late".into() };
                bench.store.halt(run, slot, epoch, &halt, &account).await.unwrap();
                bench.reserve(slot, epoch, 0, Need { tokens: 1, ..Need::default() }).await;
            }
            assert_eq!(bench.store.take_back(run, slot, "m1", "dead").await.unwrap(), TakenBack::Gone);
        }
        assert_eq!(bench.report(1, worker, Outcome::Succeeded).await, Reported::Finished(RunStatus::Cancelled));
        bench.put(1, 1, &Revision::first(plan(&[(7, &[])])), &[]).await;
        bench.keep(1, &[], true).await;
        assert_eq!(bench.take("late").await, [0u32; 0]);
        assert_eq!(bench.store.advance(run).await.unwrap(), Advance::Gone);
        assert_eq!(bench.open(4).await, Opened::Exists(RunStatus::Cancelled));
        assert_eq!(bench.store.snapshot(run).await.unwrap(), before);
    })
    .await;
}

#[tokio::test]
async fn cancel_takes_the_answer_from_its_writer() {
    on_both(async |bench| {
        bench.planned(2, &[(1, &[])]).await;
        bench.take("t1").await;
        bench.done(1, Outcome::Succeeded).await;
        let writer = bench.hold(Slot::Summary, "c1").await.epoch;
        let cancelled = bench.control("c", Command::Cancel).await;
        assert!(cancelled.summary && cancelled.answer == Answer::Accepted);
        assert_eq!(bench.store.renew(&bench.run, Slot::Summary, writer, LEASE).await.unwrap(), Held::Lost);
        let late = bench.store.finish(&bench.run, Slot::Summary, writer, &end(RunStatus::Succeeded), &Account::default()).await;
        assert_eq!(late.unwrap(), Held::Lost);
        assert_eq!(bench.end(RunStatus::Cancelled).await, Held::Kept);
        let view = bench.view().await;
        assert_eq!((view.status, view.steps[0].state), (RunStatus::Cancelled, Succeeded));
    })
    .await;
}

#[tokio::test]
async fn nothing_starts_in_a_paused_run_and_what_runs_goes_on() {
    on_both(async |bench| {
        bench.planned(2, &[(1, &[]), (2, &[]), (3, &[1])]).await;
        bench.take("t1").await;
        let running = bench.hold(step(1), "m1").await.epoch;
        assert_eq!(bench.control("c1", Command::Resume).await.answer, Answer::Refused);
        let paused = bench.control("c2", Command::Pause).await;
        assert_eq!((paused.answer, paused.status), (Answer::Accepted, Some(RunStatus::Paused)));
        assert_eq!(bench.control("c3", Command::Pause).await.answer, Answer::Repeated);

        assert_eq!(bench.claim(step(2), "m2", "n2").await, Claimed::Stale { why: "the run is paused".into() });
        assert_eq!(bench.states().await, [Running, Ready, Waiting], "its message is gone, it waits to be dispatched");
        assert_eq!(bench.store.renew(&bench.run, step(1), running, LEASE).await.unwrap(), Held::Kept);
        bench.report(1, running, Outcome::Succeeded).await;
        assert_eq!(bench.take("t2").await, [0u32; 0]);
        assert!(matches!(bench.store.advance(&bench.run).await.unwrap(), Advance::Live { dispatch: false, .. }));

        let resumed = bench.control("c4", Command::Resume).await;
        assert!(resumed.dispatch && resumed.status == Some(RunStatus::Running));
        assert_eq!(bench.take("t3").await, [2, 3]);
        bench.done(2, Outcome::Succeeded).await;
        let last = bench.hold(step(3), "m3").await.epoch;
        bench.control("c5", Command::Pause).await;
        assert_eq!(
            bench.report(3, last, Outcome::Succeeded).await,
            Reported::Recorded(Owed::Nothing),
            "not before somebody resumes"
        );
        assert_eq!(bench.status().await, RunStatus::Paused);
        let resumed = bench.control("c6", Command::Resume).await;
        assert!(resumed.summary && resumed.status == Some(RunStatus::Summarizing));
    })
    .await;
}

#[tokio::test]
async fn a_plan_made_in_a_paused_run_waits_with_it() {
    on_both(async |bench| {
        bench.open(2).await;
        let epoch = bench.hold(Slot::Plan, "objective").await.epoch;
        bench.control("c1", Command::Pause).await;
        bench.put(epoch, 0, &Revision::first(plan(&[(1, &[])])), &[]).await;
        assert_eq!(bench.status().await, RunStatus::Paused);
        assert!(bench.control("c2", Command::Resume).await.dispatch);
    })
    .await;
}

#[tokio::test]
async fn a_plan_is_approved_once() {
    on_both(async |bench| {
        bench.planned_with(2, approval(ApprovalTimeout::Cancel), &[(1, &[])]).await;
        assert_eq!(bench.status().await, RunStatus::AwaitingApproval);
        assert_eq!(bench.take("t1").await, [0u32; 0]);
        let stray = Claimed::Stale { why: "its plan waits for approval".into() };
        assert_eq!(bench.claim(step(1), "stray", "n").await, stray);
        let other = bench.control_of("c1", Command::Approve, "", Some(2)).await;
        assert_eq!((other.answer, &*other.message), (Answer::Refused, "revision 1 of the plan is current, not 2"));
        let approved = bench.control_of("c2", Command::Approve, "", Some(1)).await;
        assert_eq!(said(&approved), (Answer::Accepted, "the plan is approved by ann: so", Some(RunStatus::Running)));
        assert!(approved.dispatch);
        let again = bench.control("c3", Command::Approve).await;
        assert_eq!((again.answer, &*again.message), (Answer::Repeated, "decided before: the plan is approved by ann: so"));
        let late = bench.control_of("c4", Command::Reject, "no", None).await;
        assert_eq!((late.answer, &*late.message), (Answer::Refused, "decided before: the plan is approved by ann: so"));
        assert_eq!(bench.take("t2").await, [1]);
    })
    .await;
}

#[tokio::test]
async fn a_rejected_plan_makes_room_and_an_edited_one_runs() {
    on_both(async |bench| {
        bench.planned_with(2, approval(ApprovalTimeout::Cancel), &[(1, &[]), (2, &[1])]).await;
        let rejected = bench.control_of("c1", Command::Reject, "shorter", None).await;
        assert!(rejected.plan && rejected.status == Some(RunStatus::Planning));
        let snapshot = bench.store.snapshot(&bench.run).await.unwrap().unwrap();
        assert_eq!(snapshot.feedback.as_deref(), Some("shorter"));

        let epoch = bench.hold(Slot::Plan, "again").await.epoch;
        assert_eq!(bench.put(epoch, 1, &Revision::first(plan(&[(1, &[])])), &[]).await, Put::Stored(Owed::Planner));
        let view = bench.view().await;
        assert_eq!((view.status, view.revision, view.steps.len()), (RunStatus::AwaitingApproval, 2, 1));
        let edited = bench.control_of("c2", Command::Edit, "{\"steps\":[]}", Some(2)).await;
        assert!(edited.plan && edited.answer == Answer::Accepted);
        let snapshot = bench.store.snapshot(&bench.run).await.unwrap().unwrap();
        assert_eq!((snapshot.feedback, snapshot.edited.as_deref()), (None, Some("{\"steps\":[]}")));

        let epoch = bench.hold(Slot::Plan, "edited").await.epoch;
        bench.put(epoch, 2, &Revision::first(plan(&[(1, &[]), (3, &[])])), &[]).await;
        assert_eq!(bench.status().await, RunStatus::Running, "what a person wrote does not wait for approval");
        assert_eq!(bench.take("t1").await, [1, 3]);
        assert_eq!(bench.store.snapshot(&bench.run).await.unwrap().unwrap().replans_left, 0, "of none");
    })
    .await;
}

#[tokio::test]
async fn nobody_decides_and_the_time_is_over() {
    for (otherwise, status) in [(ApprovalTimeout::Cancel, RunStatus::Summarizing), (ApprovalTimeout::Approve, RunStatus::Running)]
    {
        on_both(async |bench| {
            bench.planned_with(2, approval(otherwise), &[(1, &[])]).await;
            let Advance::Live { next_look, .. } = bench.store.advance(&bench.run).await.unwrap() else { panic!("it is live") };
            assert!(next_look <= Duration::from_secs(3600));
            bench.pass(Duration::from_secs(3600));
            let Advance::Live { dispatch, summary, .. } = bench.store.advance(&bench.run).await.unwrap() else { panic!("live") };
            let approved = otherwise == ApprovalTimeout::Approve;
            assert_eq!((bench.status().await, dispatch, summary), (status, approved, !approved));
            let late = bench.control("c1", Command::Approve).await;
            assert_eq!(late.answer, if approved { Answer::Repeated } else { Answer::Refused });
            assert_eq!(bench.count(EventType::Controlled).await, 2, "the time-out is in the trail like anybody");
            assert_eq!(bench.states().await, [if approved { Ready } else { Cancelled }]);
        })
        .await;
    }
}

#[tokio::test]
async fn a_partial_run_goes_on_from_what_had_not_succeeded() {
    on_both(async |bench| {
        bench.planned(4, &[(1, &[]), (2, &[]), (3, &[1]), (4, &[2])]).await;
        bench.take("t1").await;
        assert_eq!(bench.control("c1", Command::Retry).await.answer, Answer::Refused, "it has not ended");
        bench.done(1, Outcome::Succeeded).await;
        let failed = bench.hold(step(2), "m2").await.epoch;
        bench.report(2, failed, Outcome::Failed).await;
        bench.take("t2").await;
        bench.done(3, Outcome::Succeeded).await;
        assert_eq!(bench.end(RunStatus::Partial).await, Held::Kept);

        let retried = bench.control("c2", Command::Retry).await;
        assert_eq!(retried.message, "the run goes on from 2 steps that had not succeeded");
        assert!(retried.dispatch && retried.status == Some(RunStatus::Running));
        assert_eq!(bench.control("c3", Command::Retry).await.answer, Answer::Repeated);
        assert_eq!(bench.store.result(&bench.run).await.unwrap(), None);
        assert_eq!(bench.states().await, [Succeeded, Ready, Succeeded, Waiting]);
        bench.take("t3").await;
        assert_eq!(bench.states().await, [Succeeded, Dispatched, Succeeded, Waiting]);
        let again = bench.hold(step(2), "m2-again").await;
        assert!(again.epoch > failed && again.attempt == 1);
        bench.report(2, again.epoch, Outcome::Succeeded).await;
        bench.take("t4").await;
        assert_eq!(bench.done(4, Outcome::Succeeded).await, Owed::Summary);
        let epoch = bench.hold(Slot::Summary, "c-again").await.epoch;
        let ended = bench.store.finish(&bench.run, Slot::Summary, epoch, &end(RunStatus::Succeeded), &Account::default()).await;
        assert_eq!(ended.unwrap(), Held::Kept);
        let refused = bench.control("c4", Command::Retry).await;
        assert_eq!((refused.answer, &*refused.message), (Answer::Refused, "the run has succeeded, there is nothing to retry"));
    })
    .await;
}

#[tokio::test]
async fn a_run_without_a_plan_is_planned_again() {
    on_both(async |bench| {
        bench.open(2).await;
        let epoch = bench.hold(Slot::Plan, "objective").await.epoch;
        bench.store.finish(&bench.run, Slot::Plan, epoch, &end(RunStatus::Failed), &Account::default()).await.unwrap();
        let retried = bench.control("c1", Command::Retry).await;
        assert!(retried.plan && retried.status == Some(RunStatus::Planning));
        assert!(bench.hold(Slot::Plan, "again").await.epoch > epoch);
    })
    .await;
}

#[tokio::test]
async fn the_deadline_ends_a_run() {
    on_both(async |bench| {
        let rules = RunRules { deadline: Some(Duration::from_secs(20)), ..RunRules::default() };
        bench.planned_with(1, rules, &[(1, &[]), (2, &[]), (3, &[])]).await;
        bench.take("t1").await;
        bench.done(1, Outcome::Succeeded).await;
        bench.take("t2").await;
        let held = bench.hold(step(2), "m2").await.epoch;
        assert!(matches!(
            bench.store.advance(&bench.run).await.unwrap(),
            Advance::Live { next_look, summary: false, .. } if next_look == Duration::from_secs(20)
        ));
        bench.pass(Duration::from_secs(20));
        assert!(matches!(bench.store.advance(&bench.run).await.unwrap(), Advance::Live { summary: true, .. }));
        assert_eq!(bench.store.renew(&bench.run, step(2), held, LEASE).await.unwrap(), Held::Lost);
        let view = bench.view().await;
        let halt = Halt { kind: HaltKind::Deadline, reason: "the deadline has come".into() };
        assert_eq!((view.status, view.halt), (RunStatus::Summarizing, Some(halt)));
        assert_eq!(bench.states().await, [Succeeded, Cancelled, Cancelled]);
    })
    .await;
}

/// A retry takes the time to live from every key, and the second end gives it back. Redis alone has keys.
#[tokio::test]
async fn a_retried_run_does_not_expire_before_it_ends_again() {
    let redis = stores::redis(StoreTime::Own).await;
    let bench = Bench { store: Store::Redis(redis.clone()), time: Arc::default(), run: RunId::parse("again").unwrap() };
    let ttls = async || stores::times_to_live(redis.prefix(), &bench.run).await;
    bench.planned(4, &[(1, &[])]).await;
    bench.take("t1").await;
    bench.done(1, Outcome::Failed).await;
    bench.end(RunStatus::Failed).await;
    assert_eq!(bench.control("refused", Command::Pause).await.answer, Answer::Refused);
    let ended = ttls().await;
    assert!(ended.iter().all(|(_, ttl)| (1..=60_000).contains(ttl)), "{ended:?}");
    assert!(ended.iter().any(|(key, _)| key.ends_with(":controls")), "{ended:?}");
    assert_eq!(bench.control("retry", Command::Retry).await.answer, Answer::Accepted);
    let live = ttls().await;
    assert!(live.len() >= 7 && live.iter().all(|(_, ttl)| *ttl == -1), "{live:?}");
    bench.take("t2").await;
    let epoch = bench.hold(step(1), "m1-again").await.epoch;
    bench.report(1, epoch, Outcome::Succeeded).await;
    let epoch = bench.hold(Slot::Summary, "c-again").await.epoch;
    bench.store.finish(&bench.run, Slot::Summary, epoch, &end(RunStatus::Succeeded), &Account::default()).await.unwrap();
    let ended = ttls().await;
    assert!(ended.len() >= 6 && ended.iter().all(|(_, ttl)| (1..=60_000).contains(ttl)), "{ended:?}");
    redis.delete_all().await.unwrap();
}

#[tokio::test]
async fn a_retry_does_not_approve_what_nobody_has_approved() {
    on_both(async |bench| {
        let approval = Some(ApprovalRule { timeout: Duration::from_secs(100), otherwise: ApprovalTimeout::Cancel });
        let rules = RunRules { approval, deadline: Some(Duration::from_secs(20)), ..RunRules::default() };
        bench.planned_with(8, rules, &[(1, &[])]).await;
        bench.pass(Duration::from_secs(20));
        assert!(matches!(bench.store.advance(&bench.run).await.unwrap(), Advance::Live { summary: true, .. }));
        assert_eq!(bench.end(RunStatus::Failed).await, Held::Kept);
        let retried = bench.control("r", Command::Retry).await;
        assert_eq!(said(&retried), (Answer::Accepted, "the plan waits for approval again", Some(RunStatus::AwaitingApproval)));
        assert_eq!(bench.take("t").await.len(), 0);
        assert_eq!(bench.control("a", Command::Approve).await.answer, Answer::Accepted);
        assert_eq!(bench.take("t").await, [1]);
    })
    .await;
}

#[tokio::test]
async fn a_run_without_a_budget_left_is_not_retried() {
    on_both(async |bench| {
        let budget = Budget { model_calls: Some(1), ..Budget::default() };
        bench.planned_with(8, RunRules { budget, ..RunRules::default() }, &[(1, &[])]).await;
        bench.take("t").await;
        let epoch = bench.hold(step(1), "m").await.epoch;
        let need = Need { model_calls: 2, ..Need::default() };
        assert!(matches!(bench.reserve(step(1), epoch, 0, need).await, Reserved::Exhausted { .. }));
        bench.report(1, epoch, Outcome::Cancelled).await;
        assert_eq!(bench.end(RunStatus::Failed).await, Held::Kept);
        let retried = bench.control("r", Command::Retry).await;
        let message = "the budget of the run is used up: max_model_calls is used up";
        assert_eq!(said(&retried), (Answer::Refused, message, Some(RunStatus::Failed)));
    })
    .await;
}

/// A budget ends a paused run while its plan is looked at again: nobody has to resume it for that.
#[tokio::test]
async fn a_run_that_ends_is_not_paused() {
    on_both(async |bench| {
        let budget = Budget { model_calls: Some(1), ..Budget::default() };
        let rules = RunRules { budget, ..replans(3) };
        bench.planned_with(8, rules, &[(1, &[]), (2, &[]), (3, &[1])]).await;
        bench.take("t").await;
        bench.done(1, Outcome::Failed).await;
        let planner = bench.hold(Slot::Plan, "p").await.epoch;
        let epoch = bench.hold(step(2), "m2").await.epoch;
        bench.control("c", Command::Pause).await;
        let need = Need { model_calls: 2, ..Need::default() };
        assert!(matches!(bench.reserve(step(2), epoch, 0, need).await, Reserved::Exhausted { .. }));
        bench.report(2, epoch, Outcome::Cancelled).await;
        let parked = bench
            .store
            .retry(&bench.run, Slot::Plan, planner, Again::Park, Duration::from_secs(3600), &Account::default())
            .await
            .unwrap();
        assert_eq!(parked, (Held::Kept, Owed::Summary), "nobody needs another plan");
        assert_eq!(bench.view().await.status, RunStatus::Summarizing);
    })
    .await;
}
