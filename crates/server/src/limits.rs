//! Every bound of the server in one place, each with the reason for its value.
//!
//! A bound that an operator may want to change is a field of [`Limits`]; its default is the constant
//! of the same name. Bounds that follow from a protocol are constants only. How near the server is to
//! each of them can be read from `/v1/metrics` (`tine_limit` beside the gauge it limits).

use std::time::Duration;

/// Largest message a WebSocket client may send, in bytes: what the protocol's clients expect to pass.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Messages waiting to be written to one client; a client this far behind will not catch up, and
/// everything it holds is memory that others cannot have.
pub const OUTGOING_MESSAGES_MAX: usize = 16 * 1024;
/// Bytes of rows waiting to be written to one client. Sixteen thousand replies of a megabyte each
/// are within [`OUTGOING_MESSAGES_MAX`], so a second bound is needed. One message always passes.
pub const OUTGOING_BYTES_MAX: usize = 256 << 20;
/// Largest v3 payload that packs more than one message, in bytes; a larger message travels alone.
pub const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Largest frame the server writes, in bytes. Payloads are cut into fragments of this size, so that
/// pings and the close frame can pass between them, no client's frame limit is met, and the write
/// buffer of an idle connection stays small.
pub const FRAGMENT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a payload that are compressed at a time: some hundred microseconds of work, of which a fragment comes.
pub const COMPRESSED_AT_ONCE_BYTES: usize = 64 * 1024;
/// Bytes a connection compresses before other tasks get the thread.
pub const COMPRESSED_PER_TURN_BYTES_MAX: usize = 1 << 20;
/// Bytes read from a socket at a time. Small because every open connection keeps a buffer of this
/// size; a frame larger than it is read in several steps.
pub const READ_BUFFER_BYTES: usize = 16 * 1024;
/// WebSocket messages taken from a socket before the connection hands them to the host and writes
/// replies, so that a client which always has more to say cannot keep its replies from being written.
pub const READ_BATCH_FRAMES_MAX: usize = 256;
/// Bytes taken from a socket before the same turn.
pub const READ_BATCH_BYTES_MAX: usize = 1 << 20;
/// Requests taken from a socket before the same turn.
pub const READ_BATCH_REQUESTS_MAX: usize = 256;
/// Requests in one WebSocket message. The smallest take nine bytes, so a message of the largest size
/// could hold millions, each many times larger when decoded.
pub const PAYLOAD_REQUESTS_MAX: usize = 16 * 1024;
/// Bytes of the text that explains a close; a control frame holds 125 bytes, two are the code.
pub const CLOSE_REASON_BYTES_MAX: usize = 123;
/// Largest token accepted, in bytes; larger ones would not fit a request's headers anyway.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Largest `iss` or `sub` of a token, in bytes.
pub const CLAIM_BYTES_MAX: usize = 128;
/// Verified tokens remembered. Verification costs about 100 microseconds, a look-up none to speak of.
pub const TOKEN_CACHE_ENTRIES_MAX: usize = 8 * 1024;
/// Issuers whose tokens are accepted beside the server's own; an operator names a handful.
pub const ISSUERS_MAX: usize = 32;
/// Keys taken from one issuer's key set; issuers publish two or three.
pub const ISSUER_KEYS_MAX: usize = 64;
/// Largest discovery document or key set, in bytes; the largest known are about a tenth of it.
pub const ISSUER_FETCH_BYTES_MAX: u64 = 256 * 1024;
/// How long fetching one document of an issuer may take; requests with its tokens wait that long at most twice.
pub const ISSUER_FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Age from which an issuer's keys are fetched again.
pub const ISSUER_KEYS_REFRESH: Duration = Duration::from_secs(5 * 60);
/// Age from which an issuer's keys verify nothing any more: how long a withdrawn key may live on while
/// the issuer cannot be reached.
pub const ISSUER_KEYS_EXPIRE: Duration = Duration::from_secs(2 * 60 * 60);
/// Lifetime of the token a browser puts into a WebSocket address, in seconds: addresses are logged.
pub const WEBSOCKET_TOKEN_SECONDS: i64 = 60;
/// Largest set of request headers, in bytes.
pub const REQUEST_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Log records answered at once, and the largest `num_lines`.
pub const LOG_LINES_MAX: u32 = 100_000;

/// The bounds an operator can set. All durations are wall time of this process.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest WebSocket message from a client, in bytes.
    pub client_message_bytes_max: usize,
    /// Messages queued for one client before it is dropped.
    pub outgoing_messages_max: usize,
    /// Bytes of rows queued for one client before it is dropped.
    pub outgoing_bytes_max: usize,
    /// Open connections, HTTP and WebSocket together; more are refused at accept, because each costs
    /// a file descriptor and the databases need some too.
    pub connections_max: usize,
    /// Time between two pings of the server.
    pub ping_interval: Duration,
    /// A client that sent nothing (not even a pong) for this long is dropped.
    pub idle_timeout: Duration,
    /// A client that takes no byte for this long while some are waiting is dropped.
    pub write_timeout: Duration,
    /// How long the server waits for the other side of a closing handshake.
    pub close_timeout: Duration,
    /// How long a request's head may take to arrive, and a kept-alive connection may stay silent.
    pub head_timeout: Duration,
    /// How long a request may take altogether; above the deadline of a procedure.
    pub request_timeout: Duration,
    /// Largest request body, in bytes, of all routes but publish.
    pub body_bytes_max: usize,
    /// Largest module that can be published, in bytes.
    pub publish_bytes_max: usize,
    /// Requests in work at once that compile a module or wait for the disk; more wait their turn,
    /// because each holds a thread.
    pub blocking_requests_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            client_message_bytes_max: CLIENT_MESSAGE_BYTES_MAX,
            outgoing_messages_max: OUTGOING_MESSAGES_MAX,
            outgoing_bytes_max: OUTGOING_BYTES_MAX,
            connections_max: 20_000,
            ping_interval: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_millis(250),
            head_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(75),
            body_bytes_max: 2 << 20,
            publish_bytes_max: 64 << 20,
            blocking_requests_max: 8,
        }
    }
}
