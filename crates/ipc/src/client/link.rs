//! A client's end of the wire: the handshake, a reader and a writer.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use tine_base::descriptors::receive_with_descriptors;
use tine_base::event::Event;
use tine_base::spin::AdaptiveSpin;

use super::ConnectOptions;
use crate::error::{ConnectError, HandshakeError};
use crate::frame::{Framing, HEADER_BYTES, Header, Kind};
use crate::handshake::{DESCRIPTORS, HANDSHAKE_BYTES_MAX, Hello, Welcome, decode_refusal};
use crate::inbound::{Arrival, Flow, Inbound, InboundError, Progress, Scratch, Source};
use crate::link::{Poller, RingSource, Socket, interest, poll};
use crate::outbound::Sink;
use crate::path::{self, Transport};
use crate::region::Region;
use crate::ring::{Consumer, Producer};

/// A blocking read returns after this long, so that deadlines are looked at; the end of the server ends it at once.
const READ_SLICE: Duration = Duration::from_millis(250);

/// What both halves use.
#[derive(Debug)]
pub(crate) struct Wire {
    pub socket: OwnedFd,
    pub framing: Framing,
    pub bells: Option<Bells>,
}

/// The bells of a client with rings.
#[derive(Debug)]
pub(crate) struct Bells {
    /// Rung by us.
    pub server: Event,
    /// Rung when there are bytes to read.
    bytes: Event,
    /// Rung when there is space to write.
    pub space: Event,
}

/// The receiving half.
pub(crate) struct Reader {
    inbound: Inbound,
    scratch: Scratch,
    rings: Option<RingReader>,
}

struct RingReader {
    consumer: Consumer,
    poller: Poller,
    spin: AdaptiveSpin,
    /// Frames on the socket: the server's last words.
    control: Inbound,
    ended: bool,
    /// Spinning has failed since the last sleep.
    has_spun: bool,
}

/// The sending half.
pub(crate) struct Writer {
    pub producer: Option<Producer>,
    buffer: Vec<u8>,
    /// Of the next request.
    pub next_id: u64,
}

/// A fresh connection.
pub(crate) struct Parts {
    pub wire: Wire,
    pub reader: Reader,
    pub writer: Writer,
    pub requests_max: u32,
    pub request_payload_bytes_max: u32,
}

/// Connects and shakes hands.
pub(crate) fn connect(path: &Path, options: &ConnectOptions) -> Result<Parts, ConnectError> {
    let transport = path::transport(path)?;
    let io_error = |source: io::Error| ConnectError::Io { path: path.to_owned(), source };
    let until = Instant::now() + options.limit;
    let socket = path::connect(path, options.limit).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ConnectError::NobodyListens { path: path.to_owned(), source }
        }
        io::ErrorKind::WouldBlock => ConnectError::TimedOut(path.to_owned()),
        _ => io_error(source),
    })?;
    path::set_receive_limit(&socket, READ_SLICE).map_err(io_error)?;
    let payload_bytes_max = options.message_bytes_max;
    if options.plain {
        if transport == Transport::SharedMemory {
            return Err(ConnectError::Options("a plain connection is a socket"));
        }
        return Ok(Parts {
            wire: Wire { socket, framing: Framing::Plain(Kind::Request), bells: None },
            reader: Reader::new(Inbound::new(Framing::Plain(Kind::Reply), payload_bytes_max), None),
            writer: Writer { producer: None, buffer: Vec::new(), next_id: options.first_id },
            requests_max: u32::MAX,
            request_payload_bytes_max: u32::MAX,
        });
    }
    let hello = Hello {
        completion_order: options.completion_order,
        shared_memory: transport == Transport::SharedMemory,
        schema: options.schema,
        payload_bytes_max,
    };
    let (welcome, descriptors) = shake_hands(path, &socket, &hello, until)?;
    let mut parts = Parts {
        wire: Wire { socket, framing: Framing::Full, bells: None },
        reader: Reader::new(Inbound::new(Framing::Full, payload_bytes_max), None),
        writer: Writer { producer: None, buffer: Vec::new(), next_id: options.first_id },
        requests_max: welcome.requests_max,
        request_payload_bytes_max: welcome.payload_bytes_max,
    };
    if hello.shared_memory {
        attach(&mut parts, &welcome, descriptors, options).map_err(io_error)?;
    }
    Ok(parts)
}

/// Takes over what came with the Welcome.
fn attach(parts: &mut Parts, welcome: &Welcome, descriptors: Vec<OwnedFd>, options: &ConnectOptions) -> io::Result<()> {
    let [region, server, bytes, space]: [OwnedFd; DESCRIPTORS] = descriptors
        .try_into()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a region and three bells come with the welcome"))?;
    let rings = Region::open(region, welcome.slot, welcome.generation)?;
    let bells = Bells { server: Event::adopt(server)?, bytes: Event::adopt(bytes)?, space: Event::adopt(space)? };
    let poller = Poller::new()?;
    poller.add(&bells.bytes.as_fd(), (libc::EPOLLIN | libc::EPOLLET) as u32, TOKEN_BYTES)?;
    poller.add(&parts.wire.socket, libc::EPOLLIN as u32, TOKEN_SOCKET)?;
    let cores = options.cores.unwrap_or_else(|| tine_base::cpu::budget().cores.get());
    parts.reader.rings = Some(RingReader {
        consumer: rings.incoming,
        poller,
        spin: AdaptiveSpin::new(cores),
        control: Inbound::new(Framing::Full, HANDSHAKE_BYTES_MAX),
        ended: false,
        has_spun: false,
    });
    parts.writer.producer = Some(rings.outgoing);
    parts.wire.bells = Some(bells);
    Ok(())
}

const TOKEN_BYTES: u64 = 0;
const TOKEN_SOCKET: u64 = 1;

fn shake_hands(
    path: &Path,
    socket: &OwnedFd,
    hello: &Hello,
    until: Instant,
) -> Result<(Welcome, Vec<OwnedFd>), ConnectError> {
    let io_error = |source: io::Error| match source.kind() {
        io::ErrorKind::TimedOut => ConnectError::TimedOut(path.to_owned()),
        _ => ConnectError::Io { path: path.to_owned(), source },
    };
    let refused = |source: HandshakeError| ConnectError::Handshake { path: path.to_owned(), source };
    let payload = hello.encode();
    let header = Header { kind: Kind::Hello, id: 0, payload_bytes: payload.len() as u32 };
    let mut frame = Framing::Full.encode(header, &mut [0; HEADER_BYTES]).to_vec();
    frame.extend_from_slice(&payload);
    // The first frame on a fresh socket always fits its buffer. A server that turned us away has closed: its reason is there to read.
    let sent = Socket(socket.as_fd()).write(&[io::IoSlice::new(&frame)]);
    if sent.is_ok_and(|sent| sent != frame.len()) {
        return Err(io_error(io::ErrorKind::WriteZero.into()));
    }
    let mut header = [0; HEADER_BYTES];
    let descriptors = receive_exactly(socket, &mut header, DESCRIPTORS, until).map_err(io_error)?;
    let header =
        Framing::Full.decode(&header).map_err(|error| refused(HandshakeError::NotThisProtocol(error.to_string())))?;
    if header.payload_bytes > HANDSHAKE_BYTES_MAX {
        return Err(refused(HandshakeError::NotThisProtocol("its first frame is too long".into())));
    }
    let mut payload = vec![0; header.payload_bytes as usize];
    receive_exactly(socket, &mut payload, 0, until).map_err(io_error)?;
    match header.kind {
        Kind::Welcome => Ok((Welcome::accept(&payload, hello).map_err(refused)?, descriptors)),
        Kind::Refused => Err(refused(decode_refusal(&payload, hello))),
        kind => Err(refused(HandshakeError::NotThisProtocol(format!("its first frame is of kind {kind:?}")))),
    }
}

/// Fills `buffer` before `until`.
fn receive_exactly(
    socket: &OwnedFd,
    buffer: &mut [u8],
    descriptors_max: usize,
    until: Instant,
) -> io::Result<Vec<OwnedFd>> {
    let mut received = 0;
    let mut descriptors = Vec::new();
    while received < buffer.len() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if !poll(&mut [interest(socket, libc::POLLIN)], left)? {
            continue;
        }
        let room = descriptors_max.saturating_sub(descriptors.len());
        match receive_with_descriptors(socket.as_fd(), &mut buffer[received..], room) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, more)) => {
                received += count;
                descriptors.extend(more);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(descriptors)
}

/// A socket that is read with patience.
struct PatientSocket<'a>(Socket<'a>);

// SAFETY: the kernel fills as many bytes as it returns.
unsafe impl Source for PatientSocket<'_> {
    fn read(&mut self, target: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        self.0.receive(target, 0)
    }
}

impl Reader {
    fn new(inbound: Inbound, rings: Option<RingReader>) -> Reader {
        Reader { inbound, scratch: Scratch::new(), rings }
    }

    /// Passes on what there is, waiting up to `limit` for something; the limit is asked for only before a sleep. False: the server is
    /// gone, and nothing more will come.
    pub fn read(
        &mut self,
        wire: &Wire,
        limit: &mut dyn FnMut() -> Duration,
        mut sink: impl FnMut(Arrival<'_>),
    ) -> Result<bool, InboundError> {
        let Some(rings) = &mut self.rings else {
            let socket = Socket(wire.socket.as_fd());
            let sink = |arrival: Arrival<'_>| {
                sink(arrival);
                Flow::Continue
            };
            let limit = limit();
            let progress = if limit >= READ_SLICE {
                self.inbound.fill(&mut PatientSocket(socket), &mut self.scratch, sink)
            } else {
                if !limit.is_zero() {
                    poll(&mut [interest(&wire.socket, libc::POLLIN)], limit)?;
                }
                self.inbound.fill(&mut { socket }, &mut self.scratch, sink)
            };
            return match progress {
                Ok(progress) => Ok(progress != Progress::Ended),
                Err(InboundError::Read(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
                Err(error) => Err(error),
            };
        };
        let bells = wire.bells.as_ref().expect("rings come with bells");
        if rings.drain(&mut self.inbound, &mut self.scratch, &bells.server, &mut sink)? {
            return Ok(true);
        }
        if rings.ended {
            return Ok(false);
        }
        rings.wait(wire, &bells.server, &mut self.scratch, limit, &mut sink)?;
        rings.drain(&mut self.inbound, &mut self.scratch, &bells.server, &mut sink)?;
        // What the server wrote before its end is read before the end is reported, in the next call.
        Ok(true)
    }

    /// The payload of the reply to `id`, if that is the next frame and comes while it pays to spin: straight from the ring, past
    /// everything that many callers need. None, and nothing is read: to be had in the ordinary way.
    pub fn read_reply(&mut self, wire: &Wire, id: u64) -> Option<Vec<u8>> {
        let (Some(rings), Some(bells)) = (&mut self.rings, &wire.bells) else { return None };
        let RingReader { consumer, spin, has_spun, .. } = rings;
        if self.inbound.is_partial() {
            return None;
        }
        if !spin.wait(|| consumer.available() != Ok(0)) {
            *has_spun = true;
            return None;
        }
        let mut bytes = [MaybeUninit::uninit(); HEADER_BYTES];
        // Faults are found again, and told, in the ordinary way.
        if !consumer.peek(&mut bytes).ok()? {
            return None;
        }
        // SAFETY: `peek` has written them all.
        let bytes = bytes.map(|byte| unsafe { byte.assume_init() });
        let header = Framing::Full.decode(&bytes).ok()?;
        if (header.kind, header.id) != (Kind::Reply, id) || !self.inbound.accepts(header.payload_bytes) {
            return None;
        }
        let payload_bytes = header.payload_bytes as usize;
        // Nothing is made room for that has not come.
        if (consumer.available().ok()? as usize) < HEADER_BYTES + payload_bytes {
            return None;
        }
        let mut payload = Vec::with_capacity(payload_bytes);
        let target = &mut payload.spare_capacity_mut()[..payload_bytes];
        if consumer.read_behind(HEADER_BYTES, target).ok()?? {
            bells.server.ring();
        }
        // SAFETY: `read_behind` has written them all.
        unsafe { payload.set_len(payload_bytes) };
        Some(payload)
    }

    /// What to wait for in order to read while something else is waited for.
    pub fn pollable(&self, wire: &Wire) -> libc::pollfd {
        match &self.rings {
            Some(rings) => interest(&rings.poller, libc::POLLIN),
            None => interest(&wire.socket, libc::POLLIN),
        }
    }

    /// Makes sure that new bytes show in [`pollable`](Self::pollable). False: there are some already.
    pub fn arm(&mut self, wire: &Wire) -> Result<bool, InboundError> {
        let Some(rings) = &mut self.rings else { return Ok(true) };
        let bells = wire.bells.as_ref().expect("rings come with bells");
        rings.arm(&bells.server)
    }
}

impl RingReader {
    /// Passes on what is in the ring; true if bytes came.
    fn drain(
        &mut self,
        inbound: &mut Inbound,
        scratch: &mut Scratch,
        bell: &Event,
        sink: &mut impl FnMut(Arrival<'_>),
    ) -> Result<bool, InboundError> {
        let before = inbound.received;
        let mut source = RingSource { consumer: &mut self.consumer, bell };
        inbound.fill(&mut source, scratch, |arrival| {
            sink(arrival);
            Flow::Continue
        })?;
        Ok(before != inbound.received)
    }

    fn arm(&mut self, bell: &Event) -> Result<bool, InboundError> {
        if self.consumer.release() {
            bell.ring();
        }
        self.consumer.arm().map_err(|fault| InboundError::Read(io::Error::other(fault)))
    }

    /// Waits for bytes, or for the end of the server.
    fn wait(
        &mut self,
        wire: &Wire,
        bell: &Event,
        scratch: &mut Scratch,
        limit: &mut dyn FnMut() -> Duration,
        sink: &mut impl FnMut(Arrival<'_>),
    ) -> Result<(), InboundError> {
        let consumer = &mut self.consumer;
        if !std::mem::take(&mut self.has_spun) && self.spin.wait(|| consumer.available() != Ok(0)) {
            return Ok(());
        }
        let limit = limit();
        if !self.arm(bell)? {
            return Ok(());
        }
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 2];
        let ready = self.poller.wait(&mut events, limit)?;
        let socket_ready = ready.iter().any(|event| event.u64 == TOKEN_SOCKET);
        self.consumer.disarm();
        if socket_ready {
            let mut socket = Socket(wire.socket.as_fd());
            let progress = self.control.fill(&mut socket, scratch, |arrival| {
                if let Arrival::Frame(Header { kind: Kind::Closing, .. }, _) = &arrival {
                    sink(arrival);
                }
                Flow::Continue
            });
            self.ended = match progress {
                Ok(progress) => progress == Progress::Ended,
                Err(InboundError::Read(error)) if error.kind() == io::ErrorKind::ConnectionReset => true,
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }
}

/// How far a frame has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    bytes: usize,
}

impl Sent {
    pub const NOTHING: Sent = Sent { bytes: 0 };

    pub fn has_begun(self) -> bool {
        self.bytes > 0
    }
}

/// A frame of at most this size is put together for one cheap call.
const JOIN_BYTES_MAX: usize = 4 * 1024;

impl Writer {
    /// Writes as much of a frame as there is room for; true when it is out.
    pub fn write(&mut self, wire: &Wire, header: Header, payload: &[u8], sent: &mut Sent) -> io::Result<bool> {
        if !sent.has_begun() && self.write_at_once(wire, header, payload)? {
            return Ok(true);
        }
        let mut bytes = [0; HEADER_BYTES];
        let header = wire.framing.encode(header, &mut bytes);
        let total = header.len() + payload.len();
        if let (Some(producer), Some(bells)) = (&mut self.producer, &wire.bells) {
            while sent.bytes < total {
                let rest = if sent.bytes < header.len() {
                    &header[sent.bytes..]
                } else {
                    &payload[sent.bytes - header.len()..]
                };
                let count = producer.write(rest).map_err(io::Error::other)?;
                sent.bytes += count;
                if (count == 0 || sent.bytes > header.len()) && producer.show() {
                    bells.server.ring();
                }
                if count == 0 {
                    return Ok(false);
                }
            }
            if producer.show() {
                bells.server.ring();
            }
            return Ok(true);
        }
        let mut socket = Socket(wire.socket.as_fd());
        while sent.bytes < total {
            let written = if !sent.has_begun() && total <= JOIN_BYTES_MAX {
                self.buffer.clear();
                self.buffer.extend_from_slice(header);
                self.buffer.extend_from_slice(payload);
                socket.write(&[io::IoSlice::new(&self.buffer)])
            } else {
                let header_rest = &header[sent.bytes.min(header.len())..];
                let payload_rest = &payload[sent.bytes.saturating_sub(header.len())..];
                socket.write(&[io::IoSlice::new(header_rest), io::IoSlice::new(payload_rest)])
            };
            match written {
                Ok(written) => sent.bytes += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Writes a frame to a ring that has room for all of it now; false, and nothing is written, if it has not.
    pub fn write_at_once(&mut self, wire: &Wire, header: Header, payload: &[u8]) -> io::Result<bool> {
        let (Some(producer), Some(bells)) = (&mut self.producer, &wire.bells) else { return Ok(false) };
        let mut bytes = [0; HEADER_BYTES];
        let header = wire.framing.encode(header, &mut bytes);
        let is_written = producer.write_whole(header, payload).map_err(io::Error::other)?;
        if is_written && producer.show() {
            bells.server.ring();
        }
        Ok(is_written)
    }

    /// What to wait for until there is room. None: there is some already.
    pub fn arm(&mut self, wire: &Wire) -> io::Result<Option<[libc::pollfd; 2]>> {
        match (&mut self.producer, &wire.bells) {
            (Some(producer), Some(bells)) => {
                bells.space.drain();
                if !producer.arm().map_err(io::Error::other)? {
                    return Ok(None);
                }
                // The socket's end is always reported.
                Ok(Some([interest(&bells.space.as_fd(), libc::POLLIN), interest(&wire.socket, 0)]))
            }
            _ => Ok(Some([interest(&wire.socket, libc::POLLOUT), interest(&wire.socket, 0)])),
        }
    }
}

/// Ends the conversation in both directions; whoever waits on the socket wakes up.
pub(crate) fn shut_down(socket: &OwnedFd) {
    // SAFETY: takes plain numbers; a socket that is not connected any more is none of our worries.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}
