//! Identities and their tokens.
//!
//! The peer keeps a balance of energy for each identity. Tine meters nothing, so everybody's balance is
//! zero, and there is none to set: PUT is refused as a method the address does not take.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tine_types::Identity;

use super::Identified;
use crate::error::RequestError;
use crate::server::Shared;

/// `POST /v1/identity`: a new identity.
pub(crate) async fn create(State(shared): State<Arc<Shared>>) -> Response {
    let caller = shared.auth.mint_anonymous();
    super::json(StatusCode::OK, &json!({ "identity": caller.identity.to_hex(), "token": &*caller.token }))
}

/// `POST /v1/identity/websocket-token`: the caller's token for a minute, to stand in an address.
pub(crate) async fn websocket_token(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, RequestError> {
    let identified = Identified::find(&shared, &headers, query.as_deref()).await?;
    let short = shared.auth.mint_websocket(identified.required()?);
    Ok(super::json(StatusCode::OK, &json!({ "token": &*short.token })))
}

/// `GET /v1/identity/public-key`.
pub(crate) async fn public_key(State(shared): State<Arc<Shared>>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/pem-certificate-chain")];
    (content_type, shared.auth.public_pem().to_owned()).into_response()
}

/// `GET /v1/identity/:identity/verify`: whether the caller's token is that identity's.
pub(crate) async fn verify(
    State(shared): State<Arc<Shared>>,
    Path(identity): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<StatusCode, RequestError> {
    let claimed = parse_identity(&identity)?;
    let identified = Identified::find(&shared, &headers, query.as_deref()).await?;
    match identified.required()?.identity == claimed {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(RequestError::OtherIdentity(identity)),
    }
}

/// `GET /v1/identity/:identity/databases`.
pub(crate) async fn databases(
    State(shared): State<Arc<Shared>>,
    Path(identity): Path<String>,
) -> Result<Response, RequestError> {
    let owner = parse_identity(&identity)?;
    let databases = shared.host.databases();
    let owned: Vec<String> = databases
        .iter()
        .filter(|database| database.owner == owner)
        .map(|database| database.identity.to_hex())
        .collect();
    Ok(super::json(StatusCode::OK, &json!({ "identities": owned })))
}

/// `GET /v1/energy/:identity`: the balance, as text because it is a 128-bit number where there is energy.
pub(crate) async fn energy(Path(identity): Path<String>) -> Result<Response, RequestError> {
    parse_identity(&identity)?;
    Ok(super::json(StatusCode::OK, &json!({ "balance": "0" })))
}

fn parse_identity(text: &str) -> Result<Identity, RequestError> {
    let expected = "64 hexadecimal digits";
    Identity::from_hex(text).map_err(|_| RequestError::BadParameter { name: "identity", expected })
}
