//! A check and how it is shown. Pure.

use console::Style;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::exit::Exit;
use crate::text::{columns, count, for_terminal, pad};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// Which check; the names are a promise to scripts.
    pub(crate) name: &'static str,
    /// What was looked at, where there are several.
    pub(crate) subject: Option<String>,
    pub(crate) status: Status,
    /// The fact found; of a skipped check, why it was skipped. May have several lines.
    pub(crate) found: String,
    /// The command that mends it.
    pub(crate) mend: Option<String>,
}

/// How it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    /// planrelay works, with a risk or without some of its parts.
    Warning,
    /// planrelay does not work.
    Failed(Fault),
    Skipped,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A server cannot be reached or refuses.
    Unreachable,
    /// Something is set up wrong that planrelay refuses to start with.
    Configuration,
    /// Anything else.
    Broken,
}

impl Check {
    fn new(name: &'static str, status: Status, found: impl Into<String>) -> Self {
        Self { name, subject: None, status, found: found.into(), mend: None }
    }

    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, found)
    }

    pub(crate) fn warning(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..Self::new(name, Status::Warning, found) }
    }

    pub(crate) fn failed(name: &'static str, fault: Fault, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..Self::new(name, Status::Failed(fault), found) }
    }

    pub(crate) fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, Status::Skipped, why)
    }

    pub(crate) fn of(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed(_) => "failed",
            Status::Skipped => "skipped",
        }
    }

    fn mark(self) -> (&'static str, Style) {
        match self {
            Status::Ok => ("✓", Style::new().green()),
            Status::Warning => ("!", Style::new().yellow()),
            Status::Failed(_) => ("✗", Style::new().red()),
            Status::Skipped => ("-", Style::new().dim()),
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Check", 5)?;
        fields.serialize_field("name", self.name)?;
        fields.serialize_field("subject", &self.subject)?;
        fields.serialize_field("status", self.status.name())?;
        fields.serialize_field("found", &self.found)?;
        fields.serialize_field("mend", &self.mend)?;
        fields.end()
    }
}

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) checks: Vec<Check>,
    ok: usize,
    warnings: usize,
    failed: usize,
    skipped: usize,
}

impl Report {
    pub(crate) fn new(checks: Vec<Check>) -> Self {
        let count = |name: &str| checks.iter().filter(|check| check.status.name() == name).count();
        let (ok, warnings, failed, skipped) = (count("ok"), count("warning"), count("failed"), count("skipped"));
        Self { checks, ok, warnings, failed, skipped }
    }

    /// The gravest failure decides. A warning is no failure.
    pub(crate) fn exit(&self) -> Exit {
        let failed = |fault: Fault| self.checks.iter().any(|check| check.status == Status::Failed(fault));
        if failed(Fault::Unreachable) {
            Exit::Unreachable
        } else if failed(Fault::Configuration) {
            Exit::Usage
        } else if failed(Fault::Broken) {
            Exit::Failed
        } else {
            Exit::Ok
        }
    }

    /// For people: a mark, the check, what was found, and below it what to do.
    pub(crate) fn render(&self, colour: bool) -> String {
        let label = |check: &Check| check.name.replace('_', " ");
        let width = self.checks.iter().map(|check| columns(&label(check))).max().unwrap_or_default();
        let margin = " ".repeat(width + 4);
        let mut text = String::new();
        for check in &self.checks {
            let (mark, style) = check.status.mark();
            let mark = style.force_styling(colour).apply_to(mark);
            let subject = check.subject.as_ref().map(|subject| format!("{subject}: ")).unwrap_or_default();
            let found = for_terminal(&format!("{subject}{}", check.found)).replace('\n', &format!("\n{margin}"));
            text.push_str(&format!("{mark} {}  {found}\n", pad(&label(check), width)));
            if let Some(mend) = &check.mend {
                text.push_str(&format!("{margin}→ {}\n", for_terminal(mend)));
            }
        }
        text + &self.summary()
    }

    fn summary(&self) -> String {
        let parts = [(self.warnings, "warning"), (self.failed, "failure")];
        let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| format!(", {}", count(*n, noun)));
        let skipped = if self.skipped > 0 { format!(", {} skipped", self.skipped) } else { String::new() };
        format!("{}: {} ok{}{skipped}", count(self.checks.len(), "check"), self.ok, parts.collect::<String>())
    }
}

/// Checks of the same name that say the same of different subjects, as one.
pub(crate) fn merged(checks: Vec<Check>) -> Vec<Check> {
    let mut merged: Vec<(Check, usize)> = Vec::new();
    for check in checks {
        let same = |(known, _): &&mut (Check, usize)| {
            (known.name, known.status, &known.found) == (check.name, check.status, &check.found) && check.status == Status::Ok
        };
        match merged.iter_mut().find(same) {
            Some((_, times)) => *times += 1,
            None => merged.push((check, 1)),
        }
    }
    let one = |(check, times): (Check, usize)| if times > 1 { check.of(format!("{times} nodes")) } else { check };
    merged.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Vec<Check> {
        vec![
            Check::ok("configuration", "2 settings\nprefix = \"a\" (flag --prefix)"),
            Check::warning("redis", "a replica\x1b[2J", "redis-cli REPLICAOF NO ONE").of("redis://h"),
            Check::failed("rabbitmq_permissions", Fault::Broken, "none", "rabbitmqctl set_permissions"),
            Check::skipped("model", "no endpoint"),
        ]
    }

    #[test]
    fn checks_stand_under_each_other() {
        let expected = "\
✓ configuration         2 settings
                        prefix = \"a\" (flag --prefix)
! redis                 redis://h: a replica
                        → redis-cli REPLICAOF NO ONE
✗ rabbitmq permissions  none
                        → rabbitmqctl set_permissions
- model                 no endpoint
4 checks: 1 ok, 1 warning, 1 failure, 1 skipped";
        assert_eq!(Report::new(checks()).render(false), expected);
        assert!(Report::new(checks()).render(true).contains("\x1b[31m✗\x1b[0m"));
    }

    #[test]
    fn scripts_get_the_same() {
        let json = serde_json::to_value(Report::new(checks())).unwrap();
        assert_eq!((json["failed"].as_u64(), json["warnings"].as_u64()), (Some(1), Some(1)));
        let mend = "redis-cli REPLICAOF NO ONE";
        let expected = serde_json::json!({"name": "redis", "subject": "redis://h", "status": "warning", "found": "a replica\u{1b}[2J", "mend": mend});
        assert_eq!(json["checks"][1], expected);
    }

    #[test]
    fn the_gravest_failure_decides() {
        let failed = |fault| Check::failed("x", fault, "", "");
        let code = |checks: Vec<Check>| Report::new(checks).exit().code();
        assert_eq!(code(vec![Check::ok("x", ""), Check::warning("x", "", ""), Check::skipped("x", "")]), 0);
        assert_eq!(code(vec![Check::ok("x", ""), failed(Fault::Broken)]), 1);
        assert_eq!(code(vec![failed(Fault::Broken), failed(Fault::Configuration)]), 2);
        assert_eq!(code(vec![failed(Fault::Configuration), failed(Fault::Unreachable)]), 5);
    }

    #[test]
    fn what_is_well_everywhere_is_said_once() {
        let ok = |of: &str| Check::ok("redis_eviction", "noeviction").of(of);
        let bad = Check::failed("redis_eviction", Fault::Broken, "allkeys-lru", "").of("c");
        let merged = merged(vec![ok("a"), bad.clone(), ok("b")]);
        assert_eq!(merged, [ok("2 nodes"), bad]);
    }
}
