//! The C interface, as in `tine_ipc.h`, which says what each function does.

pub const Status = enum(c_int) { ok = 0, wait = 1, end = 2, failed = 3, _ };

pub const Client = opaque {};
pub const Stream = opaque {};
pub const Server = opaque {};
pub const Responder = opaque {};
pub const Sender = opaque {};

pub const Bytes = extern struct {
    data: ?[*]u8 = null,
    length: usize = 0,

    pub fn slice(bytes: Bytes) []const u8 {
        return if (bytes.data) |data| data[0..bytes.length] else &.{};
    }
};

pub const Request = extern struct {
    payload: Bytes = .{},
    responder: ?*Responder = null,
    uid: u32 = 0,
    pid: i32 = 0,
    wants_stream: i32 = 0,
};

pub extern fn tine_error_code() [*:0]const u8;
pub extern fn tine_error_message() [*:0]const u8;
pub extern fn tine_bytes_free(bytes: Bytes) void;
pub extern fn tine_client_connect(path: [*:0]const u8, schema: ?*const [32]u8, limit_ms: u32, client: *?*Client) Status;
pub extern fn tine_client_call(client: *Client, request: [*]const u8, length: usize, limit_ms: u32, reply: *Bytes) Status;
pub extern fn tine_client_submit(client: *Client, token: u64, request: [*]const u8, length: usize) Status;
pub extern fn tine_client_poll(client: *Client, limit_ms: u32, token: *u64, reply: *Bytes) Status;
pub extern fn tine_client_close(client: *Client) void;
pub extern fn tine_client_stream(client: *Client, request: [*]const u8, length: usize, credit: u32, limit_ms: u32, stream: *?*Stream) Status;
pub extern fn tine_stream_next(stream: *Stream, limit_ms: u32, item: *Bytes) Status;
pub extern fn tine_stream_close(stream: *Stream) void;
pub extern fn tine_server_listen(path: [*:0]const u8, schema: ?*const [32]u8, clients_max: u32, server: *?*Server) Status;
pub extern fn tine_server_next(server: *Server, limit_ms: u32, request: *Request) Status;
pub extern fn tine_server_shutdown(server: *Server, flush_ms: u32) void;
pub extern fn tine_server_close(server: *Server, flush_ms: u32) void;
pub extern fn tine_responder_ok(responder: *Responder, payload: [*]const u8, length: usize) void;
pub extern fn tine_responder_error(responder: *Responder, code: [*:0]const u8, message: [*:0]const u8) void;
pub extern fn tine_responder_drop(responder: *Responder) void;
pub extern fn tine_responder_stream(responder: *Responder) ?*Sender;
pub extern fn tine_sender_send(sender: *Sender, item: [*]const u8, length: usize, limit_ms: u32) Status;
pub extern fn tine_sender_finish(sender: *Sender, last: [*]const u8, length: usize) void;
pub extern fn tine_sender_fail(sender: *Sender, code: [*:0]const u8, message: [*:0]const u8) void;
