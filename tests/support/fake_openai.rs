//! A fake OpenAI-compatible server: real HTTP/1.1 on 127.0.0.1, in this process, every request recorded.
//!
//! Two ways to use it. [`FakeOpenAi::scripted`] is a well-behaved model: a [`Script`] says what to plan, do and answer, and
//! the fake gives it in whatever form the request asks for. [`FakeOpenAi::start`] takes a closure from each request to a
//! [`Behaviour`], which may be as hostile as a network gets. It speaks TCP itself, because no HTTP library resets, drips
//! or lies on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

mod behaviour;
mod script;

pub use behaviour::Behaviour;
pub use script::{Purpose, Script, ScriptedMove};

/// Largest request that the fake reads, in bytes.
const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Time between two bytes of a drip.
const DRIP_PACE: Duration = Duration::from_millis(20);

/// One request as the fake got it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its number, from 0.
    pub number: usize,
    /// `POST`.
    pub method: String,
    /// `/v1/chat/completions`.
    pub path: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The JSON body; null when there is none.
    pub body: Value,
}

/// The server. It stops when it is dropped.
pub struct FakeOpenAi {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    behave: Box<dyn Fn(&Request) -> Behaviour + Send + Sync>,
    requests: Mutex<Vec<Request>>,
    count: watch::Sender<usize>,
    bytes_sent: watch::Sender<u64>,
}

impl FakeOpenAi {
    /// Starts a server that treats every request as `behave` says.
    pub async fn start(behave: impl Fn(&Request) -> Behaviour + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on 127.0.0.1");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            behave: Box::new(behave),
            requests: Mutex::default(),
            count: watch::Sender::new(0),
            bytes_sent: watch::Sender::new(0),
        });
        let serving = Arc::clone(&shared);
        #[expect(clippy::disallowed_methods, reason = "the server's one task, aborted on drop; its connections are in a JoinSet")]
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&serving)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, shared, accepting }
    }

    /// Starts a well-behaved model.
    pub async fn scripted(script: Script) -> Self {
        Self::start(move |request| script.respond(request)).await
    }

    /// What `OPENAI_BASE_URL` must be: `http://127.0.0.1:<port>/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How many requests came in.
    pub fn calls(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Every request so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `calls` requests have come in. The caller bounds the wait.
    pub async fn wait_for_calls(&self, calls: usize) {
        let mut count = self.shared.count.subscribe();
        // The sender lives as long as self.
        let _ = count.wait_for(|count| *count >= calls).await;
    }

    /// How many bytes of bodies went out: how much of a flood the client read (and the kernel buffered).
    pub fn bytes_sent(&self) -> u64 {
        *self.shared.bytes_sent.borrow()
    }
}

impl Drop for FakeOpenAi {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Answers requests on one connection until either side ends it.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut unread = Vec::new();
    while let Some(mut request) = read_request(&mut stream, &mut unread).await {
        let behaviour = {
            let mut requests = shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
            request.number = requests.len();
            requests.push(request.clone());
            drop(requests);
            shared.count.send_modify(|count| *count += 1);
            (shared.behave)(&request)
        };
        if !behave(&mut stream, behaviour, &shared).await {
            return;
        }
    }
}

/// Does what `behaviour` says; whether the connection goes on.
async fn behave(stream: &mut TcpStream, behaviour: Behaviour, shared: &Shared) -> bool {
    match behaviour {
        Behaviour::Reply { status, headers, body } => {
            let mut head = format!("HTTP/1.1 {status} Fake\r\ncontent-length: {}\r\n", body.len());
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                head.push_str("content-type: application/json\r\n");
            }
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            send(stream, format!("{head}\r\n").as_bytes(), shared).await && send(stream, &body, shared).await
        }
        Behaviour::Raw(bytes) => {
            send(stream, &bytes, shared).await;
            false
        }
        Behaviour::Reset(bytes) => {
            send(stream, &bytes, shared).await;
            // With zero linger, closing sends RST in place of FIN.
            let _ = stream.set_zero_linger();
            false
        }
        Behaviour::Drip(bytes) => {
            for byte in bytes.chunks(1) {
                if !send(stream, byte, shared).await {
                    return false;
                }
                tokio::time::sleep(DRIP_PACE).await;
            }
            false
        }
        Behaviour::Silence => {
            // Until the client hangs up.
            let _ = stream.read(&mut [0; 1]).await;
            false
        }
        Behaviour::Late(wait, then) => {
            tokio::time::sleep(wait).await;
            Box::pin(behave(stream, *then, shared)).await
        }
        Behaviour::Held(gate, then) => {
            match gate.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return false,
            }
            Box::pin(behave(stream, *then, shared)).await
        }
    }
}

async fn send(stream: &mut TcpStream, bytes: &[u8], shared: &Shared) -> bool {
    for part in bytes.chunks(64 << 10) {
        if stream.write_all(part).await.is_err() {
            return false;
        }
        shared.bytes_sent.send_modify(|sent| *sent += part.len() as u64);
    }
    true
}

/// The next request on the connection; `None` when there is none. `unread` holds what came beyond it.
async fn read_request(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<Request> {
    let head_end = loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        read_more(stream, unread).await?;
    };
    let head = String::from_utf8(unread[..head_end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
    let end = head_end + 4 + length;
    while unread.len() < end {
        read_more(stream, unread).await?;
    }
    let body = serde_json::from_slice(&unread[head_end + 4..end]).unwrap_or(Value::Null);
    unread.drain(..end);
    Some(Request { number: 0, method, path, headers, body })
}

async fn read_more(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<()> {
    let read = stream.read_buf(unread).await.ok()?;
    (read > 0 && unread.len() <= REQUEST_BYTES_MAX).then_some(())
}
