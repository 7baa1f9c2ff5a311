//! What goes wrong in a simulated world, how often, and the seam at which it does.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use common::seam::{Answering, Call, Fate, Seam};

use crate::dice::Dice;
use crate::simulation::Simulation;

/// How probable each fault is at one call; each world has its own mix, so that combinations of few faults occur as well as all of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates {
    /// The process ends before the call, or after it and before its answer.
    pub(crate) crash: f64,
    /// The call is held up for up to a second.
    pub(crate) delay: f64,
    /// The process stands still, sometimes for longer than its leases.
    pub(crate) freeze: f64,
    /// A verb does not arrive.
    pub(crate) verb_lost: f64,
    /// A verb is done, its reply does not arrive.
    pub(crate) reply_lost: f64,
    /// A verb is done twice.
    pub(crate) verb_twice: f64,
    /// A publication does not arrive.
    pub(crate) publish_lost: f64,
    /// A publication arrives, its confirm does not.
    pub(crate) confirm_lost: f64,
    /// A publication that was given up arrives much later.
    pub(crate) ghost: f64,
    /// A publication arrives twice.
    pub(crate) publish_twice: f64,
    /// Only a part of a batch arrives.
    pub(crate) publish_cut: f64,
    /// A publication is confirmed, and its messages vanish.
    pub(crate) vanish: f64,
    /// A delivery does not arrive and goes back.
    pub(crate) delivery_lost: f64,
    /// An acknowledgement does not arrive.
    pub(crate) ack_lost: f64,
    /// The model: connection errors, 429s, nonsense.
    pub(crate) model: f64,
    /// A tool panics, fails, or takes too long where it should not.
    pub(crate) tool: f64,
}

impl Rates {
    /// A mix of faults.
    pub(crate) fn drawn(dice: &Dice) -> Self {
        let strength = *dice.pick(&[0.3, 1.0, 3.0, 8.0]);
        let rate = |base: f64| if dice.chance(0.5) { base * strength } else { 0.0 };
        Self {
            crash: rate(0.004),
            delay: rate(0.05),
            freeze: rate(0.001),
            verb_lost: rate(0.01),
            reply_lost: rate(0.01),
            verb_twice: rate(0.02),
            publish_lost: rate(0.02),
            confirm_lost: rate(0.02),
            ghost: rate(0.3),
            publish_twice: rate(0.03),
            publish_cut: rate(0.03),
            vanish: rate(0.01),
            delivery_lost: rate(0.01),
            ack_lost: rate(0.03),
            model: rate(0.05),
            tool: rate(0.02),
        }
    }
}

/// The seam of one incarnation of a process.
#[derive(Debug)]
pub(crate) struct ProcessSeam {
    /// Where it happens.
    pub(crate) simulation: Arc<Simulation>,
    /// Which process.
    pub(crate) process: usize,
    /// Which of its lives.
    pub(crate) life: u32,
}

impl Seam for ProcessSeam {
    fn before<'a>(&'a self, call: Call<'a>) -> Answering<'a, Fate> {
        Box::pin(async move {
            self.pass_with(is_idle(&call)).await;
            let fate = self.simulation.fate(self.process, &call);
            self.simulation.trace(|| format!("{} {} → {fate:?}", self.name(), said(&call)));
            if let (Call::Publish { batch }, Fate::Lost) = (call, fate) {
                self.simulation.lost(batch);
            }
            fate
        })
    }

    fn after<'a>(&'a self, call: Call<'a>, answer: &'a (dyn Debug + Send + Sync)) -> Answering<'a, ()> {
        Box::pin(async move {
            self.simulation.trace(|| format!("{} {} = {}", self.name(), name(&call), cut(&format!("{answer:?}"), 300)));
            // An acknowledgement of a delivery that has gone back meanwhile has no effect, and says false.
            if let Call::Ack { queue, envelope } = call
                && format!("{answer:?}") == "true"
            {
                self.simulation.acknowledged(self.process, queue, envelope);
            }
            if let Call::Publish { batch } = call {
                self.simulation.published(batch);
            }
            self.simulation.observe(&call);
            self.pass_with(is_idle(&call)).await;
        })
    }
}

impl ProcessSeam {
    /// A point at which the process may end, stand still or be held up. Of a process that has ended nothing returns.
    pub(crate) async fn pass(&self) {
        self.pass_with(false).await;
    }

    async fn pass_with(&self, idle: bool) {
        let simulation = &self.simulation;
        if simulation.crashes(self.process, self.life, idle) {
            simulation.trace(|| format!("{} ends here", self.name()));
        }
        let delay = simulation.delay(self.process);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // Whoever stops it again meanwhile is asked once more.
        while let Some(until) = simulation.stands_until(self.process) {
            tokio::time::sleep_until(until).await;
        }
        if simulation.is_over(self.process, self.life) {
            std::future::pending::<()>().await;
        }
    }

    fn name(&self) -> String {
        format!("{}.{}", self.simulation.name(self.process), self.life)
    }
}

/// Whether nothing comes of the call most of the time: an end there is like one between two calls.
fn is_idle(call: &Call<'_>) -> bool {
    match call {
        Call::Verb { name, .. } => ["due", "list", "renew", "status"].contains(name),
        Call::Publish { .. } | Call::Deliver { .. } | Call::Ack { .. } => false,
    }
}

/// The call in a line of the trace.
fn said(call: &Call<'_>) -> String {
    match call {
        Call::Verb { name, run: _, arguments } => format!("{name} {}", cut(&format!("{arguments:?}"), 300)),
        Call::Publish { batch } => {
            let messages = batch.iter().map(|(target, envelope)| {
                let body = String::from_utf8_lossy(&envelope.body);
                format!("{target:?} {} {} {}", envelope.kind, envelope.message_id, cut(&body, 120))
            });
            format!("publish {}", messages.collect::<Vec<_>>().join(", "))
        }
        Call::Deliver { queue, envelope, redelivered } => {
            let body = String::from_utf8_lossy(&envelope.body);
            format!("deliver {queue} {} again={redelivered} {}", envelope.message_id, cut(&body, 120))
        }
        Call::Ack { queue, envelope } => format!("ack {queue} {}", envelope.message_id),
    }
}

fn name(call: &Call<'_>) -> &'static str {
    match call {
        Call::Verb { name, .. } => name,
        Call::Publish { .. } => "publish",
        Call::Deliver { .. } => "deliver",
        Call::Ack { .. } => "ack",
    }
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// The fate of a call, by chance.
pub(crate) fn fate(dice: &Dice, rates: &Rates, call: &Call<'_>) -> Fate {
    match call {
        Call::Verb { .. } if dice.chance(rates.verb_lost) => Fate::Lost,
        Call::Verb { .. } if dice.chance(rates.reply_lost) => Fate::Unanswered,
        Call::Verb { .. } if dice.chance(rates.verb_twice) => Fate::Twice,
        Call::Publish { .. } if dice.chance(rates.publish_lost) => Fate::Lost,
        Call::Publish { .. } if dice.chance(rates.confirm_lost) => Fate::Unanswered,
        Call::Publish { .. } if dice.chance(rates.publish_twice) => Fate::Twice,
        Call::Publish { batch } if batch.len() > 1 && dice.chance(rates.publish_cut) => Fate::Cut(dice.below(batch.len())),
        Call::Deliver { .. } if dice.chance(rates.delivery_lost) => Fate::Lost,
        Call::Ack { .. } if dice.chance(rates.ack_lost) => Fate::Lost,
        Call::Verb { .. } | Call::Publish { .. } | Call::Deliver { .. } | Call::Ack { .. } => Fate::Passes,
    }
}

/// How long a call is held up, by chance.
pub(crate) fn delay(dice: &Dice, rates: &Rates) -> Duration {
    if dice.chance(rates.delay) { dice.millis(1, 1_000) } else { Duration::ZERO }
}
