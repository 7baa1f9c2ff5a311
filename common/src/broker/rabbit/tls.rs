//! TLS under the client library, which can be told neither of further certificates nor to do without the system's.
//!
//! It is handed a runtime whose connections are secured already, and speaks plain AMQP over them.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::{DummyIO, RuntimeParts};
use async_rs::{Runtime, Tokio};
use futures::{AsyncRead, AsyncWrite, Stream};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::trust::Trust;

/// Tokio, with TLS around every connection to one host.
#[derive(Debug, Clone)]
pub(super) struct Secured {
    tokio: Tokio,
    config: Arc<ClientConfig>,
    host: ServerName<'static>,
}

impl Secured {
    /// A runtime for connections to `host`; the error says why that is no name that a certificate could have.
    pub(super) fn runtime(config: Arc<ClientConfig>, host: &str) -> Result<Runtime<RuntimeParts<Tokio, Self>>, String> {
        let host = ServerName::try_from(host.to_owned()).map_err(|why| format!("{host}: {why}"))?;
        let reactor = Self { tokio: Tokio::current(), config, host };
        Ok(Runtime::new(RuntimeParts::new(Tokio::current(), reactor)))
    }
}

/// Connects outside a pool. `secured`: the host that must prove its name, over TLS.
pub(super) async fn connect(
    uri: AMQPUri,
    secured: Option<&str>,
    trust: &Trust,
    properties: ConnectionProperties,
) -> Result<Connection, lapin::Error> {
    match secured {
        None => Connection::connect_uri(uri, properties).await,
        Some(host) => {
            let runtime = Secured::runtime(trust.client(), host).map_err(io::Error::other)?;
            Connection::connect_uri_with_runtime(uri, properties, runtime).await
        }
    }
}

impl Reactor for Secured {
    type TcpStream = Compat<TlsStream<TcpStream>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Nobody asks for it.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<DummyIO, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.tokio.sleep(time)
    }

    fn interval(&self, period: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(period)
    }

    fn tcp_connect_addr(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let (connector, host) = (TlsConnector::from(Arc::clone(&self.config)), self.host.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(connector.connect(host, stream).await?.compat())
        }
    }
}
