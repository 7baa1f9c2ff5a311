//! What is learnt about an endpoint, and what requests look like.

use super::*;

/// An endpoint that refuses everything but one way of asking.
fn only(rung: &'static str, good: Behaviour) -> impl Fn(&Request) -> Behaviour {
    move |request| {
        if request.rung() == rung {
            return good.clone();
        }
        let parameter = if request.body["tools"].is_array() { "tools" } else { "response_format" };
        Behaviour::error(400, "unsupported_parameter", &format!("{parameter} is not supported"))
    }
}

#[tokio::test]
async fn the_ladder_is_climbed_down_once() {
    let plan = good_plan().to_string();
    let rungs = ["json_schema", "tool_call", "json_object", "text"];
    for (index, rung) in rungs.into_iter().enumerate() {
        let good = if rung == "tool_call" { Behaviour::tool_calls(&[("plan", &plan)]) } else { Behaviour::text(&plan) };
        let fake = FakeOpenAi::start(only(rung, good)).await;
        let llm = llm(&fake);
        for round in 0..3 {
            let (got, calls) = asked(&llm, Plan, &[]).await;
            assert!(matches!(&got, Ok(Got::Plan(Ok(_)))), "{rung}: {got:?}");
            assert_eq!(calls.len(), 1, "{rung}: refused requests cost nothing");
            assert_eq!(fake.calls(), index + 1 + round, "{rung}: the rung is remembered");
        }
        assert_eq!(fake.requests()[fake.calls() - 1].rung(), rung);
    }
}

#[tokio::test]
async fn an_ignored_rung_is_left() {
    let plan = good_plan().to_string();
    let fake = FakeOpenAi::start(move |request| {
        let obeys = request.rung() == "json_object";
        Behaviour::text(if obeys { &plan } else { "Of course! First I add." })
    })
    .await;
    let llm = llm(&fake);
    let (got, calls) = asked(&llm, Plan, &[]).await;
    assert!(matches!(&got, Ok(Got::Plan(Ok(_)))), "{got:?}");
    assert_eq!(
        calls.iter().map(|call| call.rung).collect::<Vec<_>>(),
        ["json_schema", "tool_call", "json_object"],
        "all were paid for"
    );
    asked(&llm, Plan, &[]).await.0.unwrap();
    assert_eq!(fake.calls(), 4);
}

#[tokio::test]
async fn refused_parameters_are_left_out_once() {
    let plan = good_plan().to_string();
    let fake = FakeOpenAi::start(move |request| {
        let refused = ["temperature", "max_tokens"].into_iter().find(|name| request.body.get(*name).is_some());
        match refused {
            Some(name) => Behaviour::error(400, "unsupported_parameter", &format!("Unsupported parameter: '{name}'")),
            None => Behaviour::text(&plan),
        }
    })
    .await;
    let llm = llm(&fake);
    for expected in [3, 4, 5] {
        let (got, _) = asked(&llm, Plan, &[]).await;
        assert!(matches!(&got, Ok(Got::Plan(Ok(_)))), "{got:?}");
        assert_eq!(fake.calls(), expected);
    }
    assert_eq!(fake.requests()[4].rung(), "json_schema", "no rung was left for it");
}

#[tokio::test]
async fn requests_are_as_documented() {
    let fake = FakeOpenAi::start(text(good_plan().to_string())).await;
    let mut config = config(format!("{}/", fake.base_url()), Duration::from_secs(5));
    config.planner_model = Some("planner-model".into());
    let llm = Llm::from_config(&config).unwrap();
    let tools = tools();
    let complaints = ["step 1: \"x\" is wrong".to_owned(), "there is\na circle".to_owned()];
    let refused = Some(RefusedPlan { reply: "my old plan", complaints: &complaints });
    let context = Some("Background");
    let task = PlanTask { objective: "Add", context, tools: &tools, steps_max: 10, refused, feedback: None, meter: &Meter::Free };
    llm.plan(&task).await.unwrap();
    asked(&llm, Answer, &[]).await.0.unwrap();
    let requests = fake.requests();
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", "/v1/chat/completions"));
    assert_eq!(requests[0].headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!((&requests[0].body["model"], &requests[1].body["model"]), (&json!("planner-model"), &json!("test-model")));
    let messages = requests[0].body["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages.iter().filter_map(|message| message["role"].as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert_eq!(messages[2]["content"], "my old plan");
    assert!(complaints.iter().all(|complaint| messages[3]["content"].as_str().unwrap().contains(complaint)), "{messages:?}");
    config.api_key = None;
    asked(&Llm::from_config(&config).unwrap(), Answer, &[]).await.0.unwrap();
    assert!(!fake.requests()[2].headers.contains_key("authorization"), "no key, no header");
}

#[tokio::test]
async fn a_cut_answer_is_continued() {
    let fake = FakeOpenAi::start(|request| {
        let (content, finish) =
            [("<think>x</think>One, ", "length"), ("two, ", "length"), ("three", "length"), ("never", "stop")][request.number];
        Behaviour::message(json!({"content": content}), finish)
    })
    .await;
    let (got, calls) = asked(&llm(&fake), Answer, &[]).await;
    assert!(matches!(&got, Ok(Got::Text(text)) if text == "One, two, three"), "{got:?}");
    assert_eq!((calls.len(), fake.calls()), (3, 3));
    assert_eq!(fake.requests()[2].body["messages"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn who_answers_is_configured() {
    let mut config = config("https://api.openai.com/v1/".into(), Duration::from_secs(1));
    let name = |config: &LlmConfig| Llm::from_config(config).map(|llm| llm.name().to_owned());
    assert_eq!(name(&config), Ok("test-model".into()));
    config.api_key = Some(" ".to_owned().into());
    assert_eq!(name(&config), Ok("offline".into()), "OpenAI's own address without a key");
    config.api_key = None;
    config.choice = ModelChoice::OpenAi;
    assert_eq!(name(&config), Ok("test-model".into()));
    config.choice = ModelChoice::Auto;
    for (url, part) in [("ftp://x/v1", "http://"), ("nonsense", "OPENAI_BASE_URL is not a URL")] {
        config.base_url = url.into();
        assert!(name(&config).is_err_and(|why| why.contains(part)), "{url}");
    }
    config.base_url = "http://127.0.0.1:8089/v1".into();
    assert_eq!(name(&config), Ok("test-model".into()), "a local endpoint needs no key");
    config.choice = ModelChoice::Offline;
    assert_eq!(name(&config), Ok("offline".into()));
    config.choice = ModelChoice::OpenAi;
    config.api_key = Some("a\nb".to_owned().into());
    assert!(name(&config).is_err_and(|why| why.contains("OPENAI_API_KEY")));
}
