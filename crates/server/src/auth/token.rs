//! Tokens: JSON web tokens signed with ES256, and the identity they stand for.
//!
//! Tokens of this server are ES256 and nothing else. The signature is checked with its key first and
//! the claims afterwards, whatever the issuer, so that a foreign token which this server signed again
//! for a WebSocket address is taken too. A token that the own key does not fit and that names another
//! issuer is left to that issuer's keys ([`Foreign`]).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use serde_json::{Map, Value, json};
use tine_types::Identity;

use super::jwks::{KeySet, Verdict};
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
    /// The signature is not ours and the token names an issuer that is not trusted.
    #[error("Invalid token: issuer `{0}` is neither this server nor one that it trusts (--trusted-issuer)")]
    ForeignIssuer(String),
    /// The keys of a trusted issuer are not to be had at present.
    #[error("the keys of issuer `{0}` cannot be fetched at present; try again later")]
    KeysUnavailable(String),
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
            TokenError::KeysUnavailable(_) => "TN0717",
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

/// A token that this server's key does not fit and that names another issuer.
#[derive(Debug)]
pub struct Foreign<'a> {
    /// The issuer it names; not verified yet.
    pub issuer: String,
    algorithm: String,
    key_id: Option<String>,
    signed: &'a str,
    signature: Vec<u8>,
    fields: Map<String, Value>,
}

impl Foreign<'_> {
    /// What the keys of the issuer say of the signature.
    pub fn check(&self, keys: &KeySet) -> Verdict {
        keys.verify(&self.algorithm, self.key_id.as_deref(), self.signed.as_bytes(), &self.signature)
    }

    /// The claims, after [`Self::check`] found that the signature fits.
    pub fn into_claims(self, now_micros: i64) -> Result<Claims, TokenError> {
        check_claims(self.fields, now_micros)
    }
}

/// What a token turned out to be.
#[derive(Debug)]
pub enum Verified<'a> {
    /// Signed with the server's own key, with valid claims.
    Own(Claims),
    /// To be verified with the keys of its issuer.
    Foreign(Foreign<'a>),
}

/// Verifies a token that must be signed with `key`.
pub fn verify_own(text: &str, key: &VerifyingKey, now_micros: i64) -> Result<Claims, TokenError> {
    match verify(text, key, now_micros)? {
        Verified::Own(claims) => Ok(claims),
        Verified::Foreign(foreign) => Err(TokenError::ForeignIssuer(foreign.issuer)),
    }
}

/// Verifies a token signed with `key` and derives its identity, or takes apart one of another issuer.
pub fn verify<'a>(text: &'a str, key: &VerifyingKey, now_micros: i64) -> Result<Verified<'a>, TokenError> {
    if text.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Invalid);
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Invalid)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Invalid)?;
    let header = decode_object(header)?;
    let fields = decode_object(payload)?;
    let signature = BASE64.decode(signature).map_err(|_| TokenError::Invalid)?;
    let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or("");
    let fits = |signature: Signature| key.verify(signed.as_bytes(), &signature).is_ok();
    if algorithm == "ES256" && Signature::from_slice(&signature).is_ok_and(fits) {
        return Ok(Verified::Own(check_claims(fields, now_micros)?));
    }
    match fields.get("iss").and_then(Value::as_str) {
        Some(issuer) if issuer != ISSUER && issuer.len() <= CLAIM_BYTES_MAX => Ok(Verified::Foreign(Foreign {
            issuer: issuer.to_owned(),
            algorithm: algorithm.to_owned(),
            key_id: header.get("kid").and_then(Value::as_str).map(str::to_owned),
            signed,
            signature,
            fields,
        })),
        _ => Err(TokenError::Invalid),
    }
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
