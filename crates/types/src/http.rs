//! HTTP messages as modules see them, in BSATN: what a handler is asked and answers, and what a procedure sends and gets back. Bodies
//! travel beside them.

use crate::TimeDuration;
use crate::bsatn::{BsatnWrite, DecodeError, Reader};
use crate::module_def::HttpMethod;

/// A version of HTTP: its tag in BSATN (0 is 0.9, then 1.0, 1.1, 2 and 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpVersion(u8);

impl HttpVersion {
    /// HTTP/1.0.
    pub const HTTP_10: HttpVersion = HttpVersion(1);
    /// HTTP/1.1.
    pub const HTTP_11: HttpVersion = HttpVersion(2);
    /// HTTP/2.
    pub const HTTP_2: HttpVersion = HttpVersion(3);

    /// The version with a tag; `None` beyond the last.
    pub fn from_number(number: u8) -> Option<HttpVersion> {
        (number <= 4).then_some(HttpVersion(number))
    }

    /// Its tag.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Header fields in order; a name may come more than once.
pub type Headers = Vec<(Box<str>, Box<[u8]>)>;

/// A request without its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpRequest {
    /// Its method.
    pub method: HttpMethod,
    /// Its header fields.
    pub headers: Headers,
    /// How long whoever sends it waits.
    pub timeout: Option<TimeDuration>,
    /// Where it goes.
    pub uri: Box<str>,
    /// The version it is sent with.
    pub version: HttpVersion,
}

/// A response without its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpResponse {
    /// Its header fields.
    pub headers: Headers,
    /// The version it was sent with.
    pub version: HttpVersion,
    /// Its status code.
    pub code: u16,
}

impl HttpMethod {
    /// The method's name as requests spell it.
    pub fn name(&self) -> &str {
        match self {
            HttpMethod::Get => "GET",
            HttpMethod::Head => "HEAD",
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Delete => "DELETE",
            HttpMethod::Connect => "CONNECT",
            HttpMethod::Options => "OPTIONS",
            HttpMethod::Trace => "TRACE",
            HttpMethod::Patch => "PATCH",
            HttpMethod::Extension(name) => name,
        }
    }

    /// The method with a name.
    pub fn named(name: &str) -> HttpMethod {
        match name {
            "GET" => HttpMethod::Get,
            "HEAD" => HttpMethod::Head,
            "POST" => HttpMethod::Post,
            "PUT" => HttpMethod::Put,
            "DELETE" => HttpMethod::Delete,
            "CONNECT" => HttpMethod::Connect,
            "OPTIONS" => HttpMethod::Options,
            "TRACE" => HttpMethod::Trace,
            "PATCH" => HttpMethod::Patch,
            other => HttpMethod::Extension(other.into()),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let tag = match self {
            HttpMethod::Get => 0,
            HttpMethod::Head => 1,
            HttpMethod::Post => 2,
            HttpMethod::Put => 3,
            HttpMethod::Delete => 4,
            HttpMethod::Connect => 5,
            HttpMethod::Options => 6,
            HttpMethod::Trace => 7,
            HttpMethod::Patch => 8,
            HttpMethod::Extension(_) => 9,
        };
        out.put_u8(tag);
        if let HttpMethod::Extension(name) = self {
            out.put_str(name);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<HttpMethod, DecodeError> {
        Ok(match reader.tag(10)? {
            0 => HttpMethod::Get,
            1 => HttpMethod::Head,
            2 => HttpMethod::Post,
            3 => HttpMethod::Put,
            4 => HttpMethod::Delete,
            5 => HttpMethod::Connect,
            6 => HttpMethod::Options,
            7 => HttpMethod::Trace,
            8 => HttpMethod::Patch,
            _ => HttpMethod::Extension(reader.str()?.into()),
        })
    }
}

fn encode_headers(headers: &Headers, out: &mut Vec<u8>) {
    out.put_len(headers.len());
    for (name, value) in headers {
        out.put_str(name);
        out.put_bytes(value);
    }
}

fn decode_headers(reader: &mut Reader<'_>) -> Result<Headers, DecodeError> {
    // Each has two lengths.
    let count = reader.array_len(8)?;
    (0..count).map(|_| Ok((reader.str()?.into(), reader.bytes()?.into()))).collect()
}

fn decode_version(reader: &mut Reader<'_>) -> Result<HttpVersion, DecodeError> {
    reader.tag(5).map(HttpVersion)
}

impl HttpRequest {
    /// The request in BSATN.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.method.encode(&mut out);
        encode_headers(&self.headers, &mut out);
        match self.timeout {
            Some(timeout) => {
                out.put_u8(0);
                out.put_i64(timeout.micros());
            }
            None => out.put_u8(1),
        }
        out.put_str(&self.uri);
        out.put_u8(self.version.0);
        out
    }

    /// The request that these bytes are.
    ///
    /// # Errors
    /// They are none, or more follows.
    pub fn decode(bytes: &[u8]) -> Result<HttpRequest, DecodeError> {
        let mut reader = Reader::new(bytes);
        let request = HttpRequest {
            method: HttpMethod::decode(&mut reader)?,
            headers: decode_headers(&mut reader)?,
            timeout: if reader.option()? { Some(reader.time_duration()?) } else { None },
            uri: reader.str()?.into(),
            version: decode_version(&mut reader)?,
        };
        reader.finish()?;
        Ok(request)
    }
}

impl HttpResponse {
    /// The response in BSATN.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode_headers(&self.headers, &mut out);
        out.put_u8(self.version.0);
        out.put_u16(self.code);
        out
    }

    /// The response that these bytes are.
    ///
    /// # Errors
    /// They are none, or more follows.
    pub fn decode(bytes: &[u8]) -> Result<HttpResponse, DecodeError> {
        let mut reader = Reader::new(bytes);
        let response = HttpResponse {
            headers: decode_headers(&mut reader)?,
            version: decode_version(&mut reader)?,
            code: reader.u16()?,
        };
        reader.finish()?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers() -> impl Strategy<Value = Headers> {
        let field = ("[a-z-]{1,8}", proptest::collection::vec(any::<u8>(), 0..8));
        proptest::collection::vec(field.prop_map(|(name, value)| (name.into(), value.into())), 0..4)
    }

    proptest! {
        #[test]
        fn requests_survive(
            method in prop_oneof![Just("GET"), Just("TRACE"), Just("BREW")],
            headers in headers(),
            timeout in proptest::option::of(any::<i64>().prop_map(TimeDuration::from_micros)),
            uri in ".{0,12}",
            version in 0..5u8,
        ) {
            let (method, uri, version) = (HttpMethod::named(method), uri.into(), HttpVersion(version));
            let request = HttpRequest { method, headers, timeout, uri, version };
            prop_assert_eq!(HttpRequest::decode(&request.encode()).unwrap(), request);
        }

        #[test]
        fn responses_survive(headers in headers(), version in 0..5u8, code in any::<u16>()) {
            let response = HttpResponse { headers, version: HttpVersion(version), code };
            prop_assert_eq!(HttpResponse::decode(&response.encode()).unwrap(), response);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(request) = HttpRequest::decode(&bytes) {
                // An optional value and a name have one encoding each, but an extension may be called GET.
                prop_assert_eq!(HttpRequest::decode(&request.encode()).unwrap(), request);
            }
            if let Ok(response) = HttpResponse::decode(&bytes) {
                prop_assert_eq!(response.encode(), bytes);
            }
        }
    }
}
