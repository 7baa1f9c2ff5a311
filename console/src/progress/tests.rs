use serde_json::json;

use super::*;

/// An event at `at_ms` for `slot` (empty: the run as a whole).
fn event(at_ms: u64, kind: EventType, slot: &str, attempt: u32, data: Value) -> Event {
    let slot = Some(slot.to_owned()).filter(|slot| !slot.is_empty());
    let attempt = Some(attempt).filter(|attempt| *attempt > 0);
    Event { id: format!("{at_ms}-0"), at_ms, kind, slot, attempt, epoch: None, data }
}

fn run() -> Option<RunId> {
    RunId::parse("r-1").ok()
}

pub(crate) fn progress_after(events: &[Event]) -> Progress {
    let mut progress = Progress::new(false, run());
    for event in events {
        progress.apply(event);
    }
    progress
}

/// A run with everything in it: a refused plan, parallel steps, a retry, a rate limit, a lost lease, a failure, a skip, a re-plan.
#[expect(clippy::too_many_lines, reason = "a list of events")]
pub(crate) fn story() -> Vec<Event> {
    use EventType::{
        Claimed, Drained, ModelCalled, Parked, PlanRefused, PlanStored, RunFinished, RunOpened, StepDispatched, StepFinished,
        StepRetried, StepSkipped, TakenBack, ToolCalled,
    };
    let step = |n: u32, description: &str, tool: Option<&str>, on: &[u32]| json!({"step_number": n, "description": description, "tool_hint": tool, "depends_on": on});
    let first = json!([
        step(1, "15% of 240", Some("calculate"), &[]),
        step(
            2,
            "Find the\nopening \u{1b}[31mhours in the handbook of the city library, main branch and annex",
            Some("search"),
            &[]
        ),
        step(3, "Compare both", None, &[1, 2]),
    ]);
    let second = json!([
        step(1, "15% of 240", Some("calculate"), &[]),
        step(2, "Find the opening hours", Some("search"), &[]),
        step(3, "Compare both", None, &[1, 2]),
        step(4, "Say what is known", None, &[1]),
    ]);
    vec![
        event(1_000, RunOpened, "", 0, json!({"objective_bytes": 40})),
        event(1_001, Claimed, "plan", 1, json!({"worker": "planner-1"})),
        event(
            2_000,
            ModelCalled,
            "plan",
            1,
            json!({"purpose": "plan", "model": "m-1", "rung": "json_schema", "duration_ms": 990, "input_tokens": 300, "output_tokens": 40}),
        ),
        event(2_001, PlanRefused, "plan", 1, json!({"complaints": ["step 3 depends on itself", "x"], "round": 1})),
        event(3_000, PlanStored, "plan", 1, json!({"revision": 1, "steps": 3, "reason": "first", "plan": first})),
        event(3_001, StepDispatched, "1", 1, json!({})),
        event(3_001, StepDispatched, "2", 1, json!({})),
        event(3_010, Claimed, "1", 1, json!({"worker": "executor-1"})),
        event(3_011, Claimed, "2", 1, json!({"worker": "executor-2"})),
        event(
            3_012,
            ToolCalled,
            "1",
            1,
            json!({"tool": "calculate", "arguments_bytes": 9, "result_bytes": 4, "duration_ms": 1, "ok": true, "error": null}),
        ),
        event(
            3_022,
            StepFinished,
            "1",
            1,
            json!({"outcome": "succeeded", "error": null, "duration_ms": 12, "worker": "executor-1", "tool": "calculate"}),
        ),
        event(
            4_000,
            ToolCalled,
            "2",
            1,
            json!({"tool": "search", "duration_ms": 900, "ok": false, "error": "connection\u{7} reset"}),
        ),
        event(4_001, StepRetried, "2", 1, json!({"error": "connection reset", "after_ms": 1500})),
        event(5_500, Claimed, "2", 2, json!({"worker": "executor-1"})),
        event(5_600, Parked, "2", 2, json!({"error": "rate limited", "after_ms": 500})),
        event(6_100, Claimed, "2", 2, json!({"worker": "executor-1"})),
        event(6_200, TakenBack, "2", 2, json!({"why": "lease ran out"})),
        event(6_300, Claimed, "2", 3, json!({"worker": "executor-3"})),
        event(
            7_300,
            StepFinished,
            "2",
            3,
            json!({"outcome": "failed", "error": "no such folder", "duration_ms": 1000, "worker": "executor-3", "tool": null}),
        ),
        event(7_301, StepSkipped, "3", 0, json!({"because": 2})),
        event(7_500, PlanStored, "plan", 2, json!({"revision": 2, "steps": 4, "reason": "step 2 failed", "plan": second})),
        event(7_510, Claimed, "4", 1, json!({"worker": "executor-1"})),
        event(7_520, StepFinished, "4", 1, json!({"outcome": "succeeded", "duration_ms": 10, "worker": "executor-1"})),
        event(7_521, Drained, "", 0, json!({})),
        event(7_530, Claimed, "summary", 1, json!({"worker": "summarizer-1"})),
        event(8_000, Parked, "summary", 1, json!({"error": "rate limited", "after_ms": 200})),
        event(8_200, Claimed, "summary", 1, json!({"worker": "summarizer-1"})),
        event(8_900, RunFinished, "", 0, json!({"status": "partial", "error": null})),
    ]
}

/// A run with `n` independent steps; some have ended, some run.
pub(crate) fn wide(n: u32) -> Vec<Event> {
    let plan: Vec<Value> = (1..=n)
        .map(|i| json!({"step_number": i, "description": format!("Read page {i}"), "tool_hint": "search", "depends_on": []}))
        .collect();
    let mut events = vec![event(1_000, EventType::PlanStored, "plan", 1, json!({"revision": 1, "steps": n, "plan": plan}))];
    for i in 1..=40 {
        events.push(event(2_000, EventType::Claimed, &i.to_string(), 1, json!({})));
    }
    for i in 1..=33 {
        let outcome = if i == 7 { "failed" } else { "succeeded" };
        events.push(event(3_000, EventType::StepFinished, &i.to_string(), 1, json!({"outcome": outcome, "duration_ms": 1000})));
    }
    events
}

fn outline(steps: &[(u32, &str)]) -> Value {
    steps.iter().map(|(n, description)| json!({"step_number": n, "description": description, "depends_on": []})).collect()
}

/// A run that its owner keeps an eye on: a plan that is sent back, approval, pause, a re-plan, a budget that is used up, a retry.
pub(crate) fn governed() -> Vec<Event> {
    use EventType::{
        ApprovalAwaited, Claimed, Controlled, Drained, Halted, PlanKept, PlanStored, ReplanOwed, RunFinished, RunOpened,
        StepFinished,
    };
    let quote = json!({"steps": 2, "model_calls": 3, "tool_calls": 2, "tokens": 3000, "tools_with_side_effects": ["mail"], "critical_path": [1]});
    let said = |command: &str, by: &str, answer: &str, message: &str| json!({"id": "i", "command": command, "by": by, "reason": "", "answer": answer, "message": message});
    let awaited = |revision: u32| json!({"revision": revision, "until_ms": 61_000, "otherwise": "cancel", "quote": quote});
    vec![
        event(1_000, RunOpened, "", 0, json!({})),
        event(1_001, Claimed, "plan", 1, json!({})),
        event(1_500, PlanStored, "plan", 1, json!({"revision": 1, "steps": 1, "plan": outline(&[(1, "Mail everybody")])})),
        event(1_500, ApprovalAwaited, "", 0, awaited(1)),
        event(2_000, Controlled, "", 0, said("reject", "alice", "accepted", "the plan is rejected by alice")),
        event(2_001, Claimed, "plan", 1, json!({})),
        event(
            2_500,
            PlanStored,
            "plan",
            1,
            json!({"revision": 2, "steps": 3, "reason": "nobody is mailed", "plan": outline(&[(1, "Read"), (2, "Write"), (3, "Tidy up")])}),
        ),
        event(2_500, ApprovalAwaited, "", 0, awaited(2)),
        event(2_600, Controlled, "", 0, said("approve", "alice", "accepted", "the plan is approved by alice")),
        event(2_700, Controlled, "", 0, said("reject", "bob", "refused", "decided before: the plan is approved by alice")),
        event(3_000, Claimed, "1", 1, json!({})),
        event(3_001, Claimed, "2", 1, json!({})),
        event(3_100, Controlled, "", 0, said("pause", "bob", "accepted", "the run is paused")),
        event(3_200, Controlled, "", 0, said("resume", "bob", "accepted", "the run goes on")),
        event(3_300, StepFinished, "1", 1, json!({"outcome": "failed", "error": "no such file", "duration_ms": 300})),
        event(3_300, ReplanOwed, "plan", 0, json!({"after": 1, "why": "step 1 failed: no such file"})),
        event(3_301, Claimed, "plan", 1, json!({})),
        event(
            3_400,
            PlanStored,
            "plan",
            1,
            json!({"revision": 3, "steps": 2, "reason": "another file", "plan": outline(&[(2, "Write"), (4, "Read the other")])}),
        ),
        // Of a step that the plan has dropped nothing is told.
        event(3_401, Claimed, "3", 1, json!({})),
        event(3_500, Claimed, "4", 1, json!({})),
        event(3_600, StepFinished, "4", 1, json!({"outcome": "succeeded", "duration_ms": 100})),
        event(3_600, ReplanOwed, "plan", 0, json!({"after": 4})),
        event(3_601, PlanKept, "plan", 1, json!({"reason": "all is well", "after": 4})),
        event(3_700, Halted, "", 0, json!({"kind": "budget", "reason": "max_tokens is used up", "cancelled": 0})),
        event(3_800, StepFinished, "2", 1, json!({"outcome": "failed", "error": "max_tokens is used up", "duration_ms": 800})),
        event(3_800, Drained, "", 0, json!({})),
        event(3_900, RunFinished, "", 0, json!({"status": "partial", "error": null})),
        event(5_000, Controlled, "", 0, said("retry", "", "accepted", "the run goes on from 1 step that had not succeeded")),
        event(5_100, Claimed, "2", 2, json!({})),
        event(5_200, Halted, "", 0, json!({"kind": "cancelled", "reason": "cancelled by alice: enough", "cancelled": 1})),
        event(5_200, Controlled, "", 0, said("cancel", "alice", "accepted", "the run is cancelled")),
        event(5_300, RunFinished, "", 0, json!({"status": "cancelled", "error": null})),
    ]
}

fn lines(verbose: bool, events: &[Event]) -> String {
    let mut progress = Progress::new(verbose, run());
    let mut lines = Vec::new();
    for event in events {
        for change in progress.apply(event) {
            lines.push(match change {
                Change::Note(note) => note,
                Change::Phase(phase) => phase.to_owned(),
                Change::Step(number) => progress.line(number),
            });
        }
    }
    lines.join("\n")
}

#[test]
fn plain_lines() {
    insta::assert_snapshot!(lines(false, &story()));
}

#[test]
fn plain_lines_for_the_curious() {
    insta::assert_snapshot!(lines(true, &story()));
}

#[test]
fn plain_lines_for_an_owner() {
    insta::assert_snapshot!(lines(false, &governed()));
}

#[test]
fn a_budget_spares_what_runs_and_a_cancel_does_not() {
    let standing = |kind: &str| {
        let plan = outline(&[(1, "a"), (2, "b"), (3, "c")]);
        let progress = progress_after(&[
            event(1, EventType::PlanStored, "plan", 1, json!({"revision": 1, "steps": 3, "plan": plan})),
            event(2, EventType::Claimed, "1", 1, json!({})),
            event(3, EventType::Claimed, "2", 1, json!({})),
            event(4, EventType::StepFinished, "1", 1, json!({"outcome": "succeeded"})),
            event(5, EventType::Halted, "", 0, json!({"kind": kind, "reason": "why"})),
        ]);
        assert_eq!(progress.halt.as_deref(), Some("why"));
        progress.steps.values().map(|step| step.standing).collect::<Vec<_>>()
    };
    let (done, stopped) = (Standing::Ended(Outcome::Succeeded), Standing::Ended(Outcome::Cancelled));
    assert_eq!(standing("budget"), [done, Standing::Running, stopped]);
    for kind in ["cancelled", "deadline", "unreachable"] {
        assert_eq!(standing(kind), [done, stopped, stopped], "{kind}");
    }
}

#[test]
fn a_retry_forgets_what_had_failed() {
    let progress = progress_after(&governed()[..28]);
    assert_eq!(progress.halt, None);
    let standing: Vec<_> = progress.steps.iter().map(|(number, step)| (number.0, step.standing)).collect();
    assert_eq!(standing, [(2, Standing::Waiting), (4, Standing::Ended(Outcome::Succeeded))]);
}

#[test]
fn joining_late_tells_what_can_be_told() {
    insta::assert_snapshot!(lines(false, &story()[10..]));
}

#[test]
fn nothing_that_a_model_wrote_reaches_the_terminal_as_a_command() {
    let text = lines(true, &story());
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn events_without_their_data_do_no_harm() {
    for kind in [
        EventType::RunOpened,
        EventType::Claimed,
        EventType::ModelCalled,
        EventType::PlanRefused,
        EventType::PlanStored,
        EventType::StepDispatched,
        EventType::ToolCalled,
        EventType::StepFinished,
        EventType::StepRetried,
        EventType::Parked,
        EventType::StepSkipped,
        EventType::TakenBack,
        EventType::ReplanOwed,
        EventType::PlanKept,
        EventType::ApprovalAwaited,
        EventType::Controlled,
        EventType::Halted,
        EventType::Drained,
        EventType::RunFinished,
    ] {
        for slot in ["", "plan", "summary", "1", "nonsense"] {
            for data in [Value::Null, json!({}), json!({"plan": 1, "steps": "x", "complaints": {}, "duration_ms": -1})] {
                let changes = Progress::new(true, run()).apply(&event(1, kind, slot, 0, data));
                assert!(changes.len() <= 1);
            }
        }
    }
}
