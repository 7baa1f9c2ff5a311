//! A TCP proxy in front of a server: forwards, delays, holds back, loses replies, breaks connections, or turns newcomers away.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Most bytes that are forwarded at once.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// A proxy on a port of its own. Dropping it breaks every connection and closes the port.
pub struct Proxy {
    address: SocketAddr,
    control: Arc<Control>,
    _accepting: JoinSet<()>,
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Requests,
    /// From the server to the client.
    Replies,
}

/// What is done to the bytes that pass.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    delay: Duration,
    requests_held: bool,
    replies_held: bool,
    /// How often all connections have been stranded.
    strandings: u64,
}

/// How all connections are to end.
#[derive(Debug, Clone, Copy, Default)]
struct Break {
    /// Changes with every break.
    count: u64,
    reset: bool,
}

struct Control {
    upstream: Mutex<String>,
    refusing: AtomicBool,
    /// Replies that are still to be lost.
    losses: AtomicUsize,
    weather: watch::Sender<Weather>,
    breaks: watch::Sender<Break>,
}

impl Proxy {
    /// Starts to forward to `upstream` (`host:port`).
    pub async fn start(upstream: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let control = Arc::new(Control {
            upstream: Mutex::new(upstream),
            refusing: AtomicBool::new(false),
            losses: AtomicUsize::new(0),
            weather: watch::Sender::default(),
            breaks: watch::Sender::default(),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&control)));
        Ok(Self { address, control, _accepting: accepting })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection that is open now.
    pub fn break_connections(&self) {
        self.end_connections(false);
    }

    /// Resets every connection that is open now (RST): neither side gets what was under way.
    pub fn reset_connections(&self) {
        self.end_connections(true);
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.control.refusing.store(refuse, Ordering::SeqCst);
    }

    /// New connections go to another server from now on; those that are open stay where they are.
    pub fn redirect(&self, upstream: String) {
        *self.control.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// How late everything arrives, each way.
    pub fn delay(&self, delay: Duration) {
        self.control.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Whether nothing gets through this way, not even the end of a connection. What was sent meanwhile arrives when this is over;
    /// new connections are accepted all the same.
    pub fn hold(&self, way: Way, hold: bool) {
        self.control.weather.send_modify(|weather| match way {
            Way::Requests => weather.requests_held = hold,
            Way::Replies => weather.replies_held = hold,
        });
    }

    /// Both ways at once: a network that is gone, with every connection still open.
    pub fn blackhole(&self, hold: bool) {
        self.hold(Way::Requests, hold);
        self.hold(Way::Replies, hold);
    }

    /// Nothing ever gets through on the connections that are open now, and nobody tells either side; new ones are fine. As when a
    /// host is gone and another one has taken its place.
    pub fn strand_connections(&self) {
        self.control.weather.send_modify(|weather| weather.strandings += 1);
    }

    /// The next `count` replies do not arrive: the server has done what it was asked for, and the connection is reset.
    pub fn lose_replies(&self, count: usize) {
        self.control.losses.store(count, Ordering::SeqCst);
    }

    /// Replies that are still to be lost.
    pub fn losses_to_come(&self) -> usize {
        self.control.losses.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.control.breaks.receiver_count()
    }

    fn end_connections(&self, reset: bool) {
        self.control.breaks.send_modify(|last| *last = Break { count: last.count + 1, reset });
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if !control.refusing.load(Ordering::SeqCst) {
            connections.spawn(forward(client, Arc::clone(&control)));
        }
    }
}

/// How a connection through the proxy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

async fn forward(mut client: TcpStream, control: Arc<Control>) {
    let mut on_break = control.breaks.subscribe();
    let upstream = control.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let _or_a_little_slower = (client.set_nodelay(true), server.set_nodelay(true));
    let born = control.weather.borrow().strandings;
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let end = tokio::select! {
        _ = on_break.changed() => if on_break.borrow().reset { End::Reset } else { End::Closed },
        ended = async {
            tokio::try_join!(
                pump((Way::Requests, born), from_client, to_server, &control),
                pump((Way::Replies, born), from_server, to_client, &control),
            )
        } => ended.err().unwrap_or(End::Closed),
    };
    if end == End::Reset {
        // With zero linger, closing sends RST in place of FIN.
        let _or_a_plain_end = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Forwards one way until its sender has no more to say (the other way goes on), or the connection is over. `born`: strandings
/// before its time.
async fn pump((way, born): (Way, u64), mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, control: &Control) -> Result<(), End> {
    let mut weather = control.weather.subscribe();
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    loop {
        let read = from.read(&mut chunk).await;
        let delay = weather.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        drop(weather.wait_for(|weather| weather.strandings == born && !weather.holds(way)).await);
        let count = read.map_err(|_| End::Closed)?;
        if count == 0 {
            return to.shutdown().await.map_err(|_| End::Closed);
        }
        if way == Way::Replies && control.loses_this_one() {
            return Err(End::Reset);
        }
        to.write_all(&chunk[..count]).await.map_err(|_| End::Closed)?;
    }
}

impl Weather {
    fn holds(&self, way: Way) -> bool {
        match way {
            Way::Requests => self.requests_held,
            Way::Replies => self.replies_held,
        }
    }
}

impl Control {
    fn loses_this_one(&self) -> bool {
        self.losses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}
