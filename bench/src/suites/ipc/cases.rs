//! The cases. Each measures the transport and its peer one right after the other, and returns both.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        mpsc::{self, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tine_base::cpu::pin_current_thread;
use tine_ipc::{
    Client, ConnectOptions, Handler, ListenOptions, Reactor, ReactorOptions, ReactorThread, Request, Responder,
    SchemaHash,
};

use super::{
    bare::{self, BareSlot, FRAME_BYTES, MESSAGE_BYTES},
    iceoryx,
};

/// Requests in flight of the pipelined case.
const IN_FLIGHT: usize = 32;
/// Clients of the case with a slow handler.
const CLIENTS: usize = 7;
/// What its handler computes for.
const WORK: Duration = Duration::from_micros(20);
/// Ring and message of the streaming case.
const STREAM_RING_BYTES: u32 = 1 << 20;
const STREAM_BYTES: usize = 16 << 20;
/// No call takes this long.
pub const LIMIT: Duration = Duration::from_secs(10);

/// A measured value and that of the peer.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub value: f64,
    pub peer: f64,
}

impl Pair {
    pub fn ratio(self) -> f64 {
        self.value / self.peer
    }
}

/// Answers with the request.
struct Echo;

impl Handler for Echo {
    fn call(&self, request: Request<'_>, responder: Responder) {
        match request.payload {
            std::borrow::Cow::Borrowed(payload) => responder.ok(payload),
            std::borrow::Cow::Owned(payload) => responder.ok_vec(payload),
        }
    }
}

/// Computes on one of two threads.
struct Slow {
    queue: SyncSender<Responder>,
}

impl Slow {
    fn start() -> Slow {
        let (queue, jobs) = mpsc::sync_channel::<Responder>(1024);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..2 {
            let jobs = jobs.clone();
            thread::spawn(move || {
                loop {
                    let job = jobs.lock().expect("no panic").recv();
                    let Ok(responder) = job else { return };
                    let started = Instant::now();
                    while started.elapsed() < WORK {
                        std::hint::spin_loop();
                    }
                    responder.ok(&[0; MESSAGE_BYTES]);
                }
            });
        }
        Slow { queue }
    }
}

impl Handler for Slow {
    fn call(&self, _: Request<'_>, responder: Responder) {
        // A full queue drops the responder, which the client sees as an error.
        let _ = self.queue.try_send(responder);
    }
}

/// A server of ours in a directory of its own.
pub struct Server {
    path: PathBuf,
    _reactor: ReactorThread,
    _directory: tempfile::TempDir,
}

impl Server {
    pub fn start(name: &str, handler: Arc<dyn Handler>, options: ListenOptions) -> anyhow::Result<Server> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join(name);
        let mut reactor = Reactor::new(ReactorOptions::default())?;
        reactor.listen(&path, options, handler)?;
        Ok(Server { path, _reactor: reactor.spawn("reactor")?, _directory: directory })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn echo(name: &str) -> anyhow::Result<Server> {
        Server::start(name, Arc::new(Echo), ListenOptions::new(SchemaHash::ANY))
    }

    fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.path, &ConnectOptions::new(SchemaHash::ANY))?)
    }
}

/// Calls per second of `call` over `length`.
fn rate(length: Duration, mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    for _ in 0..200 {
        call()?;
    }
    let started = Instant::now();
    let mut calls = 0u32;
    while started.elapsed() < length {
        for _ in 0..16 {
            call()?;
        }
        calls += 16;
    }
    Ok(f64::from(calls) / started.elapsed().as_secs_f64())
}

/// Median time of `call` in microseconds, over `length`.
pub fn p50_us(length: Duration, mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    for _ in 0..2_000 {
        call()?;
    }
    let begun = Instant::now();
    let mut times_ns = Vec::new();
    while begun.elapsed() < length {
        let started = Instant::now();
        call()?;
        times_ns.push(started.elapsed().as_nanos() as u64);
    }
    let middle = times_ns.len() / 2;
    Ok(*times_ns.select_nth_unstable(middle).1 as f64 / 1e3)
}

fn echo_call(client: &Client) -> anyhow::Result<()> {
    let reply = client.call(&[5; MESSAGE_BYTES], LIMIT)?;
    ensure!(reply == [5; MESSAGE_BYTES], "another message came back");
    Ok(())
}

/// A bare echo server with one client connected to it.
fn bare_echo<T>(with: impl FnOnce(&UnixStream) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let directory = tempfile::tempdir()?;
    let path: &Path = &directory.path().join("bare.sock");
    let server = bare::echo_server(path, 1)?;
    let socket = UnixStream::connect(path)?;
    let value = with(&socket)?;
    drop(socket);
    server.join().expect("the server does not panic")?;
    Ok(value)
}

/// Receives until `bytes` bytes have come.
fn receive_all(socket: &UnixStream, buffer: &mut [u8], mut bytes: usize) -> anyhow::Result<()> {
    while bytes > 0 {
        let count = bare::receive(socket, buffer)?;
        ensure!(count > 0 && count <= bytes, "the server sends what it got");
        bytes -= count;
    }
    Ok(())
}

/// Calls per second, one at a time.
pub fn uds_1_client(length: Duration) -> anyhow::Result<Pair> {
    let server = Server::echo("ours.sock")?;
    let client = server.client()?;
    let value = rate(length, || echo_call(&client))?;
    let peer = bare_echo(|socket| {
        let mut buffer = [0; 4096];
        rate(length, || {
            bare::send(socket, &[5; FRAME_BYTES])?;
            receive_all(socket, &mut buffer, FRAME_BYTES)
        })
    })?;
    Ok(Pair { value, peer })
}

/// Calls per second, [`IN_FLIGHT`] at a time, one system call per request on both sides.
pub fn uds_pipelined(length: Duration) -> anyhow::Result<Pair> {
    let server = Server::echo("ours.sock")?;
    let client = server.client()?;
    let queue = client.completions()?;
    for token in 0..IN_FLIGHT as u64 {
        queue.submit(token, &[5; MESSAGE_BYTES])?;
    }
    let value = rate(length, || {
        let done = queue.poll(LIMIT).context("no reply")?;
        ensure!(done.result? == [5; MESSAGE_BYTES], "another message came back");
        Ok(queue.submit(done.token, &[5; MESSAGE_BYTES])?)
    })?;
    let peer = bare_echo(|socket| {
        let mut buffer = vec![0; 64 * 1024];
        for _ in 0..IN_FLIGHT {
            bare::send(socket, &[5; FRAME_BYTES])?;
        }
        let mut received = 0;
        let value = rate(length, || {
            while received < FRAME_BYTES {
                received += bare::receive(socket, &mut buffer)?;
            }
            received -= FRAME_BYTES;
            Ok(bare::send(socket, &[5; FRAME_BYTES])?)
        })?;
        receive_all(socket, &mut buffer, IN_FLIGHT * FRAME_BYTES - received)?;
        Ok(value)
    })?;
    Ok(Pair { value, peer })
}

/// Median time of a call in microseconds.
pub fn shm_p50(length: Duration) -> anyhow::Result<Pair> {
    let server = Server::echo("ours.shm")?;
    let client = server.client()?;
    let value = p50_us(length, || echo_call(&client))?;
    let slot = BareSlot::start()?;
    let peer = p50_us(length, || {
        let reply = slot.call(&[5; MESSAGE_BYTES]);
        ensure!(reply[1] == 5, "another message came back");
        Ok(())
    })?;
    Ok(Pair { value, peer })
}

/// The same against `iceoryx2`.
pub fn shm_p50_against_iceoryx(length: Duration) -> anyhow::Result<Pair> {
    let server = Server::echo("ours.shm")?;
    let client = server.client()?;
    let value = p50_us(length, || echo_call(&client))?;
    let peer = iceoryx::with_echo(|call| p50_us(length, call))?;
    Ok(Pair { value, peer })
}

/// Calls per second with client and server on one core: through shared memory, and through a socket.
pub fn one_core(length: Duration) -> anyhow::Result<Pair> {
    thread::scope(|scope| {
        let on_one_core = scope.spawn(|| {
            // What is started from here on inherits the one core.
            ensure!(pin_current_thread(0), "threads cannot be pinned here");
            let rate_of = |name: &str| {
                let server = Server::echo(name)?;
                let client = server.client()?;
                rate(length, || echo_call(&client))
            };
            Ok(Pair { value: rate_of("ours.shm")?, peer: rate_of("ours.sock")? })
        });
        on_one_core.join().expect("the case does not panic")
    })
}

/// Calls per second of seven clients, and of one, when each call takes 20 us of computing on two threads.
pub fn seven_clients(length: Duration) -> anyhow::Result<Pair> {
    let options = ListenOptions::new(SchemaHash::ANY);
    let server = Server::start("ours.shm", Arc::new(Slow::start()), options)?;
    let serial = server.client()?;
    let call = |client: &Client| client.call(&[5; MESSAGE_BYTES], LIMIT).map(drop);
    let peer = rate(length, || Ok(call(&serial)?))?;
    let value = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let client = server.client();
                scope.spawn(move || {
                    let client = client?;
                    rate(length, || Ok(call(&client)?))
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).sum::<anyhow::Result<f64>>()
    })?;
    Ok(Pair { value, peer })
}

/// Gigabytes per second of 16 MiB messages, there and back, through rings of 1 MiB.
pub fn stream_gb_per_s(length: Duration) -> anyhow::Result<f64> {
    let options = ListenOptions { ring_bytes: STREAM_RING_BYTES, ..ListenOptions::new(SchemaHash::ANY) };
    let server = Server::start("ours.shm", Arc::new(Echo), options)?;
    let client = server.client()?;
    let message = vec![5; STREAM_BYTES];
    let started = Instant::now();
    let mut bytes = 0;
    while started.elapsed() < length {
        let reply = client.call(&message, LIMIT)?;
        ensure!(reply.len() == message.len(), "another message came back");
        bytes += message.len() + reply.len();
    }
    Ok(bytes as f64 / 1e9 / started.elapsed().as_secs_f64())
}
