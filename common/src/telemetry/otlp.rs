//! Where spans are sent, by the standard variables
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). Pure: whatever cannot be used is said before
//! anything is sent.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::mask_url;

use super::TelemetryError;

/// Where an exporter sends when only its being wanted is said.
const ENDPOINT: &str = "http://localhost:4318";
/// The exporter's own defaults, by the standard.
const TIMEOUT: Duration = Duration::from_secs(10);
const QUEUE: usize = 2048;
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(5);

/// How spans are sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Otlp {
    /// The whole URL.
    pub(super) endpoint: String,
    /// JSON in place of protobuf.
    pub(super) json: bool,
    /// Compressed.
    pub(super) gzip: bool,
    /// How long one request may take.
    pub(super) timeout: Duration,
    /// More authorities to trust, in a file.
    pub(super) certificate: Option<PathBuf>,
    /// Which traces are recorded.
    pub(super) sampling: Sampling,
    /// Spans that wait at most.
    pub(super) queue: usize,
    /// Spans that are sent at once at most.
    pub(super) batch: usize,
    /// Time between two batches.
    pub(super) delay: Duration,
    /// Whether prompts, replies, arguments and results are said.
    pub(super) content: bool,
    /// Whether the service has a name by its environment.
    pub(super) named: bool,
    /// What the environment says of it.
    pub(super) resource: Vec<String>,
}

/// Which traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampling {
    /// What was decided where the trace began holds.
    pub(super) parent: bool,
    /// Of the others: this part.
    pub(super) part: Part,
}

/// A part of all traces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Part {
    /// Every one.
    All,
    /// None.
    None,
    /// About this part of 1.
    Ratio(f64),
}

/// Reads the variables; one that is empty counts as not set. `None`: nothing is sent.
pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Otlp>, TelemetryError> {
    Variables(&|name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())).read()
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

fn wrong(variable: &str, value: &str, what: &str) -> TelemetryError {
    TelemetryError::Variable(format!("{variable}: {value:?} {what}"))
}

impl Variables<'_> {
    fn read(&self) -> Result<Option<Otlp>, TelemetryError> {
        if !self.wanted()? {
            return Ok(None);
        }
        let (queue, batch) =
            (self.number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE)?, self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH)?);
        if batch > queue && self.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").is_some() {
            return Err(wrong(
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                &batch.to_string(),
                &format!("is more than the queue holds, {queue}"),
            ));
        }
        let (json, gzip) = (self.json()?, self.gzip()?);
        let [delay, whole] = [("OTEL_BSP_SCHEDULE_DELAY", DELAY), ("OTEL_BSP_EXPORT_TIMEOUT", Duration::MAX)]
            .map(|(name, default)| self.milliseconds(&[name], default));
        let timeout = self.milliseconds(&["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"], TIMEOUT)?;
        self.headers()?;
        self.others()?;
        let resource = self.resource()?;
        Ok(Some(Otlp {
            endpoint: self.endpoint()?,
            json,
            gzip,
            timeout: timeout.min(whole?),
            certificate: self.first(&CERTIFICATE).map(|(_, path)| path.into()),
            sampling: self.sampling()?,
            queue,
            batch: batch.min(queue),
            delay: delay?,
            content: self.content()?,
            named: self.get("OTEL_SERVICE_NAME").is_some() || resource.iter().any(|name| name == "service.name"),
            resource,
        }))
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name)
    }

    /// The first of these that is set, with its name.
    fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, String)> {
        names.iter().find_map(|name| self.get(name).map(|value| (*name, value)))
    }

    fn wanted(&self) -> Result<bool, TelemetryError> {
        if self.flag("OTEL_SDK_DISABLED")? {
            return Ok(false);
        }
        match self.get("OTEL_TRACES_EXPORTER").as_deref() {
            Some("none") => Ok(false),
            Some("otlp") => Ok(true),
            Some(other) => Err(wrong("OTEL_TRACES_EXPORTER", other, "is not supported; use otlp or none")),
            None => Ok(self.first(&ENDPOINTS).is_some()),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, TelemetryError> {
        match self.get(name) {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(value) => Err(wrong(name, &value, "is neither true nor false")),
        }
    }

    fn endpoint(&self) -> Result<String, TelemetryError> {
        let (name, url) = match self.first(&ENDPOINTS) {
            Some((name, url)) if name == ENDPOINTS[0] => (name, url),
            Some((name, base)) => (name, format!("{}/v1/traces", base.trim_end_matches('/'))),
            None => (ENDPOINTS[1], format!("{ENDPOINT}/v1/traces")),
        };
        match reqwest::Url::parse(&url) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(url),
            Ok(_) | Err(_) => Err(wrong(name, &mask_url(&url), "is not a URL such as http://collector:4318")),
        }
    }

    fn json(&self) -> Result<bool, TelemetryError> {
        match self.first(&["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]) {
            None => Ok(false),
            Some((_, value)) if value == "http/protobuf" => Ok(false),
            Some((_, value)) if value == "http/json" => Ok(true),
            Some((name, value)) => Err(wrong(
                name,
                &value,
                "is not supported; use http/protobuf (the default; a collector listens for it on port 4318) or http/json",
            )),
        }
    }

    fn gzip(&self) -> Result<bool, TelemetryError> {
        match self.first(&["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"]) {
            None => Ok(false),
            Some((_, value)) if value == "none" => Ok(false),
            Some((_, value)) if value == "gzip" => Ok(true),
            Some((name, value)) => Err(wrong(name, &value, "is not supported; use gzip or none")),
        }
    }

    fn number(&self, name: &str, default: usize) -> Result<usize, TelemetryError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = value.parse().ok().filter(|number| (1..=1 << 20).contains(number));
        number.ok_or_else(|| wrong(name, &value, "is not a number from 1 to 1048576"))
    }

    fn milliseconds(&self, names: &[&str], default: Duration) -> Result<Duration, TelemetryError> {
        let Some((name, value)) = self.first(names) else { return Ok(default) };
        let number = value.parse().ok().filter(|ms| (1..=3_600_000).contains(ms));
        number.map(Duration::from_millis).ok_or_else(|| wrong(name, &value, "is not a number of milliseconds from 1 to 3600000"))
    }

    fn sampling(&self) -> Result<Sampling, TelemetryError> {
        let sampler = self.get("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_always_on".to_owned());
        let parent = sampler.starts_with("parentbased_");
        let part = match sampler.trim_start_matches("parentbased_") {
            "always_on" => Part::All,
            "always_off" => Part::None,
            "traceidratio" => Part::Ratio(self.ratio()?),
            _ => {
                let known = "use always_on, always_off or traceidratio, or one of them after parentbased_";
                return Err(wrong("OTEL_TRACES_SAMPLER", &sampler, &format!("is not supported; {known}")));
            }
        };
        Ok(Sampling { parent, part })
    }

    fn ratio(&self) -> Result<f64, TelemetryError> {
        let Some(value) = self.get("OTEL_TRACES_SAMPLER_ARG") else { return Ok(1.0) };
        let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.ok_or_else(|| wrong("OTEL_TRACES_SAMPLER_ARG", &value, "is not a number from 0 to 1"))
    }

    /// Headers may hold keys: they are never quoted.
    fn headers(&self) -> Result<(), TelemetryError> {
        let Some((name, value)) = self.first(&["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"]) else {
            return Ok(());
        };
        let good = |entry: &str| {
            entry.split_once('=').is_some_and(|(key, value)| {
                http::HeaderName::try_from(key.trim()).is_ok() && http::HeaderValue::try_from(value.trim()).is_ok()
            })
        };
        match value.split(',').filter(|entry| !entry.trim().is_empty()).all(good) {
            true => Ok(()),
            false => Err(TelemetryError::Variable(format!("{name}: not a list such as key1=value1,key2=value2"))),
        }
    }

    /// The names of what `OTEL_RESOURCE_ATTRIBUTES` says.
    fn resource(&self) -> Result<Vec<String>, TelemetryError> {
        let value = self.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let entries = value.split(',').filter(|entry| !entry.trim().is_empty());
        let name = |entry: &str| {
            let name = entry.split_once('=').map(|(name, _)| name.trim().to_owned()).filter(|name| !name.is_empty());
            name.ok_or_else(|| wrong("OTEL_RESOURCE_ATTRIBUTES", &value, "is not a list such as key1=value1,key2=value2"))
        };
        entries.map(name).collect()
    }

    fn content(&self) -> Result<bool, TelemetryError> {
        let value = self.get(CONTENT).unwrap_or_default();
        match value.to_ascii_lowercase().as_str() {
            "" | "false" | "no_content" => Ok(false),
            "true" | "span_only" | "span_and_event" => Ok(true),
            _ => Err(wrong(CONTENT, &value, "is not supported; use true or false (or SPAN_ONLY or NO_CONTENT)")),
        }
    }

    /// What the exporter would leave unread without a word.
    fn others(&self) -> Result<(), TelemetryError> {
        self.number("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", 1)?;
        if let Some((name, value)) = self.first(&CLIENT_CERTIFICATES) {
            return Err(wrong(
                name,
                &value,
                "is not supported: no client certificate is sent; send through a collector that can",
            ));
        }
        match self.get("OTEL_PROPAGATORS") {
            Some(value) if !value.split(',').any(|propagator| propagator.trim() == "tracecontext") => {
                Err(wrong("OTEL_PROPAGATORS", &value, "leaves out tracecontext, the only one that is supported"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The variable that asks for prompts and replies in traces.
const CONTENT: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
/// The signal's own first.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const CERTIFICATE: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
const CLIENT_CERTIFICATES: [&str; 4] = [
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Option<Otlp>, TelemetryError> {
        let variables: Vec<(String, String)> = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        read(|name| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()))
    }

    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");

    #[test]
    fn nothing_is_sent_unless_it_is_asked_for() {
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/other");
        let exporter = |name| ("OTEL_TRACES_EXPORTER", name);
        for (variables, endpoint) in [
            (vec![], None),
            (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "")], None),
            (vec![BASE], Some("http://c:4318/v1/traces")),
            (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/api/public/otel/")], Some("https://c/api/public/otel/v1/traces")),
            (vec![BASE, own], Some("http://t/other")),
            (vec![exporter("otlp")], Some("http://localhost:4318/v1/traces")),
            (vec![BASE, exporter("none")], None),
            (vec![BASE, ("OTEL_SDK_DISABLED", "True")], None),
            (vec![BASE, ("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], None),
            (vec![BASE, ("OTEL_SDK_DISABLED", "false")], Some("http://c:4318/v1/traces")),
        ] {
            assert_eq!(with(&variables).unwrap().map(|otlp| otlp.endpoint).as_deref(), endpoint, "{variables:?}");
        }
    }

    #[test]
    fn the_standard_variables_hold() {
        let otlp = with(&[
            BASE,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20eA==, x-scope = a"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine,deployment.environment.name=test"),
            ("OTEL_PROPAGATORS", "tracecontext,baggage"),
            (CONTENT, "SPAN_ONLY"),
        ]);
        let expected = Otlp {
            endpoint: "http://c:4318/v1/traces".into(),
            json: true,
            gzip: true,
            timeout: Duration::from_millis(2500),
            certificate: None,
            sampling: Sampling { parent: true, part: Part::Ratio(0.25) },
            queue: 64,
            batch: 64,
            delay: Duration::from_millis(100),
            content: true,
            named: true,
            resource: vec!["service.name".into(), "deployment.environment.name".into()],
        };
        assert_eq!(otlp, Ok(Some(expected)));
        assert_eq!(with(&[BASE]).unwrap().map(|otlp| (otlp.content, otlp.json)), Some((false, false)));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (name, value, says) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "use http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc", "use http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317", "is not a URL"),
            ("OTEL_TRACES_EXPORTER", "zipkin", "use otlp or none"),
            ("OTEL_SDK_DISABLED", "yes", "neither true nor false"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "use gzip or none"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "a number from 1"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "more than the queue holds"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1", "milliseconds"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "traceidratio"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name", "key1=value1"),
            ("OTEL_PROPAGATORS", "b3", "tracecontext"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k", "client certificate"),
            (CONTENT, "EVENT_ONLY", "use true or false"),
        ] {
            let why = with(&[BASE, (name, value)]).unwrap_err().to_string();
            assert!(why.starts_with(&format!("{name}: ")) && why.contains(value) && why.contains(says), "{why}");
        }
        let ratio = [BASE, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "20%")];
        assert!(with(&ratio).unwrap_err().to_string().starts_with("OTEL_TRACES_SAMPLER_ARG: "));
        let why = with(&[BASE, ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer secret")]).unwrap_err().to_string();
        assert!(why.starts_with("OTEL_EXPORTER_OTLP_HEADERS: ") && !why.contains("secret"), "{why}");
        let why = with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://me:secret@c")]).unwrap_err().to_string();
        assert!(!why.contains("secret"), "{why}");
    }
}
