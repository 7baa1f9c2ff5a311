//! One request, one reply: the client, and the service between it and the network. The only file that names async-openai.
//!
//! The crate would read a body of any size, retry in secret, lose the status code of errors it cannot parse, and log whole
//! bodies. So every response is read here: capped, sorted into [`Failure`]s, and parsed, before the crate sees it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_openai::Client;
use async_openai::config::Config;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use reqwest::Response;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::Instant;

use super::completion::Completion;
use super::failure::Failure;
use crate::config::LlmConfig;
use crate::limits::{CONNECT_TIMEOUT, MODEL_BODY_BYTES_MAX};
use crate::llm::{LlmError, ModelCall};
use crate::telemetry::spans::{self, Server};
use crate::telemetry::traces::Span;

/// An endpoint that can be asked.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    client: Client<Address>,
    /// As traces name it.
    server: Arc<Server>,
}

/// Where requests go and with which key. In place of the crate's own configuration, which reads the environment and sends a
/// bearer token even when there is none.
#[derive(Debug, Clone)]
struct Address {
    base_url: String,
    key: Arc<SecretString>,
    headers: HeaderMap,
}

impl Config for Address {
    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    fn api_base(&self) -> &str {
        &self.base_url
    }

    fn api_key(&self) -> &SecretString {
        &self.key
    }
}

impl Endpoint {
    /// A client for the configured endpoint. Connects to nothing yet. The error names the setting that cannot be used.
    pub(super) fn new(config: &LlmConfig) -> Result<Self, String> {
        let base_url = config.base_url.trim().trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&base_url).map_err(|error| format!("OPENAI_BASE_URL is not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("OPENAI_BASE_URL must start with http:// or https://".to_owned());
        }
        let key = config.api_key.clone().unwrap_or_default();
        let mut headers = HeaderMap::new();
        if !key.expose_secret().is_empty() {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                .map_err(|_| "OPENAI_API_KEY holds characters that no HTTP header can carry".to_owned())?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        // An error means that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
            .timeout(config.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        let service = Reader { http: http.clone(), timeout: config.timeout, key: Arc::new(key.clone()) };
        let client = Client::build(http, Address { base_url, key: Arc::new(key), headers }).with_http_service(service);
        Ok(Self { client, server: Arc::new(Server::of(&url)) })
    }

    /// Sends one request body and reads the reply. `rung` labels the call.
    pub(super) async fn ask(&self, body: &Value, rung: &'static str) -> Result<(Completion, ModelCall), Failure> {
        let span = spans::chat(&self.server, body, rung);
        let answered = span.around(self.send(body, rung, &span)).await;
        if let Err(failure) = &answered {
            span.failed(failure.kind());
        }
        answered
    }

    async fn send(&self, body: &Value, rung: &'static str, span: &Span) -> Result<(Completion, ModelCall), Failure> {
        let started = Instant::now();
        let reply: Value = self.client.chat().create_byot(body).await.map_err(unwrap_failure)?;
        span.answered(&reply);
        let completion =
            Completion::read(&reply).ok_or_else(|| Failure::transient("the model endpoint's reply has no choices"))?;
        let asked = body["model"].as_str().unwrap_or_default();
        let call = ModelCall {
            model: completion.model.clone().unwrap_or_else(|| asked.to_owned()),
            rung,
            usage: completion.usage(body.to_string().len()),
            duration: started.elapsed(),
        };
        Ok((completion, call))
    }
}

/// The failure that [`Reader`] put into the crate's error.
fn unwrap_failure(error: OpenAIError) -> Failure {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the crate's own errors cannot arise behind Reader; none is worth a text")]
    match error {
        OpenAIError::Boxed(inner) => match inner.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(_) => Failure::transient("the model client failed"),
        },
        OpenAIError::InvalidArgument(_) => Failure::permanent("the request cannot be written as JSON"),
        _ => Failure::transient("the model client failed"),
    }
}

/// Sends a request once and reads the whole response.
#[derive(Clone)]
struct Reader {
    http: reqwest::Client,
    timeout: Duration,
    key: Arc<SecretString>,
}

impl tower::Service<HttpRequestFactory> for Reader {
    type Response = Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let reader = self.clone();
        Box::pin(async move {
            let request = request.build().await?;
            reader.read(request).await.map_err(|failure| OpenAIError::Boxed(Box::new(reader.without_key(failure))))
        })
    }
}

impl Reader {
    /// The response with its body read, if it is a success and JSON.
    async fn read(&self, request: reqwest::Request) -> Result<Response, Failure> {
        let broken = |error| Failure::from_http(error, self.timeout);
        let mut response = self.http.execute(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > MODEL_BODY_BYTES_MAX {
                return Err(Failure::permanent(format!("the model endpoint's reply has more than {MODEL_BODY_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        if !(200..300).contains(&status) {
            return Err(Failure::from_response(status, &headers, &body));
        }
        let value: Value = serde_json::from_slice(&body)
            .map_err(|error| Failure::transient(format!("the model endpoint's reply is not JSON: {error}")))?;
        if let Some(failure) = Failure::from_success(&value, &headers) {
            return Err(failure);
        }
        Ok(http::Response::new(body).into())
    }

    /// `failure` without the key, should the endpoint have quoted it.
    fn without_key(&self, failure: Failure) -> Failure {
        let key = self.key.expose_secret();
        // A key this short is a placeholder; replacing it would only garble texts.
        if key.len() < 8 {
            return failure;
        }
        let clean = |text: String| text.replace(key, "[key]");
        let error = match failure.error {
            LlmError::Transient(why) => LlmError::Transient(clean(why)),
            LlmError::RateLimited { why, after } => LlmError::RateLimited { why: clean(why), after },
            LlmError::Exhausted(why) => LlmError::Exhausted(clean(why)),
            LlmError::Permanent(why) => LlmError::Permanent(clean(why)),
        };
        Failure { error, status: failure.status, said: failure.said.replace(&key.to_lowercase(), "[key]") }
    }
}
