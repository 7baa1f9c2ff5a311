//! RabbitMQ's management API, for what AMQP does not tell: policies, messages in somebody's hands, alarms. Optional, read only.

use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};
use reqwest::header::DATE;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::inspect::read_url;
use crate::clock::{Clock, Reading};
use crate::config::BrokerConfig;
use crate::limits::{CONNECT_TIMEOUT, DOCTOR_BODY_BYTES_MAX, DOCTOR_TIMEOUT};
use crate::message::Queue;

/// The port of the management plugin.
const PORT: u16 = 15_672;
/// The same with TLS.
const TLS_PORT: u16 = 15_671;

/// What the management API says.
#[derive(Debug)]
pub struct Management {
    /// Where it is.
    pub url: String,
    /// Our queues that exist.
    pub queues: Vec<Managed>,
    /// The nodes of the cluster; empty where the user may not see them.
    pub nodes: Vec<Node>,
    /// Its clock, if it tells it.
    pub clock: Option<Reading>,
}

/// A queue.
#[derive(Debug, Clone, Deserialize)]
pub struct Managed {
    /// Its full name.
    pub name: String,
    /// The policy that applies.
    #[serde(default)]
    pub policy: Option<String>,
    /// What policies and operator policies set.
    #[serde(default, deserialize_with = "object")]
    pub effective_policy_definition: serde_json::Map<String, serde_json::Value>,
    /// Messages in somebody's hands.
    #[serde(default)]
    pub messages_unacknowledged: u64,
    /// The nodes of a quorum queue.
    #[serde(default)]
    pub members: Vec<String>,
    /// Those that are up.
    #[serde(default)]
    pub online: Vec<String>,
}

impl Managed {
    /// How long a consumer may keep a message, where a policy says so.
    pub fn consumer_timeout(&self) -> Option<Duration> {
        self.effective_policy_definition.get("consumer-timeout")?.as_u64().map(Duration::from_millis)
    }
}

/// A node of the cluster.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    #[serde(default)]
    pub running: bool,
    /// Whether it is short of memory.
    #[serde(default)]
    pub mem_alarm: bool,
    /// Whether it is short of disk.
    #[serde(default)]
    pub disk_free_alarm: bool,
}

/// Why nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmanaged {
    /// Nobody answers there.
    #[error("{0}")]
    Unreachable(String),
    /// The user may not use it.
    #[error("{0}")]
    Forbidden(String),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// An empty definition comes as an empty list or as nothing at all.
fn object<'de, D: serde::Deserializer<'de>>(from: D) -> Result<serde_json::Map<String, serde_json::Value>, D::Error> {
    Ok(serde_json::Value::deserialize(from)?.as_object().cloned().unwrap_or_default())
}

/// Where the API is looked for: as given, or where the plugin listens on each host.
pub fn urls(config: &BrokerConfig, given: Option<&str>) -> Vec<String> {
    if let Some(given) = given {
        return vec![given.trim_end_matches('/').to_owned()];
    }
    let urls = config.urls.iter().filter_map(|url| read_url(url).ok());
    let place = |(uri, _): (AMQPUri, String)| match uri.scheme {
        AMQPScheme::AMQP => format!("http://{}:{PORT}", uri.authority.host),
        AMQPScheme::AMQPS => format!("https://{}:{TLS_PORT}", uri.authority.host),
    };
    urls.map(place).collect()
}

/// Asks the first API of `urls` that answers about the queues of `prefix`, with the user of `AMQP_URL`.
pub async fn ask(urls: &[String], config: &BrokerConfig, prefix: &str) -> Result<Management, Unmanaged> {
    let mut answer = Err(Unmanaged::Other("no URL is given".to_owned()));
    for url in urls {
        answer = ask_one(url, config, prefix).await;
        if !matches!(answer, Err(Unmanaged::Unreachable(_))) {
            break;
        }
    }
    answer
}

async fn ask_one(url: &str, config: &BrokerConfig, prefix: &str) -> Result<Management, Unmanaged> {
    let other = |why: String| Unmanaged::Other(why);
    let first = config.urls.first().ok_or_else(|| other("no URL is given".to_owned()))?;
    let (uri, _) = read_url(first).map_err(|why| other(why.to_string()))?;
    let account = uri.authority.userinfo;
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let http = Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(DOCTOR_TIMEOUT).redirect(Policy::none()).build();
    let http = http.map_err(|why| other(why.to_string()))?;
    let api = Api { http, url, user: account.username, password: account.password.into() };
    let vhost = uri.vhost.replace('%', "%25").replace('/', "%2F");
    let (queues, clock) = api.get::<Vec<Managed>>(&format!("/api/queues/{vhost}")).await?;
    let names = Queue::ALL.map(|queue| queue.name(prefix));
    let queues = queues.into_iter().filter(|queue| names.contains(&queue.name)).collect();
    // Only monitors may see nodes.
    let nodes = api.get::<Vec<Node>>("/api/nodes").await.map(|(nodes, _)| nodes).unwrap_or_default();
    Ok(Management { url: url.to_owned(), queues, nodes, clock })
}

struct Api<'a> {
    http: Client,
    url: &'a str,
    user: String,
    password: SecretString,
}

impl Api<'_> {
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<(T, Option<Reading>), Unmanaged> {
        let request = self.http.get(format!("{}{path}", self.url));
        let broken = |error: reqwest::Error| Unmanaged::Unreachable(cause(&error.without_url()));
        let started = Clock::System.now_ms();
        let answer = request.basic_auth(&self.user, Some(self.password.expose_secret())).send().await;
        let mut response = answer.map_err(broken)?;
        let told = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let clock = told.and_then(|date| Reading::of_http_date(date, started, Clock::System.now_ms()));
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(Unmanaged::Forbidden(format!("it answered {status}")));
        }
        if !status.is_success() {
            return Err(Unmanaged::Other(format!("it answered {status}")));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > DOCTOR_BODY_BYTES_MAX {
                return Err(Unmanaged::Other("its answer is too long".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        let value =
            serde_json::from_slice(&body).map_err(|why| Unmanaged::Other(format!("its answer is not as expected: {why}")))?;
        Ok((value, clock))
    }
}

/// The innermost cause: the outer ones only say that a request failed.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_is_looked_for_beside_the_broker() {
        for (amqp, given, expected) in [
            ("amqp://u:p@h:5673/%2f", None, "http://h:15672"),
            ("amqp://h", None, "http://h:15672"),
            ("amqps://u:p@h/x", None, "https://h:15671"),
            ("amqp://h", Some("https://other/"), "https://other"),
        ] {
            let config = BrokerConfig { urls: vec![amqp.to_owned().into()] };
            assert_eq!(urls(&config, given), [expected]);
        }
    }

    #[test]
    fn queues_are_read_as_they_come() {
        let queue: Managed = serde_json::from_str(r#"{"name": "a", "effective_policy_definition": []}"#).unwrap();
        assert_eq!(queue.consumer_timeout(), None);
        let with = r#"{"name": "a", "policy": "p", "effective_policy_definition": {"consumer-timeout": 60000}, "online": ["n"]}"#;
        let queue: Managed = serde_json::from_str(with).unwrap();
        assert_eq!(queue.consumer_timeout(), Some(Duration::from_secs(60)));
    }
}
