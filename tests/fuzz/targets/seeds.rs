//! Writes the inputs that fuzzing begins with: those of the bad-input corpus, and the golden files of the wire.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

// Its runtime answers to the instrumentation of what is linked here.
use libfuzzer_sys as _;

#[path = "../../it/corpus/input.rs"]
mod input;

/// A larger seed would be cut by libFuzzer, and be no JSON any more.
const SEED_BYTES_MAX: usize = 4096;

fn main() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/seeds");
    let cases = |class: &str| -> Vec<Value> {
        let text = fs::read_to_string(fixtures.join("corpus").join(class)).expect("a class of the corpus");
        serde_json::from_str(&text).expect("a list of cases")
    };
    let mut count = 0;
    let mut seed = |target: &str, bytes: &[u8]| {
        let folder = seeds.join(target);
        fs::create_dir_all(&folder).expect("a folder for seeds");
        if bytes.len() <= SEED_BYTES_MAX {
            count += 1;
            fs::write(folder.join(format!("{count:04}")), bytes).expect("a seed is written");
        }
    };
    let golden = fs::read_dir(fixtures.join("v1")).expect("the golden files");
    // Beside the messages stand states of the keys, in a folder of their own.
    for file in golden.map(|file| file.expect("a golden file").path()).filter(|path| path.is_file()) {
        let bytes = fs::read(file).expect("a golden file");
        seed("messages", &bytes);
        if let Some(plan) = serde_json::from_slice::<Value>(&bytes).ok().as_ref().and_then(|message| message.get("plan")) {
            seed("plans", plan.to_string().as_bytes());
        }
    }
    for case in cases("messages.json") {
        seed("messages", &input::bytes(&case["body"]));
    }
    for case in cases("plans.json") {
        let plan = input::bytes(&case["plan"]);
        seed("plans", &plan);
        seed("patches", &plan);
        let plan: Value = serde_json::from_slice(&plan).unwrap_or_default();
        for step in plan["steps"].as_array().into_iter().flatten() {
            let arguments = step.get("arguments").unwrap_or(&Value::Null);
            seed("references", json!([arguments, {"a": [1, {"b/c": "x"}]}, "2"]).to_string().as_bytes());
        }
    }
    for case in cases("model_replies.json") {
        let reply = &case["reply"];
        let target = if case["ask"] == "replan" { "patches" } else { "plans" };
        for bytes in ["text", "body", "raw"].iter().filter_map(|part| reply.get(part)).map(input::bytes) {
            seed("extraction", &bytes);
            seed(target, &bytes);
        }
        for message in [&reply["message"], &reply["json"]].into_iter().filter(|part| !part.is_null()) {
            seed("extraction", json!({"choices": [{"message": message}], "usage": {"prompt_tokens": 1}}).to_string().as_bytes());
            seed("extraction", message.to_string().as_bytes());
        }
    }
}
