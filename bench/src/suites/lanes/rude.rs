//! A good client beside ten that misbehave, on one server.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tine_client::{
    ClientError, ConnectOptions, Connection,
    protocol::{ClientMessage, ServerMessage, encode_client_message},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use crate::{Plan, load::connect, server::Server};

/// Calls of the good client, one in flight.
const CALLS: u32 = 25_000;
/// Calls before they count.
const WARM_UP_CALLS: u32 = 200;
/// Calls in one frame of a flood.
const FLOOD_FRAME: u32 = 64;
/// Time after which those that never read have filled every buffer on the way.
const SETTLE: Duration = Duration::from_secs(1);

/// The good client's 99th percentile with bad company over the one without.
pub(super) async fn good_client_ratio(plan: &Plan) -> anyhow::Result<f64> {
    let server = Server::start(&plan.binary)?;
    for name in ["good", "bad"] {
        server.publish(name)?;
    }
    p99_us(&server, WARM_UP_CALLS).await?;
    let undisturbed = p99_us(&server, CALLS).await?;
    let (url, token) = (server.url().to_owned(), server.token().to_owned());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    // On a thread of their own, so that they get in the server's way and not in the good client's.
    let company = std::thread::spawn(move || -> std::io::Result<()> {
        yield_the_cores();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let mut company = JoinSet::new();
            for _ in 0..2 {
                company.spawn(never_reads(url.clone(), token.clone()));
                company.spawn(half_a_frame(url.clone()));
                company.spawn(half_a_request(url.clone()));
                company.spawn(floods(url.clone(), token.clone()));
                company.spawn(leaves_with_replies_pending(url.clone(), token.clone()));
            }
            // An error says that the other side is gone, which is an end, too.
            let _ = ended.await;
        });
        Ok(())
    });
    tokio::time::sleep(SETTLE).await;
    let disturbed = p99_us(&server, CALLS).await?;
    drop(end);
    company.join().expect("the company does not panic")?;
    server.stop()?;
    Ok(disturbed / undisturbed)
}

/// In earnest rude clients have machines of their own: here they take only what nobody else wants.
fn yield_the_cores() {
    // SAFETY: takes plain numbers; process 0 with PRIO_PROCESS is the calling thread on Linux. Without the right the company is a
    // little louder, which only makes the case harder.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

async fn p99_us(server: &Server, calls: u32) -> anyhow::Result<f64> {
    let mut connection = connect(server, "good", false).await?;
    let mut times_us = Vec::with_capacity(calls as usize);
    for request_id in 0..calls {
        let started = Instant::now();
        connection.send(&[noop(request_id)]).await?;
        let reply = connection.recv().await?;
        times_us.push(started.elapsed().as_secs_f64() * 1e6);
        let is_answer = matches!(reply, ServerMessage::ReducerResult { request_id: id, .. } if id == request_id);
        anyhow::ensure!(is_answer, "not the reply: {reply:?}");
    }
    connection.close().await?;
    times_us.sort_by(f64::total_cmp);
    Ok(times_us[times_us.len() * 99 / 100])
}

async fn join(url: &str, token: &str) -> Result<Connection, ClientError> {
    Connection::connect(ConnectOptions::new(url, "bad").with_token(token).with_confirmed(false)).await
}

fn noop(request_id: u32) -> ClientMessage {
    ClientMessage::CallReducer { request_id, reducer: "noop".into(), args: Bytes::new() }
}

/// Sends calls and never reads a reply, until it is cut off; then it stays.
async fn never_reads(url: String, token: String) {
    let Ok(mut connection) = join(&url, &token).await else { return };
    let frame: Vec<ClientMessage> = (0..FLOOD_FRAME).map(noop).collect();
    while connection.send(&frame).await.is_ok() {
        tokio::task::yield_now().await;
    }
    std::future::pending::<()>().await;
}

/// Sends and reads as fast as it can.
async fn floods(url: String, token: String) {
    let Ok(connection) = join(&url, &token).await else { return };
    let (mut sender, mut receiver) = connection.split();
    let frame: Vec<ClientMessage> = (0..FLOOD_FRAME).map(noop).collect();
    let reading = async { while receiver.recv().await.is_ok() {} };
    let writing = async {
        while sender.send(&frame).await.is_ok() {
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    };
    tokio::join!(reading, writing);
}

fn host_of(url: &str) -> &str {
    url.strip_prefix("http://").unwrap_or(url)
}

/// Upgrades, sends the beginning of a frame, and says no more.
async fn half_a_frame(url: String) {
    let Ok(mut stream) = TcpStream::connect(host_of(&url)).await else { return };
    let mut payload = Vec::new();
    encode_client_message(&noop(0), &mut payload);
    let upgrade = format!(
        "GET /v1/database/bad/subscribe HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         sec-websocket-protocol: v3.bsatn.spacetimedb\r\n\r\n",
        host_of(&url)
    );
    // A masked binary frame whose length promises more than comes.
    let frame = [&[0x82, 0x80 | 100, 0, 0, 0, 0][..], &payload].concat();
    if stream.write_all(upgrade.as_bytes()).await.is_ok() && stream.write_all(&frame).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// Never finishes its request's head.
async fn half_a_request(url: String) {
    let Ok(mut stream) = TcpStream::connect(host_of(&url)).await else { return };
    if stream.write_all(b"GET /v1/database/bad/subscribe HTTP/1.1\r\nhost: x\r\n").await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// Comes, calls, and is gone before the replies.
async fn leaves_with_replies_pending(url: String, token: String) {
    let frame: Vec<ClientMessage> = (0..FLOOD_FRAME).map(noop).collect();
    loop {
        if let Ok(mut connection) = join(&url, &token).await {
            // It may have been cut off already, which is what it asks for.
            let _ = connection.send(&frame).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
