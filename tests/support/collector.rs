//! A fake OpenTelemetry collector: takes spans over HTTP as protobuf or JSON, and remembers every byte.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::stack::PATIENCE;

/// A span as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `service.name` of whoever sent it.
    pub service: String,
    /// Everything that is said of the sender.
    pub resource: BTreeMap<String, Value>,
    /// The schema that it declares.
    pub schema_url: String,
    /// The trace, in hexadecimal.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// The id of its parent; empty for none.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// `INTERNAL`, `CLIENT`, `CONSUMER`, …
    pub kind: &'static str,
    /// What it says.
    pub attributes: BTreeMap<String, Value>,
    /// Whether it says that it failed.
    pub failed: bool,
    /// When it began, in nanoseconds since 1970.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
}

impl Seen {
    /// An attribute; null when it has none of that name.
    pub fn says(&self, name: &str) -> &Value {
        self.attributes.get(name).unwrap_or(&Value::Null)
    }
}

/// The collector. It stops when it is dropped.
pub struct Collector {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    spans: Mutex<Vec<Seen>>,
    bytes: Mutex<Vec<u8>>,
    headers: Mutex<Vec<HeaderMap>>,
    count: watch::Sender<usize>,
}

impl Collector {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on 127.0.0.1");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared::default());
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&shared));
        #[expect(clippy::disallowed_methods, reason = "the server's one task, aborted on drop")]
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the collector serves");
        });
        Self { address, shared, serving }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` must be.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span so far, in the order of arrival.
    pub fn spans(&self) -> Vec<Seen> {
        self.shared.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The headers of every request so far.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.shared.headers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether these words arrived anywhere, in whatever field.
    pub fn has_heard(&self, words: &str) -> bool {
        let bytes = self.shared.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.windows(words.len()).any(|window| window == words.as_bytes())
    }

    /// Waits until the spans are such.
    pub async fn until(&self, what: &str, condition: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let mut count = self.shared.count.subscribe();
        let met = tokio::time::timeout(PATIENCE, async {
            loop {
                count.mark_unchanged();
                let spans = self.spans();
                if condition(&spans) {
                    return spans;
                }
                count.changed().await.expect("the sender lives as long as self");
            }
        });
        met.await.unwrap_or_else(|_| panic!("{what} does not come true; arrived: {:#?}", self.spans()))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
    let json = headers.get("content-type").is_some_and(|kind| kind == "application/json");
    let request = match json {
        true => serde_json::from_slice(&body).map_err(|error| error.to_string()),
        false => ExportTraceServiceRequest::decode(&*body).map_err(|error| error.to_string()),
    };
    let request = match request {
        Ok(request) => request,
        Err(why) => return (StatusCode::BAD_REQUEST, why.into_bytes()),
    };
    shared.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&body);
    shared.headers.lock().unwrap_or_else(PoisonError::into_inner).push(headers);
    shared.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(seen(request));
    shared.count.send_modify(|count| *count += 1);
    // An empty response says in both forms that everything was taken.
    (StatusCode::OK, if json { b"{}".to_vec() } else { Vec::new() })
}

fn seen(request: ExportTraceServiceRequest) -> Vec<Seen> {
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let resource = attributes(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        for of_scope in of_resource.scope_spans {
            all.extend(of_scope.spans.into_iter().map(|span| one(span, &resource, &of_scope.schema_url)));
        }
    }
    all
}

fn one(span: Span, resource: &BTreeMap<String, Value>, schema_url: &str) -> Seen {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let kinds = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
    Seen {
        service: resource.get("service.name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        resource: resource.clone(),
        schema_url: schema_url.to_owned(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name,
        kind: usize::try_from(span.kind).ok().and_then(|kind| kinds.get(kind).copied()).unwrap_or("UNKNOWN"),
        attributes: attributes(span.attributes),
        failed: span.status.is_some_and(|status| status.code == 2),
        began: span.start_time_unix_nano,
        ended: span.end_time_unix_nano,
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, Value> {
    pairs.into_iter().map(|pair| (pair.key, pair.value.map_or(Value::Null, value))).collect()
}

fn value(any: AnyValue) -> Value {
    match any.value {
        Some(Any::StringValue(text)) => text.into(),
        Some(Any::BoolValue(truth)) => truth.into(),
        Some(Any::IntValue(number)) => number.into(),
        Some(Any::DoubleValue(number)) => number.into(),
        Some(Any::ArrayValue(array)) => array.values.into_iter().map(value).collect(),
        Some(Any::KvlistValue(list)) => json!(attributes(list.values)),
        Some(Any::BytesValue(_) | Any::StringValueStrindex(_)) | None => Value::Null,
    }
}
