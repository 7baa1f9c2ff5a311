//! How a step ended, as the model judges it: asked for as an object, read leniently, and never taken for granted.

use serde_json::{Value, json};

use super::act::{Said, action_said, unusable};
use super::conversation::verdict_messages;
use super::ladder::{Asker, Kind, Rung, Shape, Structured};
use crate::limits::{LEARNED_BYTES_MAX, TOOL_OUTPUT_BYTES_MAX};
use crate::llm::prompt::Judging;
use crate::llm::text::cut;
use crate::llm::{Judged, LlmError, Move, StepTask, Turn, extract, prompt};
use crate::run::Verdict;

/// What is said where a call is made although none can be.
const NO_TOOL: &str = "no tool can be called any more, reply with the outcome of the step";

/// What a verdict says.
#[derive(Debug)]
enum Read {
    /// The step has ended.
    Judged(Judged),
    /// It takes one more call.
    More,
}

impl Asker<'_> {
    /// Asks how the step ended, now that the tool that the plan names has given something. `None`: it takes another call.
    pub(super) async fn conclude(&mut self, task: &StepTask<'_>) -> Result<Option<Move>, LlmError> {
        let found = self.structured(&shape(true), &verdict_messages(task, Judging::Calls)).await?;
        let value = match &found.value {
            Ok(value) => value,
            Err(_) if found.words => {
                return Ok(match self.in_words(task, &found, None) {
                    Read::Judged(judged) => Some(Move::Conclude(judged)),
                    Read::More => None,
                });
            }
            Err(why) => return Ok(Some(unusable(&found.reply, why.clone()))),
        };
        // Some models make the call that they miss at once.
        if let Said::Move(made @ Move::Call(_)) = action_said(value, &found.reply, task.tools) {
            return Ok(Some(made));
        }
        Ok(match read(value, None) {
            Ok(Read::Judged(judged)) => Some(Move::Conclude(judged)),
            Ok(Read::More) => None,
            Err(why) => Some(unusable(&found.reply, why)),
        })
    }

    /// Asks how the step ended, for good: after its calls, or done in the model's head, or by the result that the model has
    /// `proposed` in words.
    pub(super) async fn verdict(&mut self, task: &StepTask<'_>, proposed: Option<&str>) -> Result<Move, LlmError> {
        let judging = proposed.map_or(Judging::Last, Judging::Proposed);
        let found = self.structured(&shape(false), &verdict_messages(task, judging)).await?;
        let read = match &found.value {
            Ok(value) if matches!(action_said(value, &found.reply, task.tools), Said::Move(Move::Call(_))) => {
                Err(NO_TOOL.to_owned())
            }
            Ok(value) => read(value, proposed),
            Err(_) if found.words => Ok(self.in_words(task, &found, proposed)),
            Err(why) => Err(why.clone()),
        };
        Ok(match read {
            Ok(Read::Judged(judged)) => Move::Conclude(judged),
            Ok(Read::More) => unusable(&found.reply, NO_TOOL.to_owned()),
            Err(why) => unusable(&found.reply, why),
        })
    }

    /// Takes plain words for a verdict: all that is to be had from a model that wrote no object on any rung. Words that begin with
    /// an outcome mean it. Others are the result of the step; but after a call that failed they are what went wrong.
    fn in_words(&self, task: &StepTask<'_>, found: &Structured, proposed: Option<&str>) -> Read {
        self.memory.update(self.model, |known| {
            known.rungs.insert(Kind::Verdict, Rung::Prompt);
        });
        words(task, &found.reply, proposed)
    }
}

/// The verdict in plain words; see [`Asker::in_words`].
fn words(task: &StepTask<'_>, reply: &str, proposed: Option<&str>) -> Read {
    let text = extract::without_reasoning(reply);
    let first = text.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty()).unwrap_or_default();
    let failed = matches!(task.turns.last(), Some(Turn::Returned { output: Err(_), .. }));
    let verdict = match outcome(first) {
        Some(Word::More) => return Read::More,
        Some(Word::Verdict(verdict)) => verdict,
        None if failed => Verdict::Failed,
        None => Verdict::Succeeded,
    };
    let result = proposed.filter(|_| verdict == Verdict::Succeeded).unwrap_or(text);
    Read::Judged(Judged { verdict, retryable: false, result: cut(result, TOOL_OUTPUT_BYTES_MAX), learned: None })
}

/// The same for a reply to a request for an action.
pub(super) fn action_in_words(task: &StepTask<'_>, reply: &str) -> Move {
    match words(task, reply, None) {
        Read::Judged(judged) => Move::Conclude(judged),
        Read::More => unusable(reply, "name the tool to call".to_owned()),
    }
}

/// The judgement in an object that should have one.
pub(super) fn judged(value: &Value) -> Result<Judged, String> {
    match read(value, None)? {
        Read::Judged(judged) => Ok(judged),
        Read::More => Err("name the tool to call".to_owned()),
    }
}

/// Reads a verdict. What a step that succeeded gave is what was `proposed`, if something was, and not its retelling.
fn read(value: &Value, proposed: Option<&str>) -> Result<Read, String> {
    let value = value.get(0).unwrap_or(value);
    let said = value.get("outcome").and_then(Value::as_str);
    let verdict = match said.and_then(outcome) {
        Some(Word::Verdict(verdict)) => verdict,
        Some(Word::More) => return Ok(Read::More),
        None => {
            let got = cut(&value.get("outcome").unwrap_or(&Value::Null).to_string(), 100);
            return Err(format!("\"outcome\" must be one of \"succeeded\", \"failed\" and \"impossible\", got {got}"));
        }
    };
    let given = ["result", "answer", "final_answer", "response", "reason"]
        .iter()
        .find_map(|key| value.get(*key).filter(|given| !given.is_null()))
        .map(|given| prompt::plain(given).trim().to_owned())
        .filter(|given| !given.is_empty());
    let succeeded = verdict == Verdict::Succeeded;
    let result = match (given, proposed) {
        (_, Some(proposed)) if succeeded => proposed.trim().to_owned(),
        (Some(given), _) => given,
        (None, _) if succeeded => return Err("\"result\" must be the result of the step, it is empty".to_owned()),
        (None, _) => "the model gave no reason".to_owned(),
    };
    let retryable = match value.get("retryable") {
        Some(Value::Bool(retryable)) => *retryable,
        Some(Value::String(text)) => text.trim().eq_ignore_ascii_case("true"),
        Some(Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_)) | None => false,
    };
    Ok(Read::Judged(Judged {
        verdict,
        retryable: retryable && verdict == Verdict::Failed,
        result: cut(&result, TOOL_OUTPUT_BYTES_MAX),
        learned: learned(value.get("learned")),
    }))
}

/// What was learned, unless it says that nothing was.
fn learned(value: Option<&Value>) -> Option<String> {
    let value = value.filter(|value| !matches!(value, Value::Null | Value::Bool(_)) && *value != &json!([]))?;
    let text = prompt::plain(value);
    let text = text.trim();
    let nothing = ["", "none", "nothing", "n/a", "null", "-", "\"\""];
    let word = text.trim_end_matches('.').to_ascii_lowercase();
    (!nothing.contains(&&*word)).then(|| cut(text, LEARNED_BYTES_MAX))
}

/// An outcome as a word.
enum Word {
    Verdict(Verdict),
    More,
}

/// An outcome by its name or a plain synonym.
fn outcome(word: &str) -> Option<Word> {
    match word.trim().to_ascii_lowercase().as_str() {
        "succeeded" | "success" | "successful" | "succeed" | "done" | "completed" => Some(Word::Verdict(Verdict::Succeeded)),
        "failed" | "failure" | "fail" | "error" => Some(Word::Verdict(Verdict::Failed)),
        "impossible" => Some(Word::Verdict(Verdict::Impossible)),
        "more" => Some(Word::More),
        _ => None,
    }
}

fn shape(more: bool) -> Shape<'static> {
    let outcomes: &[&str] =
        if more { &["succeeded", "failed", "impossible", "more"] } else { &["succeeded", "failed", "impossible"] };
    let schema = json!({
        "type": "object",
        "properties": {
            "learned": {"type": "string"},
            "outcome": {"type": "string", "enum": outcomes},
            "result": {"type": "string"},
            "retryable": {"type": "boolean"},
        },
        "required": ["learned", "outcome", "result", "retryable"],
        "additionalProperties": false,
    });
    Shape { kind: Kind::Verdict, name: "verdict", schema, strict: true, wanted: &["outcome"] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(value: &Value, proposed: Option<&str>) -> Result<(Verdict, bool, String, Option<String>), String> {
        match read(value, proposed)? {
            Read::Judged(judged) => Ok((judged.verdict, judged.retryable, judged.result, judged.learned)),
            Read::More => Err("more".to_owned()),
        }
    }

    #[test]
    fn verdicts_are_read_leniently_and_never_assumed() {
        use Verdict::{Failed, Impossible, Succeeded};
        let good = |verdict, retryable, result: &str, learned: Option<&str>| {
            Ok((verdict, retryable, result.to_owned(), learned.map(str::to_owned)))
        };
        let cases = [
            (
                json!({"learned": "", "outcome": "succeeded", "result": "36", "retryable": true}),
                good(Succeeded, false, "36", None),
            ),
            (json!({"outcome": " Success ", "answer": 36}), good(Succeeded, false, "36", None)),
            (json!([{"outcome": "done", "result": {"a": 1}}]), good(Succeeded, false, "{\"a\":1}", None)),
            (
                json!({"outcome": "FAILED", "result": "", "retryable": "True"}),
                good(Failed, true, "the model gave no reason", None),
            ),
            (json!({"outcome": "failed", "reason": "no file", "retryable": 1}), good(Failed, false, "no file", None)),
            (
                json!({"outcome": "impossible", "result": null, "retryable": true, "learned": "None."}),
                good(Impossible, false, "the model gave no reason", None),
            ),
            (json!({"outcome": "failed", "result": "x", "learned": ["a", 1]}), good(Failed, false, "x", Some("[\"a\",1]"))),
        ];
        for (value, expected) in cases {
            assert_eq!(ended(&value, None), expected, "{value}");
        }
        assert_eq!(
            ended(&json!({"outcome": "succeeded", "result": "retold"}), Some("as it was")),
            good(Succeeded, false, "as it was", None)
        );
        assert_eq!(ended(&json!({"outcome": "failed", "result": "why"}), Some("as it was")), good(Failed, false, "why", None));
        for bad in [
            json!({}),
            json!(7),
            json!({"outcome": true}),
            json!({"outcome": "maybe"}),
            json!({"outcome": ["failed"]}),
            json!({"outcome": "succeeded"}),
        ] {
            assert!(ended(&bad, None).is_err_and(|why| why.contains("must be")), "{bad}");
        }
    }

    #[test]
    fn what_was_learned_is_bounded() {
        let value = json!({"outcome": "failed", "result": "x".repeat(200_000), "learned": "ü".repeat(200_000)});
        let (_, _, result, learned) = ended(&value, None).unwrap();
        assert!(result.len() <= TOOL_OUTPUT_BYTES_MAX && learned.is_some_and(|learned| learned.len() <= LEARNED_BYTES_MAX));
    }
}
