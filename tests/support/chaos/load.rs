//! What is submitted: runs of every shape and fate, from a seed.

use std::time::Duration;

use serde_json::{Value, json};

use super::dice::Dice;

/// Results above this are not added any more: numbers must stay exact in JSON.
const LARGE: i64 = 1_000_000_000;

/// What a step does, in words of this test.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Work {
    /// `calculate`: `a*b+c`. `judged`: a model says whether it is done. `checked`: the plan says what must come out.
    Product { a: i64, b: i64, c: i64, judged: bool, checked: bool },
    /// `analyze`: the numbers that earlier steps gave, and one more. Each with the part of its result that counts.
    Total { of: Vec<(u32, &'static str)>, plus: i64 },
    /// The model's fingerprint of everything that the step was given, after a while.
    Digest { late: Duration },
    /// `analyze`: how an earlier step ended that did not succeed.
    Obituary { of: u32 },
    /// Something that fails for good.
    Failing(Failing),
}

/// How a step fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failing {
    /// Its tool does.
    Division,
    /// Its check does not hold.
    Check,
    /// The model says that it is not done.
    Verdict,
    /// The model says that it cannot be done.
    Impossible,
}

/// A step as it is submitted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) number: u32,
    pub(super) work: Work,
    pub(super) after: Vec<u32>,
    /// It runs even if a step before it has failed.
    pub(super) anyway: bool,
}

/// What becomes of a run, beside its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// Nothing.
    Plain,
    /// Steps fail for good; the plan stays as it is. `asked`: the model is asked and keeps it.
    Failing { asked: bool },
    /// A step fails for good and the model replaces it.
    Revised { failed: u32 },
    /// The model makes the plan.
    Planned,
    /// It waits for an approval, which comes.
    Approved,
    /// It is paused and resumed.
    Paused,
    /// It is cancelled.
    Cancelled,
    /// It may take only so many seconds.
    Deadline { secs: u32 },
    /// It may call tools only so often.
    Budget { calls: u32 },
}

impl Fate {
    pub(super) fn name(self) -> &'static str {
        match self {
            Fate::Plain => "plain",
            Fate::Failing { asked: false } => "failing",
            Fate::Failing { asked: true } => "failing, plan kept",
            Fate::Revised { .. } => "revised",
            Fate::Planned => "planned by the model",
            Fate::Approved => "approved",
            Fate::Paused => "paused, resumed",
            Fate::Cancelled => "cancelled",
            Fate::Deadline { .. } => "deadline",
            Fate::Budget { .. } => "budget",
        }
    }

    /// Whether the run may end before all of its plan is done.
    pub(super) fn may_halt(self) -> bool {
        match self {
            Fate::Cancelled | Fate::Deadline { .. } | Fate::Budget { .. } => true,
            Fate::Plain | Fate::Failing { .. } | Fate::Revised { .. } | Fate::Planned | Fate::Approved | Fate::Paused => false,
        }
    }
}

/// A run as it is submitted.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) run: String,
    pub(super) shape: &'static str,
    pub(super) fate: Fate,
    pub(super) steps: Vec<Step>,
    /// What takes the place of the failed step of [`Fate::Revised`].
    pub(super) replacement: Option<Step>,
    /// A model writes the answer.
    pub(super) answered: bool,
    /// The document is wanted at a queue.
    pub(super) replied: bool,
    /// Steps in flight at once.
    pub(super) window: Option<u32>,
    /// When the same objective is published again, after the first time.
    pub(super) again: Vec<Duration>,
    /// When a command comes, after the run has been opened.
    pub(super) command_after: Duration,
}

impl Load {
    /// Run `number` of `seed`.
    pub(super) fn new(seed: u64, number: u32) -> Self {
        let run = format!("chaos-{number:05}");
        let mut dice = Dice::new(seed, &run);
        let shape = dice.pick(&["chain", "chain", "fan", "diamond", "random", "random"]);
        let fate = fate(&mut dice);
        let mut steps = drawn(&mut dice, shape, fate);
        let replacement = bend(&mut dice, fate, &mut steps);
        let fate = match (fate, &replacement) {
            (Fate::Revised { .. }, Some((failed, _))) => Fate::Revised { failed: *failed },
            (other, _) => other,
        };
        Self {
            shape,
            fate,
            replacement: replacement.map(|(_, step)| step),
            // Listing the results needs neither time nor budget: what they come to is then certain.
            answered: !fate.may_halt() && dice.percent(40),
            replied: dice.percent(25),
            window: dice.percent(30).then(|| dice.between(2, 8)),
            again: (0..if dice.percent(30) { dice.between(1, 3) } else { 0 }).map(|_| dice.millis(0, 8000)).collect(),
            command_after: dice.millis(200, 4000),
            steps,
            run,
        }
    }

    /// The body on the objectives queue.
    pub(super) fn body(&self) -> Value {
        let mut options = json!({"respond": if self.answered { "answer" } else { "results" }});
        if let Some(window) = self.window {
            options["max_parallel_steps"] = window.into();
        }
        let mut objective = format!("{} of {}", self.fate.name(), self.run);
        match self.fate {
            Fate::Plain | Fate::Paused | Fate::Cancelled | Fate::Failing { asked: true } => {}
            Fate::Failing { asked: false } => options["replan"] = "never".into(),
            Fate::Revised { failed } => {
                let step = self.replacement.as_ref().map(|step| self.step(step));
                objective += &format!("\nif {failed} fails: {}", step.unwrap_or_default());
            }
            Fate::Planned => objective += &format!("\nplan: {}", self.plan()),
            Fate::Approved => options["approve"] = "plan".into(),
            Fate::Deadline { secs } => options["deadline_secs"] = secs.into(),
            Fate::Budget { calls } => options["max_tool_calls"] = calls.into(),
        }
        let mut body = json!({"run_id": self.run, "objective": objective, "options": options});
        if self.fate != Fate::Planned {
            body["plan"] = self.plan();
        }
        body
    }

    fn plan(&self) -> Value {
        json!({"steps": self.steps.iter().map(|step| self.step(step)).collect::<Vec<_>>()})
    }

    fn step(&self, step: &Step) -> Value {
        let mut entry = json!({"step_number": step.number, "description": self.description(step), "depends_on": step.after});
        if step.anyway {
            entry["on_failed_dependency"] = "run_anyway".into();
        }
        let (tool, arguments) = match &step.work {
            Work::Product { a, b, c, judged, checked } => {
                if *judged {
                    entry["done_when"] = "a number is given".into();
                }
                if *checked {
                    entry["check"] = json!({"equals": a * b + c});
                }
                ("calculate", json!({"expression": format!("{a}*{b}+{c}")}))
            }
            Work::Total { of, plus } => {
                let reference = |(step, pointer): &(u32, &str)| match *pointer {
                    "" => json!({"$result": step}),
                    pointer => json!({"$result": step, "pointer": pointer}),
                };
                let numbers: Vec<Value> = of.iter().map(reference).chain([json!(plus)]).collect();
                ("analyze", json!({"numbers": numbers}))
            }
            Work::Obituary { of } => ("analyze", json!({"text": {"$result": of, "pointer": "/outcome"}})),
            Work::Failing(Failing::Division) => ("calculate", json!({"expression": "1/0"})),
            Work::Failing(Failing::Check) => {
                entry["check"] = json!({"equals": 5});
                ("calculate", json!({"expression": "2+2"}))
            }
            Work::Digest { .. } | Work::Failing(Failing::Verdict | Failing::Impossible) => return entry,
        };
        entry["tool_hint"] = tool.into();
        entry["arguments"] = arguments;
        entry
    }

    /// What the step is to do: unique, and all that the model needs to know about it.
    pub(super) fn description(&self, step: &Step) -> String {
        let what = match &step.work {
            Work::Product { .. } => "product".to_owned(),
            Work::Total { .. } => "total".to_owned(),
            Work::Obituary { .. } => "obituary".to_owned(),
            Work::Digest { late } if late.is_zero() => "digest".to_owned(),
            Work::Digest { late } => format!("digest late {}", late.as_millis()),
            Work::Failing(Failing::Division | Failing::Check) => "nonsense".to_owned(),
            Work::Failing(Failing::Verdict) => "digest fails".to_owned(),
            Work::Failing(Failing::Impossible) => "digest never".to_owned(),
        };
        format!("{}/{} {what}", self.run, step.number)
    }
}

fn fate(dice: &mut Dice) -> Fate {
    match dice.between(1, 100) {
        1..=36 => Fate::Plain,
        37..=46 => Fate::Failing { asked: false },
        47..=53 => Fate::Failing { asked: true },
        54..=62 => Fate::Revised { failed: 0 },
        63..=69 => Fate::Planned,
        70..=74 => Fate::Approved,
        75..=81 => Fate::Paused,
        82..=88 => Fate::Cancelled,
        89..=94 => Fate::Deadline { secs: dice.between(2, 8) },
        _ => Fate::Budget { calls: dice.between(3, 6) },
    }
}

/// The steps of a shape, before anything is made to fail.
fn drawn(dice: &mut Dice, shape: &str, fate: Fate) -> Vec<Step> {
    let after: Vec<Vec<u32>> = match shape {
        "chain" => (1..=dice.between(4, 14)).map(|n| if n == 1 { vec![] } else { vec![n - 1] }).collect(),
        "fan" => {
            let wide = dice.between(20, 60);
            (1..=wide + 2)
                .map(|n| {
                    if n == 1 {
                        vec![]
                    } else if n < wide + 2 {
                        vec![1]
                    } else {
                        (2..=wide + 1).collect()
                    }
                })
                .collect()
        }
        "diamond" => {
            let layers = dice.between(1, 4);
            // 1 → 2,3 → 4 → 5,6 → 7 …
            let parents = |n: u32| match n % 3 {
                _ if n == 1 => vec![],
                2 => vec![n - 1],
                0 => vec![n - 2],
                _ => vec![n - 2, n - 1],
            };
            (1..=3 * layers + 1).map(parents).collect()
        }
        _ => (1..=dice.between(6, 30))
            .map(|n| {
                let mut before: Vec<u32> = (1..n).filter(|_| dice.percent(100 / n.max(2) + 8)).collect();
                before.truncate(3);
                before
            })
            .collect(),
    };
    let mut steps: Vec<Step> = Vec::with_capacity(after.len());
    for (number, after) in (1..).zip(after) {
        let work = work(dice, fate, &steps, &after);
        steps.push(Step { number, work, after, anyway: false });
    }
    steps
}

fn work(dice: &mut Dice, fate: Fate, before: &[Step], after: &[u32]) -> Work {
    if fate == Fate::Planned {
        return Work::Digest { late: Duration::ZERO };
    }
    let slow = match fate {
        Fate::Cancelled | Fate::Paused | Fate::Deadline { .. } => 25,
        Fate::Plain | Fate::Failing { .. } | Fate::Revised { .. } | Fate::Planned | Fate::Approved | Fate::Budget { .. } => 3,
    };
    // A budget counts calls of tools: all of these make exactly one.
    let exact = matches!(fate, Fate::Budget { .. });
    match dice.between(1, 100) {
        roll if !exact && roll <= slow => Work::Digest { late: dice.millis(800, 4000) },
        roll if !exact && roll <= slow + 15 => Work::Digest { late: Duration::ZERO },
        roll if after.is_empty() || roll > 80 => {
            let judged = !exact && dice.percent(10);
            let (a, b, c) = (dice.between(2, 99), dice.between(2, 99), dice.between(0, 999));
            Work::Product { a: a.into(), b: b.into(), c: c.into(), judged, checked: dice.percent(20) }
        }
        _ => {
            let totals = totals(before);
            let part = |number: &u32| match &before[*number as usize - 1].work {
                Work::Product { .. } => Some((*number, "")),
                Work::Total { .. } if totals[*number as usize - 1].1 < LARGE => Some((*number, "/sum")),
                Work::Total { .. } => Some((*number, "/count")),
                Work::Digest { .. } | Work::Obituary { .. } | Work::Failing(_) => None,
            };
            Work::Total { of: after.iter().filter_map(part).collect(), plus: dice.between(1, 500).into() }
        }
    }
}

/// Makes steps fail, as the fate says. What depends on them must not need their numbers. Gives what replaces which step.
fn bend(dice: &mut Dice, fate: Fate, steps: &mut [Step]) -> Option<(u32, Step)> {
    let many = match fate {
        Fate::Failing { .. } => dice.between(1, 2),
        Fate::Revised { .. } => 1,
        Fate::Plain | Fate::Planned | Fate::Approved | Fate::Paused => return None,
        Fate::Cancelled | Fate::Deadline { .. } | Fate::Budget { .. } => return None,
    };
    let last = u32::try_from(steps.len()).unwrap_or(1);
    let mut failed = 0;
    for _ in 0..many {
        failed = dice.between(1, last);
        let how = dice.pick(&[Failing::Division, Failing::Check, Failing::Verdict, Failing::Impossible]);
        steps[failed as usize - 1].work = Work::Failing(how);
        for step in steps.iter_mut().filter(|step| step.after.contains(&failed)) {
            if !matches!(step.work, Work::Failing(_)) {
                step.work = Work::Digest { late: Duration::ZERO };
            }
            if matches!(fate, Fate::Failing { .. }) && dice.percent(40) {
                step.anyway = true;
                if step.after.len() == 1 && dice.percent(50) && !matches!(step.work, Work::Failing(_)) {
                    step.work = Work::Obituary { of: failed };
                }
            }
        }
    }
    soften(steps);
    let after = steps[failed as usize - 1].after.clone();
    let work = Work::Product { a: dice.between(2, 99).into(), b: 7, c: 1, judged: false, checked: false };
    matches!(fate, Fate::Revised { .. }).then(|| (failed, Step { number: last + 1, work, after, anyway: false }))
}

/// Totals that count on steps which are not numbers any more count without them.
fn soften(steps: &mut [Step]) {
    let numbers: Vec<(bool, bool)> =
        steps.iter().map(|s| (matches!(s.work, Work::Product { .. }), matches!(s.work, Work::Total { .. }))).collect();
    for step in steps {
        if let Work::Total { of, .. } = &mut step.work {
            of.retain(|(number, pointer)| {
                let (product, total) = numbers[*number as usize - 1];
                if pointer.is_empty() { product } else { total }
            });
        }
    }
}

/// What `analyze` says about the numbers of each step, where it rests on products and totals alone: count and sum.
pub(super) fn totals(steps: &[Step]) -> Vec<(i64, i64)> {
    let mut all: Vec<(i64, i64)> = Vec::with_capacity(steps.len());
    for step in steps {
        all.push(match &step.work {
            Work::Product { a, b, c, .. } => (1, a * b + c),
            Work::Total { of, plus } => {
                let part = |(step, pointer): &(u32, &str)| {
                    let (count, sum) = all[*step as usize - 1];
                    if *pointer == "/count" { count } else { sum }
                };
                (1 + i64::try_from(of.len()).unwrap_or(0), plus + of.iter().map(part).sum::<i64>())
            }
            Work::Digest { .. } | Work::Obituary { .. } | Work::Failing(_) => (0, 0),
        });
    }
    all
}
