//! Counters and gauges of the network side, written in the Prometheus text format together with those
//! of the host. Each bound of `limits.rs` has a gauge or a counter of refusals here.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that others read now and then; no other memory depends on it, hence relaxed throughout.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! metrics {
    ($($field:ident: $kind:ident $name:literal $help:literal,)*) => {
        /// All numbers of the network side.
        #[derive(Default)]
        pub(crate) struct Metrics {
            $(#[doc = $help] pub $field: Counter,)*
        }

        impl Metrics {
            fn each(&self, mut write: impl FnMut(&str, &str, &str, u64)) {
                $(write($name, stringify!($kind), $help, self.$field.get());)*
            }
        }
    };
}

metrics! {
    connections: gauge "tine_connections" "Open TCP connections.",
    connections_refused: counter "tine_connections_refused_total" "Connections refused because of the bound.",
    requests: counter "tine_http_requests_total" "HTTP requests received.",
    requests_failed: counter "tine_http_requests_failed_total" "HTTP requests answered with 5xx, except a module's own errors (530).",
    requests_timed_out: counter "tine_http_requests_timed_out_total" "HTTP requests given up after the request timeout.",
    stalls: counter "tine_stalls_total" "Times a lane held a thread of the network side for too long.",
    clients: gauge "tine_websocket_clients" "Open WebSocket connections.",
    client_messages: counter "tine_websocket_messages_received_total" "Messages received from clients.",
    client_bytes: counter "tine_websocket_received_bytes_total" "Bytes of messages received from clients.",
    server_messages: counter "tine_websocket_messages_sent_total" "Messages sent to clients.",
    server_bytes: counter "tine_websocket_sent_bytes_total" "Bytes of frames sent to clients.",
    flushes: counter "tine_websocket_flushes_total" "Times the frames of a client were flushed.",
    queued_messages: gauge "tine_websocket_queued_messages" "Messages waiting to be written to clients.",
    queued_bytes: gauge "tine_websocket_queued_bytes" "Bytes of rows waiting to be written to clients, near enough.",
    clients_too_slow: counter "tine_websocket_too_slow_total" "Clients dropped because too much was queued for them.",
    clients_stalled: counter "tine_websocket_stalled_total" "Clients dropped because they took no byte in time.",
    clients_idle: counter "tine_websocket_idle_total" "Clients dropped because nothing came from them.",
    clients_overloading: counter "tine_websocket_too_many_requests_total" "Clients closed because too many of their requests were waiting.",
    clients_malformed: counter "tine_websocket_malformed_total" "Clients closed because of a frame or message that breaks the protocol.",
}

/// Writes one metric with its help and type.
pub(crate) fn write_metric(text: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    let written = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

impl Metrics {
    /// Appends all numbers to `text`.
    pub fn write(&self, text: &mut String) {
        self.each(|name, kind, help, value| write_metric(text, name, kind, help, value));
    }
}
