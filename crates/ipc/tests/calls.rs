//! Calls of every form over both transports.

mod common;

use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::time::Duration;

use common::*;
use tine_ipc::{CallError, Client, ConnectOptions, ListenOptions, StreamItem};

fn each(check: impl Fn(&Server)) {
    for name in NAMES {
        check(&Server::start(name, ListenOptions::new(SCHEMA)));
    }
}

#[test]
fn replies_errors_and_lost_requests() {
    each(|server| {
        let client = server.client();
        for size in [0, 1, 64, 4_000, 40_000, 65_536, 300_000, 5_000_000] {
            let request = vec![0; size];
            assert!(client.call(&request, SOON).expect("a reply") == request, "{size}");
        }
        let remote = CallError::Remote { code: "APP1".into(), message: "as you wish".into() };
        assert_eq!(client.call(&[FAIL], SOON), Err(remote));
        for lost in [DROP, PANIC] {
            assert_eq!(client.call(&[lost], SOON).expect_err("lost").code(), "TN0926");
        }
        assert_eq!(client.call(&[LATER, 3], SOON), Ok(vec![LATER, 3]));
        assert_eq!(client.call(&[NEVER], Duration::from_millis(20)), Err(CallError::TimedOut));
        assert_eq!(client.closed(), None);
        drop(client);
        server.expect_event("closed TN0940");
        assert_eq!(server.reactor.handle().counters().connections, 0);
    });
}

#[test]
fn a_reply_that_comes_too_late_reaches_nobody() {
    each(|server| {
        let options = ConnectOptions { completion_order: true, ..ConnectOptions::new(SCHEMA) };
        let client = Client::connect(&server.path, &options).expect("connected");
        assert_eq!(client.call(&[LATER, 30], Duration::from_millis(5)), Err(CallError::TimedOut));
        for number in 0..200u8 {
            assert_eq!(client.call(&[ECHO, number], SOON), Ok(vec![ECHO, number]));
            std::thread::sleep(Duration::from_micros(300));
        }
    });
}

#[test]
fn order_is_that_of_requests_or_of_completion() {
    each(|server| {
        for completion_order in [false, true] {
            let options = ConnectOptions { completion_order, ..ConnectOptions::new(SCHEMA) };
            let client = Client::connect(&server.path, &options).expect("connected");
            let (done, results) = mpsc::channel();
            for pause in [100, 50, 0] {
                let done = done.clone();
                let submitted = client.submit(&[LATER, pause], move |result| done.send(result).expect("heard"));
                submitted.expect("submitted");
            }
            let order: Vec<u8> =
                (0..3).map(|_| results.recv_timeout(SOON).expect("result").expect("reply")[1]).collect();
            assert_eq!(order, if completion_order { [0, 50, 100] } else { [100, 50, 0] });
        }
    });
}

#[test]
fn many_threads_share_a_connection() {
    each(|server| {
        let client = server.client();
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                let client = client.clone();
                scope.spawn(move || {
                    for number in 0..500u32 {
                        let kind = if number % 50 == 0 { LATER } else { ECHO };
                        let mut request = vec![kind, 1, thread];
                        request.extend_from_slice(&number.to_le_bytes());
                        if number % 97 == 0 {
                            request.resize(100_000, 1);
                        }
                        assert!(client.call(&request, SOON).expect("a reply") == request);
                    }
                });
            }
            let client = client.clone();
            scope.spawn(move || {
                let queue = client.completions().expect("queue");
                for token in 0..500u64 {
                    queue.submit(token, &token.to_le_bytes().map(|byte| byte | 0x80)).expect("submitted");
                }
                for token in 0..500 {
                    let completion = queue.poll(SOON).expect("an outcome");
                    assert_eq!(completion.token, token);
                    completion.result.expect("a reply");
                }
                assert!(queue.poll(Duration::ZERO).is_none());
            });
        });
    });
}

#[test]
fn outcomes_are_polled_by_threads_and_by_descriptor() {
    each(|server| {
        let options = ConnectOptions { completion_order: true, ..ConnectOptions::new(SCHEMA) };
        let client = Client::connect(&server.path, &options).expect("connected");
        let queue = client.completions().expect("queue");
        assert!(queue.poll(Duration::from_millis(1)).is_none());
        // Without waiting, whoever asks reads.
        queue.submit(7, &[LATER, 2]).expect("submitted");
        let mut polled = None;
        eventually("an outcome", || {
            polled = queue.poll(Duration::ZERO);
            polled.is_some()
        });
        assert_eq!(polled.map(|done| (done.token, done.result)), Some((7, Ok(vec![LATER, 2]))));
        // Two threads poll while a third calls: each outcome goes to one of them.
        std::thread::scope(|scope| {
            let pollers = [0, 1].map(|_| {
                scope.spawn(|| (0..200).map(|_| queue.poll(SOON).expect("an outcome").token).collect::<Vec<_>>())
            });
            for token in 0..400 {
                queue.submit(token, &[if token % 40 == 0 { LATER } else { ECHO }, 1]).expect("submitted");
                if token % 10 == 0 {
                    assert_eq!(client.call(&[ECHO, 9], SOON), Ok(vec![ECHO, 9]));
                }
            }
            let mut tokens: Vec<_> = pollers.into_iter().flat_map(|poller| poller.join().expect("no panic")).collect();
            tokens.sort_unstable();
            assert_eq!(tokens, (0..400).collect::<Vec<_>>());
        });
        // Once the descriptor is known, it tells of what was submitted before and after.
        queue.submit(1, &[LATER, 1]).expect("submitted");
        for token in [1, 2] {
            let mut descriptor = libc::pollfd { fd: queue.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one descriptor, which lives on this stack.
            assert_eq!(unsafe { libc::poll(&mut descriptor, 1, SOON.as_millis() as libc::c_int) }, 1);
            assert_eq!(queue.poll(Duration::ZERO).map(|done| done.token), Some(token));
            // SAFETY: as above.
            assert_eq!(unsafe { libc::poll(&mut descriptor, 1, 0) }, 0, "nothing waits");
            queue.submit(2, &[LATER, 1]).expect("submitted");
        }
        eventually("the last", || queue.poll(Duration::ZERO).is_some());
        // What is in flight when the connection ends fails, and then there is nothing to wait for but the limit.
        queue.submit(3, &[NEVER]).expect("submitted");
        server.reactor.handle().shutdown(Duration::ZERO);
        let done = queue.poll(SOON).expect("an outcome");
        assert_eq!((done.token, done.result.expect_err("lost").code()), (3, "TN0920"));
        assert!(queue.poll(Duration::from_millis(5)).is_none());
    });
}

#[test]
fn several_threads_take_the_items_of_one_stream() {
    each(|server| {
        let client = server.client();
        let stream = client.stream(&number_request(COUNT, 3_000), 8, SOON).expect("opened");
        let take = || {
            let mut items = Vec::new();
            loop {
                match stream.next(SOON).expect("an item") {
                    StreamItem::Item(item) => items.push(item),
                    StreamItem::End(_) => return items.len(),
                }
            }
        };
        let taken = std::thread::scope(|scope| {
            [0, 1, 2]
                .map(|_| scope.spawn(take))
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum::<usize>()
        });
        assert_eq!(taken, 3_000);
    });
}

#[test]
fn futures_and_callbacks() {
    use std::future::Future;
    use std::task::{Context, Poll, Wake};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    each(|server| {
        let client = server.client();
        let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
        let mut context = Context::from_waker(&waker);
        for pause in [0, 5] {
            let mut future = std::pin::pin!(client.call_async(&[LATER, pause]));
            let result = loop {
                match future.as_mut().poll(&mut context) {
                    Poll::Ready(result) => break result,
                    Poll::Pending => std::thread::park_timeout(SOON),
                }
            };
            assert_eq!(result, Ok(vec![LATER, pause]));
        }
        drop(client.call_async(&[LATER, 1]));
        assert_eq!(client.call(&[ECHO], SOON), Ok(vec![ECHO]));
    });
}

#[test]
fn items_of_several_threads_arrive_in_the_order_sent() {
    each(|server| {
        let client = server.client();
        let stream = client.stream(&number_request(TURNS, 9), 16, SOON).expect("opened");
        for item in 0..9u32 {
            assert_eq!(stream.next(SOON), Ok(StreamItem::Item(item.to_le_bytes().to_vec())));
        }
        assert_eq!(stream.next(SOON), Ok(StreamItem::End(b"done".to_vec())));
    });
}

#[test]
fn streams_with_credit_cancel_and_end() {
    each(|server| {
        let client = server.client();
        let stream = client.stream(&number_request(COUNT, 1_000), 7, SOON).expect("opened");
        for item in 0..1_000u32 {
            assert_eq!(stream.next(SOON), Ok(StreamItem::Item(item.to_le_bytes().to_vec())));
        }
        assert_eq!(stream.next(SOON), Ok(StreamItem::End(b"done".to_vec())));
        assert_eq!(stream.next(SOON), Ok(StreamItem::End(b"done".to_vec())));
        // A stream that nobody reads holds up nobody, and ends when it is dropped.
        let idle = client.stream(&number_request(COUNT, 1_000_000), 3, SOON).expect("opened");
        assert_eq!(client.call(&[ECHO], SOON), Ok(vec![ECHO]));
        assert_eq!(idle.next(SOON), Ok(StreamItem::Item(0u32.to_le_bytes().to_vec())));
        drop(idle);
        let watched = client.stream(&number_request(COUNT, 100), 10, SOON).expect("opened");
        let (ready, wakes) = mpsc::channel();
        watched.on_ready(move || {
            let _ = ready.send(());
        });
        let mut items = 0;
        loop {
            match watched.try_next() {
                Some(Ok(StreamItem::Item(_))) => items += 1,
                Some(end) => break assert_eq!(end, Ok(StreamItem::End(b"done".to_vec()))),
                None => wakes.recv_timeout(SOON).expect("a wake-up"),
            }
        }
        assert_eq!(items, 100);
        // A call for a stream to what has none, and the other way round.
        let plain = client.stream(&[FAIL], 1, SOON).expect("opened");
        assert_eq!(plain.next(SOON).expect_err("an error").code(), "TN0923");
        assert_eq!(client.call(&number_request(COUNT, 3), SOON).expect_err("no stream").code(), "TN0927");
    });
}

#[test]
fn sizes_have_limits() {
    for name in NAMES {
        let options = ListenOptions { message_bytes_max: 1_000_000, ..ListenOptions::new(SCHEMA) };
        let server = Server::start(name, options);
        let small = ConnectOptions { message_bytes_max: 1_000, ..ConnectOptions::new(SCHEMA) };
        let client = Client::connect(&server.path, &small).expect("connected");
        assert_eq!(client.call(&vec![ECHO; 1_000_001], SOON).expect_err("too large").code(), "TN0922");
        assert_eq!(client.call(&number_request(BYTES, 1_001), SOON).expect_err("too large").code(), "TN0922");
        assert_eq!(client.call(&number_request(BYTES, 1_000), SOON).map(|reply| reply.len()), Ok(1_000));
    }
}

#[test]
fn too_many_requests_are_refused_and_the_rest_goes_on() {
    for name in NAMES {
        let server = Server::start(name, ListenOptions { requests_max: 4, ..ListenOptions::new(SCHEMA) });
        let client = server.client();
        let (done, results) = mpsc::channel();
        for _ in 0..4 {
            let done = done.clone();
            client.submit(&[LATER, 100], move |result| done.send(result).expect("heard")).expect("submitted");
        }
        assert_eq!(client.call(&[ECHO], SOON).expect_err("full").code(), "TN0925");
        for _ in 0..4 {
            results.recv_timeout(SOON).expect("result").expect("reply");
        }
        assert_eq!(client.call(&[ECHO], SOON), Ok(vec![ECHO]));
    }
}
