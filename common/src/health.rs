//! What a process says of itself over HTTP: `/healthz` (it lives), `/readyz` (it works), `/metrics`; and the `healthcheck` that asks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::env::Env;
use crate::limits::{HEALTHCHECK_TIMEOUT, HTTP_CONNECTIONS_MAX, READY_TIMEOUT};
use crate::message::Queue;

/// What a process is asked about.
#[derive(Debug, Clone)]
pub struct Health {
    /// The world.
    pub env: Env,
    /// The queues it is to consume.
    pub queues: &'static [Queue],
    /// Cancelled when the process is to stop: from then on it is not ready.
    pub stop: CancellationToken,
}

impl Health {
    /// What keeps this process from its work, a sentence each. Nothing: it is ready.
    pub async fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.stop.is_cancelled() {
            missing.push("it is stopping".to_owned());
        }
        match timeout(READY_TIMEOUT, self.env.store.ping()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => missing.push(error.to_string()),
            Err(_elapsed) => missing.push(format!("store does not answer within {} s", READY_TIMEOUT.as_secs())),
        }
        missing.extend(self.env.broker.trouble().map(|why| format!("broker cannot be used: {why}")));
        for queue in self.queues.iter().filter(|queue| !self.env.metrics.is_consuming(**queue)) {
            missing.push(format!("{} are not consumed", queue.role()));
        }
        missing
    }
}

/// The three pages.
pub fn routes(health: Health) -> Router {
    let pages = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async |State(health): State<Health>| ready(&health).await))
        .route("/metrics", get(async |State(health): State<Health>| metrics(&health)));
    pages.with_state(health)
}

async fn ready(health: &Health) -> Response {
    let missing = health.missing().await;
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({"ready": missing.is_empty(), "missing": missing}))).into_response()
}

fn metrics(health: &Health) -> Response {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], health.env.metrics.text()).into_response()
}

/// Takes the address, so that somebody else's claim on it is known before anything runs.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|why| format!("PLANRELAY_HTTP: cannot listen on {address}: {why}"))
}

/// Answers on `listener` until `stop`, and then what has been asked by then. At most [`HTTP_CONNECTIONS_MAX`] connections at once; the
/// next one waits until one has ended.
pub async fn serve(listener: TcpListener, pages: Router, stop: CancellationToken) {
    let listener = Bounded { listener, places: Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX)) };
    let served = axum::serve(listener, pages).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "nothing is answered over HTTP any more: {error}");
    }
}

/// A listener with a limit.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Placed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Placed, SocketAddr) {
        // Nobody closes the semaphore.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Placed { stream, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection and its place among those that there may be.
struct Placed {
    stream: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Asks the process that listens on `address` of this machine whether it is ready; an error says why it is not.
pub async fn check(address: Option<SocketAddr>) -> Result<(), String> {
    let address = local(address.ok_or("PLANRELAY_HTTP is not set: there is nobody to ask")?);
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let asked = async {
        let client = reqwest::Client::builder().no_proxy().timeout(HEALTHCHECK_TIMEOUT).build()?;
        let answer = client.get(format!("http://{address}/readyz")).send().await?;
        Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
    };
    let (status, body) = asked.await.map_err(|error| format!("nobody answers at {address}: {}", cause(&error)))?;
    if status.is_success() { Ok(()) } else { Err(format!("not ready: {}", body.trim())) }
}

/// Where the process can be reached from this machine.
fn local(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The innermost reason, which is the one that helps.
fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
