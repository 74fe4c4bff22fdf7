//! Every counter wraps: cursors of rings, generations of slots, ids and places of requests.

mod common;

use std::time::{Duration, Instant};

use common::*;
use tine_ipc::{Client, ConnectOptions, ListenOptions, StreamItem};

fn length() -> Duration {
    Duration::from_secs(if std::env::var_os("TINE_TESTS_LONG").is_some() { 60 } else { 2 })
}

#[test]
fn counters_wrap_unnoticed() {
    for name in NAMES {
        for completion_order in [false, true] {
            let options =
                ListenOptions { counters_start: u64::MAX - 2_000, ring_bytes: 8192, ..ListenOptions::new(SCHEMA) };
            let server = Server::start(name, options);
            let started = Instant::now();
            let mut connections = 0;
            while started.elapsed() < length() / 4 || connections < 20 {
                // Connections one after another use one slot, whose generation wraps; each one's requests wrap their ids and places.
                let options =
                    ConnectOptions { completion_order, first_id: u64::MAX - 20, ..ConnectOptions::new(SCHEMA) };
                let client = Client::connect(&server.path, &options).expect("connected");
                connections += 1;
                let late: Vec<_> = (0..8u8).map(|pause| client.call_async(&[LATER, pause % 3])).collect();
                let calls = if connections % 16 == 0 { 2_100 } else { 40 };
                for number in 0..calls as u32 {
                    let mut request = vec![ECHO];
                    request.extend_from_slice(&number.to_le_bytes());
                    request.resize(5 + (number as usize * 37) % 700, number as u8);
                    assert!(client.call(&request, SOON).expect("a reply") == request);
                }
                let stream = client.stream(&number_request(COUNT, 30), 4, SOON).expect("opened");
                for item in 0..30u32 {
                    assert_eq!(stream.next(SOON), Ok(StreamItem::Item(item.to_le_bytes().to_vec())));
                }
                let large = client.call(&number_request(BYTES, 50_000), SOON).expect("a reply");
                assert!(large == vec![7; 50_000]);
                drop(late);
            }
        }
    }
}

#[test]
fn generations_wrap() {
    let options = ListenOptions { counters_start: u64::from(u32::MAX - 20), ..ListenOptions::new(SCHEMA) };
    let server = Server::start("a.shm", options);
    for number in 0..60u8 {
        let client = server.client();
        assert_eq!(client.call(&[ECHO, number], SOON), Ok(vec![ECHO, number]));
        drop(client);
        eventually("the slot", || server.reactor.handle().counters().connections == 0);
    }
}
