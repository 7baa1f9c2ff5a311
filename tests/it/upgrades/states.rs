//! State of an earlier release, code of this one: what services of an earlier release have left in Redis and in the queues is gone on with
//! by services of this one, and comes to what it should.
//!
//! The files in `fixtures/v1/keys` are frozen. A release that cannot go on with them breaks its users' runs: mend the release, not the file.
//! A state that is new, or looks different from now on, gets a file of its own: name its scene in `scenes.rs`, then
//! `BLESS=1 cargo test -p tests --test it upgrades::states`, which writes the files that are not there, and read what it has written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::run::{RunDocument, StepResult};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::dumps::Dump;

use super::scenes::{SCENES, model, play};
use super::stage::{Message, Stage};

/// A golden file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    /// The release that has written it.
    release: String,
    /// What somebody has to tell the run, one after the other.
    commands: Vec<String>,
    /// What it comes to.
    expected: Value,
    messages: Vec<Message>,
    redis: Dump,
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1/keys").join(format!("{name}.json"))
}

/// What counts of a result: not how long it took, nor who did it.
fn essence(document: &RunDocument) -> Value {
    let step = |step: &StepResult| json!([step.step_number, step.outcome, step.result, step.error, step.attempts]);
    json!({
        "status": document.status,
        "final_response": document.final_response,
        "error": document.error,
        "revision": document.revision,
        "steps": document.step_results.iter().map(step).collect::<Vec<_>>(),
        "model_calls": document.usage.model_calls,
        "tool_calls": document.usage.tool_calls,
    })
}

/// Goes on with a state, and gives what it comes to.
async fn go_on(state: State) -> Value {
    let model = model(&Arc::new(AtomicBool::new(false))).await;
    let mut stage = Stage::new(&model).await;
    let run = state.redis.run_id.clone();
    stage.restore(state.redis, state.messages).await;
    stage.start_all();
    for command in &state.commands {
        stage.control(&run, command).await;
    }
    let document = stage.result(&run).await;
    let mut expected = essence(&document);
    // Nothing goes on after the end: every message that was left means nothing any more.
    expected["replied"] = stage.replied(&document).await.into();
    // Nothing is paid for twice: what the journal holds is not asked again.
    expected["asked"] = model.calls().into();
    assert_eq!(stage.result(&run).await, document);
    assert_eq!(stage.env.store.dead_letters(10).await.unwrap(), Vec::<String>::new());
    stage.kill().await;
    let (after, messages) = stage.left(&run).await;
    assert_eq!(messages, [], "all are acknowledged");
    let for_ever: Vec<_> = after.keys.iter().filter(|(_, key)| key.ttl_ms.is_none()).map(|(name, _)| name).collect();
    assert!(for_ever.is_empty(), "keys that never expire: {for_ever:?}");
    stage.clean().await;
    expected
}

/// Plays the scene, and writes down what is left when everybody has died.
async fn bless(name: &'static str) {
    let troubled = Arc::new(AtomicBool::new(true));
    let model = model(&troubled).await;
    let mut stage = Stage::new(&model).await;
    let (run, commands) = play(&mut stage, &model, name).await;
    stage.kill().await;
    troubled.store(false, Ordering::SeqCst);
    let (redis, messages) = stage.left(&run).await;
    stage.clean().await;
    let (release, commands) = (env!("CARGO_PKG_VERSION").to_owned(), commands.into_iter().map(str::to_owned).collect());
    let mut state = State { release, commands, expected: Value::Null, messages, redis };
    state.expected = go_on(state.clone()).await;
    let text = serde_json::to_string_pretty(&state).unwrap();
    std::fs::write(file(name), text + "\n").unwrap();
}

async fn check(name: &'static str) {
    if std::env::var_os("BLESS").is_some() && !file(name).exists() {
        bless(name).await;
    }
    let text = std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{}: {error}", file(name).display()));
    let state: State = serde_json::from_str(&text).unwrap();
    let expected = state.expected.clone();
    assert_eq!(go_on(state).await, expected, "{name}");
}

#[tokio::test]
async fn what_an_earlier_release_has_left_comes_to_what_it_should() {
    for name in SCENES {
        check(name).await;
    }
}

/// No state is left out by mistake, and none that is there.
#[test]
fn every_golden_state_is_played() {
    let folder = file("x").parent().unwrap().to_owned();
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    let mut scenes = SCENES.map(str::to_owned).to_vec();
    scenes.sort();
    assert_eq!(files, scenes);
}
