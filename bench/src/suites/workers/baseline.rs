//! The design that is common for such workers, as a baseline: a child of `std::process::Command`, requests pipelined over two pipes,
//! an async mutex for each direction, replies matched by sequence numbers, and a timer for each call.
//!
//! A call that ends half-way (an error, its time limit, a caller that goes away) leaves a pipe in an unknown state; every later call
//! fails then, and the process must be replaced.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

use super::{REPLY_BYTES, answer};

/// Turns this program into the baseline's child.
pub const CHILD_ARGUMENT: &str = "--workers-baseline-child";
/// Time limit of a call.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A request is built in a buffer of this capacity first.
const REQUEST_CAPACITY: usize = 24 << 10;

/// A child and both ends of its pipes.
pub struct Pipes {
    child: Child,
    input: Mutex<Half<Input>>,
    output: Mutex<Half<Output>>,
}

struct Input {
    pipe: pipe::Sender,
    next: u64,
}

struct Output {
    pipe: pipe::Receiver,
    first: u64,
    replies: VecDeque<Option<Vec<u8>>>,
}

/// A pipe's end, and whether a call left it half-way.
struct Half<T> {
    value: T,
    is_broken: bool,
}

impl<T> Half<T> {
    /// Broken until the caller says that it went well.
    fn begin(&mut self) -> anyhow::Result<&mut T> {
        if std::mem::replace(&mut self.is_broken, true) {
            bail!("an earlier call left the pipe half-way");
        }
        Ok(&mut self.value)
    }
}

impl Pipes {
    /// Starts a child, on the calling thread.
    pub fn launch() -> anyhow::Result<Pipes> {
        let mut child = Command::new("/proc/self/exe")
            .arg(CHILD_ARGUMENT)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the baseline's child")?;
        let input = child.stdin.take().context("piped")?;
        let output = child.stdout.take().context("piped")?;
        let input = Input { pipe: pipe::Sender::from_owned_fd(input.into())?, next: 0 };
        let output = Output { pipe: pipe::Receiver::from_owned_fd(output.into())?, first: 0, replies: VecDeque::new() };
        Ok(Pipes {
            child,
            input: Mutex::new(Half { value: input, is_broken: false }),
            output: Mutex::new(Half { value: output, is_broken: false }),
        })
    }

    /// Sends a request and waits for the reply.
    pub async fn call(&self, fill: impl Fn(&mut dyn FnMut(&[u8]))) -> anyhow::Result<Vec<u8>> {
        let mut request = Vec::with_capacity(REQUEST_CAPACITY);
        request.extend_from_slice(&[0; 4]);
        fill(&mut |piece| request.extend_from_slice(piece));
        let length = (request.len() - 4) as u32;
        request[..4].copy_from_slice(&length.to_be_bytes());
        tokio::time::timeout(TIMEOUT, self.exchange(&request)).await?
    }

    async fn exchange(&self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        let number = {
            let mut input = self.input.lock().await;
            let half = input.begin()?;
            half.pipe.write_all(request).await?;
            let number = half.next;
            half.next += 1;
            input.is_broken = false;
            number
        };
        let mut output = self.output.lock().await;
        let half = output.begin()?;
        // Whoever holds the lock reads for others, too.
        while half.first + half.replies.len() as u64 <= number {
            let mut reply = vec![0; REPLY_BYTES];
            half.pipe.read_exact(&mut reply).await?;
            half.replies.push_back(Some(reply));
        }
        let reply = half.replies.get_mut((number - half.first) as usize).and_then(Option::take);
        while matches!(half.replies.front(), Some(None)) {
            half.replies.pop_front();
            half.first += 1;
        }
        output.is_broken = false;
        reply.context("a reply was taken by another")
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        // As the design has it: on whatever thread lets go last.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's loop, until its input ends.
pub fn child() -> io::Result<()> {
    let mut input = io::BufReader::with_capacity(16 << 10, io::stdin().lock());
    // Not through the standard library's own buffer, which looks for ends of lines.
    let mut output = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut reply = vec![0; REPLY_BYTES];
    let mut request = Vec::new();
    loop {
        let mut length = [0; 4];
        if let Err(error) = input.read_exact(&mut length) {
            return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error) };
        }
        request.resize(u32::from_be_bytes(length) as usize, 0);
        input.read_exact(&mut request)?;
        answer(&request, &mut reply).map_err(io::Error::other)?;
        output.write_all(&reply)?;
    }
}
