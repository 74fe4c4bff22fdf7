//! The opening handshake: what the client asks for, and whether it is a WebSocket request at all.
//!
//! The 101 is written by hand instead of through axum's wrapper, because the wrapper hides the stream
//! behind a boxed one and its `Sink` decides when to flush; the connection task needs both in its own
//! hands (see `connection.rs`).

use axum::http::{HeaderMap, HeaderValue, Method, header};
use tine_types::ConnectionId;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::compression::Compression;
use crate::error::RequestError;
use crate::parameters::Parameters;

/// Length of a `Sec-WebSocket-Key`: 16 bytes in base64.
const KEY_BYTES: usize = 24;

/// The message framings that are spoken, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Any number of messages in a WebSocket message.
    V3,
    /// One message in a WebSocket message.
    V2,
    /// One JSON message in a text message, of an older protocol.
    V1Json,
}

impl Protocol {
    const PREFERENCE: [Protocol; 3] = [Protocol::V3, Protocol::V2, Protocol::V1Json];

    /// Name in `Sec-WebSocket-Protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::V3 => "v3.bsatn.spacetimedb",
            Protocol::V2 => "v2.bsatn.spacetimedb",
            Protocol::V1Json => "v1.json.spacetimedb",
        }
    }
}

/// The answer to a valid opening handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    pub protocol: Protocol,
    pub accept_key: String,
    /// Whether the client offered every binary protocol.
    pub offers_all: bool,
}

impl Handshake {
    /// Checks the upgrade headers and chooses the protocol.
    pub fn negotiate(method: &Method, headers: &HeaderMap) -> Result<Handshake, RequestError> {
        let is_upgrade = method == Method::GET
            && list_contains(headers, header::CONNECTION, "upgrade")
            && list_contains(headers, header::UPGRADE, "websocket")
            && headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
        if !is_upgrade {
            return Err(RequestError::UpgradeRequired);
        }
        let is_offered = |protocol: &Protocol| list_contains(headers, header::SEC_WEBSOCKET_PROTOCOL, protocol.name());
        let protocol = Protocol::PREFERENCE.into_iter().find(is_offered).ok_or(RequestError::NoProtocol)?;
        let key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .map(HeaderValue::as_bytes)
            .filter(|key| key.len() == KEY_BYTES)
            .ok_or(RequestError::BadParameter { name: "sec-websocket-key", expected: "16 bytes in base64" })?;
        let offers_all = [Protocol::V3, Protocol::V2].iter().all(is_offered);
        Ok(Handshake { protocol, accept_key: derive_accept_key(key), offers_all })
    }
}

fn list_contains(headers: &HeaderMap, name: header::HeaderName, item: &str) -> bool {
    let values = headers.get_all(name);
    let mut texts = values.iter().filter_map(|value| value.to_str().ok());
    texts.any(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case(item)))
}

/// What the address of a subscription says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SubscribeParameters {
    pub token: Option<String>,
    /// `None` = the server chooses.
    pub connection_id: Option<ConnectionId>,
    /// `None` = the default of the protocol and the fork.
    pub confirmed: Option<bool>,
    /// Updates without what is known of their transaction; for the JSON protocol.
    pub light: bool,
    /// What the client asks for; see [`Compression::kept_in_order`] for what it gets.
    pub compression: Compression,
}

impl SubscribeParameters {
    /// Reads and validates the query.
    pub fn parse(parameters: &Parameters) -> Result<SubscribeParameters, RequestError> {
        let connection_id = match parameters.get("connection_id") {
            None => None,
            Some(text) => {
                let parsed = ConnectionId::from_hex(text).ok().and_then(ConnectionId::non_zero);
                let expected = "32 hexadecimal digits, not all zero";
                Some(parsed.ok_or(RequestError::BadParameter { name: "connection_id", expected })?)
            }
        };
        let compression = match parameters.get("compression") {
            None => Compression::None,
            Some(text) => Compression::parse(text)
                .ok_or(RequestError::BadParameter { name: "compression", expected: "None, Gzip or Brotli" })?,
        };
        Ok(SubscribeParameters {
            token: parameters.get("token").map(str::to_owned),
            connection_id,
            confirmed: parameters.boolean("confirmed")?,
            light: parameters.boolean("light")?.unwrap_or(false),
            compression,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in entries {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    const UPGRADE: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn negotiate(protocols: &[&str]) -> Result<Handshake, RequestError> {
        let mut entries = UPGRADE.to_vec();
        entries.extend(protocols.iter().map(|text| ("sec-websocket-protocol", *text)));
        Handshake::negotiate(&Method::GET, &headers(&entries))
    }

    #[test]
    fn the_servers_order_of_protocols_wins() {
        let v3 = Some(Protocol::V3);
        let cases: [(&[&str], Option<Protocol>); 9] = [
            (&["v3.bsatn.spacetimedb, v2.bsatn.spacetimedb"], v3),
            (&["v2.bsatn.spacetimedb, v3.bsatn.spacetimedb"], v3),
            (&["v2.bsatn.spacetimedb", "v3.bsatn.spacetimedb"], v3),
            (&["v2.bsatn.spacetimedb"], Some(Protocol::V2)),
            (&["v1.json.spacetimedb, v2.bsatn.spacetimedb"], Some(Protocol::V2)),
            (&["v1.bsatn.spacetimedb, v1.json.spacetimedb"], Some(Protocol::V1Json)),
            (&["v1.bsatn.spacetimedb"], None),
            (&["v3"], None),
            (&[], None),
        ];
        for (offered, expected) in cases {
            let chosen = negotiate(offered).ok().map(|handshake| handshake.protocol);
            assert_eq!(chosen, expected, "{offered:?}");
        }
        let error = negotiate(&[]).unwrap_err();
        assert_eq!((error.status().as_u16(), error.to_string().as_str()), (400, "no valid protocol selected"));
    }

    #[test]
    fn the_accept_key_is_that_of_the_standard() {
        let handshake = negotiate(&["v3.bsatn.spacetimedb"]).unwrap();
        assert_eq!(handshake.accept_key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_request_that_is_no_upgrade_is_told_so() {
        for missing in ["connection", "upgrade", "sec-websocket-version"] {
            let mut entries = UPGRADE.to_vec();
            entries.retain(|(name, _)| *name != missing);
            let error = Handshake::negotiate(&Method::GET, &headers(&entries)).unwrap_err();
            assert_eq!(error.status().as_u16(), 426, "without {missing}");
        }
        let error = Handshake::negotiate(&Method::POST, &headers(&UPGRADE)).unwrap_err();
        assert_eq!(error.status().as_u16(), 426);
    }

    #[test]
    fn subscribe_parameters() {
        let id = "0123456789abcdef0123456789abcdef";
        let good = format!("token=a.b.c&connection_id={id}&compression=Gzip&confirmed=false&light=true");
        let parsed = SubscribeParameters::parse(&Parameters::parse(&good).unwrap()).unwrap();
        assert_eq!(parsed.token.as_deref(), Some("a.b.c"));
        assert_eq!(parsed.connection_id.unwrap().to_hex(), id);
        assert_eq!((parsed.confirmed, parsed.compression), (Some(false), Compression::Gzip));
        let none = SubscribeParameters::parse(&Parameters::parse("").unwrap()).unwrap();
        let (confirmed, light, compression) = (None, false, Compression::None);
        assert_eq!(none, SubscribeParameters { token: None, connection_id: None, confirmed, light, compression });
        let bad = [
            "compression=gzip",
            "compression=",
            "confirmed=1",
            "light=yes",
            "connection_id=00000000000000000000000000000000",
            "connection_id=01",
            "connection_id=0123456789abcdef0123456789abcdeg",
        ];
        for query in bad {
            let error = SubscribeParameters::parse(&Parameters::parse(query).unwrap()).unwrap_err();
            assert_eq!(error.status().as_u16(), 400, "{query}");
        }
    }
}
