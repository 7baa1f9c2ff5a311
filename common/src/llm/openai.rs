//! Any OpenAI-compatible endpoint. The only file that names async-openai.
use super::*;
#[derive(Debug, Clone)]
pub struct OpenAi;
impl OpenAi {
    pub(super) fn model(&self) -> &str {
        ""
    }
    pub(super) async fn plan(&self, _t: &PlanTask<'_>) -> Result<Reply<PlanDraft>, LlmError> {
        unimplemented!()
    }
    pub(super) async fn act(&self, _t: &StepTask<'_>) -> Result<Reply<Move>, LlmError> {
        unimplemented!()
    }
    pub(super) async fn answer(&self, _t: &AnswerTask<'_>) -> Result<Reply<String>, LlmError> {
        unimplemented!()
    }
}
