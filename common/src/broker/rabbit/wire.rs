//! An envelope as AMQP properties, and back.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::broker::{Envelope, too_long};
use crate::limits::{AMQP_TEXT_BYTES_MAX, REASON_CHARS_MAX, TRACEPARENT_BYTES_MAX};

const TRACEPARENT: &str = "traceparent";
const REASON: &str = "planrelay-reason";
const ORIGIN: &str = "planrelay-origin";
/// It was handed out before, and put back as a copy of itself.
const RETURNED: &str = "planrelay-returned";
/// When it was published, in milliseconds since 1970: the `timestamp` of AMQP counts seconds.
const PUBLISHED: &str = "planrelay-published-ms";
const PERSISTENT: u8 = 2;

/// `text` as an AMQP short string. Fails with one sentence when it has more than [`AMQP_TEXT_BYTES_MAX`] bytes.
pub(super) fn short(text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text).map_err(|_too_long| too_long(text.len()))
}

/// The properties of a publication at `now_ms` since 1970. Fails with one sentence when something does not fit.
pub(super) fn properties(envelope: &Envelope, now_ms: u64) -> Result<BasicProperties, String> {
    let named = |what: &str, text: &str| short(text).map_err(|why| format!("{what}: {why}"));
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now_ms / 1000)
        .with_type(named("type", &envelope.kind)?);
    if !envelope.message_id.is_empty() {
        properties = properties.with_message_id(named("message_id", &envelope.message_id)?);
    }
    if let Some(reply_to) = &envelope.reply_to {
        properties = properties.with_reply_to(named("reply_to", reply_to)?);
    }
    if let Some(correlation_id) = &envelope.correlation_id {
        properties = properties.with_correlation_id(named("correlation_id", correlation_id)?);
    }
    let mut headers = FieldTable::default();
    for (key, value) in [(TRACEPARENT, &envelope.traceparent), (REASON, &envelope.reason), (ORIGIN, &envelope.origin)] {
        if let Some(value) = value {
            headers.insert(key.into(), AMQPValue::LongString(value.as_str().into()));
        }
    }
    if envelope.returned {
        headers.insert(RETURNED.into(), AMQPValue::Boolean(true));
    }
    headers.insert(PUBLISHED.into(), AMQPValue::LongLongInt(now_ms.try_into().unwrap_or(i64::MAX)));
    Ok(properties.with_headers(headers))
}

/// When a message was published, in milliseconds since 1970, as far as its publisher says so.
pub(super) fn published_ms(properties: &BasicProperties) -> Option<u64> {
    let exact = properties.headers().as_ref().and_then(|headers| headers.inner().get(PUBLISHED)?.as_long_long_int());
    let seconds = || properties.timestamp().and_then(|seconds| seconds.checked_mul(1000));
    exact.and_then(|ms| ms.try_into().ok()).or_else(seconds)
}

/// What was delivered. Nothing is required of a foreign message: what is missing or not text is left out.
pub(super) fn envelope(properties: &BasicProperties, body: Vec<u8>) -> Envelope {
    let own = |field: &Option<ShortString>| field.as_ref().map(ToString::to_string);
    let nothing = FieldTable::default();
    let headers = properties.headers().as_ref().unwrap_or(&nothing);
    let death = first_death(headers);
    let died = |key: &str| death.and_then(|death| text(death, key));
    Envelope {
        message_id: own(properties.message_id()).unwrap_or_default(),
        kind: own(properties.kind()).unwrap_or_default(),
        body,
        reply_to: own(properties.reply_to()),
        correlation_id: own(properties.correlation_id()),
        // Handed on with everything that follows from the message: headers that do not fit a frame would end every publication.
        traceparent: text(headers, TRACEPARENT).filter(|trace| trace.len() <= TRACEPARENT_BYTES_MAX),
        returned: headers.inner().get(RETURNED).and_then(AMQPValue::as_bool).unwrap_or(false),
        // Ours first: a message that we parked says more than the broker knows.
        reason: text(headers, REASON)
            .or_else(|| text(headers, "x-first-death-reason"))
            .or_else(|| died("reason"))
            .map(|reason| reason.chars().take(REASON_CHARS_MAX).collect()),
        origin: text(headers, ORIGIN)
            .or_else(|| text(headers, "x-first-death-queue"))
            .or_else(|| died("queue"))
            .map(|origin| origin.chars().take(AMQP_TEXT_BYTES_MAX).collect()),
    }
}

fn first_death(headers: &FieldTable) -> Option<&FieldTable> {
    headers.inner().get("x-death")?.as_array()?.as_slice().last()?.as_field_table()
}

fn text(table: &FieldTable, key: &str) -> Option<String> {
    let value = table.inner().get(key)?.as_long_string()?;
    std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldArray;

    use super::*;

    fn with_headers(headers: Vec<(&'static str, AMQPValue)>) -> BasicProperties {
        let mut table = FieldTable::default();
        for (key, value) in headers {
            table.insert(key.into(), value);
        }
        BasicProperties::default().with_headers(table)
    }

    #[test]
    fn foreign_properties_are_read_as_far_as_they_go() {
        let bare = envelope(&BasicProperties::default(), b"x".to_vec());
        assert_eq!(bare, Envelope::new(String::new(), "", b"x".to_vec()));

        let odd = with_headers(vec![
            (TRACEPARENT, AMQPValue::LongString(vec![0xff, 0xfe].into())),
            (REASON, AMQPValue::LongLongInt(3)),
            ("x-death", AMQPValue::Boolean(true)),
        ]);
        assert_eq!(envelope(&odd, vec![]), Envelope::new(String::new(), "", vec![]));
    }

    #[test]
    fn headers_are_bounded() {
        let long = |key| (key, AMQPValue::LongString("x".repeat(100_000).into()));
        let bounded = envelope(&with_headers(vec![long(TRACEPARENT), long(REASON), long(ORIGIN)]), vec![]);
        assert_eq!(bounded.traceparent, None);
        let chars = |text: &Option<String>| text.as_ref().map(|text| text.chars().count());
        assert_eq!((chars(&bounded.reason), chars(&bounded.origin)), (Some(REASON_CHARS_MAX), Some(AMQP_TEXT_BYTES_MAX)));
    }

    #[test]
    fn deaths_are_read_from_either_header() {
        let mut death = FieldTable::default();
        death.insert("reason".into(), AMQPValue::LongString("rejected".into()));
        death.insert("queue".into(), AMQPValue::LongString("q".into()));
        let deaths = AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(death)]));
        let only_list = envelope(&with_headers(vec![("x-death", deaths.clone())]), vec![]);
        assert_eq!((only_list.reason.as_deref(), only_list.origin.as_deref()), (Some("rejected"), Some("q")));
        let first = |text: &str| AMQPValue::LongString(text.into());
        let both = with_headers(vec![
            ("x-death", deaths),
            ("x-first-death-reason", first("delivery_limit")),
            ("x-first-death-queue", first("p")),
        ]);
        let both = envelope(&both, vec![]);
        assert_eq!((both.reason.as_deref(), both.origin.as_deref()), (Some("delivery_limit"), Some("p")));
    }

    #[test]
    fn the_time_of_publication_is_known_to_the_millisecond_or_to_the_second() {
        let ours = properties(&Envelope::new("m".into(), "step", vec![]), 1_234_567).unwrap();
        let foreign = BasicProperties::default().with_timestamp(1_234);
        let odd = BasicProperties::default().with_timestamp(u64::MAX);
        assert_eq!([&ours, &foreign, &odd].map(published_ms), [Some(1_234_567), Some(1_234_000), None]);
    }

    #[test]
    fn long_ids_are_an_error() {
        let why = properties(&Envelope::new("x".repeat(256), "step", vec![]), 0).unwrap_err();
        assert_eq!(why, "message_id: 256 bytes do not fit into AMQP's 255 for a name or an id");
        assert!(properties(&Envelope::new("x".repeat(255), "step", vec![]), 0).is_ok());
    }
}
