//! A generated client beside one that sends the same bytes, written beforehand, and looks at no reply. Both call the same generated
//! server over shared memory.

use std::{sync::Arc, time::Duration};

use tine_ipc::{Client, ConnectOptions, ListenOptions, typed::Responder};
use tine_msgpack::encode_request;

use super::{
    bare::MESSAGE_BYTES,
    cases::{LIMIT, Pair, Server, p50_us},
};

mod relay {
    //! The generated code of `relay.jsonc`.
    #![allow(dead_code, missing_docs)]

    include!(concat!(env!("OUT_DIR"), "/relay.rs"));
}

use relay::{RelayClient, RelayHandler, RelayPass, RelayPassResponse, RelayServer, SCHEMA_HASH};

struct Relay;

impl RelayHandler for Relay {
    fn pass(&self, request: RelayPass, responder: Responder<RelayPassResponse>) {
        responder.ok(&RelayPassResponse { data: request.data });
    }
}

/// Median time of a call in microseconds: generated, and raw.
pub fn overhead(length: Duration) -> anyhow::Result<Pair> {
    let server = Server::start("relay.shm", Arc::new(RelayServer(Relay)), ListenOptions::new(SCHEMA_HASH))?;
    let request = RelayPass { data: vec![7; MESSAGE_BYTES] };
    let typed = RelayClient::connect(server.path())?;
    let value = p50_us(length, || {
        anyhow::ensure!(typed.pass_within(&request, LIMIT)?.data.len() == MESSAGE_BYTES, "another reply came");
        Ok(())
    })?;
    drop(typed);
    let raw = Client::connect(server.path(), &ConnectOptions::new(SCHEMA_HASH))?;
    let payload = encode_request("RelayPass", &request);
    let peer = p50_us(length, || {
        raw.call(&payload, LIMIT)?;
        Ok(())
    })?;
    Ok(Pair { value, peer })
}
