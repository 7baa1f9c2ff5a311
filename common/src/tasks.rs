//! Background tasks that somebody owns.

use std::future::Future;

use tokio::task::JoinSet;

/// Background tasks with one owner: they end when it is dropped.
#[derive(Debug, Default)]
pub struct Tasks(JoinSet<()>);

impl Tasks {
    /// No tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        // What has ended is forgotten here, so that an owner that starts tasks for ever does not grow.
        while let Some(ended) = self.0.try_join_next() {
            report_task(ended);
        }
        self.0.spawn(task);
    }

    /// How many have not been seen to end.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all have been seen to end.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until all have ended by themselves. Cancel-safe.
    pub async fn finish(&mut self) {
        while let Some(ended) = self.0.join_next().await {
            report_task(ended);
        }
    }

    /// Ends all of them where they stand, and waits until they are gone.
    pub async fn stop(&mut self) {
        self.0.shutdown().await;
    }
}

fn report_task(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a background task broke");
    }
}
