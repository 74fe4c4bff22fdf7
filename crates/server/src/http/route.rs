//! `/v1/database/:name/route/…`: requests that a module's own HTTP handlers answer.
//!
//! Nobody is identified here: a handler gets the request as it came, `authorization` included, and decides itself. So the reply, too, is
//! the handler's alone, but for the headers that every reply of the server has.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, Response as HttpReply, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tine_host::{CallFailure, HttpAnswer, HttpCall, Reply};
use tine_types::http::HttpVersion;
use tokio::sync::oneshot;

use super::{LSN_HEADER, read_body, set_number, wait_durable};
use crate::error::RequestError;
use crate::server::Shared;

/// Headers that are about one connection and not the handler's to set.
const CONNECTION_HEADERS: [HeaderName; 5] =
    [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE, header::TRAILER];

/// `…/route` and `…/route/`.
pub(crate) async fn root(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, RequestError> {
    let path = if request.uri().path().ends_with('/') { "/" } else { "" };
    handle(shared, name, path.to_owned(), request).await
}

/// `…/route/*path`.
pub(crate) async fn below(
    State(shared): State<Arc<Shared>>,
    Path((name, path)): Path<(String, String)>,
    request: Request,
) -> Result<Response, RequestError> {
    handle(shared, name, format!("/{path}"), request).await
}

async fn handle(shared: Arc<Shared>, name: String, path: String, request: Request) -> Result<Response, RequestError> {
    let fork = shared.host.resolve(&name)?;
    let (parts, body) = request.into_parts();
    let body = read_body(&parts.headers, body, shared.limits.body_bytes_max).await?;
    let headers =
        parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())));
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let call = HttpCall {
        method: parts.method.as_str().to_owned(),
        uri: format!("{path}{query}"),
        path,
        version: version(parts.version),
        headers: headers.collect(),
        body,
    };
    let (reply_to, reply) = oneshot::channel();
    let reply_to = Box::new(move |reply| drop(reply_to.send(reply)));
    // Dropped with this future when the caller goes away: then the handler ends, too.
    let _waits = shared.stalls.watch(|| fork.http(call, reply_to));
    let reply: Reply<HttpAnswer> = reply.await.map_err(|_| RequestError::Dropped)?;
    let answer = match reply.result {
        Ok(answer) => answer,
        Err(CallFailure::NoSuchFunction) => return Err(RequestError::NoHandler),
        Err(failure) => return Err(RequestError::Handler(failure)),
    };
    wait_durable(fork.durability(), reply.durable).await?;
    let mut response = respond(answer)?;
    set_number(&mut response, LSN_HEADER, reply.lsn.get());
    Ok(response)
}

fn version(version: Version) -> HttpVersion {
    match version {
        Version::HTTP_10 => HttpVersion::HTTP_10,
        Version::HTTP_2 => HttpVersion::HTTP_2,
        _ => HttpVersion::HTTP_11,
    }
}

fn respond(answer: HttpAnswer) -> Result<Response, RequestError> {
    let status = StatusCode::from_u16(answer.status).map_err(|_| RequestError::BadAnswer("a status"))?;
    let mut response = HttpReply::new(Body::from(answer.body)).into_response();
    *response.status_mut() = status;
    for (name, value) in answer.headers {
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| RequestError::BadAnswer("the name of a header"))?;
        let value = HeaderValue::from_bytes(&value).map_err(|_| RequestError::BadAnswer("the value of a header"))?;
        if !CONNECTION_HEADERS.contains(&name) {
            response.headers_mut().append(name, value);
        }
    }
    Ok(response)
}
