//! Ten clients that misbehave beside a good one, which must not suffer.

use std::{
    io::Write as _,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tine_client::{
    ConnectOptions, Connection,
    protocol::{ClientMessage, encode_client_message},
};
use tine_tests::{raw_socket::RawSocket, server::TestServer};

/// Calls of the good client, one in flight.
const CALLS: usize = 2_000;
/// How much worse its slowest hundredth may be.
const P99_RATIO_MAX: f64 = 3.0;
/// The machine's own noise: below this no difference is anybody's fault.
const P99_NOISE: Duration = Duration::from_millis(3);
/// Measurements until one must be good: another process may take the cores for a while.
const ATTEMPTS: usize = 5;

fn calls(count: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request_id in 0..count {
        let call = ClientMessage::CallReducer { request_id, reducer: "noop".into(), args: Bytes::new() };
        encode_client_message(&call, &mut bytes);
    }
    bytes
}

async fn p99(server: &TestServer, database: &str) -> Duration {
    let options = ConnectOptions::new(server.url(), database).with_confirmed(false);
    let mut connection = Connection::connect(options).await.expect("connected");
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let started = Instant::now();
        connection.call_reducer("noop", Bytes::new()).await.expect("the good client is served");
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[CALLS * 99 / 100]
}

/// Starts one rude client of each kind; they go on until `stop`.
fn start_rude(address: &str, stop: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
    type Rudeness = fn(&str, &AtomicBool);
    let kinds: [Rudeness; 5] = [never_reads, sends_half_a_frame, sends_half_a_head, floods, leaves_at_once];
    kinds
        .into_iter()
        .map(|rudeness| {
            let (address, stop) = (address.to_owned(), stop.clone());
            thread::spawn(move || rudeness(&address, &stop))
        })
        .collect()
}

fn idle(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(5));
    }
}

fn never_reads(address: &str, stop: &AtomicBool) {
    let mut socket = RawSocket::connect(address, "rude", "confirmed=false");
    let frame = calls(64);
    // Until it is cut off.
    while !stop.load(Ordering::Relaxed) && socket.send(&frame).is_ok() {}
    idle(stop);
}

fn sends_half_a_frame(address: &str, stop: &AtomicBool) {
    let mut socket = RawSocket::connect(address, "rude", "confirmed=false");
    // A masked binary frame that announces a hundred bytes. The server may have cut the connection: as good.
    let _ = socket.send_bytes(&[0x82, 0x80 | 100, 0, 0, 0, 0, 1, 2, 3]);
    idle(stop);
}

fn sends_half_a_head(address: &str, stop: &AtomicBool) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(b"GET /v1/database/rude/subscribe HTTP/1.1\r\nhost: x\r\n").expect("sent");
    idle(stop);
}

fn floods(address: &str, stop: &AtomicBool) {
    let frame = calls(256);
    while !stop.load(Ordering::Relaxed) {
        let mut socket = RawSocket::connect(address, "rude", "confirmed=false");
        // More than may wait: closed with 1013, or for not reading.
        for _ in 0..100 {
            if socket.send(&frame).is_err() {
                break;
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn leaves_at_once(address: &str, stop: &AtomicBool) {
    let frame = calls(64);
    while !stop.load(Ordering::Relaxed) {
        let mut socket = RawSocket::connect(address, "rude", "confirmed=false");
        // The server may be faster.
        let _ = socket.send(&frame);
        drop(socket);
        thread::sleep(Duration::from_millis(2));
    }
}

/// The good client's 99th percentile beside ten rude clients of the server at `address`.
async fn p99_beside_rude(server: &TestServer, database: &str, address: &str) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let mut rude = start_rude(address, &stop);
    rude.extend(start_rude(address, &stop));
    assert_eq!(rude.len(), 10);
    let disturbed = p99(server, database).await;
    stop.store(true, Ordering::Relaxed);
    rude.into_iter().for_each(|client| client.join().expect("a rude client only ends when told"));
    disturbed
}

/// Undisturbed is a client whose neighbours are as busy with another server: they take the cores, too, but none of its turns.
#[tokio::test]
async fn a_good_client_does_not_suffer_from_ten_rude_ones() {
    let (server, elsewhere) = (TestServer::start(), TestServer::start());
    let (good, _rude) = (server.publish_probe("good"), server.publish_probe("rude"));
    let _other_rude = elsewhere.publish_probe("rude");
    p99(&server, &good.name).await;
    let mut measured = Vec::new();
    for _ in 0..ATTEMPTS {
        let alone = p99(&server, &good.name).await;
        let undisturbed = alone.max(p99_beside_rude(&server, &good.name, elsewhere.address()).await);
        let disturbed = p99_beside_rude(&server, &good.name, server.address()).await;
        measured.push((alone, undisturbed, disturbed));
        if disturbed < P99_NOISE.max(undisturbed.mul_f64(P99_RATIO_MAX)) {
            return;
        }
    }
    panic!("99th percentiles alone, beside rude clients of another server, and beside its own: {measured:?}");
}
