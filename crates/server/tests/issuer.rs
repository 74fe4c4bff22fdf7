//! Tokens of another issuer, whose keys the server fetches from a real HTTP server of this test.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use common::TestServer;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use parking_lot::Mutex;
use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use serde_json::{Value, json};
use tine_types::Identity;

const RSA_KEY: &[u8] = include_bytes!("data/issuer-rsa.pk8");
const SECRET: [u8; 32] = [7; 32];

/// What the issuer answers to a path.
type Documents = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// An issuer on this machine.
struct TestIssuer {
    url: String,
    documents: Documents,
    asked: Arc<AtomicUsize>,
}

impl TestIssuer {
    fn start() -> TestIssuer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (documents, asked) = (Documents::default(), Arc::new(AtomicUsize::new(0)));
        let (answers, count) = (documents.clone(), asked.clone());
        // Ends with the process: the listener is never closed.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = Vec::new();
                let mut buffer = [0; 1024];
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(length) if length > 0 => head.extend_from_slice(&buffer[..length]),
                        _ => break,
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
                let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or("").to_owned();
                let found = answers.lock().iter().find(|(own, _)| *own == path).map(|(_, body)| body.clone());
                let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        let issuer = TestIssuer { url, documents, asked };
        issuer.set(
            "/.well-known/openid-configuration",
            json!({ "issuer": issuer.url, "jwks_uri": format!("{}/keys", issuer.url) }).to_string(),
        );
        issuer
    }

    fn set(&self, path: &str, body: impl Into<Vec<u8>>) {
        let mut documents = self.documents.lock();
        documents.retain(|(own, _)| own != path);
        documents.push((path.to_owned(), body.into()));
    }

    fn set_keys(&self, keys: &[Value]) {
        self.set("/keys", json!({ "keys": keys }).to_string());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn claims(&self) -> Value {
        json!({ "iss": self.url, "sub": "somebody" })
    }
}

fn ec_key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).expect("a key")
}

fn ec_jwk(id: &str, seed: u8) -> Value {
    let point = ec_key(seed).verifying_key().to_sec1_point(false);
    let part = |bytes: &[u8]| BASE64.encode(bytes);
    let bytes = point.as_bytes();
    json!({ "kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": part(&bytes[1..33]), "y": part(&bytes[33..65]) })
}

fn rsa_key() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(RSA_KEY).expect("a key")
}

fn rsa_jwk(id: &str) -> Value {
    let public: RsaPublicKeyComponents<Vec<u8>> = rsa_key().public_key().into();
    json!({ "kty": "RSA", "kid": id, "alg": "RS256", "n": BASE64.encode(public.n), "e": BASE64.encode(public.e) })
}

fn secret_jwk(id: &str) -> Value {
    json!({ "kty": "oct", "kid": id, "k": BASE64.encode(SECRET) })
}

/// A token with `header` and `claims`, signed by `sign`.
fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature))
}

fn sign_es256(seed: u8) -> impl FnOnce(&[u8]) -> Vec<u8> {
    move |signed| {
        let signature: Signature = ec_key(seed).sign(signed);
        signature.to_bytes().to_vec()
    }
}

fn sign_rs256(signed: &[u8]) -> Vec<u8> {
    let key = rsa_key();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &ring::rand::SystemRandom::new(), signed, &mut signature).expect("signed");
    signature
}

fn sign_hs256(key: &[u8]) -> impl FnOnce(&[u8]) -> Vec<u8> {
    move |signed| ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), signed).as_ref().to_vec()
}

fn es256(claims: &Value, id: &str, seed: u8) -> String {
    token(&json!({ "alg": "ES256", "kid": id }), claims, sign_es256(seed))
}

async fn start(trusted: &[&TestIssuer]) -> TestServer {
    TestServer::start_with(|options| {
        options.trusted_issuers = trusted.iter().map(|issuer| issuer.url.clone()).collect();
    })
    .await
}

/// What the server says to a token: the identity it found, or status and code.
async fn present(server: &TestServer, token: &str) -> Result<String, (u16, String)> {
    let bearer = format!("Bearer {token}");
    let reply = server.http("GET", "/v1/database", &[("authorization", &bearer)], b"").await;
    match reply.status {
        200 => Ok(reply.header("spacetime-identity").expect("an identity").to_owned()),
        status => Err((status, reply.header("tine-error").unwrap_or("").to_owned())),
    }
}

fn refused(status: u16, code: &str) -> Result<String, (u16, String)> {
    Err((status, code.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_a_trusted_issuer_are_verified_with_its_keys() {
    let issuer = TestIssuer::start();
    issuer.set_keys(&[
        ec_jwk("e", 1),
        rsa_jwk("r"),
        secret_jwk("s"),
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "new", "x": "" }),
    ]);
    let server = start(&[&issuer]).await;
    let identity = Ok(Identity::from_claims(&issuer.url, "somebody").to_hex());
    let invalid = refused(401, "TN0710");
    let claims = issuer.claims();
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let n = BASE64.decode(rsa_jwk("r")["n"].as_str().expect("a modulus")).expect("base64");
    let cases = [
        ("ES256", es256(&claims, "e", 1), identity.clone()),
        ("no key id", token(&json!({ "alg": "ES256" }), &claims, sign_es256(1)), identity.clone()),
        ("RS256", token(&json!({ "alg": "RS256", "kid": "r" }), &claims, sign_rs256), identity.clone()),
        ("HS256", token(&json!({ "alg": "HS256", "kid": "s" }), &claims, sign_hs256(&SECRET)), identity),
        ("another key", es256(&claims, "e", 2), invalid.clone()),
        (
            "a public key as a secret",
            token(&json!({ "alg": "HS256", "kid": "r" }), &claims, sign_hs256(&n)),
            invalid.clone(),
        ),
        ("another kind of key", token(&json!({ "alg": "ES256", "kid": "r" }), &claims, sign_es256(1)), invalid.clone()),
        ("no algorithm", token(&json!({ "alg": "none", "kid": "e" }), &claims, |_| Vec::new()), invalid.clone()),
        ("an unknown key", es256(&claims, "other", 1), invalid),
        ("no subject", es256(&with("sub", json!("")), "e", 1), refused(401, "TN0712")),
        ("the past", es256(&with("exp", json!(1)), "e", 1), refused(401, "TN0714")),
        ("an identity of its own", es256(&with("hex_identity", json!("c2")), "e", 1), refused(401, "TN0713")),
        (
            "an issuer nobody trusts",
            es256(&with("iss", json!("https://elsewhere.example")), "e", 1),
            refused(401, "TN0711"),
        ),
        ("this server's name", es256(&with("iss", json!("localhost")), "e", 1), refused(401, "TN0710")),
    ];
    for (what, token, expected) in cases {
        assert_eq!(present(&server, &token).await, expected, "{what}");
    }
    // Two documents, once: an unknown key id a moment later asks nobody.
    assert_eq!(issuer.asked(), 2);
    assert!(server.metric("tine_issuer_keys").await == 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_an_address_is_signed_again_and_connects() {
    let issuer = TestIssuer::start();
    issuer.set_keys(&[ec_jwk("e", 1)]);
    let server = start(&[&issuer]).await;
    server.publish_people().await;
    let bearer = format!("Bearer {}", es256(&issuer.claims(), "e", 1));
    let reply = server.http("POST", "/v1/identity/websocket-token", &[("authorization", &bearer)], b"").await;
    let short = reply.json()["token"].as_str().expect("a token").to_owned();
    let mut client = server.connect(&format!("token={short}")).await;
    assert_eq!(client.greet().await.0, Identity::from_claims(&issuer.url, "somebody").to_hex());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_answers_nonsense_refuses_its_own_tokens_only() {
    let long = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(300 * 1024));
    let nowhere = json!({ "issuer": "ISSUER", "jwks_uri": "http://keys.example/keys" }).to_string();
    let other = json!({ "issuer": "https://elsewhere.example", "jwks_uri": "ISSUER/keys" }).to_string();
    let cases: [(&str, &str, &str); 6] = [
        ("/keys", "", "nothing"),
        ("/keys", "{}", "no key set"),
        ("/keys", "[[[[", "no JSON"),
        ("/keys", &long, "too much"),
        ("/.well-known/openid-configuration", &nowhere, "keys over plain HTTP"),
        ("/.well-known/openid-configuration", &other, "another issuer"),
    ];
    for (path, body, what) in cases {
        let issuer = TestIssuer::start();
        issuer.set_keys(&[ec_jwk("e", 1)]);
        issuer.set(path, body.replace("ISSUER", &issuer.url));
        let server = start(&[&issuer]).await;
        let text = es256(&issuer.claims(), "e", 1);
        assert_eq!(present(&server, &text).await, refused(503, "TN0717"), "{what}");
        let asked = issuer.asked();
        assert_eq!(present(&server, &text).await, refused(503, "TN0717"), "{what}");
        assert_eq!(issuer.asked(), asked, "{what}: asked again at once");
        let (_, own) = (server.get("/v1/database").await.status, server.admin_token.clone());
        assert!(present(&server, own.trim()).await.is_ok(), "{what}");
        server.server.shutdown(std::time::Duration::from_secs(5)).await.expect("ended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_does_not_answer_holds_up_nobody_else() {
    // Accepts (the backlog does) and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = TestServer::start_with(|options| options.trusted_issuers = vec![url.clone()]).await;
    let text = es256(&json!({ "iss": url, "sub": "somebody" }), "e", 1);
    let started = Instant::now();
    let (found, pings) = tokio::join!(present(&server, &text), async {
        for _ in 0..20 {
            assert_eq!(server.get("/v1/ping").await.status, 200);
        }
        started.elapsed()
    });
    assert_eq!(found, refused(503, "TN0717"));
    assert!(pings < started.elapsed(), "the pings waited for the issuer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_not_start_with_an_issuer_it_must_not_ask() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options =
        tine_server::ServerOptions::new("127.0.0.1:0".parse().expect("an address"), folder.path().to_path_buf());
    options.trusted_issuers = vec!["http://accounts.example".to_owned()];
    let started = tine_server::Server::start(options, Arc::new(tine_base::SystemEnv), |_| {}).await;
    assert_eq!(started.err().map(|error| error.code()), Some("TN0707"));
}
