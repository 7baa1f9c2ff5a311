//! The deterministic stand-in.
use super::*;
pub const NAME: &str = "offline";
pub(super) fn plan(_t: &PlanTask<'_>) -> Reply<PlanDraft> {
    unimplemented!()
}
pub(super) fn act(_t: &StepTask<'_>) -> Reply<Move> {
    unimplemented!()
}
pub(super) fn answer(_t: &AnswerTask<'_>) -> Reply<String> {
    unimplemented!()
}
