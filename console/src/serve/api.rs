//! The HTTP API: what the command line does with runs, for programs. JSON in, JSON out; errors are `{"error": "…"}`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::sse::{Event as ServerEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, body::Bytes};
use common::broker::{Broker, PublishError};
use common::client::{Client, ControlError, WaitError, Watch};
use common::id::RunId;
use common::limits::{
    API_CONTROL_TIMEOUT, API_EVENTS_MAX, API_LIST_MAX, API_LIST_PAGE, API_STREAM_MAX, API_WAIT_MAX, API_WAITS_MAX,
    MESSAGE_BYTES_MAX, RUNS_LISTED_MAX,
};
use common::message::{self, Answer, ControlMessage, ObjectiveMessage, Refusal, WIRE_VERSION};
use common::run::RunStatus;
use common::store::{RunLine, StoreError};
use futures::stream;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// What `GET /` says.
const INDEX: &str = "\
planrelay

POST /v1/runs              {\"objective\": \"…\"} and what else a message on the objectives queue may hold; ?wait=SECONDS for the result
GET  /v1/runs              newest first; ?limit= ?status=
GET  /v1/runs/ID           the plan, every step, what it used, why it waits
GET  /v1/runs/ID/result    the result document; ?wait=SECONDS
GET  /v1/runs/ID/events    the audit trail; ?after=EVENT; as a stream with Accept: text/event-stream
POST /v1/runs/ID/COMMAND   cancel, pause, resume, approve, reject, edit, retry; {\"by\", \"reason\", \"feedback\", \"plan\", \"revision\"}
GET  /healthz /readyz /metrics
";

/// What every request may use.
#[derive(Clone)]
struct Api {
    client: Client,
    broker: Broker,
    /// Requests that wait or stream.
    waits: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Why a request is not answered as it should be.
struct Problem(StatusCode, String);

type Answered = Result<Response, Problem>;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Unusable(_) => StatusCode::INTERNAL_SERVER_ERROR,
            // This server is too old for the run.
            StoreError::Newer { .. } => StatusCode::NOT_IMPLEMENTED,
        };
        Self(status, error.to_string())
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(StatusCode::BAD_REQUEST, refusal.to_string())
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        Self(rejection.status(), format!("{}; the limit is {MESSAGE_BYTES_MAX} bytes", rejection.body_text()))
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NoSuchRun(_) => Self(StatusCode::NOT_FOUND, error.to_string()),
            ControlError::Unanswered(..) => Self(StatusCode::GATEWAY_TIMEOUT, error.to_string()),
            ControlError::Publish(error) => error.into(),
            ControlError::Store(error) => error.into(),
        }
    }
}

/// Everything under `/v1`, for callers who know `token` if there is one, and the index.
pub(super) fn routes(client: Client, broker: Broker, token: Option<&SecretString>, stop: CancellationToken) -> Router {
    let api = Api { client, broker, waits: Arc::new(Semaphore::new(API_WAITS_MAX)), stop };
    let expected = token.map(|token| format!("Bearer {}", token.expose_secret()));
    Router::new()
        .route("/v1/runs", post(submit).get(list))
        .route("/v1/runs/{run}", get(show))
        .route("/v1/runs/{run}/result", get(result))
        .route("/v1/runs/{run}/events", get(events))
        .route("/v1/runs/{run}/{command}", post(control))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let allowed = expected.as_ref().is_none_or(|expected| shows(request.headers(), expected));
            async move { if allowed { next.run(request).await } else { unauthorized() } }
        }))
        .with_state(api)
        .route("/", get(async || INDEX))
}

fn unauthorized() -> Response {
    Problem(StatusCode::UNAUTHORIZED, "Authorization: Bearer with PLANRELAY_API_TOKEN is required".to_owned()).into_response()
}

/// Whether the caller shows what is expected. Takes as long for a guess that is nearly right as for any other.
fn shows(headers: &HeaderMap, expected: &str) -> bool {
    let shown = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let differing = shown.iter().zip(expected.as_bytes()).fold(0, |differing, (a, b)| differing | (a ^ b));
    shown.len() == expected.len() && differing == 0
}

fn run_id(text: &str) -> Result<RunId, Problem> {
    RunId::parse(text).map_err(|bad| Problem(StatusCode::BAD_REQUEST, format!("run id: {bad}")))
}

fn no_such_run(run: &RunId) -> Problem {
    Problem(StatusCode::NOT_FOUND, format!("there is no run {run}"))
}

/// A whole number from the query, at most `max`.
fn number(query: &BTreeMap<String, String>, name: &str, max: usize) -> Result<Option<usize>, Problem> {
    let Some(text) = query.get(name) else { return Ok(None) };
    match text.parse::<usize>() {
        Ok(number) if number <= max => Ok(Some(number)),
        Ok(_) | Err(_) => {
            Err(Problem(StatusCode::BAD_REQUEST, format!("{name} must be a whole number of at most {max}, got {text:?}")))
        }
    }
}

/// How long the caller wants to wait for a result, if at all.
fn patience(query: &BTreeMap<String, String>) -> Result<Option<Duration>, Problem> {
    let most = usize::try_from(API_WAIT_MAX.as_secs()).unwrap_or(usize::MAX);
    Ok(number(query, "wait", most)?.map(|secs| Duration::from_secs(secs as u64)))
}

impl Api {
    /// A place among the requests that wait.
    fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let full = |_full| Problem(StatusCode::SERVICE_UNAVAILABLE, format!("{API_WAITS_MAX} requests wait already"));
        Arc::clone(&self.waits).try_acquire_owned().map_err(full)
    }

    /// The result of a run as soon as there is one, or where the run stands when the wait is over.
    async fn outcome(&self, run: &RunId, patience: Duration) -> Answered {
        let wait = self.client.wait(run, patience);
        let waited = self.stop.run_until_cancelled(wait).await;
        match waited {
            Some(Ok(document)) => Ok(Json(document).into_response()),
            Some(Err(WaitError::NoSuchRun(run))) => Err(no_such_run(&run)),
            Some(Err(WaitError::Store(error))) => Err(error.into()),
            Some(Err(WaitError::TimedOut(..))) | None => {
                let status = self.client.status(run).await?;
                Ok((StatusCode::ACCEPTED, Json(json!({"run_id": run, "status": status}))).into_response())
            }
        }
    }
}

async fn submit(
    State(api): State<Api>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered {
    json_only(&headers)?;
    let patience = patience(&query)?;
    let objective: ObjectiveMessage = message::parse(&body?)?;
    let _place = if patience.is_some() { Some(api.place()?) } else { None };
    let run = api.client.submit(&api.broker, objective).await?;
    let location = [(LOCATION, format!("/v1/runs/{run}"))];
    if let Some(patience) = patience {
        // It is submitted, whatever becomes of the wait: no planner may have opened the run yet, the store may not answer.
        return Ok(match api.outcome(&run, patience).await {
            Err(_nothing_to_tell) => accepted(&run, location),
            Ok(response) => (location, response).into_response(),
        });
    }
    Ok(accepted(&run, location))
}

fn accepted(run: &RunId, location: [(axum::http::HeaderName, String); 1]) -> Response {
    (StatusCode::ACCEPTED, location, Json(json!({"run_id": run}))).into_response()
}

/// Also keeps pages of other sites from posting in the name of whoever looks at them.
fn json_only(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json".to_owned()))
}

async fn list(State(api): State<Api>, Query(query): Query<BTreeMap<String, String>>) -> Answered {
    let limit = number(&query, "limit", API_LIST_MAX)?.unwrap_or(50);
    let unknown = |status: &String| Problem(StatusCode::BAD_REQUEST, format!("there is no status {status:?}"));
    let status = query.get("status").map(|text| RunStatus::parse(text).ok_or_else(|| unknown(text))).transpose()?;
    let _place = api.place()?;
    let mut lines = Vec::new();
    for offset in (0..RUNS_LISTED_MAX).step_by(API_LIST_PAGE) {
        let page = api.client.page(offset, API_LIST_PAGE).await?;
        let last = page.is_empty();
        // Of a run of a newer release it is not known where it stands.
        let wanted = |line: &RunLine| status.is_none_or(|status| line.newer_schema.is_none() && line.status == status);
        lines.extend(page.into_iter().filter(wanted));
        if last || lines.len() >= limit {
            break;
        }
    }
    lines.truncate(limit);
    Ok(Json(lines).into_response())
}

async fn show(State(api): State<Api>, Path(run): Path<String>) -> Answered {
    let run = run_id(&run)?;
    let view = api.client.show(&run).await?.ok_or_else(|| no_such_run(&run))?;
    Ok(Json(view).into_response())
}

async fn result(State(api): State<Api>, Path(run): Path<String>, Query(query): Query<BTreeMap<String, String>>) -> Answered {
    let patience = patience(&query)?.unwrap_or_default();
    let _place = if patience.is_zero() { None } else { Some(api.place()?) };
    api.outcome(&run_id(&run)?, patience).await
}

async fn events(
    State(api): State<Api>,
    Path(run): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Answered {
    let run = run_id(&run)?;
    if api.client.status(&run).await?.is_none() {
        return Err(no_such_run(&run));
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    // A browser that connects again says where it was.
    let after = Some(header("last-event-id")).filter(|id| !id.is_empty()).or_else(|| query.get("after").cloned());
    let after = after.unwrap_or_default();
    let (ms, sequence) = after.split_once('-').unwrap_or((&after, "0"));
    if !after.is_empty() && (ms.parse::<u64>().is_err() || sequence.parse::<u64>().is_err()) {
        return Err(Problem(StatusCode::BAD_REQUEST, format!("after: {after:?} is not the id of an event")));
    }
    if !header(ACCEPT.as_str()).contains("text/event-stream") {
        return Ok(Json(api.client.events(&run, &after, API_EVENTS_MAX).await?).into_response());
    }
    let (watch, until) = (api.client.watch(&run, &after), Instant::now() + API_STREAM_MAX);
    let following = Following { watch, until, stop: api.stop.clone(), _place: api.place()? };
    let stream = stream::unfold(following, async |mut following| Some((Ok::<_, Infallible>(following.next().await?), following)));
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

/// Somebody who follows a run.
struct Following {
    watch: Watch,
    until: Instant,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// The next event as it is sent; `None`: nothing follows, it is time for another request, the store does not answer, or the
    /// process stops.
    async fn next(&mut self) -> Option<ServerEvent> {
        let next = timeout_at(self.until, self.watch.next());
        let event = self.stop.run_until_cancelled(next).await?.ok()?.ok()??;
        let sent = ServerEvent::default().id(event.id.clone()).event(event.kind.as_str());
        sent.json_data(&event).ok()
    }
}

async fn control(
    State(api): State<Api>,
    Path((run, command)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered {
    let run = run_id(&run)?;
    let body = body?;
    let mut fields = if body.is_empty() { json!({}) } else { serde_json::from_slice(&body).unwrap_or(Value::Null) };
    json_only(&headers)?;
    let Some(object) = fields.as_object_mut() else {
        return Err(Problem(StatusCode::BAD_REQUEST, "body is not a JSON object".to_owned()));
    };
    object.insert("version".to_owned(), WIRE_VERSION.into());
    object.insert("run_id".to_owned(), run.as_str().into());
    object.insert("command".to_owned(), command.into());
    let message: ControlMessage = message::parse(fields.to_string().as_bytes())?;
    let _place = api.place()?;
    let reply = api.client.control(&api.broker, &message, API_CONTROL_TIMEOUT).await?;
    let status = match reply.answer {
        Answer::Accepted | Answer::Repeated => StatusCode::OK,
        Answer::Refused => StatusCode::CONFLICT,
    };
    Ok((status, Json(reply)).into_response())
}
