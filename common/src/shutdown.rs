//! The stop signal of a process.

use tokio_util::sync::CancellationToken;

/// The token that SIGINT (Ctrl-C) or SIGTERM cancels. A second signal of either kind ends the process at once, with 128 and its
/// number as the exit code: 130 or 143.
///
/// From the moment it returns, neither signal ends the process by itself. To be called once, within a Tokio runtime, before
/// anything runs; fails when the system does not let signals be watched.
pub fn signal() -> std::io::Result<CancellationToken> {
    let mut signals = Signals::watch()?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    #[expect(clippy::disallowed_methods, reason = "it lives as long as the process and holds nothing that must be drained")]
    tokio::spawn(async move {
        signals.next().await;
        token.cancel();
        let number = signals.next().await;
        std::process::exit(128 + number);
    });
    Ok(stop)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn watch() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The number of the next signal.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn watch() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// The number of the next signal; only Ctrl-C exists here.
    async fn next(&mut self) -> i32 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => 2,
            Err(_cannot_watch) => std::future::pending().await,
        }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Lines};
    use std::process::{Child, ChildStdout, Command, Stdio};

    /// Set in the child process that these tests send signals to.
    const CHILD: &str = "COMMON_SHUTDOWN_TEST_CHILD";

    /// What the child does: stops at the first signal, then waits to be ended by the second. As a test of its own it does nothing.
    #[tokio::test]
    async fn child() {
        if std::env::var_os(CHILD).is_some() {
            let stop = super::signal().unwrap();
            println!("watching");
            stop.cancelled().await;
            println!("stopping");
            std::future::pending::<()>().await;
        }
    }

    fn send(child: &Child, signal: &str) {
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    }

    fn wait_for(lines: &mut Lines<BufReader<ChildStdout>>, text: &str) {
        assert!(lines.any(|line| line.unwrap().ends_with(text)), "the child never said {text:?}");
    }

    /// Expects a child to stop at `first` and to end with `code` at `second`.
    fn check(first: &str, second: &str, code: i32) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shutdown::tests::child", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        wait_for(&mut lines, "watching");
        send(&child, first);
        wait_for(&mut lines, "stopping");
        send(&child, second);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{first} {second}");
    }

    #[test]
    fn the_first_signal_stops_and_the_second_ends() {
        check("-INT", "-INT", 130);
        check("-TERM", "-TERM", 143);
        check("-TERM", "-INT", 130);
    }
}
