//! A model endpoint with something wrong.

use serde_json::json;
use support::fake_openai::{Behaviour, FakeOpenAi, Request, Script, ScriptedMove};
use support::stack::Stack;

use super::{Expected, doctor, good_model};

/// What an endpoint does, and what the doctor says to that.
async fn check(
    stack: &Stack,
    behave: impl Fn(&Request) -> Behaviour + Send + Sync + 'static,
    settings: &[(&str, &str)],
    code: i32,
    expected: &[Expected<'_>],
) -> FakeOpenAi {
    let fake = FakeOpenAi::start(behave).await;
    let url = fake.base_url();
    let base = [("OPENAI_BASE_URL", &*url), ("OPENAI_MODEL", "fake-1")];
    doctor(stack, &[&base[..], settings].concat(), &[]).await.is(code, expected);
    fake
}

/// A good list of models, and `chat` for the rest.
fn listed(
    chat: impl Fn(&Request) -> Behaviour + Send + Sync + 'static,
) -> impl Fn(&Request) -> Behaviour + Send + Sync + 'static {
    let good = good_model();
    move |request| if request.method == "GET" { good(request) } else { chat(request) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_refuse_are_told_why() {
    let stack = Stack::new(&[]).await;
    let key = [("OPENAI_API_KEY", "sk-s3cret-key")];
    let unauthorized = |_: &Request| Behaviour::error(401, "invalid_api_key", "Incorrect API key provided: sk-s3cret-key");
    let wants = "export OPENAI_API_KEY=KEY";
    check(&stack, unauthorized, &key, 5, &[("model_endpoint", "failed", "refuses the key", wants), ("model", "skipped", "", "")])
        .await;
    check(&stack, unauthorized, &[], 5, &[("model_endpoint", "failed", "wants a key, and none is set", wants)]).await;
    // Whoever lists models to everybody asks for the key later.
    check(
        &stack,
        listed(unauthorized),
        &key,
        5,
        &[("model_endpoint", "ok", "lists 2 models", ""), ("model", "failed", "401", wants)],
    )
    .await;
    let moved = |_: &Request| Behaviour::status(308, "").header("location", "https://new.example/v1/models?x=s3cret");
    let redirect =
        ("model_endpoint", "failed", "redirects to https://new.example/v1", "export OPENAI_BASE_URL=https://new.example/v1");
    check(&stack, moved, &[], 2, &[redirect]).await;
    let down = |_: &Request| Behaviour::status(503, "<h1>starting</h1>");
    let busy = ("model_endpoint", "warning", "it answers, but with 503", "curl -i");
    check(
        &stack,
        down,
        &[],
        5,
        &[busy, ("model", "failed", "503", "export OPENAI_BASE_URL="), ("model_plan", "skipped", "", "")],
    )
    .await;
    let missing = |_: &Request| Behaviour::error(404, "model_not_found", "The model `fake-1` does not exist");
    let named = ("model", "failed", "does not exist", "export OPENAI_MODEL=MODEL");
    check(&stack, listed(missing), &[], 2, &[named]).await;
    let limited = |_: &Request| Behaviour::rate_limited(None);
    check(&stack, listed(limited), &[], 0, &[("model", "warning", "429", "planrelay doctor")]).await;
    let bad = |_: &Request| Behaviour::error(402, "payment", "no credit");
    check(&stack, listed(bad), &[], 1, &[("model", "failed", "no credit", "export OPENAI_MODEL=")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_model_can_do_is_found_out_by_asking() {
    let stack = Stack::new(&[]).await;
    let calculate = || Script::default().act(|_| ScriptedMove::Call("calculate", json!({"expression": "6 * 7"})));
    // An endpoint that knows no list, no schemas and no tools.
    let plain = calculate().without_native_tools();
    let simple = move |request: &Request| match request.rung() {
        _ if request.method == "GET" => Behaviour::status(404, "no such page"),
        "json_schema" => Behaviour::error(400, "unsupported", "response_format json_schema is not supported"),
        _ => plain.respond(request),
    };
    check(
        &stack,
        simple,
        &[],
        0,
        &[
            ("model_endpoint", "ok", "lists no models (404)", ""),
            ("model", "ok", "no price is known", ""),
            ("model_plan", "warning", "structured output by json_object only", "planrelay doctor"),
            ("model_tools", "ok", "tools are named in an object, by json_object", ""),
        ],
    )
    .await;
    // Calls are forced where schemas are refused.
    let forced = calculate();
    let tools = move |request: &Request| match request.rung() {
        "json_schema" => Behaviour::error(400, "unsupported", "response_format json_schema is not supported"),
        _ => forced.respond(request),
    };
    check(&stack, listed(tools), &[], 0, &[("model_plan", "ok", "structured output by tool_call", "")]).await;
    // It only talks.
    let talks = |_: &Request| Behaviour::text("I would love to help you with that.");
    let words = ("model_plan", "failed", "no plan as JSON by any rung", "export PLANRELAY_PLANNER_MODEL=");
    let head = ("model_tools", "warning", "called no tool", "export PLANRELAY_EXECUTOR_MODEL=");
    check(&stack, listed(talks), &[], 1, &[words, head]).await;
    // It calls what is not there.
    let good = calculate();
    let broken = move |request: &Request| match request.rung() {
        "tools" => Behaviour::tool_calls(&[("calculate", "{\"expression\": ")]),
        _ if request.prompt().contains("Call the tool") => Behaviour::text("{\"tool\": \"rm\", \"arguments\": {}}"),
        _ => good.respond(request),
    };
    let none = ("model_tools", "failed", "\"rm\" is not a tool", "export PLANRELAY_EXECUTOR_MODEL=");
    check(&stack, listed(broken), &[], 1, &[none]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_model_is_asked_once() {
    let stack = Stack::new(&[]).await;
    let good = good_model();
    let chat = move |request: &Request| match request.body["model"].as_str() {
        Some("gone") => Behaviour::error(404, "model_not_found", "no such model: gone"),
        Some(_) | None => good(request),
    };
    let fake = check(
        &stack,
        chat,
        &[("PLANRELAY_EXECUTOR_MODEL", "gone"), ("PLANRELAY_PRICES", "fake-1=1/2,fake-9=1/2")],
        2,
        &[
            ("configuration", "warning", "a price for fake-9, which no role uses", ""),
            ("model", "ok", "fake-1: answers, for planner and summarizer (1 request, 18 tokens", ""),
            ("model", "failed", "gone: ", "export PLANRELAY_EXECUTOR_MODEL=MODEL"),
            ("model_plan", "ok", "structured output by json_schema", ""),
            ("model_tools", "skipped", "the executor's model does not answer", ""),
        ],
    )
    .await;
    assert_eq!(fake.calls(), 4, "the list, two models, one plan");
    // Without a question: what the list says.
    let fake = FakeOpenAi::start(good_model()).await;
    let url = fake.base_url();
    let settings = [("OPENAI_BASE_URL", &*url), ("OPENAI_MODEL", "fake-1"), ("PLANRELAY_PLANNER_MODEL", "fake-3")];
    doctor(&stack, &settings, &["--no-model"]).await.is(
        0,
        &[
            ("model", "ok", "fake-1: listed, not asked", ""),
            (
                "model",
                "warning",
                "fake-3: the endpoint does not list it; it lists fake-1, fake-2",
                "export PLANRELAY_PLANNER_MODEL=fake-1",
            ),
            ("model_tools", "skipped", "--no-model", ""),
        ],
    );
    assert_eq!(fake.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_is_told() {
    let stack = Stack::new(&[]).await;
    let good = good_model();
    let ahead = move |request: &Request| good(request).header("date", "Thu, 01 Jan 2099 00:00:00 GMT");
    let wrong = ("clock", "warning", "the model endpoint is ", "timedatectl set-ntp true");
    check(&stack, ahead, &[], 0, &[wrong, ("clock", "warning", "nothing is lost", "")]).await;
}
