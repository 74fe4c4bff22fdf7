//! The raw client: requests encoded once, frames written and read with as few system calls as they allow. The same for both
//! servers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tine_ipc::ConnectOptions;
use tine_msgpack::{Writer, encode_request};
use tine_worldstate::service::{Revision, SCHEMA_HASH, WorldStateGetSiblingPath};

use super::servers::Side;

/// The block number that means the newest.
const LATEST: u32 = u32::MAX;

/// A reply must come within this time, or the run ends.
const REPLY_MAX: Duration = Duration::from_secs(120);

/// Leaves of one request while filling.
const FILL_LEAVES: u64 = 1_024;

const PUBLIC_DATA: u8 = 2;
const NULLIFIERS: u8 = 0;
const NOTE_HASHES: u8 = 1;
const MESSAGES: u8 = 3;
const ARCHIVE: u8 = 4;

/// A connection.
pub struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    taken: usize,
}

impl Client {
    /// Connects to a server.
    pub fn connect(side: &Side) -> anyhow::Result<Client> {
        let stream = UnixStream::connect(&side.socket)?;
        stream.set_read_timeout(Some(REPLY_MAX))?;
        Ok(Client { stream, received: Vec::new(), taken: 0 })
    }

    fn send(&mut self, frames: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(frames)?)
    }

    /// The next reply's payload, which must be no error.
    fn receive(&mut self) -> anyhow::Result<&[u8]> {
        loop {
            let rest = &self.received[self.taken..];
            if let Some((length, payload)) = rest.split_first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                if payload.len() >= length {
                    let start = self.taken + 4;
                    self.taken = start + length;
                    let payload = &self.received[start..self.taken];
                    let is_error = payload.get(2..19) == Some(&b"WsdbErrorResponse"[..])
                        || payload.get(3..20) == Some(&b"WsdbErrorResponse"[..]);
                    ensure!(!is_error, "the server refused: {}", String::from_utf8_lossy(payload));
                    return Ok(payload);
                }
            }
            self.received.drain(..self.taken);
            self.taken = 0;
            let filled = self.received.len();
            self.received.resize(filled + (256 << 10), 0);
            let count = self.stream.read(&mut self.received[filled..])?;
            self.received.truncate(filled + count);
            ensure!(count > 0, "the server closed the connection");
        }
    }

    fn ask(&mut self, frame: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.send(frame)?;
        Ok(self.receive()?.to_vec())
    }

    /// Makes a fork of the last block. Returns its number.
    pub fn create_fork(&mut self) -> anyhow::Result<u64> {
        let frame = request("CreateFork", 2, |fields| {
            fields.field("latest", &true);
            fields.field("blockNumber", &0u32);
        });
        let reply = self.ask(&frame)?;
        number_behind(&reply, b"forkId")
    }

    fn delete_fork(&mut self, fork: u64) -> anyhow::Result<()> {
        self.ask(&request("DeleteFork", 1, |fields| fields.field("forkId", &fork))).map(|_| ())
    }

    /// Makes forks that nobody ends.
    pub fn make_forks(&mut self, count: usize) -> anyhow::Result<()> {
        (0..count).try_for_each(|_| self.create_fork().map(|_| ()))
    }
}

/// The frame of a command with `count` fields.
fn request(name: &str, count: usize, fields: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::append_to(vec![0; 4]);
    writer.array(1);
    writer.array(2);
    writer.string(&format!("Wsdb{name}"));
    writer.map(count);
    fields(&mut writer);
    let mut frame = writer.into_bytes();
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

fn revision(fields: &mut Writer, fork: u64, include_uncommitted: bool) {
    fields.string("revision");
    fields.map(3);
    fields.field("forkId", &fork);
    fields.field("blockNumber", &LATEST);
    fields.field("includeUncommitted", &include_uncommitted);
}

fn element(number: u64) -> [u8; 32] {
    let mut element = [0; 32];
    // Spread over the field, so that neighbours are not inserted in order.
    element[8..16].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    element[24..].copy_from_slice(&number.to_be_bytes());
    element
}

fn element_field(fields: &mut Writer, name: &str, value: &[u8]) {
    fields.string(name);
    fields.bytes(value);
}

fn leaf(tree: u8, number: u64) -> Vec<u8> {
    let mut leaf = Writer::append_to(Vec::new());
    match tree {
        NULLIFIERS => {
            leaf.map(1);
            element_field(&mut leaf, "nullifier", &element(number));
        }
        PUBLIC_DATA => {
            leaf.map(2);
            element_field(&mut leaf, "slot", &element(number));
            element_field(&mut leaf, "value", &element(number));
        }
        _ => leaf.bytes(&element(number)),
    }
    leaf.into_bytes()
}

fn insertion(name: &str, tree: u8, fork: u64, numbers: std::ops::Range<u64>) -> Vec<u8> {
    request(name, 3, |fields| {
        fields.field("treeId", &u32::from(tree));
        fields.string("leaves");
        fields.array((numbers.end - numbers.start) as usize);
        numbers.for_each(|number| fields.bytes(&leaf(tree, number)));
        fields.field("forkId", &fork);
    })
}

/// Fills the trees that are read and makes a block of it.
pub fn fill(side: &mut Side, leaves: u64) -> anyhow::Result<()> {
    let mut client = Client::connect(side)?;
    for start in (0..leaves).step_by(FILL_LEAVES as usize) {
        let numbers = side.fresh + start..side.fresh + start + FILL_LEAVES.min(leaves - start);
        for tree in [NULLIFIERS, NOTE_HASHES, PUBLIC_DATA, MESSAGES] {
            client.ask(&insertion("AppendLeaves", tree, 0, numbers.clone()))?;
        }
    }
    side.fresh += leaves;
    client.ask(&request("Commit", 0, |_| ())).map(|_| ())
}

/// Sibling paths per second of the last block's note hash tree, over several connections with requests in flight each.
pub fn paths(side: &mut Side, round: Duration, connections: usize, in_flight: usize) -> anyhow::Result<f64> {
    let frames: Vec<Vec<u8>> = (0..1_024u64)
        .map(|at| {
            request("GetSiblingPath", 3, |fields| {
                fields.field("treeId", &u32::from(NOTE_HASHES));
                revision(fields, 0, false);
                fields.field("leafIndex", &(at * 7_919 % super::LEAVES));
            })
        })
        .collect();
    throughput(side, round, connections, in_flight, &frames)
}

/// The same over shared memory, with one request in flight each. As over the sockets, requests are encoded beforehand and
/// replies are looked at only for errors.
pub fn shared_memory_paths(side: &Side, round: Duration, connections: usize) -> anyhow::Result<f64> {
    let path = side.shared_memory.as_deref().context("the server has no shared memory")?;
    let payloads: Vec<Vec<u8>> = (0..1_024u64)
        .map(|at| {
            let revision = Revision { fork: 0, block: None, committed: true };
            let index = at * 7_919 % super::LEAVES;
            encode_request("WorldStateGetSiblingPath", &WorldStateGetSiblingPath { tree: NOTE_HASHES, revision, index })
        })
        .collect();
    let run = |number: usize| -> anyhow::Result<u64> {
        let client = tine_ipc::Client::connect(path, &ConnectOptions::new(SCHEMA_HASH))?;
        let (began, mut replies) = (Instant::now(), 0);
        while began.elapsed() < round {
            let payload = &payloads[(number * 131 + replies) % payloads.len()];
            let reply = client.call(payload, REPLY_MAX)?;
            ensure!(reply.len() > 42 * 32, "the server refused: {}", String::from_utf8_lossy(&reply));
            replies += 1;
        }
        Ok(replies as u64)
    };
    rate(connections, run)
}

/// Low leaves found per second in the last block's nullifier tree.
pub fn low_leaves(side: &mut Side, round: Duration, in_flight: usize) -> anyhow::Result<f64> {
    let frames: Vec<Vec<u8>> = (0..1_024u64)
        .map(|at| {
            request("FindLowLeaf", 3, |fields| {
                fields.field("treeId", &u32::from(NULLIFIERS));
                revision(fields, 0, false);
                element_field(fields, "key", &element(10_000_000 + at));
            })
        })
        .collect();
    throughput(side, round, 1, in_flight, &frames)
}

/// Replies per second over `connections`, each kept at `in_flight` requests, sent in halves.
fn throughput(
    side: &Side,
    round: Duration,
    connections: usize,
    in_flight: usize,
    frames: &[Vec<u8>],
) -> anyhow::Result<f64> {
    let run = |number: usize| -> anyhow::Result<u64> {
        let mut client = Client::connect(side)?;
        let mut next = number * 131;
        let mut batch = |count: usize| -> Vec<u8> {
            (0..count)
                .flat_map(|_| {
                    next += 1;
                    frames[next % frames.len()].clone()
                })
                .collect()
        };
        client.send(&batch(in_flight))?;
        let half = in_flight.div_ceil(2);
        let (began, mut replies) = (Instant::now(), 0);
        while began.elapsed() < round {
            for _ in 0..half {
                client.receive()?;
            }
            replies += half as u64;
            client.send(&batch(half))?;
        }
        (0..in_flight).try_for_each(|_| client.receive().map(|_| ()))?;
        Ok(replies)
    };
    rate(connections, run)
}

/// Replies per second of several connections, each on a thread that says how many it got.
fn rate(connections: usize, run: impl Fn(usize) -> anyhow::Result<u64> + Copy + Send + Sync) -> anyhow::Result<f64> {
    let began = Instant::now();
    let replies = std::thread::scope(|scope| -> anyhow::Result<u64> {
        let threads: Vec<_> = (0..connections).map(|number| scope.spawn(move || run(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the client does not panic")).sum()
    })?;
    Ok(replies as f64 / began.elapsed().as_secs_f64())
}

/// Microseconds of commands on a fresh fork of the last block, sent together.
fn on_fork<const COMMANDS: usize>(
    side: &mut Side,
    frames: impl FnOnce(u64, std::ops::Range<u64>) -> [Vec<u8>; COMMANDS],
    leaves: u64,
) -> anyhow::Result<f64> {
    let mut client = Client::connect(side)?;
    let fork = client.create_fork()?;
    let frames = frames(fork, side.fresh..side.fresh + leaves).concat();
    side.fresh += leaves;
    let began = Instant::now();
    client.send(&frames)?;
    for _ in 0..COMMANDS {
        client.receive()?;
    }
    let took = began.elapsed();
    client.delete_fork(fork)?;
    Ok(took.as_secs_f64() * 1e6)
}

/// Microseconds of inserting nullifiers one by one, with witnesses.
pub fn sequential_insert(side: &mut Side, leaves: u64) -> anyhow::Result<f64> {
    on_fork(side, |fork, numbers| [insertion("SequentialInsert", NULLIFIERS, fork, numbers)], leaves)
}

/// Microseconds of appending note hashes.
pub fn append(side: &mut Side, leaves: u64) -> anyhow::Result<f64> {
    on_fork(side, |fork, numbers| [insertion("AppendLeaves", NOTE_HASHES, fork, numbers)], leaves)
}

/// Microseconds of appending note hashes and reading the root that they give.
pub fn append_and_root(side: &mut Side, leaves: u64) -> anyhow::Result<f64> {
    let frames = |fork, numbers| {
        let root = request("GetTreeInfo", 2, |fields| {
            fields.field("treeId", &u32::from(NOTE_HASHES));
            revision(fields, fork, true);
        });
        [insertion("AppendLeaves", NOTE_HASHES, fork, numbers), root]
    };
    on_fork(side, frames, leaves)
}

/// Microseconds of making a fork and deleting it.
pub fn fork_cycle(side: &mut Side) -> anyhow::Result<f64> {
    const CYCLES: u32 = 20;
    let mut client = Client::connect(side)?;
    let began = Instant::now();
    for _ in 0..CYCLES {
        let fork = client.create_fork()?;
        client.delete_fork(fork)?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(CYCLES))
}

/// Microseconds of syncing a block with as many leaves of each kind. Its roots are learned on a fork before.
pub fn sync_block(side: &mut Side, leaves: u64) -> anyhow::Result<f64> {
    let mut client = Client::connect(side)?;
    let numbers = side.fresh..side.fresh + leaves;
    side.fresh += leaves;
    let fork = client.create_fork()?;
    let archive = |client: &mut Client| -> anyhow::Result<[u8; 32]> {
        let info = request("GetTreeInfo", 2, |fields| {
            fields.field("treeId", &u32::from(ARCHIVE));
            revision(fields, fork, true);
        });
        element_behind(&client.ask(&info)?, b"root")
    };
    let previous = archive(&mut client)?;
    for tree in [NULLIFIERS, NOTE_HASHES, MESSAGES] {
        client.ask(&insertion("AppendLeaves", tree, fork, numbers.clone()))?;
    }
    client.ask(&insertion("SequentialInsert", PUBLIC_DATA, fork, numbers.clone()))?;
    let state = client.ask(&request("GetStateReference", 1, |fields| revision(fields, fork, true)))?;
    let state = bytes_behind(&state, b"state")?.to_vec();
    let header = element(numbers.start);
    let raw_state = |name: &str, rest: &dyn Fn(&mut Writer)| {
        let mut fields = Writer::append_to(Vec::new());
        fields.string(name);
        let mut bytes = fields.into_bytes();
        bytes.extend_from_slice(&state);
        let mut fields = Writer::append_to(bytes);
        rest(&mut fields);
        fields.into_bytes()
    };
    let update = framed(
        "UpdateArchive",
        3,
        &raw_state("blockStateRef", &|fields| {
            element_field(fields, "blockHeaderHash", &header);
            fields.field("forkId", &fork);
        }),
    );
    client.ask(&update)?;
    let after = archive(&mut client)?;
    client.delete_fork(fork)?;
    let status = client.ask(&request("GetStatus", 0, |_| ()))?;
    let block = number_behind(&status, b"unfinalizedBlockNumber")? + 1;
    let sync = framed(
        "SyncBlock",
        9,
        &raw_state("blockStateRef", &|fields| {
            fields.field("blockNumber", &block);
            element_field(fields, "blockHeaderHash", &header);
            element_field(fields, "expectedArchiveRoot", &after);
            element_field(fields, "expectedPreviousArchiveRoot", &previous);
            for (name, tree) in [
                ("paddedNoteHashes", NOTE_HASHES),
                ("paddedL1ToL2Messages", MESSAGES),
                ("paddedNullifiers", NULLIFIERS),
                ("publicDataWrites", PUBLIC_DATA),
            ] {
                fields.string(name);
                fields.array(leaves as usize);
                for number in numbers.clone() {
                    let leaf = leaf(tree, number);
                    let mut bytes = std::mem::replace(fields, Writer::new()).into_bytes();
                    bytes.extend_from_slice(&leaf);
                    *fields = Writer::append_to(bytes);
                }
            }
        }),
    );
    let began = Instant::now();
    client.ask(&sync)?;
    Ok(began.elapsed().as_secs_f64() * 1e6)
}

/// The frame of a command whose fields are encoded.
fn framed(name: &str, count: usize, fields: &[u8]) -> Vec<u8> {
    let mut frame = request(name, count, |_| ());
    frame.extend_from_slice(fields);
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

fn bytes_behind<'a>(payload: &'a [u8], name: &[u8]) -> anyhow::Result<&'a [u8]> {
    let at = payload.windows(name.len()).position(|window| window == name).context("a field is missing")?;
    Ok(&payload[at + name.len()..])
}

fn element_behind(payload: &[u8], name: &[u8]) -> anyhow::Result<[u8; 32]> {
    // Two bytes say that 32 follow.
    let bytes = bytes_behind(payload, name)?.get(2..34).context("a reply is cut short")?;
    Ok(bytes.try_into().expect("it has 32 bytes"))
}

/// The unsigned number behind a field's name.
fn number_behind(payload: &[u8], name: &[u8]) -> anyhow::Result<u64> {
    let bytes = bytes_behind(payload, name)?;
    let (kind, rest) = bytes.split_first().context("a reply is cut short")?;
    let width = match kind {
        0..=0x7f => return Ok(u64::from(*kind)),
        0xcc..=0xcf => 1 << (kind - 0xcc),
        _ => anyhow::bail!("a number has another form"),
    };
    let digits = rest.get(..width).context("a reply is cut short")?;
    Ok(digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit)))
}
