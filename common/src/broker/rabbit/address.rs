//! `AMQP_URL`: what of it is accepted, and how it is shown.

use std::str::FromStr;

use lapin::uri::{AMQPScheme, AMQPUri};

use crate::broker::ConnectError;
use crate::limits::HEARTBEAT_SECS;

/// Where one broker is. Has no `Debug`: `full` holds the password.
pub(super) struct Address {
    /// What the client library connects to, password included.
    pub(super) full: String,
    /// The same for people, password masked.
    pub(super) shown: String,
    /// The host that must prove its name, if the connection is to be secured (`amqps`); `full` does not say so.
    pub(super) secured: Option<String>,
}

impl Address {
    /// Reads one URL. The error never repeats the URL, which may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, ConnectError> {
        let bad = |why: &str| ConnectError::BadUrl(why.to_owned());
        let authority = url.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(""));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if host.starts_with('[') {
            // The client library would connect to localhost instead.
            return Err(bad("an IPv6 address cannot be the host, use a name that resolves to it"));
        }
        let mut uri = AMQPUri::from_str(url)
            .map_err(|why| bad(if why.contains(url) { "not of the form amqp://user:password@host:5672/vhost" } else { &why }))?;
        if uri.vhost.is_empty() {
            // `amqp://host/` names the virtual host "" by the letter; nobody has one, everybody means the default.
            uri.vhost = "/".to_owned();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECS);
        let (scheme, user, host, port) =
            (uri.scheme.clone(), &uri.authority.userinfo.username, &uri.authority.host, uri.authority.port);
        let vhost = uri.vhost.replace('/', "%2f");
        let (shown, secured) = (
            format!("{scheme}://{user}:***@{host}:{port}/{vhost}"),
            match scheme {
                AMQPScheme::AMQP => None,
                AMQPScheme::AMQPS => Some(host.clone()),
            },
        );
        uri.scheme = AMQPScheme::AMQP;
        Ok(Self { shown, full: uri.to_string(), secured })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_show_no_password() {
        for (url, shown) in [
            ("amqp://u:secret@h:1/%2f", "amqp://u:***@h:1/%2f"),
            ("amqp://u:secret@h", "amqp://u:***@h:5672/%2f"),
            ("amqp://u:secret@h/", "amqp://u:***@h:5672/%2f"),
            ("amqps://u:secret@h/team", "amqps://u:***@h:5671/team"),
            ("amqp://u:sec%40ret@127.0.0.1/a%2fb", "amqp://u:***@127.0.0.1:5672/a%2fb"),
        ] {
            let address = Address::parse(url).map_err(|e| e.to_string()).unwrap();
            assert_eq!(address.shown, shown);
            assert!(address.full.contains("heartbeat=10"), "{}", address.full);
        }
        let with_own_heartbeat = Address::parse("amqp://h?heartbeat=3").map_err(|e| e.to_string()).unwrap();
        assert!(with_own_heartbeat.full.contains("heartbeat=3"));
        let slash = Address::parse("amqp://h/").map_err(|e| e.to_string()).unwrap();
        let none = Address::parse("amqp://h").map_err(|e| e.to_string()).unwrap();
        assert_eq!(slash.full, none.full);
    }

    #[test]
    fn bad_urls_are_refused_without_repeating_them() {
        for url in [
            "",
            "secret",
            "amqp:secret",
            "http://u:secret@h",
            "amqp://u:secret@[fd00::5]/",
            "amqp://u:secret@h:99999",
            "amqp://u:secret@h?heartbeat=x",
        ] {
            match Address::parse(url) {
                Err(ConnectError::BadUrl(why)) => assert!(!why.contains("secret") && !why.is_empty(), "{url}: {why}"),
                Err(other) => panic!("{url}: {other}"),
                Ok(address) => panic!("{url} was read as {}", address.shown),
            }
        }
    }
}
