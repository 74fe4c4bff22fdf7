//! Who is asking: tokens in, identities out.
//!
//! Invariants:
//! * A request without a token gets a fresh anonymous identity and a token for it; a request with a
//!   token that does not verify is refused, never treated as anonymous.
//! * The `Authorization` header wins over the `token` parameter.
//! * Tokens of other issuers are taken only from those the operator trusts (`issuers.rs`), and verified
//!   every time, so that a withdrawn key stops working when the issuer's keys are fetched again.
//! * A remembered verification is only as good as its expiry: that is checked every time.

mod cache;
mod issuers;
mod jwks;
mod keys;
mod token;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use tine_base::Env;
use tine_types::{ConnectionId, Identity, Uuid};

use self::cache::TokenCache;
use self::issuers::{Issuer, Issuers, Known};
use self::jwks::{KeySet, Verdict};
use self::keys::Keys;
use self::token::{Claims, ISSUER, Verified};
use crate::error::ServerError;
use crate::limits::WEBSOCKET_TOKEN_SECONDS;

pub use self::issuers::IssuerError;
pub use self::keys::KeyError;
pub use self::token::TokenError;

/// Why a request's credentials are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The header is there but is not `Bearer` and a token.
    #[error("Authorization is invalid: malformed token")]
    MalformedHeader,
    /// The route needs a token and there is none.
    #[error("Authorization required")]
    Required,
    /// The token does not verify.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl AuthError {
    /// The stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            AuthError::MalformedHeader => "TN0715",
            AuthError::Required => "TN0716",
            AuthError::Token(error) => error.code(),
        }
    }
}

/// A caller whose token was verified or just minted. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub identity: Identity,
    /// The token as it goes back in `spacetime-identity-token` and `InitialConnection`.
    pub token: Arc<str>,
    /// The token's claims as JSON, for the module's view of the caller.
    pub jwt_payload: Arc<str>,
    claims: Arc<Claims>,
}

/// Mints tokens with the server's key, and verifies those and the ones of trusted issuers.
pub(crate) struct Authenticator {
    keys: Keys,
    env: Arc<dyn Env>,
    cache: TokenCache,
    issuers: Arc<Issuers>,
}

impl Authenticator {
    /// Opens the key files below `data_directory`, making them on the first start.
    pub fn open(data_directory: &Path, trusted: &[String], env: Arc<dyn Env>) -> Result<Authenticator, ServerError> {
        let issuers = Arc::new(Issuers::new(trusted, env.clone())?);
        let keys = Keys::open(data_directory, env.as_ref())?;
        Ok(Authenticator { keys, env, cache: TokenCache::default(), issuers })
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> &str {
        &self.keys.public_pem
    }

    /// Whether `identity` is the one of `keys/admin-token`.
    pub fn is_admin(&self, identity: Identity) -> bool {
        identity == self.keys.admin_identity
    }

    /// Whether `token` is one of the administrator; an error when it does not verify.
    pub fn check_admin_token(&self, token: &str) -> Result<bool, TokenError> {
        let claims = token::verify_own(token, &self.keys.verifying, self.env.now_micros())?;
        Ok(self.is_admin(claims.identity))
    }

    /// Verifies the request's token; an error when it has none.
    pub async fn caller_required(&self, headers: &HeaderMap, parameter: Option<&str>) -> Result<Caller, AuthError> {
        let token = find_token(headers, parameter)?.ok_or(AuthError::Required)?;
        Ok(self.verify(token).await?)
    }

    /// A new identity nobody had before, with a token that does not expire.
    pub fn mint_anonymous(&self) -> Caller {
        let mut bytes = [0u8; 16];
        self.env.random_bytes(&mut bytes);
        let claims = Claims::new(ISSUER, &Uuid::from_random_bytes(bytes).to_string(), self.env.now_micros(), None);
        self.sign(claims)
    }

    /// The same caller with a token of a minute, for an address.
    pub fn mint_websocket(&self, caller: &Caller) -> Caller {
        self.sign(caller.claims.shortened(self.env.now_micros(), WEBSOCKET_TOKEN_SECONDS))
    }

    /// A random connection id; zero is reserved.
    pub fn random_connection_id(&self) -> ConnectionId {
        loop {
            let mut bytes = [0u8; 16];
            self.env.random_bytes(&mut bytes);
            if let Some(id) = ConnectionId::from_le_bytes(bytes).non_zero() {
                return id;
            }
        }
    }

    fn sign(&self, claims: Claims) -> Caller {
        let token = token::sign(&claims, &self.keys.signing);
        new_caller(claims, token.into())
    }

    async fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        let now_micros = self.env.now_micros();
        if let Some(caller) = self.cache.get(token) {
            return match caller.claims.expired(now_micros) {
                true => Err(TokenError::Expired),
                false => Ok(caller),
            };
        }
        match token::verify(token, &self.keys.verifying, now_micros)? {
            Verified::Own(claims) => {
                let caller = new_caller(claims, token.into());
                self.cache.insert(&caller);
                Ok(caller)
            }
            Verified::Foreign(foreign) => {
                let Some(issuer) = self.issuers.find(&foreign.issuer) else {
                    return Err(TokenError::ForeignIssuer(foreign.issuer));
                };
                self.check_with(issuer, |keys| foreign.check(keys)).await?;
                Ok(new_caller(foreign.into_claims(now_micros)?, token.into()))
            }
        }
    }

    /// Runs `check` with the issuer's keys, and once more with new ones when it knows better than they do.
    async fn check_with(&self, issuer: &Arc<Issuer>, check: impl Fn(&KeySet) -> Verdict) -> Result<(), TokenError> {
        let known = match self.issuers.known(issuer) {
            Known::Fresh(keys) => Some(keys),
            Known::Aging(keys) => {
                let (issuers, issuer) = (self.issuers.clone(), issuer.clone());
                tokio::spawn(async move { issuers.refresh(&issuer).await });
                Some(keys)
            }
            Known::Nothing => None,
        };
        let verdict = match known.map(|keys| check(&keys)) {
            Some(verdict @ (Verdict::Fits | Verdict::Wrong)) => verdict,
            Some(Verdict::NoSuchKey) | None => {
                self.issuers.refresh(issuer).await;
                match self.issuers.known(issuer) {
                    Known::Fresh(keys) | Known::Aging(keys) => check(&keys),
                    Known::Nothing => return Err(TokenError::KeysUnavailable(issuer.url().to_owned())),
                }
            }
        };
        match verdict {
            Verdict::Fits => Ok(()),
            Verdict::Wrong | Verdict::NoSuchKey => Err(TokenError::Invalid),
        }
    }

    /// Keys of other issuers remembered now.
    pub fn issuer_keys(&self) -> usize {
        self.issuers.key_count()
    }

    /// Verified tokens remembered now.
    pub fn cached_tokens(&self) -> usize {
        self.cache.len()
    }
}

fn new_caller(claims: Claims, token: Arc<str>) -> Caller {
    let jwt_payload = serde_json::Value::Object(claims.fields.clone()).to_string().into();
    Caller { identity: claims.identity, token, jwt_payload, claims: Arc::new(claims) }
}

fn find_token<'a>(headers: &'a HeaderMap, parameter: Option<&'a str>) -> Result<Option<&'a str>, AuthError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(parameter.filter(|token| !token.is_empty()));
    };
    let text = value.to_str().map_err(|_| AuthError::MalformedHeader)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthError::MalformedHeader)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(AuthError::MalformedHeader);
    }
    Ok(Some(token))
}
