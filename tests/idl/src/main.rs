//! The echo service in Rust: `serve PATH`, `client PATH FIXTURES` and `fixtures FIXTURES`.

use std::{
    env, fs,
    future::Future,
    io::{Read, stdin},
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use tine_idl_tests::{
    echo::*,
    fixtures::{self, recode},
    service::Echo,
};
use tine_ipc::{ListenOptions, Reactor, ReactorOptions, typed::ServiceError};
use tine_msgpack::{Reader, Value, decode_message, encode_request};

const LIMIT: Duration = Duration::from_secs(10);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", path] => serve(Path::new(path)),
        ["client", path, file] => client(Path::new(path), &read(file)),
        ["fixtures", file] => println!("fixtures {}", fixtures::check(&read(file))),
        _ => panic!("serve PATH, client PATH FIXTURES or fixtures FIXTURES"),
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(file).expect("the fixtures are there")
}

/// Serves until standard input ends.
fn serve(path: &Path) {
    let mut reactor = Reactor::new(ReactorOptions::default()).expect("there are descriptors");
    let handler = Arc::new(EchoServer(Echo::start()));
    reactor.listen(path, ListenOptions::new(SCHEMA_HASH), handler).expect("the path is free");
    let running = reactor.spawn("echo").expect("there are threads");
    println!("ready");
    let mut rest = Vec::new();
    stdin().read_to_end(&mut rest).expect("standard input can be read");
    running.handle().shutdown(Duration::from_secs(1));
    running.join().expect("the reactor ended in order");
}

fn client(path: &Path, text: &str) {
    let client = EchoClient::connect(path).expect("the server is there");
    let fixtures = fixtures::parse(text);
    let exact = fixtures.iter().filter(|fixture| fixture.kind == "exact");
    let mut count = 0;
    for fixture in exact {
        let Some(response) = echoed(&client, &fixture.name, &fixture.bytes) else { continue };
        // Both have the same fields, so what differs is the names of the messages.
        let fields = &response[response.len() - (fixture.bytes.len() - fixture.name.len() - 3)..];
        assert!(fixture.bytes.ends_with(fields), "{} {:x?}", fixture.name, fixture.bytes);
        assert_eq!(recode(&format!("{}Response", fixture.name), &response).as_ref(), Ok(&response));
        count += 1;
    }
    large_and_many(&client);
    match client.fail_within(&EchoFail { message: "no, because ü".to_owned() }, LIMIT) {
        Err(ServiceError::Service { message }) => assert_eq!(message, "no, because ü"),
        other => panic!("`fail` did not fail: {other:?}"),
    }
    block_on(streams(&client));
    println!("client {count}");
}

/// The response to a fixture's request, encoded.
fn echoed(client: &EchoClient, name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    fn fields<T: Value>(bytes: &[u8]) -> T {
        let mut reader = Reader::new(bytes);
        tine_msgpack::read_request(&mut reader).expect("it is a request");
        decode_message(&mut reader).expect("the fixture is exact")
    }
    fn done<T: Value>(name: &str, response: Result<T, ServiceError>) -> Option<Vec<u8>> {
        let response = response.unwrap_or_else(|error| panic!("{name}: {error}"));
        Some(tine_msgpack::encode_response(&format!("{name}Response"), &response))
    }
    match name {
        "EchoScalars" => done(name, client.scalars_within(&fields(bytes), LIMIT)),
        "EchoOptionals" => done(name, client.optionals_within(&fields(bytes), LIMIT)),
        "EchoLists" => done(name, client.lists_within(&fields(bytes), LIMIT)),
        "EchoBytes" => done(name, client.bytes_within(&fields(bytes), LIMIT)),
        "EchoSame" => done(name, block_on(client.same(&fields(bytes)))),
        "EchoNothing" => done(name, client.nothing_within(&fields(bytes), LIMIT)),
        _ => None,
    }
}

fn large_and_many(client: &EchoClient) {
    let data = vec![7; 3 << 20];
    let response = client.bytes_within(&EchoBytes { data: data.clone() }, LIMIT).expect("large messages pass");
    assert!(response.data == data, "large bytes came back different");
    let threads: Vec<_> = (0..4u8)
        .map(|first| {
            let client = client.clone();
            thread::spawn(move || {
                for second in 0..50 {
                    let response = client.same_within(&EchoSame { data: vec![first, second] }, LIMIT);
                    assert_eq!(response.expect("it is answered").data, [first, second]);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no thread failed"));
    assert!(encode_request("EchoBytes", &EchoBytes { data }).len() > 3 << 20);
}

async fn streams(client: &EchoClient) {
    let mut stream = client.count(&EchoCount { from: 5, times: Some(1000) }, 16).expect("the stream starts");
    for value in 5..1005 {
        assert_eq!(stream.next().await.expect("an item"), Some(EchoCountResponse { value }));
    }
    assert_eq!(stream.next().await.expect("the end"), None);
    let mut endless = client.count(&EchoCount { from: 0, times: None }, 4).expect("the stream starts");
    for value in 0..10 {
        assert_eq!(endless.next_within(LIMIT).expect("an item"), Some(EchoCountResponse { value }));
    }
    drop(endless);
    client.nothing(&EchoNothing {}).await.expect("the connection goes on");
}

/// Runs a future on this thread; every one here ends within [`LIMIT`], or the program fails.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let until = std::time::Instant::now() + LIMIT;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(std::time::Instant::now() < until, "no answer in time");
        thread::park_timeout(LIMIT);
    }
}
