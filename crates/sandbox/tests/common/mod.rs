//! What the tests share: the entries that misbehave on demand, and a hook that makes this test program its own zygote.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::time::{Duration, Instant};

use tine_sandbox::{
    CallOptions, Entry, Never, Pool, PoolOptions, Rejected, Request, Sandbox, SandboxOptions, Start, WorkerKey,
};

/// The test harness has a `main` of its own, so that this runs before it: the C library calls what is in this section with the
/// arguments already in place and no thread started.
#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn() = {
    extern "C" fn init() {
        tine_sandbox::init(&[
            Entry::new("test", run),
            Entry::new("hostile", hostile),
            Entry::new("dies", dies),
            Entry::new("hangs", hangs),
        ]);
    }
    init
};

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The first byte of a request says what to do.
pub fn run(start: Start) -> Never {
    let mut served = 0u64;
    start.harden().serve(move |request| {
        served += 1;
        let (&what, rest) = request.bytes().split_first().ok_or_else(|| Rejected("an empty request".to_owned()))?;
        serve(what, rest, served, request)
    })
}

fn serve(what: u8, rest: &[u8], served: u64, request: &mut Request<'_>) -> Result<(), Rejected> {
    let full = |full: tine_sandbox::ReplyFull| Rejected(full.to_string());
    match what {
        b'e' => request.write(rest).map_err(full),
        b'n' => request.write(&served.to_le_bytes()).map_err(full),
        b'r' => Err(Rejected("the input is bad".to_owned())),
        b'x' => std::process::exit(7),
        b'p' => panic!("asked to"),
        b'h' => loop {
            std::hint::spin_loop();
        },
        // Works for so many milliseconds.
        b'w' => {
            std::thread::sleep(Duration::from_millis(rest[0].into()));
            request.write(b"worked").map_err(full)
        }
        b'l' => {
            for number in 0..rest[0] {
                eprintln!("line {number} {}", "x".repeat(usize::from(rest[1]) * 100));
            }
            Ok(())
        }
        b'f' => loop {
            eprintln!("{}", "flood ".repeat(100));
        },
        // Every allocation is touched, so that it counts.
        b'm' => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1u8; 1 << 20]);
            }
        }
        b'c' => {
            let mut answer = Vec::new();
            for number in 0..rest[0] {
                request.call(&[number; 3], &mut answer).map_err(|error| Rejected(error.to_string()))?;
                request.write(&answer).map_err(full)?;
            }
            Ok(())
        }
        // One call with a payload and an answer larger than their pieces.
        b'C' => {
            let payload: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
            let mut answer = Vec::new();
            request.call(&payload, &mut answer).map_err(|error| Rejected(error.to_string()))?;
            request.write(&answer).map_err(full)
        }
        b's' => forbidden(rest[0]),
        _ => Err(Rejected(format!("no such thing: {what}"))),
    }
}

/// System calls that workers must not survive.
fn forbidden(which: u8) -> Result<(), Rejected> {
    let error = match which {
        0 => std::fs::read("/etc/hostname").err(),
        1 => std::net::TcpStream::connect("127.0.0.1:1").err(),
        2 => std::os::unix::net::UnixStream::pair().err(),
        3 => std::process::Command::new("/bin/true").status().err(),
        4 => std::thread::Builder::new().spawn(|| ()).err(),
        _ => std::fs::write("/tmp/tine-sandbox-test", b"x").err(),
    };
    Err(Rejected(format!("survived: {error:?}")))
}

/// Writes into the words it shares with the server.
/// Bytes of the words before the slots in a region of 32 slots.
pub const WORDS_BYTES: usize = 8_192;

/// A request is the offset of a word, or `u32::MAX` for all of them, then a value, then what to do after writing it: reply, exit or hang.
fn hostile(start: Start) -> Never {
    start.harden().serve(|request| {
        let bytes = request.bytes();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let (offset, value) = (word(0), word(4));
        // The bytes of the first slot follow the words.
        let base = bytes.as_ptr().wrapping_sub(WORDS_BYTES).cast_mut().cast::<u32>();
        let mut random = u64::from(value) | 1;
        for index in 0..WORDS_BYTES / 4 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let written = if offset == u32::MAX { (random >> 32) as u32 } else { value };
            if offset == u32::MAX || offset as usize == index * 4 {
                // SAFETY: inside the region, which is mapped before the bytes of its first slot. That others use it, too, is the point.
                unsafe { base.add(index).write_volatile(written) };
            }
        }
        match bytes[8] {
            1 => std::process::exit(0),
            2 => loop {
                std::hint::spin_loop();
            },
            _ => {}
        }
        request.write(b"garbled").map_err(|full| Rejected(full.to_string()))
    })
}

fn dies(_start: Start) -> Never {
    std::process::exit(9)
}

fn hangs(_start: Start) -> Never {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

pub fn sandbox() -> Sandbox {
    Sandbox::start(SandboxOptions::default()).expect("started")
}

pub fn pool(sandbox: &Sandbox) -> Pool {
    sandbox.pool(PoolOptions::new("test")).expect("a pool")
}

pub fn options() -> CallOptions {
    CallOptions::new(1_024, 1_024).timeout(PATIENCE)
}

pub const KEY: WorkerKey = WorkerKey(1);

/// Sends a request and waits for it.
pub fn ask(pool: &Pool, key: WorkerKey, request: &[u8]) -> Result<Vec<u8>, tine_sandbox::CallError> {
    pool.key(key).call_blocking(options(), |writer| writer.write(request)).map(|reply| reply.bytes)
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
