//! What the client does when the other side misbehaves. The peer here is a real socket with a real
//! WebSocket handshake that then sends whatever the case wants.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tine_client::{ClientError, ConnectOptions, Connection, http::HttpClient, protocol::ServerMessage};
use tine_types::{ConnectionId, Identity, protocol::encode_server_message};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        http::HeaderValue,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

const SUBPROTOCOL: &str = "v3.bsatn.spacetimedb";

/// A peer that does the handshake and then runs `act` on the socket of its one client.
async fn peer<F, R>(act: F) -> ConnectOptions
where
    F: FnOnce(WebSocketStream<TcpStream>) -> R + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        #[allow(clippy::result_large_err)] // The signature is the library's.
        let choose = |_: &Request, mut response: Response| {
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
            Ok(response)
        };
        act(accept_hdr_async(stream, choose).await.expect("a handshake")).await;
    });
    let mut options = ConnectOptions::new(url, "db");
    options.connect_timeout = Duration::from_millis(400);
    options.request_timeout = Duration::from_millis(150);
    options.silence_limit = Duration::from_millis(300);
    options
}

/// A peer that sends raw bytes over TCP, without a handshake.
async fn raw_peer(reply: &'static [u8]) -> ConnectOptions {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(reply).await;
        let _ = stream.shutdown().await;
        // Read on: closing with unread bytes would reset the connection under the reply.
        while matches!(stream.read(&mut request).await, Ok(read) if read > 0) {}
    });
    let mut options = ConnectOptions::new(url, "db");
    options.connect_timeout = Duration::from_millis(400);
    options
}

fn frame(messages: &[ServerMessage]) -> Message {
    let mut payload = vec![0];
    messages.iter().for_each(|message| encode_server_message(message, &mut payload));
    Message::Binary(payload.into())
}

fn greeting() -> ServerMessage {
    ServerMessage::InitialConnection {
        identity: Identity::from_claims("issuer", "subject"),
        connection_id: ConnectionId::new(7),
        token: "token".to_owned(),
    }
}

fn refusal(request_id: Option<u32>) -> ServerMessage {
    ServerMessage::SubscriptionError { request_id, query_set_id: 1, error: "no such table".to_owned() }
}

async fn connect_error(options: ConnectOptions) -> ClientError {
    Connection::connect(options).await.expect_err("it must not connect")
}

#[tokio::test]
async fn many_messages_in_one_frame_arrive_in_order() {
    let options = peer(async |mut socket| {
        let errors: Vec<_> = (0..100).map(|id| refusal(Some(id))).collect();
        let mut messages = vec![greeting()];
        messages.extend(errors);
        socket.send(frame(&messages)).await.expect("sent");
        socket.next().await;
    })
    .await;
    let mut connection = Connection::connect(options).await.expect("connected");
    assert_eq!(connection.connection_id(), ConnectionId::new(7));
    assert_eq!(connection.token(), "token");
    let first = connection.recv().await.expect("a message");
    let mut rest = Vec::new();
    assert_eq!(connection.recv_batch(&mut rest).await.expect("the rest"), 99);
    let ids: Vec<_> = [first]
        .iter()
        .chain(&rest)
        .map(|message| match message {
            ServerMessage::SubscriptionError { request_id, .. } => request_id.expect("it has one"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_sets_other_messages_aside() {
    let options = peer(async |mut socket| {
        socket.send(frame(&[greeting()])).await.expect("sent");
        socket.next().await;
        socket.send(frame(&[refusal(Some(40)), refusal(Some(0)), refusal(None)])).await.expect("sent");
        socket.next().await;
    })
    .await;
    let mut connection = Connection::connect(options).await.expect("connected");
    let error = connection.subscribe(1, &["SELECT * FROM nothing"]).await.expect_err("refused");
    assert!(matches!(&error, ClientError::Query { message } if message == "no such table"), "{error}");
    for expected in [Some(40), None] {
        match connection.recv().await.expect("set aside or next") {
            ServerMessage::SubscriptionError { request_id, .. } => assert_eq!(request_id, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nonsense_is_an_error() {
    let cases: [Message; 6] = [
        Message::Binary(Bytes::from_static(&[0, 250, 1, 2, 3])),
        Message::Binary(Bytes::from_static(&[0, 0, 1, 2])),
        Message::Binary(Bytes::from_static(&[0])),
        Message::Binary(Bytes::new()),
        Message::Binary(Bytes::from_static(&[2, 1, 2, 3])),
        Message::Text("hello".into()),
    ];
    for case in cases {
        let shown = format!("{case:?}");
        let options = peer(async move |mut socket| {
            socket.send(case).await.expect("sent");
            socket.next().await;
        })
        .await;
        assert_eq!(connect_error(options).await.code(), "TN0807", "{shown}");
    }
}

#[tokio::test]
async fn a_bad_message_costs_none_before_it() {
    let options = peer(async |mut socket| {
        let mut payload = vec![0];
        encode_server_message(&greeting(), &mut payload);
        encode_server_message(&refusal(Some(1)), &mut payload);
        payload.extend([99, 1, 2]);
        socket.send(Message::Binary(payload.into())).await.expect("sent");
        socket.next().await;
    })
    .await;
    let mut connection = Connection::connect(options).await.expect("connected");
    let mut messages = Vec::new();
    let error = connection.recv_batch(&mut messages).await.expect_err("the third is nonsense");
    assert_eq!((messages.len(), error.code()), (1, "TN0807"));
}

#[tokio::test]
async fn silence_ends_every_wait() {
    let greeted = peer(async |mut socket| {
        socket.send(frame(&[greeting()])).await.expect("sent");
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    let options = greeted.await;
    let mut connection = Connection::connect(options).await.expect("connected");
    let start = Instant::now();
    assert_eq!(
        connection.recv_until(Instant::now() + Duration::from_millis(50)).await.expect_err("nothing").code(),
        "TN0803"
    );
    assert_eq!(connection.recv().await.expect_err("nothing").code(), "TN0804");
    assert_eq!(connection.one_off_query("SELECT * FROM x").await.expect_err("nothing").code(), "TN0803");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());

    let mute = peer(async |_socket| tokio::time::sleep(Duration::from_secs(5)).await).await;
    assert!(matches!(connect_error(mute).await.code(), "TN0803" | "TN0804"));
}

#[tokio::test]
async fn closes_carry_code_and_reason() {
    let options = peer(async |mut socket| {
        socket.send(frame(&[greeting()])).await.expect("sent");
        let close = CloseFrame { code: CloseCode::from(1013), reason: "too many requests".into() };
        socket.close(Some(close)).await.expect("closed");
        socket.next().await;
    })
    .await;
    let mut connection = Connection::connect(options).await.expect("connected");
    let error = connection.recv().await.expect_err("closed");
    assert!(
        matches!(&error, ClientError::Closed { close_code: Some(1013), reason } if reason == "too many requests"),
        "{error}"
    );

    let dropped = peer(async |socket| drop(socket)).await;
    assert!(matches!(connect_error(dropped).await, ClientError::Closed { close_code: None, .. }));
}

#[tokio::test]
async fn refused_handshakes_carry_the_servers_words() {
    let options =
        raw_peer(b"HTTP/1.1 404 Not Found\r\ntine-error: TN0601\r\ncontent-length: 14\r\n\r\n`db` not found").await;
    let error = connect_error(options).await;
    assert_eq!(
        (error.status(), error.shown_code(), error.to_string().as_str()),
        (Some(404), "TN0601", "`db` not found")
    );

    let other_protocol = raw_peer(b"SSH-2.0-OpenSSH_9.9\r\n").await;
    assert!(matches!(connect_error(other_protocol).await.code(), "TN0807" | "TN0802"));

    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    assert_eq!(connect_error(ConnectOptions::new(format!("http://{free}"), "db")).await.code(), "TN0802");
}

#[tokio::test]
async fn http_failures_have_codes() {
    let refused = raw_peer(b"HTTP/1.1 530 \r\ntine-error: TN0505\r\ncontent-length: 4\r\n\r\nboom").await;
    let nonsense = raw_peer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{]").await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    tokio::task::spawn_blocking(move || {
        let call = |url: &str| {
            HttpClient::new(url).expect("an address").call("db", "f", &serde_json::json!([])).expect_err("it fails")
        };
        let error = call(&refused.url);
        assert_eq!((error.status(), error.shown_code(), error.to_string().as_str()), (Some(530), "TN0505", "boom"));
        assert_eq!(call(&nonsense.url).code(), "TN0810");
        assert_eq!(call(&format!("http://{free}")).code(), "TN0802");
    })
    .await
    .expect("it ran");
}
