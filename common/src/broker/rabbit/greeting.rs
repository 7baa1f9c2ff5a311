//! What a broker says before anybody has logged in. The client library keeps it to itself.

use futures::{AsyncReadExt, AsyncWriteExt};
use lapin::protocol::connection::AMQPMethod;
use lapin::protocol::{AMQPClass, parse_class};
use lapin::tcp::AMQPUriTcpExt;
use lapin::types::AMQPValue;
use lapin::uri::AMQPUri;

use crate::limits::GREETING_BYTES_MAX;

/// The protocol header of AMQP 0-9-1.
const HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// Type, channel and length before the payload of a frame.
const FRAME_HEAD_BYTES: usize = 7;

/// What a broker says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Greeting {
    /// `RabbitMQ`.
    pub product: String,
    /// `3.10.8`.
    pub version: String,
    /// The name of its cluster.
    pub cluster: String,
}

/// The first frame that the broker sends: it tells the version, which the client library keeps to itself.
pub(super) async fn greet(uri: &AMQPUri) -> Result<Greeting, std::io::Error> {
    let runtime = lapin::runtime::default_runtime().map_err(std::io::Error::other)?;
    let mut stream = uri.connect_async(&runtime).await?;
    stream.write_all(HEADER).await?;
    stream.flush().await?;
    let mut head = [0; FRAME_HEAD_BYTES];
    stream.read_exact(&mut head).await.map_err(|_short| not_amqp())?;
    let length = usize::try_from(u32::from_be_bytes([head[3], head[4], head[5], head[6]])).unwrap_or(usize::MAX);
    // A method on channel 0.
    if head[..3] != [1, 0, 0] || length > GREETING_BYTES_MAX {
        return Err(not_amqp());
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.map_err(|_short| not_amqp())?;
    read_greeting(&payload).ok_or_else(not_amqp)
}

fn not_amqp() -> std::io::Error {
    std::io::Error::other("what answers there does not speak AMQP 0-9-1")
}

/// The properties in a `connection.start`.
fn read_greeting(payload: &[u8]) -> Option<Greeting> {
    let Ok((_, AMQPClass::Connection(AMQPMethod::Start(start)))) = parse_class(payload) else { return None };
    let text = |key: &str| {
        let value = start.server_properties.inner().get(key).and_then(AMQPValue::as_long_string);
        value.map(|text| String::from_utf8_lossy(text.as_bytes()).chars().take(100).collect()).unwrap_or_default()
    };
    Some(Greeting { product: text("product"), version: text("version"), cluster: text("cluster_name") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As RabbitMQ sends it, cut to what is read.
    fn start(properties: &[(&str, &str)]) -> Vec<u8> {
        let mut table = Vec::new();
        for (name, value) in properties {
            table.push(u8::try_from(name.len()).unwrap());
            table.extend(name.as_bytes());
            table.push(b'S');
            table.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            table.extend(value.as_bytes());
        }
        let mut payload = vec![0, 10, 0, 10, 0, 9];
        payload.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
        payload.extend(table);
        payload.extend(b"\0\0\0\x05PLAIN\0\0\0\x05en_US");
        payload
    }

    #[test]
    fn greetings_are_read() {
        let sent = start(&[("product", "RabbitMQ"), ("version", "3.10.8"), ("cluster_name", "rabbit@a")]);
        let greeting = Greeting { product: "RabbitMQ".into(), version: "3.10.8".into(), cluster: "rabbit@a".into() };
        assert_eq!(read_greeting(&sent), Some(greeting));
        assert_eq!(read_greeting(&start(&[])), Some(Greeting::default()));
        for cut in 0..sent.len() - 20 {
            assert_eq!(read_greeting(&sent[..cut]), None, "{cut} bytes");
        }
        assert_eq!(read_greeting(b"-ERR unknown command"), None);
    }
}
