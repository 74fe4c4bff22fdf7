//! `iceoryx2`'s request and response, with both sides polling: the fastest way it has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use iceoryx2::{port::client::Client, prelude::*};

use super::bare::MESSAGE_BYTES;

type Message = [u8; MESSAGE_BYTES];

/// No reply takes this long.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs `with` beside a server that answers with the request.
pub fn with_echo<T>(
    with: impl FnOnce(&mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let name = format!("tine-bench-{}", std::process::id());
    let stop = Arc::new(AtomicBool::new(false));
    let (served, stopped) = (name.clone(), stop.clone());
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = thread::spawn(move || serve(&served, &ready, &stopped));
    let outcome = is_ready.recv_timeout(LIMIT).context("the iceoryx2 server did not start").and_then(|()| {
        let node = NodeBuilder::new().create::<ipc::Service>()?;
        let service =
            node.service_builder(&name.as_str().try_into()?).request_response::<Message, Message>().open_or_create()?;
        let client = service.client_builder().create()?;
        with(&mut || call(&client))
    });
    stop.store(true, Ordering::Relaxed);
    server.join().map_err(|_| anyhow!("the iceoryx2 server panicked"))??;
    outcome
}

fn serve(name: &str, ready: &std::sync::mpsc::Sender<()>, stop: &AtomicBool) -> anyhow::Result<()> {
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let service = node.service_builder(&name.try_into()?).request_response::<Message, Message>().open_or_create()?;
    let server = service.server_builder().create()?;
    ready.send(()).context("nobody waits for the server")?;
    while !stop.load(Ordering::Relaxed) {
        if let Some(request) = server.receive()? {
            request.loan_uninit()?.write_payload(*request).send()?;
        }
        std::hint::spin_loop();
    }
    Ok(())
}

fn call(client: &Client<ipc::Service, Message, (), Message, ()>) -> anyhow::Result<()> {
    let pending = client.send_copy([5; MESSAGE_BYTES])?;
    let started = Instant::now();
    loop {
        // The clock is looked at seldom: it would cost as much as a look for the reply.
        for _ in 0..1_000 {
            if let Some(reply) = pending.receive()? {
                anyhow::ensure!(reply[0] == 5, "another message came back");
                return Ok(());
            }
            std::hint::spin_loop();
        }
        anyhow::ensure!(started.elapsed() < LIMIT, "iceoryx2 does not answer");
    }
}
