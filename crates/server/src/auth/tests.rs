//! Tokens, key files and the finding of a token in a request.

use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use p256::ecdsa::SigningKey;
use serde_json::json;
use tine_base::SystemEnv;

use super::token::{sign, verify_own as verify};
use super::*;

const NOW_MICROS: i64 = 1_800_000_000_000_000;
const NOW_SECONDS: i64 = NOW_MICROS / 1_000_000;

/// Finds the caller without any network: the future is ready at once for tokens of this server.
fn find(auth: &Authenticator, headers: &HeaderMap, parameter: Option<&str>) -> Result<Caller, AuthError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(auth.caller_required(headers, parameter))
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

fn claims(changes: serde_json::Value) -> Claims {
    let mut claims = Claims::new("localhost", "somebody", NOW_MICROS, None);
    for (name, value) in changes.as_object().unwrap() {
        match value {
            serde_json::Value::String(text) if text == "absent" => drop(claims.fields.remove(name)),
            _ => drop(claims.fields.insert(name.clone(), value.clone())),
        }
    }
    claims
}

#[test]
fn claims_decide_whether_a_token_is_taken() {
    let identity = Identity::from_claims("localhost", "somebody").to_hex();
    let long = "x".repeat(129);
    let cases = [
        (json!({}), Ok(())),
        (json!({ "hex_identity": "absent", "aud": "absent" }), Ok(())),
        (json!({ "hex_identity": identity, "exp": NOW_SECONDS + 1 }), Ok(())),
        (json!({ "exp": (NOW_SECONDS + 1) as f64 + 0.5, "aud": "one", "extra": { "role": "x" } }), Ok(())),
        (json!({ "exp": NOW_SECONDS }), Err(TokenError::Expired)),
        (json!({ "exp": "soon" }), Err(TokenError::BadClaim("exp"))),
        (json!({ "sub": "absent" }), Err(TokenError::BadClaim("sub"))),
        (json!({ "sub": "" }), Err(TokenError::BadClaim("sub"))),
        (json!({ "sub": long }), Err(TokenError::BadClaim("sub"))),
        (json!({ "iss": 5 }), Err(TokenError::BadClaim("iss"))),
        (json!({ "hex_identity": "c2" }), Err(TokenError::IdentityMismatch)),
        (json!({ "sub": "other" }), Err(TokenError::IdentityMismatch)),
        // A foreign token signed again with our key is taken.
        (json!({ "iss": "https://elsewhere", "hex_identity": "absent" }), Ok(())),
    ];
    for (changes, expected) in cases {
        let token = sign(&claims(changes.clone()), &key(1));
        let found = verify(&token, key(1).verifying_key(), NOW_MICROS).map(drop);
        assert_eq!(found, expected, "{changes}");
    }
}

#[test]
fn another_key_is_refused_and_a_foreign_issuer_is_named() {
    let ours = sign(&claims(json!({})), &key(2));
    assert_eq!(verify(&ours, key(1).verifying_key(), NOW_MICROS), Err(TokenError::Invalid));
    let theirs = sign(&claims(json!({ "iss": "https://elsewhere" })), &key(2));
    let expected = TokenError::ForeignIssuer("https://elsewhere".to_owned());
    assert_eq!(verify(&theirs, key(1).verifying_key(), NOW_MICROS), Err(expected));
}

#[test]
fn every_changed_byte_spoils_a_token() {
    let token = sign(&claims(json!({})), &key(1));
    for position in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(verify(&changed, key(1).verifying_key(), NOW_MICROS).is_err(), "byte {position}");
    }
}

#[test]
fn other_algorithms_are_refused() {
    let token = sign(&claims(json!({})), &key(1));
    let (_, rest) = token.split_once('.').unwrap();
    let (payload, _) = rest.split_once('.').unwrap();
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"typ":"JWT"}"#, "[]", "{"] {
        for tail in [rest.to_owned(), format!("{payload}.")] {
            let text = format!("{}.{tail}", BASE64.encode(header));
            assert_eq!(verify(&text, key(1).verifying_key(), NOW_MICROS), Err(TokenError::Invalid), "{header}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_text_upsets_the_verifier(text in "\\PC{0,200}", a in "[A-Za-z0-9_-]{0,80}", b in "[A-Za-z0-9_-]{0,80}") {
        let verifying = *key(1).verifying_key();
        proptest::prop_assert!(verify(&text, &verifying, NOW_MICROS).is_err());
        let dotted = format!("{a}.{b}.{a}");
        proptest::prop_assert!(verify(&dotted, &verifying, NOW_MICROS).is_err());
    }
}

fn open(folder: &tempfile::TempDir) -> Authenticator {
    Authenticator::open(folder.path(), &[], Arc::new(SystemEnv)).unwrap()
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    headers
}

#[test]
fn keys_and_admin_token_survive_a_restart_and_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder);
    let anonymous = first.mint_anonymous();
    let admin_token = std::fs::read_to_string(folder.path().join("keys/admin-token")).unwrap();
    let second = open(&folder);
    assert_eq!(first.public_pem(), second.public_pem());
    assert_eq!(find(&second, &bearer(&anonymous.token), None).unwrap().identity, anonymous.identity);
    assert!(second.check_admin_token(&admin_token).unwrap());
    assert!(!second.check_admin_token(&anonymous.token).unwrap());
    assert_eq!(std::fs::read_to_string(folder.path().join("keys/admin-token")).unwrap(), admin_token);
    for (name, mode) in [("", 0o700), ("id_ecdsa", 0o600), ("id_ecdsa.pub", 0o600), ("admin-token", 0o600)] {
        let path = folder.path().join("keys").join(name);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
}

#[test]
fn an_admin_token_of_lost_keys_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let identity = open(&folder).keys.admin_identity;
    std::fs::remove_file(folder.path().join("keys/id_ecdsa")).unwrap();
    std::fs::remove_file(folder.path().join("keys/id_ecdsa.pub")).unwrap();
    let fresh = open(&folder);
    let token = std::fs::read_to_string(folder.path().join("keys/admin-token")).unwrap();
    assert_eq!(find(&fresh, &bearer(&token), None).unwrap().identity, identity);
}

#[test]
fn unusable_key_files_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder));
    let private = folder.path().join("keys/id_ecdsa");
    let public = folder.path().join("keys/id_ecdsa.pub");
    let reopen =
        || Authenticator::open(folder.path(), &[], Arc::new(SystemEnv)).map(drop).map_err(|error| error.code());
    let good = std::fs::read_to_string(&private).unwrap();
    std::fs::write(&private, "rubbish").unwrap();
    assert_eq!(reopen(), Err("TN0702"));
    let other = tempfile::tempdir().unwrap();
    drop(open(&other));
    std::fs::copy(other.path().join("keys/id_ecdsa"), &private).unwrap();
    assert_eq!(reopen(), Err("TN0703"));
    std::fs::write(&private, good).unwrap();
    assert_eq!(reopen(), Ok(()));
    std::fs::remove_file(&public).unwrap();
    std::fs::create_dir(&public).unwrap();
    assert_eq!(reopen(), Err("TN0701"));
}

#[test]
fn where_a_token_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let auth = open(&folder);
    let (a, b) = (auth.mint_anonymous(), auth.mint_anonymous());
    assert_ne!(a.identity, b.identity);
    let identity = |headers: &HeaderMap, parameter| find(&auth, headers, parameter).map(|who| who.identity);
    assert_eq!(identity(&bearer(&a.token), Some(&b.token)), Ok(a.identity));
    assert_eq!(identity(&HeaderMap::new(), Some(&b.token)), Ok(b.identity));
    assert_eq!(identity(&HeaderMap::new(), None), Err(AuthError::Required));
    assert_eq!(identity(&HeaderMap::new(), Some("")), Err(AuthError::Required));
    assert_eq!(identity(&bearer("x.y.z"), None), Err(AuthError::Token(TokenError::Invalid)));
    for malformed in ["Basic abc", "Bearer", "Bearer ", ""] {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, malformed.parse().unwrap());
        assert_eq!(identity(&headers, Some(&b.token)), Err(AuthError::MalformedHeader), "{malformed:?}");
    }
}

#[test]
fn a_websocket_token_is_the_same_caller_for_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let auth = open(&folder);
    let caller = auth.mint_anonymous();
    let short = auth.mint_websocket(&caller);
    let verifying = auth.keys.verifying;
    let claims = verify(&short.token, &verifying, auth.env.now_micros()).unwrap();
    assert_eq!(claims.identity, caller.identity);
    let later = auth.env.now_micros() + 61_000_000;
    assert_eq!(verify(&short.token, &verifying, later), Err(TokenError::Expired));
    assert!(auth.mint_websocket(&short).claims.expires_at_seconds <= short.claims.expires_at_seconds);
}

#[test]
fn remembered_tokens_are_bounded_and_still_expire() {
    let folder = tempfile::tempdir().unwrap();
    let auth = open(&folder);
    let kept = auth.mint_anonymous();
    let cache = TokenCache::default();
    cache.insert(&kept);
    for number in 0..3 * crate::limits::TOKEN_CACHE_ENTRIES_MAX {
        let caller = Caller { token: format!("token {number}").into(), ..kept.clone() };
        cache.insert(&caller);
        assert!(cache.len() <= crate::limits::TOKEN_CACHE_ENTRIES_MAX + 1);
        // One in use stays whatever comes.
        assert!(cache.get(&kept.token).is_some(), "after {number}");
    }
    assert!(cache.get("token 0").is_none());
    let short = auth.mint_websocket(&kept);
    assert!(find(&auth, &bearer(&short.token), None).is_ok());
    let ended = Claims { expires_at_seconds: Some(1), ..(*short.claims).clone() };
    auth.cache.insert(&Caller { claims: Arc::new(ended), ..short.clone() });
    assert_eq!(find(&auth, &bearer(&short.token), None).map(drop), Err(TokenError::Expired.into()));
}
