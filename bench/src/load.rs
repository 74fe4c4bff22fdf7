//! Drivers: many calls in flight, or one at a time.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;
use tine_client::{
    ConnectOptions, Connection, Frame,
    protocol::{ClientMessage, ReducerOutcome, ServerMessage},
};
use tine_types::bsatn::BsatnWrite;

use crate::server::Server;

/// Calls in flight on the one connection of a throughput case.
pub const IN_FLIGHT: usize = 1024;
/// Calls sent together.
pub const BATCH: usize = 64;
/// Bytes of one frame of calls, with some room.
const FRAME_BYTES: usize = BATCH * 80;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A reducer that does nothing.
    Noop,
    /// A reducer that inserts one row of three columns.
    Insert,
    /// A reducer that finds one of the rows inserted before by its primary key, and updates it.
    FindUpdate,
    /// A reducer of the bundle that inserts what the next ones read; once.
    FillLeaves,
    /// A reducer of the bundle that reads a thousand rows by an index.
    ScanLeaves,
    /// A reducer of the bundle that decodes the same rows from memory.
    DecodeLeaves,
}

/// A connection that makes calls and checks their replies.
pub struct Caller {
    connection: Connection,
    first_row: u64,
    /// Id of the next row; rows of one database never collide.
    next_row: u64,
    next_request: u32,
    replies: Vec<ServerMessage>,
}

impl Caller {
    /// Connects to a database. Callers of one database need distinct `first_row`s, far apart.
    pub async fn connect(server: &Server, database: &str, confirmed: bool, first_row: u64) -> anyhow::Result<Caller> {
        let connection = connect(server, database, confirmed).await?;
        Ok(Caller {
            connection,
            first_row,
            next_row: first_row,
            next_request: 0,
            replies: Vec::with_capacity(IN_FLIGHT),
        })
    }

    /// Makes `calls` calls with [`IN_FLIGHT`] outstanding, in frames of [`BATCH`], and waits for all
    /// replies. Returns how long that took.
    pub async fn pipelined(&mut self, work: Work, calls: usize) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let (mut sent, mut done) = (0, 0);
        let mut expected = self.next_request;
        while done < calls {
            while sent < calls && sent - done + BATCH <= IN_FLIGHT {
                let count = BATCH.min(calls - sent);
                let frame = self.frame(work, count)?;
                self.connection.halves().0.send_frame(frame).await?;
                sent += count;
            }
            self.connection.recv_batch(&mut self.replies).await?;
            for reply in self.replies.drain(..) {
                check(&reply, expected)?;
                expected = expected.wrapping_add(1);
                done += 1;
            }
        }
        Ok(start.elapsed())
    }

    /// Warms up for about `warm_up`, then makes as many calls as fit into about `length`.
    pub async fn throughput(
        &mut self,
        work: Work,
        warm_up: Duration,
        length: Duration,
        server: &Server,
    ) -> anyhow::Result<Throughput> {
        let rate = self.warm_up(work, warm_up).await?;
        let calls = ((rate * length.as_secs_f64()) as usize).max(IN_FLIGHT);
        let cpu_before = server.cpu_time()?;
        let elapsed = self.pipelined(work, calls).await?;
        let cpu = server.cpu_time()? - cpu_before;
        Ok(Throughput {
            calls_per_s: calls as f64 / elapsed.as_secs_f64(),
            cpu_us_per_call: cpu.as_secs_f64() * 1e6 / calls as f64,
        })
    }

    /// Calls until `length` has passed; returns the rate of the later half, in calls per second.
    pub async fn warm_up(&mut self, work: Work, length: Duration) -> anyhow::Result<f64> {
        let start = Instant::now();
        let mut rate = 0.0;
        while rate == 0.0 || start.elapsed() < length {
            let calls = 4 * IN_FLIGHT;
            rate = calls as f64 / self.pipelined(work, calls).await?.as_secs_f64();
        }
        Ok(rate)
    }

    /// Makes `calls` calls one at a time; returns their median round trip in microseconds.
    pub async fn latency_p50_us(&mut self, work: Work, calls: usize) -> anyhow::Result<f64> {
        let mut times_us = Vec::with_capacity(calls);
        for _ in 0..calls {
            let expected = self.next_request;
            let start = Instant::now();
            let frame = self.frame(work, 1)?;
            self.connection.halves().0.send_frame(frame).await?;
            let reply = self.connection.recv().await?;
            times_us.push(start.elapsed().as_secs_f64() * 1e6);
            check(&reply, expected)?;
        }
        Ok(crate::report::median(&times_us))
    }

    /// Rows this caller has inserted so far.
    pub fn rows_inserted(&self) -> u64 {
        self.next_row - self.first_row
    }

    /// Sends one insert without waiting for its reply.
    pub async fn send_insert(&mut self) -> anyhow::Result<()> {
        let frame = self.frame(Work::Insert, 1)?;
        Ok(self.connection.halves().0.send_frame(frame).await?)
    }

    /// Takes the reply of the one call in flight.
    pub async fn take_reply(&mut self) -> anyhow::Result<()> {
        let expected = self.next_request.wrapping_sub(1);
        check(&self.connection.recv().await?, expected)
    }

    /// Closes the connection.
    pub async fn close(self) -> anyhow::Result<()> {
        Ok(self.connection.close().await?)
    }

    fn frame(&mut self, work: Work, count: usize) -> anyhow::Result<Frame> {
        let mut frame = Frame::with_capacity(FRAME_BYTES.min(80 * count));
        for _ in 0..count {
            let request_id = self.next_request;
            self.next_request = self.next_request.wrapping_add(1);
            let message = match work {
                Work::Noop => ClientMessage::CallReducer { request_id, reducer: "noop".into(), args: Bytes::new() },
                Work::FillLeaves | Work::ScanLeaves | Work::DecodeLeaves => {
                    let reducer = match work {
                        Work::FillLeaves => "fill_leaves",
                        Work::ScanLeaves => "scan_leaves",
                        _ => "decode_leaves",
                    };
                    ClientMessage::CallReducer { request_id, reducer: reducer.into(), args: Bytes::new() }
                }
                Work::Insert => {
                    let args = insert_arguments(self.next_row);
                    self.next_row += 1;
                    ClientMessage::CallReducer { request_id, reducer: "insert".into(), args }
                }
                Work::FindUpdate => {
                    assert!(self.rows_inserted() > 0, "rows are found after some were inserted");
                    // A stride that is a large prime reaches all rows in an order that no cache likes.
                    let row = self.first_row + u64::from(request_id) * 7_919 % self.rows_inserted();
                    let args = Bytes::copy_from_slice(&row.to_le_bytes());
                    ClientMessage::CallReducer { request_id, reducer: "find_update".into(), args }
                }
            };
            frame.push(&message)?;
        }
        Ok(frame)
    }
}

/// What a throughput round measured.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Calls answered per second.
    pub calls_per_s: f64,
    /// CPU time of the server per call, all threads, in microseconds.
    pub cpu_us_per_call: f64,
}

/// A connection as the owner.
pub async fn connect(server: &Server, database: &str, confirmed: bool) -> anyhow::Result<Connection> {
    let options = ConnectOptions::new(server.url(), database).with_token(server.token()).with_confirmed(confirmed);
    Ok(Connection::connect(options).await?)
}

/// BSATN of `{ id: u64, name: string, value: u32 }`.
fn insert_arguments(row: u64) -> Bytes {
    const NAME: &str = "a small row";
    let mut args = Vec::with_capacity(8 + 4 + NAME.len() + 4);
    args.put_u64(row);
    args.put_str(NAME);
    args.put_u32(row as u32);
    args.into()
}

fn check(reply: &ServerMessage, expected: u32) -> anyhow::Result<()> {
    let ServerMessage::ReducerResult { request_id, outcome, .. } = reply else {
        bail!("expected the result of call {expected}, got {reply:?}");
    };
    ensure!(*request_id == expected, "the result of call {request_id} came instead of that of call {expected}");
    match outcome {
        ReducerOutcome::Ok { .. } | ReducerOutcome::OkEmpty => Ok(()),
        ReducerOutcome::Err(error) => bail!("call {expected} failed: {}", String::from_utf8_lossy(error)),
        ReducerOutcome::InternalError(error) => bail!("call {expected} failed: {error}"),
    }
}
