//! The configured model, with the trap's two places around its first call.

use std::pin::pin;
use std::sync::Arc;

use common::llm::{AnswerTask, Failed, Llm, Model, Move, PlanDraft, PlanTask, ReplanTask, Reply, StepTask};
use common::seam::Answering;
use support::points::Place;

use crate::trap::Trap;

/// A model that is asked past a trap.
#[derive(Debug)]
pub(crate) struct Trapped {
    pub(crate) llm: Llm,
    pub(crate) trap: Arc<Trap>,
}

impl Trapped {
    async fn ask<T>(&self, call: impl Future<Output = T> + Send) -> T {
        let mut call = pin!(call);
        if self.trap.at(Place::Asking) {
            // Both at once: the request is sent, the endpoint holds its reply back until the test is done here.
            tokio::select! {
                biased;
                reply = &mut call => return reply,
                () = self.trap.reached() => {}
            }
        }
        let reply = call.await;
        if self.trap.at(Place::Answered) {
            self.trap.reached().await;
        }
        reply
    }
}

impl Model for Trapped {
    fn name(&self) -> &str {
        self.llm.name()
    }

    fn plan<'a>(&'a self, task: &'a PlanTask<'a>) -> Answering<'a, Result<Reply<PlanDraft>, Failed>> {
        Box::pin(self.ask(self.llm.plan(task)))
    }

    fn replan<'a>(&'a self, task: &'a ReplanTask<'a>) -> Answering<'a, Result<Reply<PlanDraft>, Failed>> {
        Box::pin(self.ask(self.llm.replan(task)))
    }

    fn act<'a>(&'a self, task: &'a StepTask<'a>) -> Answering<'a, Result<Reply<Move>, Failed>> {
        Box::pin(self.ask(self.llm.act(task)))
    }

    fn answer<'a>(&'a self, task: &'a AnswerTask<'a>) -> Answering<'a, Result<Reply<String>, Failed>> {
        Box::pin(self.ask(self.llm.answer(task)))
    }
}
