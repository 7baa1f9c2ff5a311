//! Where a test stands between a process and its broker and store: it sees every call, and may spoil it.
//!
//! A process made of `Broker::Watched` and `Store::Watched` handles asks its [`Seam`] before each call and tells it after each. A seam
//! that does not answer holds the process up, for a while or for good: that is how a test delays a call, or ends the process exactly
//! there. No service is ever started so outside of tests.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::broker::{Envelope, Target};
use crate::id::RunId;

/// What a seam answers with.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A call that passes a seam.
#[derive(Debug, Clone, Copy)]
pub enum Call<'a> {
    /// A verb of the store.
    Verb {
        /// Its name, as the method is called.
        name: &'static str,
        /// The run that it is about.
        run: Option<&'a RunId>,
        /// What it is given.
        arguments: &'a (dyn fmt::Debug + Send + Sync),
    },
    /// Messages are published.
    Publish {
        /// All of them.
        batch: &'a [(Target, Envelope)],
    },
    /// A message has come. It is the consumer's from here on.
    Deliver {
        /// The queue, by its full name.
        queue: &'a str,
        /// The message.
        envelope: &'a Envelope,
        /// Whether it was handed out before.
        redelivered: bool,
    },
    /// A message is acknowledged.
    Ack {
        /// The queue, by its full name.
        queue: &'a str,
        /// The message.
        envelope: &'a Envelope,
    },
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is made, and its answer arrives.
    Passes,
    /// It does not arrive. The caller is told that it failed; an acknowledgement seems good, and a delivery goes back.
    Lost,
    /// It is made, and its answer does not arrive: the caller is told that it failed.
    Unanswered,
    /// It is made twice, as by a client that sends again; the second answer arrives.
    Twice,
    /// Of a batch of publications only so many arrive; the caller is told that it failed. Other calls pass.
    Cut(usize),
}

/// Who watches the calls of one process.
pub trait Seam: fmt::Debug + Send + Sync {
    /// Asked before a call.
    fn before<'a>(&'a self, call: Call<'a>) -> Answering<'a, Fate>;

    /// Told after a call that was made, before the caller learns of it. `answer` is what the other side said.
    fn after<'a>(&'a self, call: Call<'a>, answer: &'a (dyn fmt::Debug + Send + Sync)) -> Answering<'a, ()>;
}

/// A handle to something, with a seam in front of it.
#[derive(Debug)]
pub struct Watched<T> {
    /// What is behind the seam.
    pub inner: T,
    /// The seam.
    pub seam: Arc<dyn Seam>,
}

impl<T> Watched<T> {
    /// Puts `seam` in front of `inner`.
    pub fn new(inner: T, seam: Arc<dyn Seam>) -> Arc<Self> {
        Arc::new(Self { inner, seam })
    }
}
