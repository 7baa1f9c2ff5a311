//! The faults, and the line over which a process says that it has reached its point.

use support::points::{Place, Point};
use support::proxy::Proxy;
use support::stack::{PATIENCE, Process, Stack, through};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// What happens to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is killed, and another one started.
    Kill,
    /// It hangs for twice the lease, while another one is started, and goes on as if nothing had been.
    Stop,
    /// It panics.
    Panic,
    /// Its connections to Redis are reset.
    Redis,
    /// Its connections to RabbitMQ are reset.
    Amqp,
}

impl Fault {
    pub(super) const ALL: [Fault; 5] = [Fault::Kill, Fault::Stop, Fault::Panic, Fault::Redis, Fault::Amqp];

    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::Kill => "SIGKILL",
            Fault::Stop => "SIGSTOP",
            Fault::Panic => "panic",
            Fault::Redis => "redis-reset",
            Fault::Amqp => "amqp-reset",
        }
    }
}

/// A process with a trap, and everything between it and the world.
pub(super) struct Target {
    pub(super) point: &'static Point,
    pub(super) process: Process,
    pub(super) amqp: Proxy,
    pub(super) redis: Proxy,
    listener: TcpListener,
}

impl Target {
    /// Starts the service of `point`, with a trap there.
    pub(super) async fn start(stack: &Stack, point: &'static Point, rabbit: &str, redis: &str) -> Self {
        let (amqp, amqp_url) = through(rabbit, 5672).await;
        let (redis, redis_url) = through(redis, 6379).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = listener.local_addr().unwrap().to_string();
        let settings = [
            (support::points::SERVICE, point.service),
            (support::points::POINT, point.name),
            (support::points::LINE, line.as_str()),
            ("AMQP_URL", amqp_url.as_str()),
            ("REDIS_URL", redis_url.as_str()),
            // Printing one takes a second of a debug build, in which nothing else goes on.
            ("RUST_BACKTRACE", "0"),
        ];
        let process = stack.start_with("crashing", &settings);
        Self { point, process, amqp, redis, listener }
    }

    /// The line of the process, once it has started.
    pub(super) async fn line(&self) -> Line {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("the process starts").unwrap();
        Line { point: self.point, stream: BufReader::new(stream) }
    }
}

/// The line to a process. When it is dropped, whatever the process still has to say is answered by `go`.
pub(super) struct Line {
    point: &'static Point,
    stream: BufReader<TcpStream>,
}

impl Line {
    /// Waits until the process says that it is at `stage`.
    pub(super) async fn expect(&mut self, stage: &str) {
        let mut said = String::new();
        let heard = timeout(PATIENCE, self.stream.read_line(&mut said)).await;
        assert!(matches!(heard, Ok(Ok(_))), "{} is never reached ({stage}): {heard:?}", self.point.name);
        let (at, in_hand) = said.trim().rsplit_once(' ').expect("three words");
        assert_eq!(at, format!("{} {stage}", self.point.name), "the process has gone another way");
        let acknowledged = matches!(self.point.place, Place::DuringAck(_));
        assert!(acknowledged || in_hand != "0", "I8 {}: the message in hand is acknowledged already", self.point.name);
    }

    /// Tells the process what to do.
    pub(super) async fn say(&mut self, word: &str) {
        self.stream.write_all(format!("{word}\n").as_bytes()).await.expect("the process listens");
    }
}
