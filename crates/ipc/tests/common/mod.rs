//! A service for the tests: what a request asks for is in its first byte.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod raw;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tine_ipc::{
    Client, ConnectOptions, ConnectionEvent, Handler, ListenOptions, Reactor, ReactorOptions, ReactorThread, Request,
    Responder, SchemaHash, StreamError,
};

pub const SCHEMA: SchemaHash = SchemaHash([3; 32]);
pub const SOON: Duration = Duration::from_secs(20);

/// Answers with the request.
pub const ECHO: u8 = 0;
/// The same, from another thread, after as many milliseconds as the second byte says.
pub const LATER: u8 = 1;
/// Answers with an error.
pub const FAIL: u8 = 2;
/// Drops the responder.
pub const DROP: u8 = 3;
/// Panics.
pub const PANIC: u8 = 4;
/// Streams as many items as the u32 after the first byte says, each that number; ends with "done".
pub const COUNT: u8 = 5;
/// Answers with as many bytes as the u32 after the first byte says.
pub const BYTES: u8 = 6;
/// Never answers, as long as the service lives.
pub const NEVER: u8 = 7;
/// Answers with a stream whose items are sent in turn by another thread and by the reactor's.
pub const TURNS: u8 = 8;

#[derive(Default)]
pub struct Service {
    pub events: Mutex<Vec<String>>,
    kept: Mutex<Vec<Responder>>,
}

impl Handler for Service {
    fn call(&self, request: Request<'_>, responder: Responder) {
        let payload = &request.payload;
        let number = || u32::from_le_bytes(payload[1..5].try_into().expect("a number"));
        match payload.first().copied().unwrap_or(ECHO) {
            LATER => {
                let (payload, pause) = (payload.to_vec(), Duration::from_millis(payload[1].into()));
                std::thread::spawn(move || {
                    std::thread::sleep(pause);
                    responder.ok_vec(payload);
                });
            }
            FAIL => responder.err("APP1", "as you wish"),
            DROP => drop(responder),
            PANIC => panic!("asked to"),
            COUNT => {
                let (count, sender) = (number(), responder.stream());
                std::thread::spawn(move || {
                    for item in 0..count {
                        match sender.send_timeout(&item.to_le_bytes(), SOON) {
                            Ok(()) => {}
                            Err(StreamError::Cancelled) => return,
                            Err(error) => return sender.fail(error.code(), &error.to_string()),
                        }
                    }
                    sender.finish(b"done");
                });
            }
            TURNS => {
                let sender = responder.stream();
                for item in 0..number() {
                    let send = || sender.send(&item.to_le_bytes()).expect("there is credit");
                    if item % 2 == 0 {
                        std::thread::scope(|scope| scope.spawn(send).join()).expect("sent");
                    } else {
                        send();
                    }
                }
                sender.finish(b"done");
            }
            BYTES => responder.ok_vec(vec![7; number() as usize]),
            NEVER => self.kept.lock().push(responder),
            _ => responder.ok(payload),
        }
    }

    fn event(&self, event: ConnectionEvent<'_>) {
        self.events.lock().push(match event {
            ConnectionEvent::Opened { .. } => "opened".into(),
            ConnectionEvent::Closed { reason, .. } => format!("closed {}", reason.code()),
            ConnectionEvent::Refused { error, .. } => format!("refused {}", error.code()),
        });
    }

    fn plain_error(&self, code: &str, message: &str) -> Option<Vec<u8>> {
        Some(format!("error {code} {message}").into_bytes())
    }
}

/// A running server in a directory of its own.
pub struct Server {
    pub path: PathBuf,
    pub service: Arc<Service>,
    pub reactor: ReactorThread,
    _directory: tempfile::TempDir,
}

impl Server {
    pub fn start(name: &str, options: ListenOptions) -> Server {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join(name);
        let service = Arc::new(Service::default());
        let reactor = serve(&path, options, service.clone());
        Server { path, service, reactor, _directory: directory }
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.path, &ConnectOptions::new(SCHEMA)).expect("connected")
    }

    /// Waits until the service has been told this.
    pub fn expect_event(&self, event: &str) {
        eventually(event, || self.service.events.lock().iter().any(|seen| seen == event));
    }
}

pub fn serve(path: &Path, options: ListenOptions, service: Arc<Service>) -> ReactorThread {
    let mut reactor = Reactor::new(ReactorOptions::default()).expect("reactor");
    reactor.listen(path, options, service).expect("listening");
    reactor.spawn("reactor").expect("spawned")
}

pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !check() {
        assert!(started.elapsed() < SOON, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Both transports.
pub const NAMES: [&str; 2] = ["a.sock", "a.shm"];

pub fn number_request(kind: u8, number: u32) -> Vec<u8> {
    let mut request = vec![kind];
    request.extend_from_slice(&number.to_le_bytes());
    request
}
