//! What went wrong between us and an endpoint, sorted by what to do about it.

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};
use serde_json::Value;

use crate::clock::{Clock, http_date};
use crate::limits::{RETRY_AFTER_DEFAULT, RETRY_AFTER_MAX};
use crate::llm::LlmError;

/// Longest text of an endpoint's that goes into an error, in characters.
const WHY_CHARS_MAX: usize = 300;

/// A request without a usable reply.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(super) struct Failure {
    /// The class and the text.
    pub(super) error: LlmError,
    /// The status code, or the one that an error in a 200 stands for; 0 when there was no response.
    pub(super) status: u16,
    /// What the endpoint said, in lower case, to find a refused parameter in.
    pub(super) said: String,
}

impl Failure {
    /// A failure without a response.
    pub(super) fn transient(why: impl Into<String>) -> Self {
        Self { error: LlmError::Transient(why.into()), status: 0, said: String::new() }
    }

    /// A failure that another try would repeat.
    pub(super) fn permanent(why: impl Into<String>) -> Self {
        Self { error: LlmError::Permanent(why.into()), status: 0, said: String::new() }
    }

    /// Which kind it is, for traces: the status code, or one word.
    pub(super) fn kind(&self) -> String {
        let word = match &self.error {
            LlmError::Transient(_) => "connection",
            LlmError::RateLimited { .. } => "rate_limited",
            LlmError::Exhausted(_) => "exhausted",
            LlmError::Permanent(_) => "unusable",
        };
        if self.status == 0 { word.to_owned() } else { self.status.to_string() }
    }

    /// A request that was not made.
    pub(super) fn not_sent(error: LlmError) -> Self {
        Self { error, status: 0, said: String::new() }
    }

    /// From an error of the HTTP client. URLs stay out: they may hold credentials.
    pub(super) fn from_http(error: reqwest::Error, timeout: Duration) -> Self {
        if error.is_timeout() {
            return Self::transient(format!("the model endpoint gave no answer within {timeout:?}"));
        }
        if error.is_builder() {
            return Self::permanent(format!("the model endpoint's address is not usable: {}", cause(&error.without_url())));
        }
        let what = if error.is_connect() {
            "cannot connect to the model endpoint"
        } else {
            "the connection to the model endpoint broke"
        };
        Self::transient(format!("{what}: {}", cause(&error.without_url())))
    }

    /// From a response that is no success.
    pub(super) fn from_response(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        if (300..400).contains(&status) {
            let to = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
            let to = one_line(to.split('?').next().unwrap_or_default());
            return Self::permanent(format!(
                "the model endpoint redirects ({status}) to {to}; set OPENAI_BASE_URL to where it is"
            ));
        }
        let said = Said::read(body);
        Self::classify(status, &said, retry_after(headers))
    }

    /// From a 200 whose body is an error all the same; `None` when it is none.
    pub(super) fn from_success(body: &Value, headers: &HeaderMap) -> Option<Self> {
        let error = body.get("error").filter(|error| !error.is_null() && body["choices"].get(0).is_none())?;
        let said = Said::of(error);
        let status = said.status().unwrap_or(500);
        Some(Self::classify(status, &said, retry_after(headers)))
    }

    fn classify(status: u16, said: &Said, after: Duration) -> Self {
        let why = format!("the model endpoint answered {status}: {}", said.message);
        let error = match status {
            _ if said.quota_is_gone() => LlmError::Permanent(why),
            429 => LlmError::RateLimited { why, after },
            408 | 409 | 425 | 500..=599 => LlmError::Transient(why),
            _ => LlmError::Permanent(why),
        };
        Self { error, status, said: said.all.clone() }
    }
}

/// The innermost cause: the outer ones of HTTP clients only say that a request failed.
fn cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    one_line(&deepest.to_string())
}

/// What an error body says.
struct Said {
    message: String,
    /// `code` and `type`, in lower case.
    codes: Vec<String>,
    /// Everything, in lower case.
    all: String,
}

impl Said {
    fn read(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            // OpenAI {"error": {…}}; Gemini [{"error": {…}}]; Ollama {"error": "…"}; FastAPI {"detail": …}; vLLM {"message": …}.
            Ok(value) => {
                let value = value.get(0).unwrap_or(&value);
                Self::of(value.get("error").filter(|error| !error.is_null()).unwrap_or(value))
            }
            Err(_) => {
                let text = one_line(&without_markup(&String::from_utf8_lossy(&body[..body.len().min(16 << 10)])));
                let message = if text.is_empty() { "(an empty body)".to_owned() } else { text };
                Self { all: message.to_lowercase(), message, codes: Vec::new() }
            }
        }
    }

    fn of(error: &Value) -> Self {
        let text = ["message", "detail", "error_description", "title"].iter().find_map(|name| match &error[*name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(error[*name].to_string()),
        });
        let message = one_line(&text.unwrap_or_else(|| error.as_str().map_or_else(|| error.to_string(), str::to_owned)));
        let codes = ["code", "type", "status", "param"].iter().filter_map(|name| match &error[*name] {
            Value::String(text) => Some(text.to_lowercase()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        });
        let codes: Vec<String> = codes.collect();
        // The message may be long and name the parameter late: look for it in all of it, within reason.
        let whole: String = error.to_string().chars().take(4096).collect::<String>().to_lowercase();
        Self { message, codes, all: whole }
    }

    /// Whether waiting would not help: the account's quota is used up.
    fn quota_is_gone(&self) -> bool {
        self.codes
            .iter()
            .any(|code| matches!(&**code, "insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active"))
    }

    /// The status code that an error's own code stands for.
    fn status(&self) -> Option<u16> {
        self.codes.iter().find_map(|code| match code.parse::<u16>() {
            Ok(status) if (400..600).contains(&status) => Some(status),
            Ok(_) => None,
            Err(_) if code.contains("rate_limit") || code == "resource_exhausted" || code == "too_many_requests" => Some(429),
            Err(_) if code.contains("auth") || code.contains("api_key") => Some(401),
            Err(_) if code.contains("not_found") => Some(404),
            Err(_) if code.starts_with("invalid") || code.starts_with("context_length") || code.starts_with("unsupported") => {
                Some(400)
            }
            Err(_) => None,
        })
    }
}

/// A page's words without its tags.
fn without_markup(text: &str) -> String {
    if !text.trim_start().starts_with('<') {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut inside = false;
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                out.push(' ');
            }
            _ if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

/// `text` on one line, without control characters, cut.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > 4 * WHY_CHARS_MAX {
            break;
        }
    }
    if line.chars().count() <= WHY_CHARS_MAX { line } else { line.chars().take(WHY_CHARS_MAX - 1).chain(['…']).collect() }
}

/// How long the endpoint asks to wait, within bounds.
fn retry_after(headers: &HeaderMap) -> Duration {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |name: &str| text(name)?.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number(RETRY_AFTER.as_str())).or_else(|| {
        let until = http_date(text(RETRY_AFTER.as_str())?)?;
        // The server's own clock, if it tells it: then a wrong clock on either side does not matter.
        let now = text(DATE.as_str()).and_then(http_date).unwrap_or_else(|| Clock::System.now_ms() / 1000);
        #[expect(clippy::cast_precision_loss, reason = "a wait of more than an hour is cut anyway")]
        Some(until.saturating_sub(now) as f64)
    });
    seconds.map_or(RETRY_AFTER_DEFAULT, |seconds| Duration::from_secs_f64(seconds.min(RETRY_AFTER_MAX.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded() {
        let wait = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            retry_after(&headers)
        };
        assert_eq!(wait(&[]), RETRY_AFTER_DEFAULT);
        assert_eq!(wait(&[("retry-after", "7")]), Duration::from_secs(7));
        assert_eq!(wait(&[("retry-after", "1.5")]), Duration::from_millis(1500));
        assert_eq!(wait(&[("retry-after-ms", "250"), ("retry-after", "7")]), Duration::from_millis(250));
        for bad in ["-1", "NaN", "soon", "1e400"] {
            assert_eq!(wait(&[("retry-after", bad)]), RETRY_AFTER_DEFAULT, "{bad}");
        }
        assert_eq!(wait(&[("retry-after", "99999999")]), RETRY_AFTER_MAX);
        let dates = [("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")];
        assert_eq!(wait(&dates), Duration::from_secs(30));
        assert_eq!(wait(&dates[1..]), Duration::ZERO, "a date in the past");
    }

    #[test]
    fn texts_of_endpoints_are_bounded() {
        assert!(one_line(&"long ".repeat(10_000)).chars().count() <= WHY_CHARS_MAX);
        assert_eq!(one_line(" a\n\u{1b}[1mb "), "a [1mb");
        let page = Failure::from_response(502, &HeaderMap::new(), b"<html><h1>502 Bad Gateway</h1></html>");
        assert_eq!(page.error, LlmError::Transient("the model endpoint answered 502: 502 Bad Gateway".into()));
    }
}
