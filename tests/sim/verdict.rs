//! What must be true of a world at its end.

use std::time::Duration;

use common::event::EventType;
use common::message::Queue;
use common::run::{RunDocument, RunStatus};
use futures::FutureExt;

use crate::load;
use crate::world::World;

impl World {
    /// Whether every run has ended. Notes how long the others have stood still.
    pub(crate) async fn all_ended(&mut self) -> bool {
        let mut all = true;
        for wish in &self.wishes {
            let status = self.store.status(&wish.run).await.expect("memory answers");
            if status.is_some_and(RunStatus::is_final) {
                continue;
            }
            all = false;
            let owner = matches!(status, None | Some(RunStatus::Paused | RunStatus::AwaitingApproval));
            let last =
                self.store.events(&wish.run, "", usize::MAX).await.expect("memory answers").last().map(|event| event.at_ms);
            if let Some(last) = last.filter(|_| !owner) {
                let since = self.simulation.clock.now_ms().saturating_sub(last.max(self.calm_at_ms));
                self.standstill = self.standstill.max(Duration::from_millis(since));
            }
        }
        all
    }

    pub(crate) async fn hanging(&self) {
        for wish in &self.wishes {
            let snapshot = self.store.snapshot(&wish.run).await.expect("memory answers");
            match snapshot {
                Some(snapshot) if snapshot.view.status.is_final() => {}
                Some(snapshot) => self.simulation.violation(format!("I16: run {} hangs: {:#?}", wish.run, snapshot.view)),
                None => self.simulation.violation(format!("I1: run {} is not there", wish.run)),
            }
        }
    }

    /// Every run has ended, and the world has been quiet since.
    pub(crate) async fn at_the_end(&self) {
        let violated = |what: String| self.simulation.violation(what);
        for wish in &self.wishes {
            let document = self.store.result(&wish.run).await.expect("memory answers").unwrap_or_default();
            let exempt = self.simulation.was_reopened(&wish.run);
            if self.faultless {
                let events = self.store.events(&wish.run, "", usize::MAX).await.expect("memory answers");
                if let Some(repair) = events.iter().find(|event| event.kind == EventType::TakenBack) {
                    violated(format!("run {}: something was repaired where nothing went wrong: {repair:?}", wish.run));
                }
            }
            match serde_json::from_str::<RunDocument>(&document) {
                Ok(parsed) => drop(load::verify(&parsed, exempt).map_err(|why| violated(format!("run {}: {why}", wish.run)))),
                Err(error) => violated(format!("I4: run {}: {error}", wish.run)),
            }
            if let Some(queue) = &wish.reply_to {
                let mut replies = 0;
                while let Some(reply) = self.simulation.broker.receive(queue).now_or_never() {
                    replies += 1;
                    let same = reply.body == document.as_bytes() || exempt || self.simulation.forgetful;
                    if !same {
                        violated(format!("I4: run {}: a reply that is not its document", wish.run));
                    }
                }
                if replies == 0 {
                    violated(format!("run {}: no reply on {queue}", wish.run));
                }
            }
        }
        for queue in Queue::ALL {
            let depth = self.broker.depth(queue).await.expect("memory answers");
            if depth > 0 {
                violated(format!("I17: {depth} messages are left in {}", queue.role()));
            }
        }
        if self.simulation.broker.unacknowledged() > 0 {
            violated(format!("I17: {} messages are still out", self.simulation.broker.unacknowledged()));
        }
        let letters = self.store.dead_letters(1_000).await.expect("memory answers");
        let meant = |letter: &&String| letter.contains("nonsense") || letter.contains("delivery_limit");
        for letter in letters.iter().filter(|letter| !meant(letter)) {
            violated(format!("I18: a dead letter that nobody meant: {letter}"));
        }
    }
}
