//! A lane: the one task that publishes on one confirm channel, for everybody in the process.
//!
//! One task, because the client library numbers a publication and queues its frames in two steps, and because it hands a
//! returned message to whichever publication is confirmed next. When a publication is confirmed without a returned message, its own
//! return, if there was one, sits at a publication that was confirmed earlier. So everything that has been confirmed is looked at
//! together, returned messages are known by their id, and only then is anybody answered.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::link::Link;
use super::wire;
use crate::broker::{ConnectError, Envelope, PublishError};
use crate::limits::{CHANNEL_REFUSED_AFTER, CONFIRM_TIMEOUT, CONNECT_TIMEOUT};

/// One message to publish, and who waits for the answer.
pub(super) struct Job {
    queue: ShortString,
    properties: BasicProperties,
    body: Vec<u8>,
    deadline: Instant,
    ticket: Ticket,
}

struct Ticket {
    message_id: String,
    answer: oneshot::Sender<Result<(), PublishError>>,
}

/// The answer to one [`Job`], to come.
pub(super) struct Receipt {
    deadline: Instant,
    answer: oneshot::Receiver<Result<(), PublishError>>,
}

/// Where jobs go in, and how their publications end.
pub(super) struct Lane {
    link: Arc<Link>,
    jobs: mpsc::Sender<Job>,
}

/// Whether a lane's queues are ours or somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cargo {
    /// Ours: a missing queue is declared again.
    Own,
    /// Somebody else's: a missing queue is the normal case, and must disturb nobody. One publication at a time.
    Foreign,
}

impl Job {
    fn new(queue: &str, envelope: Envelope, now_ms: u64) -> Result<(Self, Receipt), PublishError> {
        let properties = wire::properties(&envelope, now_ms).map_err(PublishError::Unconfirmed)?;
        let queue = wire::short(queue).map_err(|why| PublishError::Unconfirmed(format!("queue name: {why}")))?;
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        let (sender, answer) = oneshot::channel();
        let ticket = Ticket { message_id: envelope.message_id, answer: sender };
        Ok((Self { queue, properties, body: envelope.body, deadline, ticket }, Receipt { deadline, answer }))
    }
}

impl Lane {
    /// A lane and what its task works on; see [`run`].
    pub(super) fn new(link: &Arc<Link>, window: usize) -> (Self, mpsc::Receiver<Job>) {
        let (jobs, receiver) = mpsc::channel(window);
        (Self { link: Arc::clone(link), jobs }, receiver)
    }

    /// Hands a message to the lane. Waits for room.
    pub(super) async fn send(&self, queue: &str, envelope: Envelope, now_ms: u64) -> Result<Receipt, PublishError> {
        let (job, receipt) = Job::new(queue, envelope, now_ms)?;
        match timeout_at(receipt.deadline, self.jobs.send(job)).await {
            Ok(Ok(())) => Ok(receipt),
            Ok(Err(_closed)) => Err(PublishError::Unconfirmed("the connection was closed by this process".to_owned())),
            Err(_elapsed) => Err(self.overdue()),
        }
    }

    /// Waits for the broker's word.
    pub(super) async fn answer(&self, receipt: Receipt) -> Result<(), PublishError> {
        match timeout_at(receipt.deadline, receipt.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_dropped)) => Err(PublishError::Unconfirmed("the connection was lost".to_owned())),
            Err(_elapsed) => Err(self.overdue()),
        }
    }

    fn overdue(&self) -> PublishError {
        let waited = format!("no confirm within {} s", CONFIRM_TIMEOUT.as_secs());
        PublishError::Unconfirmed(match self.link.trouble() {
            Some(trouble) => format!("{waited}: {trouble}"),
            None => waited,
        })
    }
}

/// The lane's task: publishes jobs, up to `window` unconfirmed at once, until nobody can send any more. Connects when there is
/// something to publish, and again for ever when a connection is lost.
pub(super) async fn run(link: Arc<Link>, cargo: Cargo, window: usize, mut jobs: mpsc::Receiver<Job>) {
    let mut unsent = None;
    while let Some(first) = match unsent.take() {
        Some(job) => Some(job),
        None => jobs.recv().await,
    } {
        let channel = open(&link).await;
        let mut flight = Flight::new(channel, cargo, window);
        let end = flight.publish(first, &mut jobs).await;
        unsent = flight.unsent;
        match end {
            End::Finished => return,
            End::Lost => tracing::warn!("channel to the broker was lost, publications in flight are unconfirmed"),
            End::Refused => tracing::debug!("broker refuses messages, trying on a new channel"),
            End::Silent => {
                tracing::warn!("broker confirms nothing, publications in flight are unconfirmed");
                link.distrust();
            }
            End::QueueMissing => {
                tracing::warn!("a queue was deleted, declaring all of them again");
                link.redeclare();
            }
        }
    }
}

async fn open(link: &Link) -> Channel {
    let mut tries = 0;
    loop {
        match confirming(link).await {
            Ok(channel) => return channel,
            Err(error) => tracing::warn!(%error, tries, "cannot publish, trying again"),
        }
        tokio::time::sleep(link.pause(tries)).await;
        tries += 1;
    }
}

async fn confirming(link: &Link) -> Result<Channel, ConnectError> {
    let channel = link.channel().await?;
    let silent = |why: String| ConnectError::Unreachable { url: "the connected host".to_owned(), why };
    match timeout(CONNECT_TIMEOUT, channel.confirm_select(ConfirmSelectOptions::default())).await {
        Ok(Ok(())) => Ok(channel),
        Ok(Err(error)) => Err(silent(error.to_string())),
        Err(_elapsed) => {
            link.distrust();
            Err(silent(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))
        }
    }
}

/// How the use of one channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Finished,
    Lost,
    Refused,
    Silent,
    QueueMissing,
}

/// What the broker said of one publication.
enum Word {
    Acked,
    Refused,
    Failed(lapin::Error),
    Nothing,
}

/// A publication that is over. `returned`: the id of a returned message, of this publication or of another.
struct Landed {
    job: Job,
    word: Word,
    returned: Option<String>,
}

/// Ids of returned messages whose own confirm has not been looked at.
#[derive(Default)]
struct Returned(BTreeSet<String>);

impl Returned {
    /// Takes the returned messages off the publications that they came with. All that have landed must be seen before any is judged.
    fn note(&mut self, landed: &mut [Landed]) {
        self.0.extend(landed.iter_mut().filter_map(|landed| landed.returned.take()));
    }

    /// Whether this publication was returned.
    fn forget(&mut self, job: &Job) -> bool {
        self.0.remove(&job.ticket.message_id)
    }
}

/// The publications in flight on one channel.
struct Flight {
    channel: Channel,
    since: Instant,
    cargo: Cargo,
    window: usize,
    returned: Returned,
    /// A job that found the channel gone: nothing of it was written, so the next channel can have it.
    unsent: Option<Job>,
    end: Option<End>,
}

impl Flight {
    fn new(channel: Channel, cargo: Cargo, window: usize) -> Self {
        Self { channel, since: Instant::now(), cargo, window, returned: Returned::default(), unsent: None, end: None }
    }

    async fn publish(&mut self, first: Job, jobs: &mut mpsc::Receiver<Job>) -> End {
        let mut flying = FuturesUnordered::new();
        flying.extend(self.accept(first));
        loop {
            let room = self.end.is_none() && flying.len() < self.window;
            if let Some(end) = self.end
                && (flying.is_empty() || end == End::Silent)
            {
                // Whoever is still in flight is answered by the drop of its ticket.
                return end;
            }
            tokio::select! {
                job = jobs.recv(), if room => match job {
                    Some(job) => {
                        flying.extend(self.accept(job));
                        while self.end.is_none() && flying.len() < self.window && let Ok(job) = jobs.try_recv() {
                            flying.extend(self.accept(job));
                        }
                    }
                    None => self.end = Some(End::Finished),
                },
                Some(landed) = flying.next() => {
                    let mut landed = vec![landed];
                    while let Some(Some(next)) = flying.next().now_or_never() {
                        landed.push(next);
                    }
                    self.settle(landed);
                }
            }
        }
    }

    /// The publication of a job, unless the channel is seen to be gone.
    fn accept(&mut self, job: Job) -> Option<impl Future<Output = Landed> + use<>> {
        if self.channel.status().connected() {
            return Some(send(self.channel.clone(), job));
        }
        self.end = self.end.or(Some(End::Lost));
        self.unsent = Some(job);
        None
    }

    fn settle(&mut self, mut landed: Vec<Landed>) {
        self.returned.note(&mut landed);
        for Landed { job, word, .. } in landed {
            let unconfirmed = |why: String| Err(PublishError::Unconfirmed(why));
            let answer = match word {
                Word::Acked | Word::Refused if self.returned.forget(&job) => {
                    if self.cargo == Cargo::Own {
                        self.end = self.end.or(Some(End::QueueMissing));
                    }
                    Err(PublishError::Unroutable(job.queue.to_string()))
                }
                Word::Acked => Ok(()),
                Word::Refused => {
                    if self.since.elapsed() > CHANNEL_REFUSED_AFTER {
                        self.end = self.end.or(Some(End::Refused));
                    }
                    unconfirmed("the broker refused it (nack)".to_owned())
                }
                Word::Failed(error) => {
                    if !self.channel.status().connected() {
                        self.end = self.end.or(Some(End::Lost));
                    }
                    unconfirmed(error.to_string())
                }
                Word::Nothing => {
                    self.end = Some(End::Silent);
                    unconfirmed(format!("no confirm within {} s", CONFIRM_TIMEOUT.as_secs()))
                }
            };
            let _receiver_may_be_gone = job.ticket.answer.send(answer);
        }
    }
}

async fn send(channel: Channel, job: Job) -> Landed {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let confirmed = timeout_at(job.deadline, async {
        channel.basic_publish("".into(), job.queue.clone(), options, &job.body, job.properties.clone()).await?.await
    });
    let (word, returned) = match confirmed.await {
        Ok(Ok(Confirmation::Ack(returned))) => (Word::Acked, returned),
        // Without confirms (`NotRequested`) nothing is known to be good.
        Ok(Ok(Confirmation::NotRequested)) => (Word::Refused, None),
        Ok(Ok(Confirmation::Nack(returned))) => (Word::Refused, returned),
        Ok(Err(error)) => (Word::Failed(error), None),
        Err(_elapsed) => (Word::Nothing, None),
    };
    Landed { job, word, returned: returned.as_ref().map(id_of) }
}

fn id_of(message: &BasicReturnMessage) -> String {
    message.delivery.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn landed(id: &str, returned: Option<&str>) -> Landed {
        let (job, _receipt) = Job::new("q", Envelope::new(id.to_owned(), "step", Vec::new()), 0).unwrap();
        Landed { job, word: Word::Acked, returned: returned.map(str::to_owned) }
    }

    #[tokio::test]
    async fn returned_messages_are_known_by_their_id() {
        let mut returned = Returned::default();
        let mut judge = |mut group: Vec<Landed>| {
            returned.note(&mut group);
            group
                .iter()
                .filter(|landed| returned.forget(&landed.job))
                .map(|l| l.job.ticket.message_id.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(judge(vec![landed("a", None), landed("b", Some("b"))]), ["b"]);
        // Attached to an earlier one, to a later one, and to one whose own confirm is still to come.
        assert_eq!(judge(vec![landed("c", Some("d")), landed("d", None)]), ["d"]);
        assert_eq!(judge(vec![landed("e", None), landed("f", Some("e"))]), ["e"]);
        assert_eq!(judge(vec![landed("g", Some("i")), landed("h", None)]), Vec::<String>::new());
        assert_eq!(judge(vec![landed("i", None)]), ["i"]);
    }
}
