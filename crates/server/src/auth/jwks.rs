//! The keys of another issuer, as its JSON web key set lists them, and verifying with them.
//!
//! A key decides the algorithm, never the token: an elliptic curve key checks ES256 only, an RSA key
//! RS256 only, a symmetric key HS256 only. So no token can have a public key taken for a shared secret.
//!
//! A symmetric key is a secret only as long as nobody but issuer and server can read the key set. Those
//! of a key set that came from this machine are taken; those that came over the network are not, since
//! whoever can fetch them could mint tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::Value;

use crate::limits::ISSUER_KEYS_MAX;

/// HMAC keys shorter than the hash can be guessed faster than the hash be broken.
const SECRET_BYTES_MIN: usize = 32;

/// The usable keys of a key set.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<NamedKey>,
}

#[derive(Debug)]
struct NamedKey {
    id: Option<String>,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Es256(VerifyingKey),
    Rs256(RsaPublicKeyComponents<Vec<u8>>),
    Hs256(Vec<u8>),
}

/// What a key set says of a token's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fits,
    Wrong,
    /// No key of the name the token gives: the set may have changed since.
    NoSuchKey,
}

impl KeySet {
    /// Reads a JWKS document. Keys for other purposes or of other kinds are left out, so that an issuer
    /// can add new kinds; `None` when it is no key set at all.
    pub fn parse(document: &Value, allow_secrets: bool) -> Option<KeySet> {
        let listed = document.get("keys")?.as_array()?;
        let keys = listed.iter().take(ISSUER_KEYS_MAX).filter_map(|jwk| {
            let id = jwk.get("kid").and_then(Value::as_str).map(str::to_owned);
            Some(NamedKey { id, key: Key::parse(jwk, allow_secrets)? })
        });
        Some(KeySet { keys: keys.collect() })
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Checks `signature` over `signed`. A token without a key id is tried with every key.
    pub fn verify(&self, algorithm: &str, key_id: Option<&str>, signed: &[u8], signature: &[u8]) -> Verdict {
        let mut candidates =
            self.keys.iter().filter(|named| key_id.is_none() || named.id.as_deref() == key_id).peekable();
        if candidates.peek().is_none() {
            return Verdict::NoSuchKey;
        }
        match candidates.any(|named| named.key.verify(algorithm, signed, signature)) {
            true => Verdict::Fits,
            false => Verdict::Wrong,
        }
    }
}

impl Key {
    fn parse(jwk: &Value, allow_secrets: bool) -> Option<Key> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| BASE64.decode(text(name)?.trim_end_matches('=')).ok();
        // What is absent allows everything, as the format has it.
        let allows = |name: &str, wanted: &str| text(name).is_none_or(|given| given == wanted);
        if !allows("use", "sig") {
            return None;
        }
        match text("kty")? {
            "EC" if text("crv") == Some("P-256") && allows("alg", "ES256") => {
                let point = [&[4], &*bytes("x")?, &*bytes("y")?].concat();
                Some(Key::Es256(VerifyingKey::from_sec1_bytes(&point).ok()?))
            }
            "RSA" if allows("alg", "RS256") => {
                Some(Key::Rs256(RsaPublicKeyComponents { n: bytes("n")?, e: bytes("e")? }))
            }
            "oct" if allow_secrets && allows("alg", "HS256") => Some(Key::Hs256(bytes("k")?))
                .filter(|key| matches!(key, Key::Hs256(key) if key.len() >= SECRET_BYTES_MIN)),
            _ => None,
        }
    }

    fn verify(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Key::Es256(key), "ES256") => {
                Signature::from_slice(signature).is_ok_and(|signature| key.verify(signed, &signature).is_ok())
            }
            // Sizes of the modulus outside 2048 to 8192 bits are refused.
            (Key::Rs256(key), "RS256") => key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok(),
            (Key::Hs256(key), "HS256") => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
                ring::hmac::verify(&key, signed, signature).is_ok()
            }
            _ => false,
        }
    }
}
