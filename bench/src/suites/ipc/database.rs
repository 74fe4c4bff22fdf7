//! Rows of a database by primary key, from a generated client over shared memory: the server is a process of its own, as in use.

use std::time::Duration;

use anyhow::ensure;
use tine_local::{TineClient, TineGet, TineInsert, TineOpenFork};

use super::cases::{LIMIT, p50_us};
use crate::server::{Binary, Server};

/// Rows in the table.
const ROWS: u64 = 10_000;
/// Coprime to the number of rows: the keys of successive calls are far apart.
const STRIDE: u64 = 7_919;
const DATABASE: &str = "local";

/// A server with rows, and a client. Fields are dropped in order: the client goes first.
pub struct Database {
    client: TineClient,
    fork: u32,
    _server: Server,
    _directory: tempfile::TempDir,
}

/// A row in BSATN.
fn row(id: u64) -> Vec<u8> {
    let name = format!("item {id}");
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&7u32.to_le_bytes());
    bytes
}

impl Database {
    pub fn start(binary: &Binary) -> anyhow::Result<Database> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("bench.shm");
        let server = Server::start_with(binary, &["--ipc".as_ref(), path.as_os_str()])?;
        server.publish(DATABASE)?;
        let client = TineClient::connect(&path)?;
        let fork = client.open_fork_within(&TineOpenFork { address: DATABASE.to_owned() }, LIMIT)?.fork;
        let rows = (0..ROWS).map(row).collect();
        client.insert_within(&TineInsert { fork, table: "item".to_owned(), rows, json: false }, LIMIT)?;
        Ok(Database { client, fork, _server: server, _directory: directory })
    }

    /// Median time of a read in order with writes, in microseconds.
    pub fn get_p50_us(&self, length: Duration) -> anyhow::Result<f64> {
        let mut id = 0;
        p50_us(length, || {
            id = (id + STRIDE) % ROWS;
            let key = id.to_le_bytes().to_vec();
            let get =
                TineGet { fork: self.fork, table: "item".to_owned(), index: None, key, json: false, committed: false };
            let rows = self.client.get_within(&get, LIMIT)?.rows;
            ensure!(rows.len() == 1 && rows[0][..8] == id.to_le_bytes(), "another row came");
            Ok(())
        })
    }
}
