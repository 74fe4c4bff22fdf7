//! The echo service in Zig: `serve PATH`, `client PATH FIXTURES` and `fixtures FIXTURES`.

const std = @import("std");
const Allocator = std.mem.Allocator;

const echo = @import("echo");
const ipc = @import("tine_ipc");

const Failure = error{Failed};

fn failed(comptime format: []const u8, arguments: anytype) Failure {
    std.debug.print(format ++ "\n", arguments);
    return error.Failed;
}

fn expect(condition: bool, comptime message: []const u8) Failure!void {
    if (!condition) return failed(message, .{});
}

fn say(comptime format: []const u8, arguments: anytype) void {
    var buffer: [100]u8 = undefined;
    const text = std.fmt.bufPrint(&buffer, format ++ "\n", arguments) catch unreachable;
    _ = std.c.write(1, text.ptr, text.len);
}

const Fixture = struct { kind: []const u8, name: []const u8, hex: []const u8, bytes: []const u8, expected: []const u8 };

fn readFixtures(arena: Allocator, io: std.Io, file: []const u8) ![]const Fixture {
    const text = try std.Io.Dir.cwd().readFileAlloc(io, file, arena, .limited(1 << 24));
    var fixtures: std.ArrayList(Fixture) = .empty;
    var lines = std.mem.splitScalar(u8, text, '\n');
    while (lines.next()) |line| {
        if (line.len == 0 or line[0] == '#') continue;
        var words = std.mem.splitScalar(u8, line, ' ');
        const kind, const name, const hex = .{ words.next().?, words.next().?, words.next().? };
        const bytes = try arena.alloc(u8, hex.len / 2);
        _ = try std.fmt.hexToBytes(bytes, hex);
        try fixtures.append(arena, .{ .kind = kind, .name = name, .hex = hex, .bytes = bytes, .expected = words.next() orelse "" });
    }
    return fixtures.items;
}

const requests = .{ "EchoScalars", "EchoOptionals", "EchoLists", "EchoBytes", "EchoSame", "EchoNothing", "EchoFail", "EchoCount" };

/// Decodes a message of that name and encodes it again; the digits of its bytes, or of the error the code.
fn recode(arena: Allocator, name: []const u8, bytes: []const u8) ![]const u8 {
    inline for (requests) |request| {
        if (std.mem.eql(u8, name, request)) {
            const Codec = @field(echo.codecs, request);
            const value = ipc.codec.decodeRequest(Codec, arena, name, bytes) catch |err| return ipc.msgpack.errorCode(err);
            return hexOf(arena, (try ipc.codec.encodeRequest(Codec, arena, name, value)).written());
        }
        if (std.mem.eql(u8, name, request ++ "Response")) return recodeResponse(@field(echo.codecs, request ++ "Response"), arena, name, bytes);
    }
    return recodeResponse(echo.codecs.EchoErrorResponse, arena, name, bytes);
}

fn recodeResponse(comptime Codec: type, arena: Allocator, name: []const u8, bytes: []const u8) ![]const u8 {
    const value = ipc.codec.decodeResponse(Codec, arena, name, bytes) catch |err| return ipc.msgpack.errorCode(err);
    return hexOf(arena, (try ipc.codec.encodeResponse(Codec, arena, name, value)).written());
}

fn hexOf(arena: Allocator, bytes: []const u8) ![]const u8 {
    const digits = "0123456789abcdef";
    const text = try arena.alloc(u8, bytes.len * 2);
    for (bytes, 0..) |byte, index| {
        text[index * 2] = digits[byte >> 4];
        text[index * 2 + 1] = digits[byte & 0xf];
    }
    return text;
}

fn checkFixtures(arena: Allocator, io: std.Io, file: []const u8) !void {
    const fixtures = try readFixtures(arena, io, file);
    for (fixtures) |fixture| {
        const found = try recode(arena, fixture.name, fixture.bytes);
        const wanted = if (std.mem.eql(u8, fixture.kind, "exact")) fixture.hex else fixture.expected;
        if (!std.mem.eql(u8, found, wanted)) {
            return failed("{s} {s} {s}: found {s}", .{ fixture.kind, fixture.name, fixture.hex, found });
        }
    }
    say("fixtures {d}", .{fixtures.len});
}

const Echo = struct {
    /// A response with the fields of its request.
    fn copied(comptime Response: type, request: anytype) Response {
        var response: Response = undefined;
        inline for (@typeInfo(Response).@"struct".field_names) |name| @field(response, name) = @field(request, name);
        return response;
    }

    pub fn scalars(_: *Echo, request: echo.EchoScalars, responder: ipc.Responder(echo.codecs.EchoScalarsResponse)) void {
        responder.ok(copied(echo.EchoScalarsResponse, request));
    }

    pub fn optionals(_: *Echo, request: echo.EchoOptionals, responder: ipc.Responder(echo.codecs.EchoOptionalsResponse)) void {
        responder.ok(copied(echo.EchoOptionalsResponse, request));
    }

    pub fn lists(_: *Echo, request: echo.EchoLists, responder: ipc.Responder(echo.codecs.EchoListsResponse)) void {
        responder.ok(copied(echo.EchoListsResponse, request));
    }

    pub fn bytes(_: *Echo, request: echo.EchoBytes, responder: ipc.Responder(echo.codecs.EchoBytesResponse)) void {
        responder.ok(.{ .data = request.data });
    }

    // On another thread, so that replies overtake one another.
    pub fn same(_: *Echo, request: echo.EchoSame, responder: ipc.Responder(echo.codecs.EchoSameResponse)) void {
        const thread = std.Thread.spawn(.{}, answerLater, .{ request, responder }) catch return responder.err("no thread");
        thread.detach();
    }

    fn answerLater(request: echo.EchoSame, responder: ipc.Responder(echo.codecs.EchoSameResponse)) void {
        responder.ok(.{ .data = request.data });
    }

    pub fn nothing(_: *Echo, _: echo.EchoNothing, responder: ipc.Responder(echo.codecs.EchoNothingResponse)) void {
        responder.ok(.{});
    }

    pub fn fail(_: *Echo, request: echo.EchoFail, responder: ipc.Responder(echo.codecs.EchoFailResponse)) void {
        responder.err(request.message);
    }

    pub fn count(_: *Echo, request: echo.EchoCount, responder: ipc.StreamResponder(echo.codecs.EchoCountResponse)) void {
        const thread = std.Thread.spawn(.{}, countUp, .{ request, responder }) catch return responder.err("no thread");
        thread.detach();
    }

    fn countUp(request: echo.EchoCount, responder: ipc.StreamResponder(echo.codecs.EchoCountResponse)) void {
        defer responder.finish();
        var sent: u64 = 0;
        while (request.times == null or sent < request.times.?) {
            switch (responder.send(.{ .value = request.from + sent }, 100) catch return) {
                .yes => sent += 1,
                .no_room => {},
                .not_wanted => return,
            }
        }
    }
};

fn serve(gpa: Allocator, path: [:0]const u8) !void {
    var handler: Echo = .{};
    var server = try echo.EchoServer(Echo).listen(gpa, path, &handler);
    defer server.close();
    const running = try std.Thread.spawn(.{}, echo.EchoServer(Echo).run, .{&server});
    say("ready", .{});
    var buffer: [64]u8 = undefined;
    while (std.c.read(0, &buffer, buffer.len) > 0) {}
    server.shutdown();
    running.join();
}

/// Whether the fields of the response are those of the request: what differs is the names.
fn checkEcho(comptime Codec: type, arena: Allocator, fixture: Fixture, answer: anytype) !void {
    const response = switch (answer) {
        .ok => |response| response,
        .err => |message| return failed("{s}: {s}", .{ fixture.name, message }),
    };
    var writer: ipc.msgpack.Writer = .init(arena);
    try Codec.write(&writer, response);
    if (!std.mem.endsWith(u8, fixture.bytes, writer.written())) return failed("{s} {s}: another value came back", .{ fixture.name, fixture.hex });
}

fn runClient(gpa: Allocator, arena: Allocator, io: std.Io, path: [:0]const u8, file: []const u8) !void {
    var client = echo.EchoClient.connect(gpa, path) catch return failed("{s}", .{ipc.errorMessage()});
    defer client.close();
    var count: usize = 0;
    const calls = .{
        .{ "EchoScalars", echo.EchoClient.scalars },
        .{ "EchoOptionals", echo.EchoClient.optionals },
        .{ "EchoLists", echo.EchoClient.lists },
        .{ "EchoBytes", echo.EchoClient.bytes },
        .{ "EchoSame", echo.EchoClient.same },
        .{ "EchoNothing", echo.EchoClient.nothing },
    };
    for (try readFixtures(arena, io, file)) |fixture| {
        if (!std.mem.eql(u8, fixture.kind, "exact")) continue;
        inline for (calls) |call| {
            if (std.mem.eql(u8, fixture.name, call[0])) {
                const request = try ipc.codec.decodeRequest(@field(echo.codecs, call[0]), arena, fixture.name, fixture.bytes);
                const answer = call[1](&client, arena, request) catch |err| return failed("{s}: {s} {s}", .{ fixture.name, @errorName(err), ipc.errorMessage() });
                try checkEcho(@field(echo.codecs, call[0] ++ "Response"), arena, fixture, answer);
                count += 1;
            }
        }
    }
    try largeAndMany(arena, &client);
    switch (try client.fail(arena, .{ .message = "no, because ü" })) {
        .ok => return failed("`fail` did not fail", .{}),
        .err => |message| try expect(std.mem.eql(u8, message, "no, because ü"), "another message"),
    }
    try streams(arena, &client);
    say("client {d}", .{count});
}

fn largeAndMany(arena: Allocator, client: *echo.EchoClient) !void {
    const large = try arena.alloc(u8, 3 << 20);
    @memset(large, 7);
    const answer = try client.bytes(arena, .{ .data = large });
    try expect(std.mem.eql(u8, answer.ok.data, large), "large bytes came back different");
    var pending: [200]ipc.Pending(echo.codecs.EchoSameResponse) = undefined;
    for (&pending, 0..) |*call, index| call.* = try client.submitSame(.{ .data = &.{@intCast(index)} });
    var index: usize = pending.len;
    while (index > 0) {
        index -= 1;
        const response = (try pending[index].wait(arena, ipc.call_limit_ms)).ok;
        try expect(response.data.len == 1 and response.data[0] == index, "replies of many calls were mixed up");
    }
}

fn streams(arena: Allocator, client: *echo.EchoClient) !void {
    var stream = try client.count(.{ .from = 5, .times = 1000 }, 16);
    defer stream.close();
    for (5..1005) |value| {
        const item = try stream.next(arena, ipc.call_limit_ms);
        try expect(item.?.ok.value == value, "another item came");
    }
    try expect(try stream.next(arena, ipc.call_limit_ms) == null, "the stream did not end");
    var endless = try client.count(.{ .from = 0 }, 4);
    for (0..10) |value| {
        const item = try endless.next(arena, ipc.call_limit_ms);
        try expect(item.?.ok.value == value, "another item came");
    }
    endless.close();
    _ = try client.nothing(arena, .{});
}

pub fn main(init: std.process.Init) !void {
    const arena = init.arena.allocator();
    const arguments = try init.minimal.args.toSlice(arena);
    const gpa = std.heap.c_allocator;
    if (arguments.len == 3 and std.mem.eql(u8, arguments[1], "serve")) {
        try serve(gpa, arguments[2]);
    } else if (arguments.len == 4 and std.mem.eql(u8, arguments[1], "client")) {
        try runClient(gpa, arena, init.io, arguments[2], arguments[3]);
    } else if (arguments.len == 3 and std.mem.eql(u8, arguments[1], "fixtures")) {
        try checkFixtures(arena, init.io, arguments[2]);
    } else {
        return failed("serve PATH, client PATH FIXTURES or fixtures FIXTURES", .{});
    }
}
