//! How the process ends: one code per kind of ending, and errors that say what, why, and what to do next.

use std::io::{self, Write};
use std::process::ExitCode;

use common::broker::{self, PublishError};
use common::client::{ControlError, WaitError};
use common::run::RunStatus;
use common::store::{self, StoreError};

/// The kinds of ending. The numbers are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The run succeeded or has a partial answer, or the command did what it should.
    Ok,
    /// The run failed, there is no such run or result, or a command about it was refused.
    Failed,
    /// The command line or the configuration cannot be used.
    Usage,
    /// The run was cancelled.
    Cancelled,
    /// RabbitMQ or Redis cannot be reached.
    Unreachable,
    /// The wait is over, the run goes on; or nobody has answered a command in time.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Cancelled => 3,
            Exit::Unreachable => 5,
            Exit::TimedOut => 6,
            Exit::Interrupted => 130,
        }
    }

    /// The ending of a command that followed a run up to this status. A run that has not ended has nothing to show.
    pub(crate) fn of(status: RunStatus) -> Self {
        match status {
            RunStatus::Succeeded | RunStatus::Partial => Exit::Ok,
            RunStatus::Cancelled => Exit::Cancelled,
            RunStatus::Failed
            | RunStatus::Planning
            | RunStatus::AwaitingApproval
            | RunStatus::Running
            | RunStatus::Paused
            | RunStatus::Summarizing => Exit::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// The same for people, at the end of `planrelay --help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done; the run succeeded, or has a partial answer
  1    the run failed, there is no such run or no result yet, or a command about it was refused
  2    the command line or the configuration cannot be used
  3    the run was cancelled
  5    RabbitMQ or Redis cannot be reached
  6    the wait timed out; the run goes on, and a command may still be carried out
  130  interrupted with Ctrl-C; a submitted run goes on, one of `planrelay run` is cancelled";

/// The codes of `planrelay doctor`, at the end of its help.
pub(crate) const DOCTOR_EXIT_CODES: &str = "\
Exit codes:
  0    nothing has failed; there may be warnings
  1    something else has failed
  2    what is configured cannot be used: settings, arguments of queues, eviction
  5    a server cannot be reached or refuses
The first of 5, 2 and 1 that fits.";

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), hint: None }
    }

    /// A failure of this kind, in words.
    pub(crate) fn says(exit: Exit, what: impl std::fmt::Display) -> Self {
        Self::new(exit, anyhow::anyhow!("{what}"))
    }

    /// What the user can do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether nobody reads our output any more: `planrelay list | head -1`. Not worth a word.
    fn is_closed_pipe(&self) -> bool {
        self.error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The failure as it stands on stderr.
    fn render(&self) -> String {
        let mut text = format!("error: {}\n", self.error);
        for cause in self.error.chain().skip(1) {
            text += &format!("caused by: {cause}\n");
        }
        if let Some(hint) = &self.hint {
            text += &format!("hint: {hint}\n");
        }
        crate::text::for_terminal(&text)
    }

    /// Says it and gives the code.
    pub(crate) fn report(&self) -> Exit {
        if self.is_closed_pipe() {
            return Exit::Ok;
        }
        // With stderr gone there is nobody left to tell.
        let _gone = io::stderr().lock().write_all(self.render().as_bytes());
        self.exit
    }
}

/// The words for where a stack is, or how to do without.
const NO_BROKER: &str = "start RabbitMQ or set AMQP_URL; `planrelay run OBJECTIVE` needs neither RabbitMQ nor Redis";
const NO_STORE: &str = "start Redis or set REDIS_URL; `planrelay run OBJECTIVE` needs neither RabbitMQ nor Redis";

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // Only writing to stdout is left to this conversion.
        Failure::new(Exit::Failed, anyhow::Error::new(error).context("failed to write to stdout"))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unreachable(_) => Failure::new(Exit::Unreachable, error).hint(NO_STORE),
            StoreError::Unusable(_) | StoreError::Newer { .. } => Failure::new(Exit::Failed, error),
        }
    }
}

impl From<store::redis::ConnectError> for Failure {
    fn from(error: store::redis::ConnectError) -> Self {
        use store::redis::ConnectError::{BadUrl, Evicts, Unreachable};
        match error {
            Unreachable { .. } => Failure::new(Exit::Unreachable, error).hint(NO_STORE),
            Evicts { .. } | BadUrl(_) => Failure::new(Exit::Usage, error),
        }
    }
}

impl From<broker::ConnectError> for Failure {
    fn from(error: broker::ConnectError) -> Self {
        use broker::ConnectError::{BadUrl, Refused, Topology, Unreachable};
        match error {
            Unreachable { .. } => Failure::new(Exit::Unreachable, error).hint(NO_BROKER),
            Refused { .. } => Failure::new(Exit::Unreachable, error).hint("check user, password and virtual host in AMQP_URL"),
            Topology { .. } | BadUrl(_) => Failure::new(Exit::Usage, error),
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Unconfirmed(_) => Failure::new(Exit::Unreachable, error).hint(NO_BROKER),
            PublishError::Unroutable(_) => {
                Failure::new(Exit::Unreachable, error).hint("start a planner, or check PLANRELAY_PREFIX")
            }
        }
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::NoSuchRun(_) => Failure::new(Exit::Failed, error).hint("planrelay list"),
            WaitError::TimedOut(ref run, _) => {
                let hint = format!("planrelay watch {run}");
                Failure::says(Exit::TimedOut, format!("run {run} has not ended yet")).hint(hint)
            }
            WaitError::Store(error) => error.into(),
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NoSuchRun(_) => Failure::new(Exit::Failed, error).hint("planrelay list"),
            ControlError::Unanswered(..) => Failure::new(Exit::TimedOut, error).hint("start a planner; it will carry it out"),
            ControlError::Publish(error) => error.into(),
            ControlError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::id::RunId;

    use super::*;

    #[test]
    fn statuses_map_to_codes() {
        for (status, code) in [
            (RunStatus::Succeeded, 0),
            (RunStatus::Partial, 0),
            (RunStatus::Failed, 1),
            (RunStatus::Cancelled, 3),
            (RunStatus::Planning, 1),
            (RunStatus::AwaitingApproval, 1),
            (RunStatus::Running, 1),
            (RunStatus::Paused, 1),
            (RunStatus::Summarizing, 1),
        ] {
            assert_eq!(Exit::of(status).code(), code, "{status:?}");
        }
    }

    #[test]
    fn errors_map_to_codes() {
        let run = RunId::parse("r").unwrap();
        let text = String::new;
        let cases: Vec<(Failure, u8)> = vec![
            (StoreError::Unreachable(text()).into(), 5),
            (StoreError::Unusable(text()).into(), 1),
            (StoreError::Newer { run: RunId::parse("r").unwrap(), schema: 2 }.into(), 1),
            (store::redis::ConnectError::Unreachable { url: text(), why: text() }.into(), 5),
            (store::redis::ConnectError::Evicts { url: text(), policy: text() }.into(), 2),
            (store::redis::ConnectError::BadUrl(text()).into(), 2),
            (broker::ConnectError::Unreachable { url: text(), why: text() }.into(), 5),
            (broker::ConnectError::Refused { url: text(), why: text() }.into(), 5),
            (broker::ConnectError::Topology { queue: text(), why: text() }.into(), 2),
            (broker::ConnectError::BadUrl(text()).into(), 2),
            (PublishError::Unconfirmed(text()).into(), 5),
            (PublishError::Unroutable(text()).into(), 5),
            (WaitError::NoSuchRun(run.clone()).into(), 1),
            (WaitError::TimedOut(run, Duration::ZERO).into(), 6),
            (WaitError::Store(StoreError::Unreachable(text())).into(), 5),
            (ControlError::NoSuchRun(RunId::parse("r").unwrap()).into(), 1),
            (ControlError::Unanswered("pause", Duration::from_secs(10)).into(), 6),
            (ControlError::Publish(PublishError::Unconfirmed(text())).into(), 5),
            (ControlError::Store(StoreError::Unreachable(text())).into(), 5),
        ];
        for (failure, code) in cases {
            assert_eq!(failure.exit.code(), code, "{failure:?}");
        }
    }

    #[test]
    fn every_code_is_documented() {
        for exit in [Exit::Ok, Exit::Failed, Exit::Usage, Exit::Cancelled, Exit::Unreachable, Exit::TimedOut, Exit::Interrupted] {
            let line = format!("\n  {:<5}", exit.code());
            assert!(EXIT_CODES.contains(&line), "{exit:?}");
        }
    }

    #[test]
    fn failures_say_what_why_and_what_next() {
        let cause = io::Error::new(io::ErrorKind::NotFound, "no such\x1b file");
        let failure = Failure::new(Exit::Usage, anyhow::Error::new(cause).context("cannot read plan p.json")).hint("ls");
        assert_eq!(failure.render(), "error: cannot read plan p.json\ncaused by: no such file\nhint: ls\n");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.report(), Exit::Ok);
    }
}
