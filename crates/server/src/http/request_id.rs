//! The id of a request: from `x-request-id` if the caller sent one, else made here; always in the reply
//! and in the span around everything that is logged for the request.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tine_base::Env;

/// Header that carries the id, in both directions.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id taken from a caller, in bytes; a UUID has 36. A longer one would fill the log.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The caller's id if it is one that can stand in a log line as it is, else a new random one.
pub(super) fn find_or_make(headers: &HeaderMap, env: &dyn Env) -> HeaderValue {
    let is_plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(is_plain)
    };
    headers.get(HEADER).filter(is_plain).cloned().unwrap_or_else(|| {
        let mut random = [0; 16];
        env.random_bytes(&mut random);
        let text = format!("{:032x}", u128::from_le_bytes(random));
        HeaderValue::from_str(&text).expect("hexadecimal digits may stand in a header")
    })
}

#[cfg(test)]
mod tests {
    use tine_base::SystemEnv;

    use super::*;

    #[test]
    fn ids_of_callers_are_kept_when_they_are_plain() {
        let long = "x".repeat(REQUEST_ID_BYTES_MAX + 1);
        let cases = [
            ("018f3c1e-7d2a-7c55-9a1b-0a1b2c3d4e5f", true),
            ("Root=1-67891233-abcdef", true),
            ("", false),
            ("two words", false),
            ("a\"b", false),
            (&long, false),
        ];
        for (text, is_kept) in cases {
            let headers = HeaderMap::from_iter([(HEADER, HeaderValue::from_str(text).expect("a value"))]);
            let id = find_or_make(&headers, &SystemEnv);
            assert_eq!(id == text, is_kept, "{text:?} {id:?}");
            assert!(is_kept || id.len() == 32);
        }
        assert_ne!(find_or_make(&HeaderMap::new(), &SystemEnv), find_or_make(&HeaderMap::new(), &SystemEnv));
    }
}
