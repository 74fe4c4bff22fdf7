//! Making forks with a clock beside it.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;

use super::DATABASE;

/// Header in which the server says how long the work itself took, in microseconds.
const WORK_HEADER: &str = "spacetime-execution-duration-micros";

/// How long making a fork took.
#[derive(Clone, Copy, Debug)]
pub struct ForkTime {
    /// In the server, in microseconds: until the fork was there and its record on disk.
    pub server_us: u64,
    /// From sending the request to having the reply.
    pub round_trip: Duration,
}

impl ForkTime {
    /// The server's part for people.
    pub fn server_text(&self) -> String {
        match self.server_us {
            short @ 0..1_000 => format!("{short} µs"),
            long => format!("{:.2} ms", long as f64 / 1e3),
        }
    }
}

/// Makes forks of the demo's database.
pub struct ForkMaker {
    agent: ureq::Agent,
    url: String,
    authorization: String,
}

impl ForkMaker {
    /// For the owner with this token.
    pub fn new(url: &str, owner_token: &str) -> ForkMaker {
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        ForkMaker {
            agent: ureq::Agent::new_with_config(config),
            url: format!("{url}/v1/database/{DATABASE}/forks"),
            authorization: format!("Bearer {owner_token}"),
        }
    }

    /// Makes a durable fork of `main` at its head.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn make(&self, name: &str) -> anyhow::Result<ForkTime> {
        let body = json!({ "name": name }).to_string();
        let request = self.agent.post(&self.url).header("authorization", &self.authorization);
        let request = request.header("content-type", "application/json");
        let started = Instant::now();
        let mut response = request.send(body)?;
        let text = response.body_mut().read_to_string()?;
        let round_trip = started.elapsed();
        anyhow::ensure!(response.status().is_success(), "the fork {name} was refused: {text}");
        let work = response.headers().get(WORK_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(ForkTime { server_us: work.context("the server does not say how long the fork took")?, round_trip })
    }
}
