//! A TCP proxy in front of a server: forwards, breaks every connection, or turns newcomers away.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A proxy on a port of its own. Dropping it breaks every connection and closes the port.
pub struct Proxy {
    address: SocketAddr,
    refusing: Arc<AtomicBool>,
    /// Changes when all connections are to break.
    breaks: watch::Sender<u64>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Starts to forward to `upstream` (`host:port`).
    pub async fn start(upstream: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let refusing = Arc::new(AtomicBool::new(false));
        let (breaks, on_break) = watch::channel(0);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, upstream, Arc::clone(&refusing), on_break));
        Ok(Self { address, refusing, breaks, _accepting: accepting })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection that is open now.
    pub fn break_connections(&self) {
        self.breaks.send_modify(|count| *count += 1);
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.refusing.store(refuse, Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, upstream: String, refusing: Arc<AtomicBool>, on_break: watch::Receiver<u64>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if !refusing.load(Ordering::SeqCst) {
            connections.spawn(forward(client, upstream.clone(), on_break.clone()));
        }
    }
}

async fn forward(mut client: TcpStream, upstream: String, mut on_break: watch::Receiver<u64>) {
    on_break.mark_unchanged();
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    tokio::select! {
        _ = on_break.changed() => {}
        _ = copy_bidirectional(&mut client, &mut server) => {}
    }
}
