//! Server addresses and the paths below them.

use crate::error::ClientError;

/// Port of a server address that names none.
const PORT_DEFAULT: u16 = 80;

/// A parsed server address. Only plain HTTP is spoken: a server on the open network stands behind a
/// proxy that ends TLS, and so does this client when it must reach one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerAddress {
    /// Host name or IP address, without the brackets of an IPv6 address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `host:port` as it is written in a URL.
    pub authority: String,
    /// Path in front of `/v1`, without a trailing slash; usually empty.
    pub prefix: String,
}

impl ServerAddress {
    /// Parses `http://host:port/prefix`; `ws://` and a bare `host:port` mean the same.
    pub fn parse(url: &str) -> Result<ServerAddress, ClientError> {
        let bad = |reason| ClientError::BadUrl { url: url.to_owned(), reason };
        let rest = match url.split_once("://") {
            Some(("http" | "ws", rest)) => rest,
            Some(("https" | "wss", _)) => {
                return Err(bad("TLS is not spoken here; use http:// (through a tunnel or a local proxy)"));
            }
            Some(_) => return Err(bad("expected http://host:port")),
            None => url,
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if authority.is_empty() || authority.contains(['@', '?', '#', ' ']) {
            return Err(bad("expected http://host:port"));
        }
        if path.contains(['?', '#', ' ']) {
            return Err(bad("a server address has no query and no fragment"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| bad("the port is not a number from 1 to 65535"))?;
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        Ok(ServerAddress {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority: format!("{host}:{port}"),
            prefix: path.trim_end_matches('/').to_owned(),
        })
    }

    /// The HTTP URL of a path that starts with a slash.
    pub fn http(&self, path: &str) -> String {
        format!("http://{}{}{path}", self.authority, self.prefix)
    }

    /// The WebSocket URL of a path that starts with a slash.
    pub fn websocket(&self, path: &str) -> String {
        format!("ws://{}{}{path}", self.authority, self.prefix)
    }
}

fn split_port(authority: &str) -> Option<(&str, u16)> {
    let after_brackets = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[after_brackets..].rfind(':') {
        None => Some((authority, PORT_DEFAULT)),
        Some(colon) => {
            let (host, port) = authority.split_at(after_brackets + colon);
            let port: u16 = port[1..].parse().ok()?;
            (port != 0).then_some((host, port))
        }
    }
}

/// Percent-encodes one path segment or query value. `@` stays: it joins a database and a fork.
pub(crate) fn encode_segment(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'@') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{ServerAddress, encode_segment};

    #[test]
    fn addresses() {
        let table = [
            ("http://127.0.0.1:3000", "127.0.0.1", 3000, ""),
            ("ws://localhost:81/", "localhost", 81, ""),
            ("localhost:3000", "localhost", 3000, ""),
            ("http://example.org", "example.org", 80, ""),
            ("http://[::1]:3000/tine/", "::1", 3000, "/tine"),
            ("http://[::1]", "::1", 80, ""),
        ];
        for (url, host, port, prefix) in table {
            let address = ServerAddress::parse(url).expect(url);
            assert_eq!((address.host.as_str(), address.port, address.prefix.as_str()), (host, port, prefix), "{url}");
        }
        let address = ServerAddress::parse("http://[::1]:3000/tine/").expect("parses");
        assert_eq!(address.http("/v1/ping"), "http://[::1]:3000/tine/v1/ping");
        assert_eq!(address.websocket("/x"), "ws://[::1]:3000/tine/x");
    }

    #[test]
    fn refused_addresses() {
        for url in [
            "https://x",
            "ftp://x",
            "http://",
            "http://x:0",
            "http://x:70000",
            "http://x:y",
            "http://a@b",
            "x?y",
            "http://x/?q",
            "http://:80",
        ] {
            let error = ServerAddress::parse(url).expect_err(url);
            assert_eq!(error.code(), "TN0801", "{url}");
        }
    }

    #[test]
    fn segments_are_encoded() {
        let table = [("quickstart@exp1", "quickstart@exp1"), ("a/b c", "a%2Fb%20c"), ("ü?", "%C3%BC%3F"), ("", "")];
        for (text, expected) in table {
            assert_eq!(encode_segment(text), expected);
        }
    }
}
