//! MessagePack as JSON: bytes are `{"bin": hex}`, integer keys of maps `"#k"`; and a client of the plain protocol.

#![allow(dead_code)] // Each test uses some of it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tine_base::SystemEnv;
use tine_worldstate::{Endpoint, Serving, World, WorldOptions};

pub mod typed;

/// No request of a test takes so long.
const REPLY_MAX: Duration = Duration::from_secs(60);

/// Bytes of hexadecimal digits.
pub fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a value as MessagePack.
pub fn encode(value: &Value, out: &mut Vec<u8>) {
    let wide = |kind: u8, length: usize, out: &mut Vec<u8>| {
        out.push(kind);
        out.extend_from_slice(&(length as u32).to_be_bytes());
    };
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(value) => out.push(0xc2 | u8::from(*value)),
        Value::Number(number) => {
            out.push(0xcf);
            out.extend_from_slice(&number.as_u64().unwrap().to_be_bytes());
        }
        Value::String(text) => {
            wide(0xdb, text.len(), out);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Array(values) => {
            wide(0xdd, values.len(), out);
            values.iter().for_each(|value| encode(value, out));
        }
        Value::Object(fields) => {
            if let Some(Value::String(hex)) = fields.get("bin").filter(|_| fields.len() == 1) {
                let bytes = bytes(hex);
                wide(0xc6, bytes.len(), out);
                return out.extend(bytes);
            }
            wide(0xdf, fields.len(), out);
            for (key, value) in fields {
                match key.strip_prefix('#') {
                    Some(number) => encode(&json!(number.parse::<u64>().unwrap()), out),
                    None => encode(&json!(key), out),
                }
                encode(value, out);
            }
        }
    }
}

/// The value at the front of `rest`, in the forms that replies use.
pub fn parse(rest: &mut &[u8]) -> Value {
    fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (taken, left) = rest.split_at(length);
        *rest = left;
        taken
    }
    fn number(rest: &mut &[u8], width: usize) -> u64 {
        take(rest, width).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
    fn array(rest: &mut &[u8], length: u64) -> Value {
        (0..length).map(|_| parse(rest)).collect()
    }
    fn map(rest: &mut &[u8], length: u64) -> Value {
        let mut fields = Map::new();
        for _ in 0..length {
            let key = match parse(rest) {
                Value::String(key) => key,
                key => format!("#{key}"),
            };
            fields.insert(key, parse(rest));
        }
        Value::Object(fields)
    }
    fn text(rest: &mut &[u8], length: u64) -> Value {
        json!(std::str::from_utf8(take(rest, length as usize)).unwrap())
    }
    let kind = number(rest, 1) as u8;
    let width = |first: u8| 1usize << (kind - first);
    match kind {
        0x00..=0x7f => json!(kind),
        0x80..=0x8f => map(rest, u64::from(kind & 15)),
        0x90..=0x9f => array(rest, u64::from(kind & 15)),
        0xa0..=0xbf => text(rest, u64::from(kind & 31)),
        0xc0 => Value::Null,
        0xc2 | 0xc3 => json!(kind == 0xc3),
        0xc4..=0xc6 => {
            let length = number(rest, width(0xc4));
            json!({ "bin": hex(take(rest, length as usize)) })
        }
        0xcc..=0xcf => json!(number(rest, width(0xcc))),
        0xd9..=0xdb => {
            let length = number(rest, width(0xd9));
            text(rest, length)
        }
        0xdc | 0xdd => {
            let length = number(rest, 2 * width(0xdc));
            array(rest, length)
        }
        0xde | 0xdf => {
            let length = number(rest, 2 * width(0xde));
            map(rest, length)
        }
        _ => panic!("no reply has a value of kind {kind:x}"),
    }
}

/// A connection that sends payloads in bare frames.
pub struct Client(pub UnixStream);

impl Client {
    /// Connects, as soon as the socket is there.
    pub fn connect(path: &Path) -> Client {
        let deadline = Instant::now() + REPLY_MAX;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(REPLY_MAX)).unwrap();
                    return Client(stream);
                }
                Err(error) if Instant::now() > deadline => panic!("{}: {error}", path.display()),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Sends a payload.
    pub fn send(&mut self, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).unwrap();
    }

    /// Receives a payload.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut payload = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut payload).unwrap();
        payload
    }
}

/// Something that answers commands of the plain protocol.
pub trait Asks {
    /// The reply to a command: its fields, or the text of an error.
    fn ask(&mut self, name: &str, fields: &Value) -> Result<Value, String>;
}

impl Asks for Client {
    fn ask(&mut self, name: &str, fields: &Value) -> Result<Value, String> {
        self.send(&request(name, fields));
        reply(&self.receive())
    }
}

/// The payload of a command.
pub fn request(name: &str, fields: &Value) -> Vec<u8> {
    let mut payload = Vec::new();
    encode(&json!([[format!("Wsdb{name}"), fields]]), &mut payload);
    payload
}

/// The fields of a reply, or the text of an error.
pub fn reply(payload: &[u8]) -> Result<Value, String> {
    let reply = parse(&mut &payload[..]);
    match reply[0].as_str().unwrap() {
        "WsdbErrorResponse" => Err(reply[1]["message"].as_str().unwrap().to_owned()),
        _ => Ok(reply[1].clone()),
    }
}

/// A number as a field element.
pub fn element(number: u64) -> Value {
    json!({ "bin": format!("{number:064x}") })
}

/// A value as MessagePack inside of bytes, as leaves travel.
pub fn inner(value: &Value) -> Value {
    let mut bytes = Vec::new();
    encode(value, &mut bytes);
    json!({ "bin": hex(&bytes) })
}

/// The service in this process.
pub struct Ours {
    pub world: World,
    serving: Option<Serving>,
    /// For the plain protocol.
    pub socket: PathBuf,
    /// For clients of the schema: a socket, and shared memory.
    pub typed: [PathBuf; 2],
}

impl Ours {
    /// Serves the world state in `options.directory`.
    pub fn start(options: &WorldOptions, socket: &Path) -> Ours {
        let world = World::open(options, Arc::new(SystemEnv)).unwrap();
        let mut endpoint = Endpoint::new(&world, || ()).unwrap();
        endpoint.listen_plain(socket, options.map_bytes).unwrap();
        let typed = [socket.with_extension("typed.sock"), socket.with_extension("shm")];
        typed.iter().for_each(|path| endpoint.listen(path).unwrap());
        let serving = Some(endpoint.start().unwrap());
        Ours { world, serving, socket: socket.to_owned(), typed }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.stop(Duration::ZERO).unwrap();
        }
        self.world.close().unwrap();
    }
}

/// The server that this one stands in for.
pub struct Theirs(Child);

impl Theirs {
    /// Where its program is, if it is installed: `cargo xtask test` installs it.
    pub fn program() -> Option<PathBuf> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"));
        let program = target.join("npm/node_modules/@aztec/bb.js/build/amd64-linux/aztec-wsdb");
        program.exists().then_some(program)
    }

    /// Starts it on a socket.
    pub fn start(program: &Path, options: &WorldOptions, socket: &Path) -> Theirs {
        let [a, b, c, d, e] = options.heights;
        let child = Command::new(program)
            .args(["msgpack", "run", "--threads", "2", "--input"])
            .arg(socket)
            .arg("--data-dir")
            .arg(&options.directory)
            .args(["--tree-heights", &format!("{{0:{a},1:{b},2:{c},3:{d},4:{e}}}")])
            .args(["--tree-prefill", &format!("{{0:{},2:{}}}", options.nullifier_prefill, options.public_data_prefill)])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Theirs(child)
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
