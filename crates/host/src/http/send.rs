//! Sending the requests of procedures.
//!
//! A request runs on the procedure's own thread, outside of any transaction, so a slow server holds back nobody but the procedure.
//! Redirects are not followed: each place that a request goes to is one that the module has named and the operator has allowed.

use std::time::{Duration, Instant};

use tine_module::SyscallError;
use tine_types::http::{HttpRequest, HttpResponse, HttpVersion};
use ureq::http::{Request, Uri, Version};

use super::HttpRule;

/// Longest body of a request or response. Both are held in memory, and copied into the instance.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// Header fields that a request may have; more than any server takes.
const HEADERS_MAX: usize = 128;

/// How long a request may take when the module does not say, and at most; a procedure's own deadline may be earlier.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(180);

/// Connections that are kept for the next request.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// What sends requests for all procedures of a host.
pub(crate) struct Client {
    agent: ureq::Agent,
    rules: Vec<HttpRule>,
}

fn failed(problem: impl std::fmt::Display) -> SyscallError {
    SyscallError::new(SyscallError::HTTP_ERROR, problem.to_string())
}

impl Client {
    pub fn new(rules: Vec<HttpRule>) -> Client {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .max_idle_connections(IDLE_CONNECTIONS_MAX)
            .proxy(None)
            .user_agent("tine")
            .build();
        Client { agent: config.into(), rules }
    }

    /// Sends a request (BSATN of an `HttpRequest`, and its body) and returns the response alike. It ends by `until`.
    ///
    /// # Errors
    /// It is not allowed, too large, too late, or the network or the server fails; the module sees it as an `HttpError`.
    pub fn send(&self, request: &[u8], body: &[u8], until: Instant) -> Result<(Vec<u8>, Vec<u8>), SyscallError> {
        let request = HttpRequest::decode(request)
            .map_err(|error| SyscallError::new(SyscallError::BSATN_DECODE_ERROR, error.to_string()))?;
        let uri: Uri = request.uri.parse().map_err(|error| failed(format_args!("`{}`: {error}", request.uri)))?;
        self.check(&uri, &request, body)?;
        let remaining = until.saturating_duration_since(Instant::now());
        let wanted = request.timeout.map_or(TIMEOUT_DEFAULT, |wanted| {
            Duration::from_micros(u64::try_from(wanted.micros()).unwrap_or_default()).min(TIMEOUT_MAX)
        });
        let timeout = wanted.min(remaining);
        if timeout.is_zero() {
            return Err(failed("no time is left for the request"));
        }
        let mut builder = Request::builder().method(request.method.name()).uri(uri);
        for (name, value) in &request.headers {
            builder = builder.header(&**name, &**value);
        }
        let response = match body {
            [] => builder.body(()).map_err(ureq::Error::Http).and_then(|request| self.run(request, timeout)),
            body => builder.body(body).map_err(ureq::Error::Http).and_then(|request| self.run(request, timeout)),
        };
        let mut response = response.map_err(failed)?;
        let headers = response.headers().iter();
        let answer = HttpResponse {
            headers: headers.map(|(name, value)| (name.as_str().into(), value.as_bytes().into())).collect(),
            version: match response.version() {
                Version::HTTP_10 => HttpVersion::HTTP_10,
                Version::HTTP_2 => HttpVersion::HTTP_2,
                _ => HttpVersion::HTTP_11,
            },
            code: response.status().as_u16(),
        };
        let body = response.body_mut().with_config().limit(BODY_BYTES_MAX as u64).read_to_vec();
        Ok((answer.encode(), body.map_err(failed)?))
    }

    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        timeout: Duration,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = self.agent.configure_request(request).timeout_global(Some(timeout)).build();
        self.agent.run(request)
    }

    fn check(&self, uri: &Uri, request: &HttpRequest, body: &[u8]) -> Result<(), SyscallError> {
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        if !self.rules.iter().any(|rule| rule.allows(scheme, host, uri.port_u16())) {
            let problem = format!("requests to {scheme}://{host} are not allowed: the server's operator names what is");
            return Err(failed(problem));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(failed("an address with a user is not allowed: send an authorization header"));
        }
        if body.len() > BODY_BYTES_MAX {
            return Err(failed(format_args!(
                "the body has {} bytes; at most {BODY_BYTES_MAX} are allowed",
                body.len()
            )));
        }
        if request.headers.len() > HEADERS_MAX {
            return Err(failed(format_args!("there are more than {HEADERS_MAX} header fields")));
        }
        Ok(())
    }
}
