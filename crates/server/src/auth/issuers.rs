//! Issuers other than this server whose tokens are accepted, and their keys.
//!
//! Only issuers that the operator lists are asked for keys (`--trusted-issuer`). Taking any issuer that a
//! token names, as other servers of the protocol do, would let a stranger have this server send requests
//! to addresses of the stranger's choice. Identities would stay apart either way, since they are derived
//! from the issuer too.
//!
//! Keys come from `<issuer>/.well-known/openid-configuration`, which must name the issuer, and the
//! `jwks_uri` in it. Both are fetched over HTTPS; plain HTTP is for addresses of this machine only.
//! Redirects are not followed.
//!
//! Invariants:
//! * At most one fetch per issuer at a time, and not more often than every [`RETRY_PAUSE`]: however many
//!   tokens with unknown keys come, the issuer sees a request every few seconds.
//! * Keys older than [`ISSUER_KEYS_EXPIRE`] verify nothing. Keys older than [`ISSUER_KEYS_REFRESH`] still
//!   do, while new ones are fetched behind the request's back, so that no request waits for a refresh.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tine_base::Env;

use super::jwks::KeySet;
use crate::limits::{
    CLAIM_BYTES_MAX, ISSUER_FETCH_BYTES_MAX, ISSUER_FETCH_TIMEOUT, ISSUER_KEYS_EXPIRE, ISSUER_KEYS_REFRESH, ISSUERS_MAX,
};

/// Pause between two fetches of one issuer's keys, successful or not.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// An issuer that cannot be trusted as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// Not an address, or one over which keys must not be fetched.
    #[error(
        "`{0}` is no issuer: expected https://HOST[/PATH], at most 128 bytes, or http:// for an address of this machine"
    )]
    NotAnIssuer(String),
    /// More than the bound.
    #[error("more than {ISSUERS_MAX} trusted issuers")]
    TooMany,
}

impl IssuerError {
    /// The stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            IssuerError::NotAnIssuer(_) => "TN0707",
            IssuerError::TooMany => "TN0708",
        }
    }
}

/// All trusted issuers.
pub(super) struct Issuers {
    issuers: BTreeMap<String, Arc<Issuer>>,
    env: Arc<dyn Env>,
}

/// One issuer and what is known of its keys.
pub(super) struct Issuer {
    url: String,
    state: Mutex<State>,
    /// Held while keys are fetched.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    keys: Option<(Arc<KeySet>, u64)>,
    attempted_ns: Option<u64>,
}

/// What is known of an issuer's keys.
pub(super) enum Known {
    Fresh(Arc<KeySet>),
    /// Usable, but to be fetched again.
    Aging(Arc<KeySet>),
    Nothing,
}

impl Issuer {
    /// The issuer as tokens name it.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Issuers {
    /// Takes the issuers of the options.
    pub fn new(trusted: &[String], env: Arc<dyn Env>) -> Result<Issuers, IssuerError> {
        if trusted.len() > ISSUERS_MAX {
            return Err(IssuerError::TooMany);
        }
        let mut issuers = BTreeMap::new();
        for url in trusted {
            if url.len() > CLAIM_BYTES_MAX || !may_fetch(url) {
                return Err(IssuerError::NotAnIssuer(url.clone()));
            }
            let issuer = Issuer { url: url.clone(), state: Mutex::default(), fetching: tokio::sync::Mutex::default() };
            issuers.insert(url.clone(), Arc::new(issuer));
        }
        Ok(Issuers { issuers, env })
    }

    pub fn find(&self, issuer: &str) -> Option<&Arc<Issuer>> {
        self.issuers.get(issuer)
    }

    /// Keys of all issuers that are remembered now.
    pub fn key_count(&self) -> usize {
        let count = |issuer: &Arc<Issuer>| issuer.state.lock().keys.as_ref().map_or(0, |(keys, _)| keys.len());
        self.issuers.values().map(count).sum()
    }

    pub fn known(&self, issuer: &Issuer) -> Known {
        let state = issuer.state.lock();
        let Some((keys, fetched_ns)) = &state.keys else { return Known::Nothing };
        let age = Duration::from_nanos(self.env.monotonic_ns().saturating_sub(*fetched_ns));
        match age {
            age if age < ISSUER_KEYS_REFRESH => Known::Fresh(keys.clone()),
            age if age < ISSUER_KEYS_EXPIRE => Known::Aging(keys.clone()),
            _ => Known::Nothing,
        }
    }

    /// Fetches the issuer's keys, unless that was tried a moment ago; then what is known counts.
    pub async fn refresh(&self, issuer: &Arc<Issuer>) {
        let _one_at_a_time = issuer.fetching.lock().await;
        let now_ns = self.env.monotonic_ns();
        let attempted_ns = issuer.state.lock().attempted_ns.replace(now_ns);
        let pause_ns = u64::try_from(RETRY_PAUSE.as_nanos()).unwrap_or(u64::MAX);
        if attempted_ns.is_some_and(|at| now_ns.saturating_sub(at) < pause_ns) {
            issuer.state.lock().attempted_ns = attempted_ns;
            return;
        }
        let url = issuer.url.clone();
        let fetched = tokio::task::spawn_blocking(move || fetch(&url)).await;
        match fetched.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(keys) => {
                tracing::info!(issuer = issuer.url, keys = keys.len(), "fetched the issuer's keys");
                issuer.state.lock().keys = Some((Arc::new(keys), now_ns));
            }
            Err(error) => tracing::warn!(issuer = issuer.url, error, "the issuer's keys cannot be fetched"),
        }
    }
}

/// Whether keys may be fetched from there: over HTTPS, or from this machine.
fn may_fetch(url: &str) -> bool {
    let Ok(uri) = url.parse::<axum::http::Uri>() else { return false };
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else { return false };
    let is_plain = uri.query().is_none() && !url.contains(['#', '@']);
    match uri.scheme_str() {
        Some("https") => is_plain,
        Some("http") => is_plain && is_loopback(host),
        _ => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn fetch(issuer: &str) -> Result<KeySet, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ISSUER_FETCH_TIMEOUT))
        .max_redirects(0)
        // An issuer is reached as its address says, not through whatever the environment names.
        .proxy(None)
        .build()
        .into();
    let discovery = fetch_json(&agent, &format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))?;
    if discovery.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err("the discovery document names another issuer".to_owned());
    }
    let keys_url = discovery.get("jwks_uri").and_then(Value::as_str).ok_or("the discovery document has no jwks_uri")?;
    if !keys_may_come_from(keys_url, issuer) {
        return Err(format!("keys must not be fetched from {keys_url}"));
    }
    let document = fetch_json(&agent, keys_url)?;
    let is_local = keys_url.starts_with("http://");
    KeySet::parse(&document, is_local).ok_or_else(|| format!("{keys_url} holds no key set"))
}

/// An issuer elsewhere must not send this server to addresses of its own machine, and HTTPS stays HTTPS.
fn keys_may_come_from(keys_url: &str, issuer: &str) -> bool {
    let host = |url: &str| url.parse::<axum::http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    let without_query = keys_url.split('?').next().unwrap_or(keys_url);
    let is_inward =
        host(keys_url).is_none_or(|host| is_loopback(&host)) && !host(issuer).is_some_and(|host| is_loopback(&host));
    may_fetch(without_query) && !is_inward
}

fn fetch_json(agent: &ureq::Agent, url: &str) -> Result<Value, String> {
    let mut response = agent.get(url).call().map_err(|error| format!("{url}: {error}"))?;
    if response.status() != 200 {
        return Err(format!("{url}: status {}", response.status()));
    }
    let body = response.body_mut().with_config().limit(ISSUER_FETCH_BYTES_MAX).read_to_vec();
    let body = body.map_err(|error| format!("{url}: {error}"))?;
    serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_over_https_or_from_this_machine() {
        for (url, allowed) in [
            ("https://accounts.example", true),
            ("https://accounts.example/tenant/v2.0", true),
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080/realm", true),
            ("http://localhost", true),
            ("http://accounts.example", false),
            ("http://127.0.0.1@accounts.example", false),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
            ("https://accounts.example?x=1", false),
            ("file:///etc/passwd", false),
            ("localhost", false),
            ("https://", false),
            ("", false),
        ] {
            assert_eq!(may_fetch(url), allowed, "{url}");
            let made = Issuers::new(&[url.to_owned()], Arc::new(tine_base::SystemEnv));
            assert_eq!(made.is_ok(), allowed, "{url}");
        }
        for (keys_url, issuer, allowed) in [
            ("https://keys.example/jwks?v=3", "https://accounts.example", true),
            ("http://keys.example/jwks", "https://accounts.example", false),
            ("http://127.0.0.1/jwks", "https://accounts.example", false),
            ("https://127.0.0.1/jwks", "https://accounts.example", false),
            ("http://127.0.0.1/jwks", "http://localhost", true),
        ] {
            assert_eq!(keys_may_come_from(keys_url, issuer), allowed, "{keys_url} of {issuer}");
        }
    }
}
