//! The model behind the services: what it says is a function of what it is given, after some bad replies that do not count.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::run::Outcome;
use serde_json::{Value, json};

use super::dice::Dice;
use super::model::{fingerprint, mark, plain};
use crate::fake_openai::{Behaviour, Purpose, Request, Script, ScriptedMove};

/// How often a request about one thing is answered badly before it is answered well: less than a step has attempts.
const BAD_REPLIES_MAX: u32 = 2;
/// Of a hundred things that are asked, how many are answered badly first.
const BAD_PERCENT: u32 = 12;

/// The model.
pub(super) struct Model {
    seed: u64,
    script: Script,
    /// How often it has been asked about each thing.
    asked: Mutex<BTreeMap<String, u32>>,
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        let script = Script::default().plan(planned).replan(revised).act(acted).answer(answered);
        Self { seed, script, asked: Mutex::default() }
    }

    /// The reply to a request.
    pub(super) fn respond(&self, request: &Request) -> Behaviour {
        let about = format!("{:?} {}", request.purpose(), about(request));
        let mut dice = Dice::new(self.seed, &about);
        let bad_replies = if dice.percent(BAD_PERCENT) { dice.between(1, BAD_REPLIES_MAX) } else { 0 };
        let late = dice.millis(0, 150);
        let before = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let count = asked.entry(about).or_default();
            *count += 1;
            *count - 1
        };
        if before < bad_replies {
            return bad(&mut dice, request.purpose());
        }
        let description = description(&request.prompt()).unwrap_or_default().to_owned();
        let asked_for = word_after(&description, "late").and_then(|millis| millis.parse().ok()).map(Duration::from_millis);
        Behaviour::Late(late + asked_for.unwrap_or_default(), Box::new(self.script.respond(request)))
    }
}

/// A reply that cannot be used, or none.
fn bad(dice: &mut Dice, purpose: Purpose) -> Behaviour {
    match dice.between(0, if purpose == Purpose::Act { 5 } else { 4 }) {
        0 => Behaviour::error(500, "server_error", "oops"),
        1 => Behaviour::rate_limited(Some("1")),
        2 => Behaviour::Reset(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{".to_vec()),
        3 => Behaviour::status(200, "<html>not an API</html>"),
        4 => Behaviour::error(503, "overloaded", "come back later"),
        _ => Behaviour::text(r#"{"learned":"","outcome":"failed","result":"not this time","retryable":true}"#),
    }
}

/// What the request is about: a step by its description, a run by its task.
fn about(request: &Request) -> String {
    let prompt = request.prompt();
    description(&prompt).or_else(|| task(&prompt)).unwrap_or_default().to_owned()
}

/// The step to do; its description is one line.
fn description(prompt: &str) -> Option<&str> {
    prompt.split_once("The step to do:\n")?.1.lines().next()
}

/// The objective.
fn task(prompt: &str) -> Option<&str> {
    Some(prompt.split_once("<task>\n")?.1.split_once("\n</task>")?.0)
}

fn word_after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.split(' ').skip_while(|one| *one != word).nth(1)
}

/// Every result that stands in a prompt, in short.
fn given(prompt: &str) -> BTreeMap<u32, String> {
    let mut all = BTreeMap::new();
    for entry in prompt.split("<result step=\"").skip(1) {
        let Some((number, rest)) = entry.split_once('"') else { continue };
        let (Ok(number), Some((marks, rest))) = (number.parse::<u32>(), rest.split_once('>')) else { continue };
        let value = rest.lines().find_map(|line| line.strip_prefix("=> ")).unwrap_or_default();
        let failures = [Outcome::Failed, Outcome::Skipped, Outcome::Cancelled].map(mark);
        let seen = match failures.into_iter().find(|mark| marks.trim() == *mark) {
            Some(mark) => mark.to_owned(),
            None => serde_json::from_str::<Value>(value).map_or_else(|_text| value.to_owned(), |value| plain(&value)),
        };
        all.insert(number, seen);
    }
    all
}

fn acted(request: &Request) -> ScriptedMove {
    let prompt = request.prompt();
    let description = description(&prompt).unwrap_or_default();
    if description.ends_with(" fails") {
        return ScriptedMove::Fail { why: "it is not done".to_owned(), retryable: false };
    }
    if description.ends_with(" never") {
        return ScriptedMove::Impossible("it cannot be done".to_owned());
    }
    ScriptedMove::Answer(fingerprint(description, &given(&prompt)))
}

fn answered(request: &Request) -> String {
    let prompt = request.prompt();
    let run = task(&prompt).and_then(|task| task.lines().next()?.rsplit_once(" of ")).map_or("", |(_, run)| run);
    fingerprint(run, &given(&prompt))
}

/// The plan that stands in the objective.
fn planned(request: &Request) -> Value {
    let prompt = request.prompt();
    let plan = task(&prompt).and_then(|task| task.split_once("\nplan: ")).map_or("", |(_, plan)| plan);
    serde_json::from_str(plan).unwrap_or_default()
}

/// The step that the objective names in place of the one that it expects to fail; a plan in which others failed is kept.
fn revised(request: &Request) -> Value {
    let prompt = request.prompt();
    let named = task(&prompt).and_then(|task| task.split_once("\nif ")?.1.split_once(" fails: "));
    let known = named.and_then(|(failed, step)| {
        let asks = prompt.contains(&format!("Step {failed} has failed."));
        let mut step: Value = serde_json::from_str(step).ok()?;
        step["replaces"] = failed.parse::<u32>().ok()?.into();
        asks.then_some(step)
    });
    match known {
        Some(step) => json!({"decision": "revise", "reason": "another way", "steps": [step], "drop": []}),
        None => json!({"decision": "keep", "reason": "nothing better", "steps": [], "drop": []}),
    }
}
