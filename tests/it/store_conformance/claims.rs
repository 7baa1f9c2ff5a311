//! Who may work on a slot, and what happens to those who may not.

use super::*;

#[tokio::test]
async fn a_step_has_one_holder() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t").await;
        let first = bench.hold(step(1), "m1").await;
        assert!(matches!(bench.claim(step(1), "m2", "n2").await, Claimed::Duplicate { worker } if worker == "m1-1"));
        assert!(matches!(bench.claim(step(1), "m1", "n3").await, Claimed::Duplicate { .. }), "published twice under one id");
        // The same claim again (its reply was lost) is not a second one; the same message again takes the step over.
        assert_eq!(bench.hold(step(1), "m1").await.epoch, first.epoch);
        let Claimed::Execute(second) = bench.reclaim(step(1), "m1", "other").await else { panic!("redelivery takes over") };
        assert!(second.epoch > first.epoch);
        assert_eq!(bench.store.renew(&bench.run, step(1), first.epoch, LEASE).await.unwrap(), Held::Lost);
        assert_eq!(bench.store.renew(&bench.run, step(1), second.epoch, LEASE).await.unwrap(), Held::Kept);
        // A zombie's outcome changes nothing.
        assert_eq!(bench.report(1, first.epoch, Outcome::Failed).await, Reported::Stale);
        assert_eq!(bench.states().await, [StepState::Running]);
        // When the lease is over anybody may take it.
        bench.pass(LEASE);
        let Claimed::Execute(third) = bench.claim(step(1), "m3", "n3").await else { panic!("lease is over") };
        assert_eq!(bench.report(1, third.epoch, Outcome::Succeeded).await, Reported::Recorded(Owed::Summary));
        assert_eq!(bench.report(1, third.epoch, Outcome::Succeeded).await, Reported::Recorded(Owed::Summary), "repeated call");
        assert_eq!(bench.report(1, second.epoch, Outcome::Failed).await, Reported::Stale);
        assert!(
            matches!(
                bench.claim(step(1), "m1", "late").await,
                Claimed::Done { owed: Owed::Summary, state: StepState::Succeeded }
            ),
            "redelivery sends what is owed"
        );
    })
    .await;
}

#[tokio::test]
async fn retries_wait_and_count_parks_wait_and_do_not() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        let claim = bench.hold(step(1), "m1").await;
        let again = async |epoch, again| {
            let wait = Duration::from_secs(10);
            bench.store.retry(&bench.run, step(1), epoch, again, wait, &Account::default()).await.unwrap()
        };
        assert_eq!(again(claim.epoch, Again::Retry).await, (Held::Kept, Owed::Nothing));
        assert_eq!(again(claim.epoch, Again::Retry).await, (Held::Kept, Owed::Nothing), "repeated call");
        assert_eq!(bench.take("t2").await.len(), 0, "not yet");
        let request = ClaimRequest {
            slot: step(1),
            message_id: "m1",
            redelivered: true,
            nonce: "late",
            attempt: Some(1),
            lease: LEASE,
            worker: "w",
        };
        let old = bench.store.claim(&bench.run, &request).await.unwrap();
        assert_eq!(old, Claimed::Stale { why: "it is at attempt 2".into() });
        bench.pass(Duration::from_secs(10));
        assert_eq!(bench.take("t3").await, [1]);
        let claim = bench.hold(step(1), "m2").await;
        assert_eq!((claim.attempt, claim.parks), (2, 0));
        assert_eq!(again(claim.epoch, Again::Park).await.0, Held::Kept);
        bench.pass(Duration::from_secs(10));
        assert_eq!(bench.take("t4").await, [1]);
        let claim = bench.hold(step(1), "m3").await;
        assert_eq!((claim.attempt, claim.parks), (2, 1));
    })
    .await;
}

#[tokio::test]
async fn a_step_that_ends_its_executors_is_poison() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        for n in 0..CLAIMS_MAX {
            assert!(matches!(bench.reclaim(step(1), "m1", &format!("n{n}")).await, Claimed::Execute(_)), "claim {n}");
        }
        let Claimed::Poisoned(claim) = bench.reclaim(step(1), "m1", "last").await else { panic!("poison") };
        assert_eq!(bench.report(1, claim.epoch, Outcome::Failed).await, Reported::Recorded(Owed::Summary));
    })
    .await;
}

/// The broker takes the message from a holder whose connection breaks, and the holder lives.
#[tokio::test]
async fn a_claim_is_not_counted_whose_holder_lives() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        let mut before = bench.hold(step(1), "m1").await.epoch;
        for n in 0..3 * CLAIMS_MAX {
            // Taken over twice before the first of them says anything.
            let mut taken = Vec::new();
            for worker in ["v", "u"] {
                let claimed = bench.claim_by(worker, step(1), "m1", true, &format!("{worker}{n}")).await;
                let Claimed::Execute(claim) = claimed else { panic!("claim {n}: {claimed:?}") };
                taken.push(std::mem::replace(&mut before, claim.epoch));
            }
            for _repeated_call in 0..2 {
                for epoch in &taken {
                    assert_eq!(bench.store.release(&bench.run, step(1), *epoch).await.unwrap(), Held::Lost);
                }
            }
        }
        // One that had let its lease run out says nothing by living: it had hung.
        for n in 1..CLAIMS_MAX {
            bench.pass(LEASE);
            let Claimed::Execute(claim) = bench.claim(step(1), "m2", &format!("late{n}")).await else { panic!("late claim {n}") };
            assert_eq!(bench.store.release(&bench.run, step(1), before).await.unwrap(), Held::Lost);
            before = claim.epoch;
        }
        bench.pass(LEASE);
        assert!(matches!(bench.claim(step(1), "m2", "last").await, Claimed::Poisoned(_)));
    })
    .await;
}

#[tokio::test]
async fn who_takes_over_from_itself_has_not_died() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        let mut last = 0;
        for n in 0..3 * CLAIMS_MAX {
            let claimed = bench.claim_by("w", step(1), "m1", n > 0, &format!("n{n}")).await;
            let Claimed::Execute(claim) = claimed else { panic!("claim {n}: {claimed:?}") };
            assert!(claim.epoch > last, "claim {n}");
            last = claim.epoch;
        }
    })
    .await;
}

#[tokio::test]
async fn a_released_slot_costs_no_claim() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        for n in 0..3 * CLAIMS_MAX {
            let Claimed::Execute(claim) = bench.reclaim(step(1), "m1", &format!("n{n}")).await else { panic!("claim {n}") };
            assert_eq!(bench.store.release(&bench.run, step(1), claim.epoch).await.unwrap(), Held::Kept);
        }
    })
    .await;
}

#[tokio::test]
async fn the_journal_outlives_its_holder() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        let first = bench.hold(step(1), "m1").await;
        let usage = Usage { model_calls: 1, input_tokens: 7, ..Usage::default() };
        let account = Account { usage, events: vec![EventDraft::new(EventType::ModelCalled, json!({"model": "m"}))] };
        let journal =
            async |epoch, index, entry| bench.store.journal(&bench.run, step(1), epoch, index, entry, &account).await.unwrap();
        assert_eq!(journal(first.epoch, 0, "one").await, Held::Kept);
        assert_eq!(journal(first.epoch, 0, "one again").await, Held::Kept, "repeated call");
        let Claimed::Execute(second) = bench.reclaim(step(1), "m1", "again").await else { panic!() };
        assert_eq!(second.journal, ["one"]);
        assert_eq!(journal(first.epoch, 1, "zombie").await, Held::Lost);
        assert_eq!(journal(second.epoch, 1, "two").await, Held::Kept);
        let snapshot = bench.store.snapshot(&bench.run).await.unwrap().unwrap();
        assert_eq!((snapshot.view.usage.model_calls, snapshot.view.usage.input_tokens), (2, 14));
    })
    .await;
}

#[tokio::test]
async fn dead_letters_count_as_claims_and_end() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t").await;
        bench.hold(step(1), "m1").await;
        let take_back = async |message| bench.store.take_back(&bench.run, step(1), message, "dead").await.unwrap();
        assert_eq!(take_back("another").await, TakenBack::Kept, "its holder's message lives");
        assert_eq!(take_back("m1").await, TakenBack::Dispatch, "the holder's own message died");
        for n in 2..CLAIMS_MAX {
            assert_eq!(bench.take(&format!("t{n}")).await, [1]);
            assert_eq!(take_back("m").await, TakenBack::Dispatch, "{n}");
        }
        bench.take("t-last").await;
        assert_eq!(take_back("m").await, TakenBack::Poisoned);
        assert!(matches!(bench.claim(step(1), "closer", "c").await, Claimed::Poisoned(_)));
    })
    .await;
}
