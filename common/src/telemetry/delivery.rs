//! The way to the collector: batches over HTTP, on the runtime's own threads, so that no work waits for them. A collector that does
//! not answer costs its spans, and one line in the log now and then.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Compression, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::TelemetryError;
use super::names::SCHEMA_URL;
use super::otlp::{Otlp, Part, Sampling};
use super::traces::{PresetIds, Traces, says};
use crate::config::mask_url;
use crate::limits::{CONNECT_TIMEOUT, TRACE_COMPLAINT_INTERVAL, TRACE_RESPONSE_BYTES_MAX};

/// Who sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender<'a> {
    /// `planner`, `executor`, …
    pub(super) service: &'a str,
    /// The name of the process.
    pub(super) worker: &'a str,
    /// The prefix of queues.
    pub(super) prefix: &'a str,
}

/// Sends spans as `otlp` says. Connects to nothing yet; needs a Tokio runtime.
pub(super) fn traces(otlp: &Otlp, sender: Sender<'_>) -> Result<Traces, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Courier::new(otlp)?)
        .with_endpoint(&otlp.endpoint)
        .with_protocol(if otlp.json { Protocol::HttpJson } else { Protocol::HttpBinary })
        .with_timeout(otlp.timeout);
    let exporter = if otlp.gzip { exporter.with_compression(Compression::Gzip) } else { exporter };
    let exporter = exporter.build().map_err(|why| TelemetryError::Variable(format!("traces cannot be sent: {why}")))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(otlp.queue)
        .with_max_export_batch_size(otlp.batch)
        .with_scheduled_delay(otlp.delay)
        .build();
    let sampler = sampler(otlp.sampling);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_id_generator(PresetIds::default())
        .with_sampler(sampler.clone())
        .with_resource(resource(otlp, sender))
        .build();
    let scope = InstrumentationScope::builder("planrelay").with_version(env!("CARGO_PKG_VERSION")).with_schema_url(SCHEMA_URL);
    let tracer = provider.tracer_with_scope(scope.build());
    Ok(Traces::on(provider, tracer, sampler, sender.prefix, otlp.content))
}

fn sampler(Sampling { parent, part }: Sampling) -> Sampler {
    let of_the_others = match part {
        Part::All => Sampler::AlwaysOn,
        Part::None => Sampler::AlwaysOff,
        Part::Ratio(ratio) => Sampler::TraceIdRatioBased(ratio),
    };
    if parent { Sampler::ParentBased(Box::new(of_the_others)) } else { of_the_others }
}

/// What the environment says of the service (read by the exporter's own detectors), and the rest.
fn resource(otlp: &Otlp, Sender { service, worker, .. }: Sender<'_>) -> Resource {
    let ours = [("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", worker)];
    let ours = ours.into_iter().filter(|(name, _)| !otlp.resource.iter().any(|said| said == name));
    let resource = Resource::builder().with_attributes(ours.map(|(name, value)| says(name, value.to_owned())));
    if otlp.named { resource.build() } else { resource.with_service_name(format!("planrelay-{service}")).build() }
}

/// Carries batches to the collector, and says when that does not work.
#[derive(Debug)]
struct Courier {
    http: reqwest::Client,
    runtime: Handle,
    log: Arc<Log>,
}

/// What was said last of the collector.
#[derive(Debug)]
struct Log {
    /// Where it is, without a password.
    endpoint: String,
    /// When it was last said that it does not take spans, unless it has taken some since.
    complained: Mutex<Option<Instant>>,
}

impl Courier {
    fn new(otlp: &Otlp) -> Result<Self, TelemetryError> {
        // An error means that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT.min(otlp.timeout))
            .timeout(otlp.timeout)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &otlp.certificate {
            let unusable = |why: &dyn std::fmt::Display| {
                TelemetryError::Variable(format!("OTEL_EXPORTER_OTLP_CERTIFICATE: {:?} cannot be used: {why}", path.display()))
            };
            let pem = std::fs::read(path).map_err(|why| unusable(&why))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|why| unusable(&why))?;
            http = certificates.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate);
        }
        let http =
            http.build().map_err(|why| TelemetryError::Variable(format!("traces cannot be sent: no HTTP client: {why}")))?;
        let log = Log { endpoint: mask_url(&otlp.endpoint), complained: Mutex::default() };
        Ok(Self { http, runtime: Handle::current(), log: Arc::new(log) })
    }
}

impl HttpClient for Courier {
    // What `#[async_trait]` makes of the method, without the macro.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let (http, log) = (self.http.clone(), Arc::clone(&self.log));
        // The exporter's thread is none of Tokio's: it only waits.
        let sending = self.runtime.spawn(async move {
            let sent = send(&http, request).await;
            log.note(&sent);
            sent
        });
        Box::pin(async move { sending.await? })
    }
}

async fn send(http: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut answer = http.execute(request.try_into()?).await.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > TRACE_RESPONSE_BYTES_MAX {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        headers.extend(answer.headers().iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    Ok(response.body(body.into())?)
}

impl Log {
    fn note(&self, sent: &Result<Response<Bytes>, HttpError>) {
        let why = match sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answered {}", response.status())),
            Err(error) => Some(causes(&**error)),
        };
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = &self.endpoint;
        match (why, *complained) {
            (None, None) => {}
            (None, Some(_)) => {
                *complained = None;
                info!(endpoint, "traces are taken by {endpoint} again");
            }
            (Some(_), Some(at)) if at.elapsed() < TRACE_COMPLAINT_INTERVAL => {}
            (Some(why), _) => {
                *complained = Some(Instant::now());
                let again: Duration = TRACE_COMPLAINT_INTERVAL;
                warn!(
                    endpoint,
                    "traces are not taken by {endpoint}: {why}; spans are dropped, work goes on (said again after {again:?})"
                );
            }
        }
    }
}

/// An error with what is behind it, in one line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
