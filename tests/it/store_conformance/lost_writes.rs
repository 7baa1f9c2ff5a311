//! What a store says that has lost its last writes: holders from what it has forgotten are strangers to it.

use super::*;

#[tokio::test]
async fn an_epoch_is_never_given_twice() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        let before = bench.save().await;
        let forgotten = bench.hold(step(1), "m1").await.epoch;
        bench.restore(&before).await;
        let current = bench.hold(step(1), "m2").await.epoch;
        assert_ne!(forgotten, current);

        let entry = async |epoch, entry| {
            let account = Account::default();
            bench.store.journal(&bench.run, step(1), epoch, 0, entry, &account).await.unwrap()
        };
        assert_eq!(entry(forgotten, "forgotten").await, Held::Lost);
        assert_eq!(entry(current, "current").await, Held::Kept);
        assert_eq!(bench.report(1, forgotten, Outcome::Failed).await, Reported::Stale);
        assert_eq!(bench.report(1, current, Outcome::Succeeded).await, Reported::Recorded(Owed::Summary));
        assert_eq!(bench.report(1, forgotten, Outcome::Succeeded).await, Reported::Stale);
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_repeated_keeps_its_epoch() {
    on_both(async |bench| {
        bench.planned(8, &[(1, &[])]).await;
        bench.take("t1").await;
        let before = bench.save().await;
        let first = bench.hold(step(1), "m1").await.epoch;
        bench.restore(&before).await;
        // The same holder asks again, because its reply was lost with the write: it is the same claim.
        assert_eq!(bench.hold(step(1), "m1").await.epoch, first);
        assert_eq!(bench.report(1, first, Outcome::Succeeded).await, Reported::Recorded(Owed::Summary));
    })
    .await;
}
