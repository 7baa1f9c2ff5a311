//! Spans: begun here, carried through a handler by [`Span::around`], sent by whoever [`Traces`] holds. Without an exporter nothing is
//! made, and a span costs a look at a thread-local.
//!
//! What there is, all of it in one trace per run:
//!
//! ```text
//! invoke_workflow planrelay              the run; by whoever ends it
//! ├─ process <prefix>.v1.objectives      one per message handled; consumer
//! │  └─ plan planner ── chat <model>     one `chat` per request
//! ├─ process <prefix>.v1.steps           an attempt of a step
//! │  ├─ execute_tool <tool>              of an exact step
//! │  └─ invoke_agent executor ── chat <model>, execute_tool <tool>, …
//! └─ process <prefix>.v1.completions ── invoke_agent summarizer ── chat <model>
//! ```
//!
//! There are no spans for publishing: it is awaited within the span of the message that led to it, and one more span per step would
//! say no more than that. Every message names the run's span as its parent, not the span that published it: a redelivery, a wake-up or
//! another replica may publish the same step, and the tree stays the same.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::Either;
use opentelemetry::trace::{FutureExt, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, Tracer};
use opentelemetry::{Context, KeyValue, SpanId, TraceId};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, SdkTracer, SdkTracerProvider, ShouldSample,
};

use super::context::{TraceContext, run_span};
use super::names::WORKFLOW_SPAN;
use crate::id::RunId;
use crate::ids::Ids;
use crate::limits::TRACE_FLUSH_MAX;

pub use opentelemetry::{Array, Value};

/// Where spans go. A cheap handle.
#[derive(Debug, Clone, Default)]
pub enum Traces {
    /// Nowhere.
    #[default]
    Off,
    /// To a collector.
    On(Arc<Tracing>),
}

/// What makes and sends spans.
#[derive(Debug)]
pub struct Tracing {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    sampler: Sampler,
    /// The prefix of queues.
    prefix: String,
    /// Whether prompts, replies, arguments and results are said.
    content: bool,
}

/// What kind of work a span stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Within this process.
    Internal,
    /// A request to another.
    Client,
    /// A message of another.
    Consumer,
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Client => SpanKind::Client,
            Kind::Consumer => SpanKind::Consumer,
        }
    }
}

/// An attribute.
pub(super) fn says(name: &'static str, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(name, value)
}

impl Traces {
    pub(super) fn on(provider: SdkTracerProvider, tracer: SdkTracer, sampler: Sampler, prefix: &str, content: bool) -> Self {
        Traces::On(Arc::new(Tracing { provider, tracer, sampler, prefix: prefix.to_owned(), content }))
    }

    /// The context that a new run hangs under: what its submission carries, else one that begins here, if anybody records it.
    pub fn begin_run(&self, run: &RunId, submitted: Option<&str>, ids: &Ids) -> Option<String> {
        if let Some(context) = submitted.and_then(TraceContext::parse) {
            return Some(context.to_string());
        }
        let Traces::On(tracing) = self else { return None };
        let trace = u128::from_str_radix(&ids.unique(), 16).unwrap_or(1);
        let sampled = tracing.sampler.should_sample(None, TraceId::from(trace), WORKFLOW_SPAN, &SpanKind::Internal, &[], &[]);
        let flags = u8::from(sampled.decision == SamplingDecision::RecordAndSample);
        Some(TraceContext { trace, span: run_span(run), flags }.to_string())
    }

    /// What the messages of a run carry whose record keeps `stored`: its own span as their parent. A process that sends no spans hands
    /// on what it got.
    pub fn of_run(&self, run: &RunId, stored: Option<&str>) -> Option<String> {
        let context = stored.and_then(TraceContext::parse)?;
        Some(match self {
            Traces::Off => context.to_string(),
            Traces::On(_) => TraceContext::of_run(run, context).to_string(),
        })
    }

    /// The time for [`Traces::child_of`], if spans are made at all.
    pub(super) fn now(&self) -> Option<SystemTime> {
        match self {
            Traces::Off => None,
            Traces::On(_) => Some(opentelemetry::time::now()),
        }
    }

    /// A span of work on a run under `traceparent`, which another process may have written; none without it. `describe` gets the prefix of
    /// queues.
    pub(super) fn child_of(
        &self,
        traceparent: Option<&str>,
        run: &RunId,
        kind: Kind,
        since: Option<SystemTime>,
        describe: impl FnOnce(&str) -> (String, Vec<KeyValue>),
    ) -> Span {
        let (Traces::On(tracing), Some(parent)) = (self, traceparent.and_then(TraceContext::parse)) else { return Span(None) };
        let at = Within { tracing: Arc::clone(tracing), run: run.clone() };
        let context = Context::new().with_value(at).with_remote_span_context(remote(parent));
        let (name, attributes) = describe(&tracing.prefix);
        let builder = builder(kind, name.into(), attributes);
        let builder = match since {
            Some(since) => builder.with_start_time(since),
            None => builder,
        };
        let span = tracing.tracer.build_with_context(builder, &context);
        Span(Some(context.with_span(span)))
    }

    /// Writes the span of a run that has ended, from `began_ms` to `ended_ms` since 1970.
    pub(super) fn run_span(
        &self,
        run: &RunId,
        stored: Option<&str>,
        (began_ms, ended_ms): (u64, u64),
        failed: Option<&'static str>,
        attributes: impl FnOnce(bool) -> Vec<KeyValue>,
    ) {
        let (Traces::On(tracing), Some(stored)) = (self, stored.and_then(TraceContext::parse)) else { return };
        let own = TraceContext::of_run(run, stored);
        let root = own == stored;
        if root && own.flags & TraceContext::SAMPLED == 0 {
            // Decided when the run began; nothing tells the sampler.
            return;
        }
        let parent = if root { Context::new() } else { Context::new().with_remote_span_context(remote(stored)) };
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        let builder = builder(Kind::Internal, WORKFLOW_SPAN.into(), attributes(tracing.content)).with_start_time(at(began_ms));
        let mut span = PresetIds::with(own, || tracing.tracer.build_with_context(builder, &parent));
        fail(&mut span, failed);
        opentelemetry::trace::Span::end_with_timestamp(&mut span, at(ended_ms.max(began_ms)));
    }

    /// Sends what has not been sent, within [`TRACE_FLUSH_MAX`]. Nothing is sent afterwards.
    pub async fn shutdown(&self) {
        let Traces::On(tracing) = self else { return };
        let tracing = Arc::clone(tracing);
        let (done, told) = tokio::sync::oneshot::channel();
        // A thread of its own: should the collector keep it waiting, the process ends all the same.
        let thread = std::thread::Builder::new().name("last-spans".to_owned()).spawn(move || {
            let _complained_already = tracing.provider.shutdown_with_timeout(TRACE_FLUSH_MAX);
            let _nobody_waits = done.send(());
        });
        if thread.is_ok() {
            let _enough = tokio::time::timeout(TRACE_FLUSH_MAX, told).await;
        }
    }
}

fn builder(kind: Kind, name: Cow<'static, str>, attributes: Vec<KeyValue>) -> SpanBuilder {
    SpanBuilder::from_name(name).with_kind(kind.into()).with_attributes(attributes)
}

fn remote(context: TraceContext) -> SpanContext {
    let TraceContext { trace, span, flags } = context;
    SpanContext::new(TraceId::from(trace), SpanId::from(span), TraceFlags::new(flags), true, Default::default())
}

fn fail(span: &mut impl opentelemetry::trace::Span, kind: Option<&'static str>) {
    if let Some(kind) = kind {
        span.set_attribute(says(super::names::ERROR_TYPE, kind));
        span.set_status(Status::error(""));
    }
}

/// What the code that runs in a span has at hand.
#[derive(Debug)]
struct Within {
    tracing: Arc<Tracing>,
    run: RunId,
}

/// A span that has begun, or none. It ends when this is dropped.
#[derive(Debug)]
pub struct Span(Option<Context>);

impl Span {
    /// Does `work` within the span: what begins in it hangs under it.
    pub fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            Some(context) => Either::Left(work.with_context(context.clone())),
            None => Either::Right(work),
        }
    }

    /// A span under the one that this code runs in; none without that. `describe` gets the run.
    pub(super) fn child(kind: Kind, describe: impl FnOnce(&RunId) -> (Cow<'static, str>, Vec<KeyValue>)) -> Self {
        Self(within(|context, within| {
            let (name, attributes) = describe(&within.run);
            let span = within.tracing.tracer.build_with_context(builder(kind, name, attributes), context);
            context.with_span(span)
        }))
    }

    /// Says something about it.
    pub fn says(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(says(name, value));
        }
    }

    /// Says something that was written by people or models, if that is asked for.
    pub(super) fn quotes(&self, name: &'static str, text: impl FnOnce() -> String) {
        if let Some(context) = &self.0
            && context.get::<Within>().is_some_and(|within| within.tracing.content)
        {
            context.span().set_attribute(says(name, text()));
        }
    }

    /// It came to nothing; `kind` is one of few.
    pub fn failed(&self, kind: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(says(super::names::ERROR_TYPE, kind));
            context.span().set_status(Status::error(""));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// Says something about the span that this code runs in, if there is one.
pub fn here(name: &'static str, value: impl Into<Value>) {
    within(|context, _| context.span().set_attribute(says(name, value)));
}

/// The work that this code runs in came to nothing.
pub fn here_failed(kind: &'static str) {
    within(|context, _| {
        context.span().set_attribute(says(super::names::ERROR_TYPE, kind));
        context.span().set_status(Status::error(""));
    });
}

fn within<T>(look: impl FnOnce(&Context, &Within) -> T) -> Option<T> {
    Context::map_current(|context| {
        let within = context.get::<Within>().filter(|_| context.span().is_recording())?;
        Some(look(context, within))
    })
}

/// Random ids, but for the span of a run, whose ids are known.
#[derive(Debug, Default)]
pub(super) struct PresetIds(RandomIdGenerator);

thread_local! {
    static PRESET: Cell<Option<TraceContext>> = const { Cell::new(None) };
}

impl PresetIds {
    /// A span that `make` begins has these ids.
    fn with<T>(own: TraceContext, make: impl FnOnce() -> T) -> T {
        PRESET.set(Some(own));
        let made = make();
        PRESET.set(None);
        made
    }
}

impl IdGenerator for PresetIds {
    fn new_trace_id(&self) -> TraceId {
        PRESET.get().map_or_else(|| self.0.new_trace_id(), |own| TraceId::from(own.trace))
    }

    fn new_span_id(&self) -> SpanId {
        PRESET.get().map_or_else(|| self.0.new_span_id(), |own| SpanId::from(own.span))
    }
}
