//! `REDIS_URL`: what of it is accepted.
//!
//! | form | is |
//! |---|---|
//! | `redis://user:password@host:6379/db` | one server |
//! | several of these, separated by commas | a Redis Cluster, by some of its servers |
//! | `redis+cluster://user:password@host:6379,host2` | the same; one server is enough |
//! | `redis+sentinel://user:password@host:26379,host2/service/db` | the primary that these Sentinels name |
//!
//! `rediss` in place of `redis`: over TLS, also to Sentinels. The form for Sentinels is that of redis-sentinel-url, docket and Prefect:
//! user and password are those of Redis, `?sentinel_username=…&sentinel_password=…` those of the Sentinels, if they want any.

use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, TlsCertificates};
use redis::{RedisConnectionInfo, TlsMode};

use crate::trust::Trust;

/// The port of Sentinels that no port is named of.
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is. Has no `Debug`: it holds passwords.
pub(super) enum Address {
    /// One server.
    Single(ConnectionInfo),
    /// Some servers of a cluster.
    Cluster(Vec<ConnectionInfo>),
    /// Those who know the primary.
    Sentinels(Sentinels),
}

/// Sentinels, and what they are asked for.
pub(super) struct Sentinels {
    /// Where they are.
    pub(super) hosts: Vec<ConnectionAddr>,
    /// The name under which they know the primary.
    pub(super) service: String,
    /// How to log in to Redis, and its database.
    pub(super) redis: RedisConnectionInfo,
    /// How to log in to the Sentinels.
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    /// Whether both speak TLS.
    pub(super) tls: Option<TlsMode>,
}

fn bad(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, why))
}

impl Address {
    /// Reads what the configuration says. No error repeats a URL, which may hold a password.
    pub(super) fn parse(urls: &[&str], trust: &Trust) -> Result<Self, RedisError> {
        match urls {
            [] => Err(bad("no URL")),
            [url] => match url.split_once("://") {
                Some((scheme @ ("redis+cluster" | "rediss+cluster"), rest)) => cluster(plain(scheme), rest, trust),
                Some((scheme @ ("redis+sentinel" | "rediss+sentinel"), rest)) => sentinels(plain(scheme), rest),
                _ => Ok(Self::Single(server(url, trust)?)),
            },
            several if several.iter().any(|url| url.split("://").next().is_some_and(|scheme| scheme.contains('+'))) => {
                Err(bad("of redis+cluster and redis+sentinel there is one URL, with several hosts in it"))
            }
            several => {
                let servers = several.iter().map(|url| server(url, trust)).collect::<Result<Vec<_>, _>>()?;
                Ok(Self::Cluster(servers))
            }
        }
    }
}

fn plain(scheme: &str) -> &str {
    scheme.split('+').next().unwrap_or(scheme)
}

fn server(url: &str, trust: &Trust) -> Result<ConnectionInfo, RedisError> {
    let info = url.into_connection_info()?;
    let secured = match (info.addr(), certificates(trust)) {
        (ConnectionAddr::TcpTls { .. }, Some(certificates)) => {
            Client::build_with_tls(info, certificates)?.get_connection_info().clone()
        }
        _ => info,
    };
    Ok(secured.set_tcp_settings(tcp()))
}

/// What the client library trusts in place of the system's certificates; `None`: these.
pub(super) fn certificates(trust: &Trust) -> Option<TlsCertificates> {
    trust.pem().map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) })
}

/// The settings of every connection.
pub(super) fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// A URL behind its scheme: user and password with their `@`, the hosts, and the rest from `/` or `?` on.
fn parts(rest: &str) -> (&str, Vec<&str>, &str) {
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    (user, hosts.split(',').map(str::trim).collect(), tail)
}

fn cluster(scheme: &str, rest: &str, trust: &Trust) -> Result<Address, RedisError> {
    let (user, hosts, tail) = parts(rest);
    let servers = hosts.iter().map(|host| server(&format!("{scheme}://{user}{host}{tail}"), trust));
    Ok(Address::Cluster(servers.collect::<Result<Vec<_>, _>>()?))
}

fn sentinels(scheme: &str, rest: &str) -> Result<Address, RedisError> {
    let (user, hosts, tail) = parts(rest);
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let mut path = path.trim_matches('/').split('/');
    let service = path.next().filter(|name| !name.is_empty());
    let service =
        service.ok_or_else(|| bad("after the Sentinels comes the name of the primary: redis+sentinel://host:26379/name"))?;
    let database = path.next().unwrap_or("0");
    if path.next().is_some() {
        return Err(bad("after the name of the primary comes at most the number of a database"));
    }
    let (mut username, mut password, mut others) = (None, None, Vec::new());
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "sentinel_username" => username = Some(decoded(scheme, value)?),
            "sentinel_password" => password = Some(decoded(scheme, value)?),
            _ => others.push(format!("{name}={value}")),
        }
    }
    let redis = format!("{scheme}://{user}host/{database}?{}", others.join("&")).into_connection_info()?;
    let tls = matches!(redis.addr(), ConnectionAddr::TcpTls { .. }).then_some(TlsMode::Secure);
    let hosts = hosts.iter().map(|host| sentinel(scheme, host)).collect::<Result<Vec<_>, _>>()?;
    let (service, redis) = (service.to_owned(), redis.redis_settings().clone());
    Ok(Address::Sentinels(Sentinels { hosts, service, redis, username, password, tls }))
}

/// Without a port it is that of Sentinels, which the library would take for that of Redis.
fn sentinel(scheme: &str, host: &str) -> Result<ConnectionAddr, RedisError> {
    let named = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if named { host.to_owned() } else { format!("{host}:{SENTINEL_PORT}") };
    Ok(format!("{scheme}://{host}").into_connection_info()?.addr().clone())
}

/// A value that may be percent-encoded, read as the library reads passwords.
fn decoded(scheme: &str, value: &str) -> Result<String, RedisError> {
    let info = format!("{scheme}://:{value}@host").into_connection_info()?;
    info.redis_settings().password().map(str::to_owned).ok_or_else(|| bad("a password of the Sentinels is empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(urls: &[&str]) -> String {
        match Address::parse(urls, &Trust::default()) {
            Err(error) => format!("refused: {error}"),
            Ok(Address::Single(info)) => format!("single {}", info.addr()),
            Ok(Address::Cluster(infos)) => {
                let each = infos.iter().map(|info| format!("{} {:?}", info.addr(), info.redis_settings().password()));
                format!("cluster {}", each.collect::<Vec<_>>().join(", "))
            }
            Ok(Address::Sentinels(Sentinels { hosts, service, redis, username, password, tls })) => {
                let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
                let (user, secret, db) = (redis.username(), redis.password(), redis.db());
                format!("{} {service} {db} {user:?} {secret:?} {username:?} {password:?} {}", hosts.join(","), tls.is_some())
            }
        }
    }

    #[test]
    fn every_form_is_read() {
        for (urls, read) in [
            (&["redis://a"] as &[&str], "single a:6379"),
            (&["rediss://u:p@a:1/2"], "single a:1"),
            (&["redis://:p@a:1", "redis://:p@b:2"], "cluster a:1 Some(\"p\"), b:2 Some(\"p\")"),
            (&["redis+cluster://a:1"], "cluster a:1 None"),
            (&["rediss+cluster://u:p%40@a:1, b:2"], "cluster a:1 Some(\"p@\"), b:2 Some(\"p@\")"),
            (&["redis+sentinel://a/main"], "a:26379 main 0 None None None None false"),
            (
                &["rediss+sentinel://u:p@a:1,b,[::1]:3/main/4?sentinel_username=s&sentinel_password=x%2C"],
                "a:1,b:26379,::1:3 main 4 Some(\"u\") Some(\"p\") Some(\"s\") Some(\"x,\") true",
            ),
        ] {
            assert_eq!(shown(urls), read);
        }
        for urls in [
            &["redis+sentinel://a"] as &[&str],
            &["redis+sentinel://a/"],
            &["redis+sentinel://u:secret@a/main/x"],
            &["redis+sentinel://a/main/1/2"],
            &["redis+cluster://a", "redis+cluster://b"],
            &["redis://u:secret@a", "redis+sentinel://u:secret@b/main"],
            &["secret"],
            &[],
        ] {
            let refused = shown(urls);
            assert!(refused.starts_with("refused: ") && !refused.contains("secret"), "{urls:?}: {refused}");
        }
    }
}
