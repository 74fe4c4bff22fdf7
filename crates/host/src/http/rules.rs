//! Where procedures may send requests to. Nothing is allowed that the operator did not name.

use std::str::FromStr;

use thiserror::Error;

/// Requests that are allowed: `[http://|https://]HOST[:PORT]`.
///
/// The host is a name, an address, `*.NAME` for everything below a name, or `*` for every host. Without a scheme both are allowed,
/// without a port the scheme's own; `:*` allows all ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRule {
    scheme: Option<Scheme>,
    host: Host,
    port: Port,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    One(String),
    /// With the leading dot.
    Below(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    OfScheme,
    Any,
    One(u16),
}

/// Text that is no rule.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a rule for outbound requests: write [http://|https://]HOST[:PORT], where HOST may be *.NAME or *"
)]
pub struct BadHttpRule(String);

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl FromStr for HttpRule {
    type Err = BadHttpRule;

    fn from_str(text: &str) -> Result<Self, BadHttpRule> {
        let bad = || BadHttpRule(text.to_owned());
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some(_) => return Err(bad()),
            None => (None, text),
        };
        // An address of version 6 is in brackets, and has colons of its own.
        let end = rest.rfind(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match rest[end..].split_once(':') {
            Some((name, "*")) => (&rest[..end + name.len()], Port::Any),
            Some((name, port)) => (&rest[..end + name.len()], Port::One(port.parse().map_err(|_| bad())?)),
            None => (rest, Port::OfScheme),
        };
        let host = host.to_ascii_lowercase();
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._[]:".contains(letter))
        };
        let host = match host.strip_prefix('*') {
            Some("") => Host::Any,
            Some(below) if below.starts_with('.') && is_name(&below[1..]) => Host::Below(below.to_owned()),
            None if is_name(&host) => Host::One(host),
            _ => return Err(bad()),
        };
        Ok(HttpRule { scheme, host, port })
    }
}

impl HttpRule {
    /// Whether a request to this place is allowed; `port` is what the address names, if it names one.
    pub(crate) fn allows(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return false,
        };
        let host = host.to_ascii_lowercase();
        let port = port.unwrap_or(scheme.port());
        self.scheme.is_none_or(|one| one == scheme)
            && match &self.host {
                Host::Any => true,
                Host::One(name) => host == *name,
                Host::Below(name) => host.len() > name.len() && host.ends_with(name.as_str()),
            }
            && match self.port {
                Port::OfScheme => port == scheme.port(),
                Port::Any => true,
                Port::One(one) => port == one,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_allow_what_they_name() {
        for (rule, allowed, refused) in [
            (
                "example.com",
                &[("http", "example.com", None), ("https", "EXAMPLE.com", Some(443))][..],
                &[("http", "a.example.com", None), ("https", "example.com", Some(80)), ("ftp", "example.com", None)][..],
            ),
            ("https://example.com", &[("https", "example.com", None)], &[("http", "example.com", None)]),
            (
                "https://*.example.com:8443",
                &[("https", "a.b.example.com", Some(8443))],
                &[("https", "example.com", Some(8443)), ("https", "badexample.com", Some(8443))],
            ),
            (
                "http://127.0.0.1:*",
                &[("http", "127.0.0.1", Some(1)), ("http", "127.0.0.1", None)],
                &[("http", "127.0.0.2", None)],
            ),
            ("[::1]:80", &[("http", "[::1]", None)], &[("http", "[::2]", None), ("https", "[::1]", None)]),
            ("*", &[("http", "anything", None), ("https", "x", None)], &[("http", "anything", Some(81))]),
        ] {
            let parsed: HttpRule = rule.parse().unwrap();
            for (scheme, host, port) in allowed {
                assert!(parsed.allows(scheme, host, *port), "{rule} {scheme} {host} {port:?}");
            }
            for (scheme, host, port) in refused {
                assert!(!parsed.allows(scheme, host, *port), "{rule} {scheme} {host} {port:?}");
            }
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in ["", "ftp://x", "http://", "a b", "x:99999", "*x", "a*.b", "x/path", "user@x", "*.", "*:x"] {
            assert!(text.parse::<HttpRule>().is_err(), "{text}");
        }
    }
}
