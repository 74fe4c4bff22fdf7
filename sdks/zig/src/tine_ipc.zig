//! Typed calls between local processes: what generated Zig rests on. Link `libtine_ipc` and libc.
//!
//! What a call returns lies in the arena that it is given. After `error.Transport`, `errorCode` and
//! `errorMessage` say why, for the calling thread, until its next call.

const std = @import("std");
const Allocator = std.mem.Allocator;

const c = @import("c.zig");
pub const codec = @import("codec.zig");
pub const msgpack = @import("msgpack.zig");

/// How long a call waits unless told otherwise.
pub const call_limit_ms = 30_000;

/// How long connecting may take unless told otherwise.
pub const connect_limit_ms = 5_000;

/// A connection, a listener or a call that the transport failed.
pub const TransportError = error{Transport};

/// Any failure of a call but the service's own.
pub const CallError = TransportError || msgpack.ReadError;

/// The stable code of the last failure of this thread.
pub fn errorCode() [:0]const u8 {
    return std.mem.span(c.tine_error_code());
}

/// The words of the last failure of this thread.
pub fn errorMessage() [:0]const u8 {
    return std.mem.span(c.tine_error_message());
}

/// The error message of every service.
pub const ErrorResponse = struct { message: []const u8 };
const ErrorCodec = codec.Structure(ErrorResponse, .{.{ "message", "message", codec.String }});

/// What a service answers: a response, or what it says went wrong.
pub fn Answer(comptime R: type) type {
    return union(enum) { ok: R, err: []const u8 };
}

/// Reads a response of that name, or the service's error. The arena keeps a copy of the payload.
fn decodeAnswer(comptime R: type, arena: Allocator, given: []const u8, name: []const u8, error_name: []const u8) CallError!Answer(R.Type) {
    const payload = try arena.dupe(u8, given);
    var reader: msgpack.Reader = .init(arena, payload);
    const found = try codec.readResponseName(&reader);
    if (std.mem.eql(u8, found, name)) return .{ .ok = try codec.readFields(R, &reader) };
    if (!std.mem.eql(u8, found, error_name)) return error.UnknownMessage;
    return .{ .err = (try codec.readFields(ErrorCodec, &reader)).message };
}

/// A connection to a service. Any thread may call; submissions belong to one thread.
pub const Connection = struct {
    client: *c.Client,
    gpa: Allocator,
    error_name: []const u8,
    next_token: u64 = 1,
    /// Outcomes that came while others were waited for.
    outcomes: std.AutoHashMapUnmanaged(u64, CallError!c.Bytes) = .empty,

    pub fn open(gpa: Allocator, path: [:0]const u8, schema: ?*const [32]u8, error_name: []const u8, limit_ms: u32) TransportError!Connection {
        var client: ?*c.Client = null;
        if (c.tine_client_connect(path, schema, limit_ms, &client) != .ok) return error.Transport;
        return .{ .client = client.?, .gpa = gpa, .error_name = error_name };
    }

    pub fn close(connection: *Connection) void {
        var outcomes = connection.outcomes.valueIterator();
        while (outcomes.next()) |outcome| c.tine_bytes_free(outcome.* catch continue);
        connection.outcomes.deinit(connection.gpa);
        c.tine_client_close(connection.client);
    }

    pub fn call(connection: *const Connection, comptime Q: type, comptime R: type, arena: Allocator, request_name: []const u8, request: Q.Type, response_name: []const u8, limit_ms: u32) CallError!Answer(R.Type) {
        var writer = try codec.encodeRequest(Q, connection.gpa, request_name, request);
        defer writer.deinit();
        const bytes = writer.written();
        var reply: c.Bytes = .{};
        if (c.tine_client_call(connection.client, bytes.ptr, bytes.len, limit_ms, &reply) != .ok) return error.Transport;
        defer c.tine_bytes_free(reply);
        return decodeAnswer(R, arena, reply.slice(), response_name, connection.error_name);
    }

    /// Sends a request; `Pending.wait` takes the answer.
    pub fn submit(connection: *Connection, comptime Q: type, comptime R: type, request_name: []const u8, request: Q.Type, response_name: []const u8) CallError!Pending(R) {
        var writer = try codec.encodeRequest(Q, connection.gpa, request_name, request);
        defer writer.deinit();
        const bytes = writer.written();
        const token = connection.next_token;
        connection.next_token += 1;
        if (c.tine_client_submit(connection.client, token, bytes.ptr, bytes.len) != .ok) return error.Transport;
        return .{ .connection = connection, .token = token, .name = response_name };
    }

    fn wait(connection: *Connection, token: u64, limit_ms: u32) CallError!c.Bytes {
        while (true) {
            if (connection.outcomes.fetchRemove(token)) |found| return found.value;
            var other: u64 = 0;
            var reply: c.Bytes = .{};
            const outcome: CallError!c.Bytes = switch (c.tine_client_poll(connection.client, limit_ms, &other, &reply)) {
                .ok => reply,
                .failed => error.Transport,
                else => return error.Transport,
            };
            if (other == token) return outcome;
            try connection.outcomes.put(connection.gpa, other, outcome);
        }
    }

    pub fn stream(connection: *const Connection, comptime Q: type, comptime R: type, request_name: []const u8, request: Q.Type, response_name: []const u8, credit: u32) CallError!ItemStream(R) {
        var writer = try codec.encodeRequest(Q, connection.gpa, request_name, request);
        defer writer.deinit();
        const bytes = writer.written();
        var opened: ?*c.Stream = null;
        if (c.tine_client_stream(connection.client, bytes.ptr, bytes.len, credit, call_limit_ms, &opened) != .ok) return error.Transport;
        return .{ .stream = opened.?, .name = response_name, .error_name = connection.error_name };
    }
};

/// A call that was sent.
pub fn Pending(comptime R: type) type {
    return struct {
        connection: *Connection,
        token: u64,
        name: []const u8,

        /// Waits for the answer; once. Each outcome that comes in between starts the limit anew.
        pub fn wait(pending: @This(), arena: Allocator, limit_ms: u32) CallError!Answer(R.Type) {
            const reply = try pending.connection.wait(pending.token, limit_ms);
            defer c.tine_bytes_free(reply);
            return decodeAnswer(R, arena, reply.slice(), pending.name, pending.connection.error_name);
        }
    };
}

/// The responses of one request, in order. Closing it cancels what has not come.
pub fn ItemStream(comptime R: type) type {
    return struct {
        stream: *c.Stream,
        name: []const u8,
        error_name: []const u8,

        /// The next response, or the service's error; null is the end.
        pub fn next(items: *@This(), arena: Allocator, limit_ms: u32) CallError!?Answer(R.Type) {
            var item: c.Bytes = .{};
            const status = c.tine_stream_next(items.stream, limit_ms, &item);
            defer c.tine_bytes_free(item);
            if (status == .failed) return error.Transport;
            // The end is empty, or the service's error.
            if (status == .end and item.length == 0) return null;
            return try decodeAnswer(R, arena, item.slice(), items.name, items.error_name);
        }

        pub fn close(items: *@This()) void {
            c.tine_stream_close(items.stream);
        }
    };
}

/// The memory of one request, until it is answered.
const Held = struct {
    arena: std.heap.ArenaAllocator,
    payload: c.Bytes,

    fn create(gpa: Allocator, payload: c.Bytes) Allocator.Error!*Held {
        const held = try gpa.create(Held);
        held.* = .{ .arena = .init(gpa), .payload = payload };
        return held;
    }

    fn destroy(held: *Held) void {
        const gpa = held.arena.child_allocator;
        c.tine_bytes_free(held.payload);
        held.arena.deinit();
        gpa.destroy(held);
    }
};

/// Answers one request, once, now or later, from any thread. The request's memory lives until then.
pub fn Responder(comptime R: type) type {
    return struct {
        handle: *c.Responder,
        held: *Held,
        name: []const u8,
        error_name: []const u8,

        pub const is_stream = false;

        /// Memory that lives as long as the request.
        pub fn arena(responder: @This()) Allocator {
            return responder.held.arena.allocator();
        }

        /// Answers with a response.
        pub fn ok(responder: @This(), response: R.Type) void {
            defer responder.held.destroy();
            respond(R, responder.handle, responder.arena(), responder.name, response);
        }

        /// Answers with the service's error.
        pub fn err(responder: @This(), message: []const u8) void {
            defer responder.held.destroy();
            respond(ErrorCodec, responder.handle, responder.arena(), responder.error_name, .{ .message = message });
        }
    };
}

fn respond(comptime R: type, handle: *c.Responder, arena: Allocator, name: []const u8, response: R.Type) void {
    // Without memory for a response, the client gets the transport's error for a dropped request.
    const writer = codec.encodeResponse(R, arena, name, response) catch return c.tine_responder_drop(handle);
    c.tine_responder_ok(handle, writer.written().ptr, writer.written().len);
}

/// What became of an item of a stream.
pub const Sent = enum { yes, no_room, not_wanted };

/// Answers one request with any number of responses. The request's memory lives until the end.
pub fn StreamResponder(comptime R: type) type {
    return struct {
        handle: *c.Sender,
        held: *Held,
        name: []const u8,
        error_name: []const u8,

        pub const is_stream = true;

        /// Sends a response, waiting for room until the limit has passed.
        pub fn send(responder: @This(), response: R.Type, limit_ms: u32) CallError!Sent {
            const gpa = responder.held.arena.child_allocator;
            var writer = try codec.encodeResponse(R, gpa, responder.name, response);
            defer writer.deinit();
            return switch (c.tine_sender_send(responder.handle, writer.written().ptr, writer.written().len, limit_ms)) {
                .ok => .yes,
                .wait => .no_room,
                .end => .not_wanted,
                else => error.Transport,
            };
        }

        /// Ends the stream; also after `not_wanted`.
        pub fn finish(responder: @This()) void {
            defer responder.held.destroy();
            c.tine_sender_finish(responder.handle, "", 0);
        }

        /// Ends the stream with the service's error.
        pub fn err(responder: @This(), message: []const u8) void {
            defer responder.held.destroy();
            const gpa = responder.held.arena.allocator();
            const writer = codec.encodeResponse(ErrorCodec, gpa, responder.error_name, .{ .message = message }) catch
                return c.tine_sender_fail(responder.handle, "TN0926", "no memory for the error");
            c.tine_sender_finish(responder.handle, writer.written().ptr, writer.written().len);
        }
    };
}

/// A request whose name was read, and whose fields were not.
pub const Incoming = struct {
    handle: *c.Responder,
    held: *Held,
    reader: msgpack.Reader,
    name: []const u8,
    error_name: []const u8,

    /// Reads the fields and hands them over with what answers them; or refuses the request.
    pub fn accept(incoming: *Incoming, comptime Q: type, comptime R: type, response_name: []const u8, handler: anytype, comptime handle: anytype) void {
        const request = codec.readFields(Q, &incoming.reader) catch |err| return incoming.refuse(err);
        handle(handler, request, Responder(R){
            .handle = incoming.handle,
            .held = incoming.held,
            .name = response_name,
            .error_name = incoming.error_name,
        });
    }

    /// As `accept`, for a command that is answered with a stream.
    pub fn acceptStream(incoming: *Incoming, comptime Q: type, comptime R: type, response_name: []const u8, handler: anytype, comptime handle: anytype) void {
        const request = codec.readFields(Q, &incoming.reader) catch |err| return incoming.refuse(err);
        handle(handler, request, StreamResponder(R){
            .handle = c.tine_responder_stream(incoming.handle).?,
            .held = incoming.held,
            .name = response_name,
            .error_name = incoming.error_name,
        });
    }

    /// Answers that the request cannot be read.
    pub fn refuse(incoming: *Incoming, err: msgpack.ReadError) void {
        defer incoming.held.destroy();
        const arena = incoming.held.arena.allocator();
        const shown = if (err == error.UnknownMessage) incoming.name[0..@min(incoming.name.len, 100)] else @errorName(err);
        const message = std.mem.concat(arena, u8, &.{ msgpack.errorCode(err), ": ", shown }) catch msgpack.errorCode(err);
        respond(ErrorCodec, incoming.handle, arena, incoming.error_name, .{ .message = message });
    }
};

/// A listening server. Any number of threads may take requests from it.
pub const Server = struct {
    server: *c.Server,
    gpa: Allocator,
    error_name: []const u8,

    const flush_ms = 2_000;
    const turn_ms = 1_000;

    pub fn listen(gpa: Allocator, path: [:0]const u8, schema: ?*const [32]u8, error_name: []const u8, clients_max: u32) TransportError!Server {
        var server: ?*c.Server = null;
        if (c.tine_server_listen(path, schema, clients_max, &server) != .ok) return error.Transport;
        return .{ .server = server.?, .gpa = gpa, .error_name = error_name };
    }

    /// Takes requests on this thread until `shutdown`.
    pub fn run(server: *const Server, handler: anytype, comptime dispatch: fn (*Incoming, @TypeOf(handler)) void) void {
        while (true) {
            var request: c.Request = .{};
            switch (c.tine_server_next(server.server, turn_ms, &request)) {
                .ok => server.handle(request, handler, dispatch),
                .wait => {},
                else => return,
            }
        }
    }

    fn handle(server: *const Server, request: c.Request, handler: anytype, comptime dispatch: fn (*Incoming, @TypeOf(handler)) void) void {
        const responder = request.responder.?;
        const held = Held.create(server.gpa, request.payload) catch {
            c.tine_bytes_free(request.payload);
            return c.tine_responder_drop(responder);
        };
        var incoming: Incoming = .{
            .handle = responder,
            .held = held,
            .reader = .init(held.arena.allocator(), request.payload.slice()),
            .name = "",
            .error_name = server.error_name,
        };
        incoming.name = codec.readRequestName(&incoming.reader) catch |err| return incoming.refuse(err);
        dispatch(&incoming, handler);
    }

    /// Makes every `run` return.
    pub fn shutdown(server: *const Server) void {
        c.tine_server_shutdown(server.server, flush_ms);
    }

    pub fn close(server: *Server) void {
        c.tine_server_close(server.server, flush_ms);
    }
};
