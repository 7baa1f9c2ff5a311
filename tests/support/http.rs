//! A plain HTTP client: one request, one connection, nothing remembered.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stack::PATIENCE;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200, 404, …
    pub status: u16,
    /// The header, as it came.
    pub head: String,
    /// What came after it.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON, {error}: {self:?}"))
    }
}

/// `GET` of `path` at `host:port`; `None`: nobody answers there.
pub async fn get(address: &str, path: &str) -> Option<Answer> {
    ask(address, "GET", path, &[], "").await
}

/// `POST` of JSON.
pub async fn post(address: &str, path: &str, body: &str) -> Option<Answer> {
    ask(address, "POST", path, &["Content-Type: application/json"], body).await
}

/// Any request. The connection ends with the answer, so a stream is read to its end.
pub async fn ask(address: &str, method: &str, path: &str, headers: &[&str], body: &str) -> Option<Answer> {
    let asked = async {
        let mut connection = TcpStream::connect(address).await.ok()?;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request =
            format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        connection.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_elapsed| panic!("{method} {path} at {address} is not answered"))
}

/// What a page of metrics says of `sample`, given as it stands there: `planrelay_steps_total{outcome="failed",tool="none"}`.
pub fn sample(metrics: &str, sample: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    line.split(' ').next()?.parse().ok()
}
