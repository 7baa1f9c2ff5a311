//! The checker of invariants can fail: each of them is broken on purpose in what is seen of a good run, and noticed.

use common::event::EventType;
use common::llm::Llm;
use common::store::Store;
use serde_json::json;
use support::invariants::{Look, always, at_the_end, effects, never_undone, replies};
use support::stores::redis_url;
use support::world::{Backend, World, config};

/// Spoils a look at a run that has ended; the complaints must begin with `invariant`.
fn noticed(good: &Look, invariant: &str, spoil: impl Fn(&mut Look)) {
    let mut bad = good.clone();
    spoil(&mut bad);
    let complaints: Vec<String> = at_the_end(&bad).into_iter().chain(never_undone(good, &bad)).collect();
    assert!(complaints.iter().any(|complaint| complaint.starts_with(invariant)), "{invariant} is not noticed: {complaints:?}");
}

fn at(look: &Look, kind: EventType, slot: Option<&str>) -> usize {
    look.events.iter().position(|event| event.kind == kind && (slot.is_none() || event.slot.as_deref() == slot)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong_is_noticed() {
    let world = World::on(Backend::Servers, Llm::Offline, &config()).await;
    let step = |number: u32, depends_on: &[u32]| {
        json!({"step_number": number, "description": "a sum", "tool_hint": "calculate", "arguments": {"expression": "1+1"},
               "depends_on": depends_on})
    };
    let objective =
        json!({"objective": "sums", "plan": {"steps": [step(1, &[]), step(2, &[1])]}, "options": {"respond": "results"}});
    let run = world.submit(objective).await;
    world.client.wait(&run, support::stack::PATIENCE).await.unwrap();
    let Store::Redis(redis) = &world.env.store else { panic!("{:?}", world.env.store) };
    let prefix = redis.prefix().to_owned();
    let good = Look::at(&world.env.store, &redis_url(), &prefix, &run).await.unwrap();
    let none: [&str; 0] = [];
    assert_eq!(at_the_end(&good), none, "{good:#?}");
    assert_eq!(never_undone(&good, &good), none);

    noticed(&good, "I1 ", |look| look.document = None);
    noticed(&good, "I2 ", |look| _ = look.plans.insert("2".into(), "{}".into()));
    noticed(&good, "I2 ", |look| _ = look.plans.insert("1".into(), "{}".into()));
    noticed(&good, "I3 ", |look| look.events.insert(0, look.events[at(&good, EventType::StepFinished, None)].clone()));
    noticed(&good, "I3 ", |look| _ = look.results.insert("1".into(), "{}".into()));
    noticed(&good, "I3 ", |look| look.events[at(&good, EventType::StepFinished, Some("1"))].data = json!({"outcome": "failed"}));
    noticed(&good, "I4 ", |look| look.events.extend(look.events.last().cloned()));
    noticed(&good, "I4 ", |look| look.document = look.document.as_ref().map(|text| format!("{text} ")));
    noticed(&good, "I5 ", |look| {
        look.events.swap(at(&good, EventType::Drained, None), at(&good, EventType::StepFinished, Some("2")))
    });
    noticed(&good, "I5 ", |look| {
        look.events.swap(at(&good, EventType::Drained, None), at(&good, EventType::Claimed, Some("summary")))
    });
    noticed(&good, "I5 ", |look| _ = look.events.remove(at(&good, EventType::Drained, None)));
    noticed(&good, "I6 ", |look| {
        look.events.swap(at(&good, EventType::Claimed, Some("2")), at(&good, EventType::StepFinished, Some("1")));
    });
    noticed(&good, "I7 ", |look| look.events[at(&good, EventType::StepFinished, Some("1"))].epoch = Some(7));
    noticed(&good, "I7 ", |look| look.events.insert(0, look.events[at(&good, EventType::Claimed, Some("1"))].clone()));
    noticed(&good, "I9 ", |look| look.events[at(&good, EventType::Claimed, Some("1"))].attempt = Some(2));
    noticed(&good, "I11 ", |look| look.keys.values_mut().for_each(|left| *left = -1));
    noticed(&good, "I13 ", |look| look.events.swap(0, 1));
    noticed(&good, "I13 ", |look| look.events.extend(look.events.first().cloned()));
    noticed(&good, "I17 ", |look| look.unfinished.push("1".into()));
    let mut live = good.clone();
    live.events.pop();
    assert!(always(&live).iter().any(|complaint| complaint.starts_with("I11 ")), "{:?}", always(&live));

    let document = good.document.clone().unwrap().into_bytes();
    assert_eq!(replies(&good, &[document.clone(), document]), none);
    assert_eq!((replies(&good, &[]).len(), replies(&good, &[b"{}".to_vec()]).len()), (1, 1));
    let key = format!("{run}:1:0");
    assert_eq!(effects(&good, &run, 1, &[key.clone(), key]), none);
    assert_eq!((effects(&good, &run, 1, &[]).len(), effects(&good, &run, 1, &[format!("{run}:1:1")]).len()), (1, 1));
    world.stop().await;
}
