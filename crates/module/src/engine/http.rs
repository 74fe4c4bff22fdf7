//! HTTP between JavaScript and BSATN, for source modules: the requests of procedures, and the calls of handlers.

use bytes::Bytes;
use tine_types::TimeDuration;
use tine_types::http::{Headers, HttpRequest, HttpResponse, HttpVersion};
use tine_types::module_def::HttpMethod;

use super::context::ask_host;
use super::errors::{self, ErrorClass};
use super::raw::{Call, Cx, JsResult, Kind, Value};
use crate::call::HandlerOutcome;

/// Headers as a flat array of names and values.
fn flat<'js>(cx: Cx<'js>, headers: &Headers) -> JsResult<Value<'js>> {
    let mut parts = Vec::with_capacity(2 * headers.len());
    for (name, value) in headers {
        parts.push(cx.string(name)?);
        parts.push(cx.string(&String::from_utf8_lossy(value))?);
    }
    cx.array(parts)
}

/// Headers from such an array, which the SDK made and has checked.
fn headers(flat: &Value<'_>) -> JsResult<Headers> {
    let count = flat.length()? as u32;
    let text = |index| flat.get_index(index)?.to_text();
    let pair = |index| Ok((text(index)?.into(), text(index + 1)?.into_bytes().into()));
    (0..count).step_by(2).map(pair).collect()
}

fn bytes(value: &Value<'_>) -> Vec<u8> {
    value.with_bytes(<[u8]>::to_vec).unwrap_or_default()
}

/// `httpRequest(method, uri, timeoutMicros, headers, body)`: `[status, version, headers, body]`.
pub(super) fn request<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    let timeout = call.arg(2);
    let timeout = match timeout.kind() {
        Kind::Undefined => None,
        _ => Some(TimeDuration::from_micros(timeout.to_number()? as i64)),
    };
    let request = HttpRequest {
        method: HttpMethod::named(&call.arg(0).to_text()?),
        headers: headers(&call.arg(3))?,
        timeout,
        uri: call.arg(1).to_text()?.into(),
        version: HttpVersion::HTTP_11,
    };
    let (request, body) = (request.encode(), bytes(&call.arg(4)));
    let (response, body) = ask_host(cx, |host| host.http_request(&request, &body))?;
    let response = HttpResponse::decode(&response)
        .map_err(|error| errors::throw_fault(cx, format!("the host answered with a malformed response: {error}")))?;
    let (status, version) = (cx.int(response.code.into()), cx.int(response.version.number().into()));
    cx.array(vec![status, version, flat(cx, &response.headers)?, cx.uint8_array(&body)?])
}

/// What a handler is asked: `[method, uri, version, headers, body]`.
pub(super) fn handler_request<'js>(cx: Cx<'js>, request: &HttpRequest, body: &[u8]) -> JsResult<Value<'js>> {
    cx.array(vec![
        cx.string(request.method.name())?,
        cx.string(&request.uri)?,
        cx.int(request.version.number().into()),
        flat(cx, &request.headers)?,
        cx.uint8_array(body)?,
    ])
}

/// Reads `[status, version, headers, body]`, which the SDK has checked.
pub(super) fn handler_outcome(returned: &Value<'_>) -> JsResult<HandlerOutcome> {
    let number = |index| returned.get_index(index)?.to_number();
    let Some(version) = HttpVersion::from_number(number(1)? as u8) else {
        return Err(errors::throw(returned.cx(), ErrorClass::Range, "there is no such version of HTTP"));
    };
    let response = HttpResponse { headers: headers(&returned.get_index(2)?)?, version, code: number(0)? as u16 };
    Ok(HandlerOutcome { response: response.encode().into(), body: Bytes::from(bytes(&returned.get_index(3)?)) })
}
