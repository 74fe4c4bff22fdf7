//! Tokens: JSON web tokens signed with ES256, and the identity they stand for.
//!
//! Only the server's own key is known here, so the algorithm is fixed: a header that names any other
//! one is refused before anything else is looked at. The signature is checked first and the claims
//! afterwards, whatever the issuer, so that a foreign token which this server signed again for a
//! WebSocket address is taken too.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use serde_json::{Map, Value, json};
use tine_types::Identity;

use crate::limits::{CLAIM_BYTES_MAX, TOKEN_BYTES_MAX};

/// The issuer this server names in tokens it mints.
pub const ISSUER: &str = "localhost";
const AUDIENCE: &str = "spacetimedb";
const MICROS_PER_SECOND: i64 = 1_000_000;

/// Why a token is refused. All are answered with 401.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of base64, not JSON, another algorithm, or a signature that does not fit.
    #[error("Invalid token: InvalidToken")]
    Invalid,
    /// The signature is not ours and the token names another issuer.
    #[error("Invalid token: issuer `{0}` is not this server; tokens of other issuers are not accepted")]
    ForeignIssuer(String),
    /// A claim is missing, empty or too long.
    #[error("Invalid token: claim `{0}` is missing, empty or longer than 128 bytes")]
    BadClaim(&'static str),
    /// `hex_identity` is not what issuer and subject give.
    #[error("Invalid token: `hex_identity` does not match issuer and subject")]
    IdentityMismatch,
    /// `exp` is in the past.
    #[error("Invalid token: ExpiredSignature")]
    Expired,
}

impl TokenError {
    /// The stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            TokenError::Invalid => "TN0710",
            TokenError::ForeignIssuer(_) => "TN0711",
            TokenError::BadClaim(_) => "TN0712",
            TokenError::IdentityMismatch => "TN0713",
            TokenError::Expired => "TN0714",
        }
    }
}

/// The claims of a token that was verified or is about to be signed.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    /// Identity derived from issuer and subject.
    pub identity: Identity,
    /// When it ends, in seconds since the Unix epoch; `None` = never.
    pub expires_at_seconds: Option<i64>,
    /// All claims as they stand in the token.
    pub fields: Map<String, Value>,
}

impl Claims {
    /// The claims this server gives to `subject` of `issuer`.
    pub fn new(issuer: &str, subject: &str, now_micros: i64, expires_at_seconds: Option<i64>) -> Claims {
        let identity = Identity::from_claims(issuer, subject);
        let fields = json!({
            "hex_identity": identity.to_hex(),
            "sub": subject,
            "iss": issuer,
            "aud": [AUDIENCE],
            "iat": now_micros / MICROS_PER_SECOND,
            "exp": expires_at_seconds,
        });
        let Value::Object(fields) = fields else { unreachable!("json! of braces is an object") };
        Claims { identity, expires_at_seconds, fields }
    }

    /// The same claims, ending `seconds` from now: what a browser puts into a WebSocket address.
    pub fn shortened(&self, now_micros: i64, seconds: i64) -> Claims {
        let mut shortened = self.clone();
        let expires = now_micros / MICROS_PER_SECOND + seconds;
        let expires = self.expires_at_seconds.map_or(expires, |own| own.min(expires));
        shortened.expires_at_seconds = Some(expires);
        shortened.fields.insert("exp".to_owned(), expires.into());
        shortened
    }

    /// Whether the token has ended.
    pub fn expired(&self, now_micros: i64) -> bool {
        self.expires_at_seconds.is_some_and(|end| end <= now_micros / MICROS_PER_SECOND)
    }
}

/// Signs `claims`; the result is the token's text.
pub fn sign(claims: &Claims, key: &SigningKey) -> String {
    let header = BASE64.encode(br#"{"typ":"JWT","alg":"ES256"}"#);
    let payload = Value::Object(claims.fields.clone()).to_string();
    let mut text = format!("{header}.{}", BASE64.encode(payload));
    let signature: Signature = key.sign(text.as_bytes());
    text.push('.');
    BASE64.encode_string(signature.to_bytes(), &mut text);
    text
}

/// Verifies a token signed with `key` and derives its identity.
pub fn verify(text: &str, key: &VerifyingKey, now_micros: i64) -> Result<Claims, TokenError> {
    if text.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Invalid);
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Invalid)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Invalid)?;
    let header = decode_object(header)?;
    let fields = decode_object(payload)?;
    let signature_fits = header.get("alg").and_then(Value::as_str) == Some("ES256")
        && BASE64
            .decode(signature)
            .ok()
            .and_then(|bytes| Signature::from_slice(&bytes).ok())
            .is_some_and(|signature| key.verify(signed.as_bytes(), &signature).is_ok());
    if !signature_fits {
        return Err(match fields.get("iss").and_then(Value::as_str) {
            Some(issuer) if issuer != ISSUER && issuer.len() <= CLAIM_BYTES_MAX => {
                TokenError::ForeignIssuer(issuer.to_owned())
            }
            _ => TokenError::Invalid,
        });
    }
    check_claims(fields, now_micros)
}

fn check_claims(fields: Map<String, Value>, now_micros: i64) -> Result<Claims, TokenError> {
    let text_claim = |name: &'static str| match fields.get(name).and_then(Value::as_str) {
        Some(text) if !text.is_empty() && text.len() <= CLAIM_BYTES_MAX => Ok(text),
        _ => Err(TokenError::BadClaim(name)),
    };
    let identity = Identity::from_claims(text_claim("iss")?, text_claim("sub")?);
    match fields.get("hex_identity") {
        None => {}
        Some(Value::String(hex)) if Identity::from_hex(hex).is_ok_and(|given| given == identity) => {}
        Some(_) => return Err(TokenError::IdentityMismatch),
    }
    let expires_at_seconds = match fields.get("exp") {
        None | Some(Value::Null) => None,
        Some(Value::Number(number)) => Some(whole_seconds(number).ok_or(TokenError::BadClaim("exp"))?),
        Some(_) => return Err(TokenError::BadClaim("exp")),
    };
    let claims = Claims { identity, expires_at_seconds, fields };
    if claims.expired(now_micros) {
        return Err(TokenError::Expired);
    }
    Ok(claims)
}

/// Some issuers write fractions of a second.
fn whole_seconds(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| number.as_f64().filter(|value| value.is_finite()).map(|value| value as i64))
}

fn decode_object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let bytes = BASE64.decode(part).map_err(|_| TokenError::Invalid)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(TokenError::Invalid),
    }
}
