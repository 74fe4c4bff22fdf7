//! Forks a live database, tries something out there, and drops the fork: `fork PATH DATABASE`.
//!
//! PATH is one of those that `tine serve --ipc` serves, DATABASE has the module beside this file.

const std = @import("std");
const tine = @import("tine");
const ipc = @import("tine_ipc");

const Account = struct { id: u64, owner: []const u8, balance: i64 };

pub fn main(init: std.process.Init) !void {
    const arena = init.arena.allocator();
    const arguments = try init.minimal.args.toSlice(arena);
    if (arguments.len != 3) {
        std.debug.print("usage: fork PATH DATABASE\n", .{});
        return error.Usage;
    }
    var buffer: [1024]u8 = undefined;
    var output = std.Io.File.stdout().writer(init.io, &buffer);
    const out = &output.interface;
    var client = try tine.TineClient.connect(init.gpa, arguments[1]);
    defer client.close();

    const main_fork = try ok(try client.openFork(arena, .{ .address = arguments[2] }));
    const fork = try ok(try client.fork(arena, .{ .fork = main_fork.fork, .durable = false }));
    try out.print("the fork begins at the database's LSN: {}\n", .{fork.lsn >= main_fork.lsn});

    // What the fork does is a commit of the fork alone.
    const bob = "{\"id\": 2, \"owner\": \"Bob\", \"balance\": 0}";
    _ = try ok(try client.insert(arena, .{ .fork = fork.fork, .table = "account", .rows = &.{bob}, .json = true }));
    const paid = (try ok(try transfer(&client, arena, fork.fork, "[1, 2, 30]"))).lsn;
    try out.print("commits of the fork: {d}\n", .{paid - fork.lsn});

    // A checkpoint takes back what turns out badly; the way back is a commit too.
    const begun = try ok(try client.beginCheckpoint(arena, .{ .fork = fork.fork }));
    _ = try ok(try transfer(&client, arena, fork.fork, "[1, 2, 70]"));
    switch (try transfer(&client, arena, fork.fork, "[1, 2, 1]")) {
        .ok => return error.NotRefused,
        .err => |message| {
            const is_refused = std.mem.find(u8, message, "not enough money") != null;
            try out.print("refused: {}\n", .{is_refused});
        },
    }
    const revert = tine.TineRevertCheckpoint{ .fork = fork.fork, .checkpoint = begun.checkpoint };
    const back = (try ok(try client.revertCheckpoint(arena, revert))).lsn;
    try out.print("LSNs go on: {}\n", .{back > paid});

    try out.print("on the fork: {s} {s}\n", .{
        try balance(&client, arena, fork.fork, "[1]"),
        try balance(&client, arena, fork.fork, "[2]"),
    });
    try out.print("in the database: {s} {s}\n", .{
        try balance(&client, arena, main_fork.fork, "[1]"),
        try balance(&client, arena, main_fork.fork, "[2]"),
    });
    _ = try ok(try client.dropFork(arena, .{ .fork = fork.fork }));
    try out.flush();
}

/// The response, where a refusal ends the program.
fn ok(answer: anytype) error{Refused}!@FieldType(@TypeOf(answer), "ok") {
    switch (answer) {
        .ok => |response| return response,
        .err => |message| {
            std.debug.print("{s}\n", .{message});
            return error.Refused;
        },
    }
}

fn transfer(
    client: *const tine.TineClient,
    arena: std.mem.Allocator,
    fork: tine.ForkNumber,
    input: []const u8,
) ipc.CallError!ipc.Answer(tine.TineCallReducerResponse) {
    return client.callReducer(arena, .{ .fork = fork, .reducer = "transfer", .input = input, .json = true });
}

/// The balance of an account, as text.
fn balance(client: *const tine.TineClient, arena: std.mem.Allocator, fork: tine.ForkNumber, key: []const u8) ![]const u8 {
    const get = tine.TineGet{ .fork = fork, .table = "account", .key = key, .json = true, .committed = false };
    const rows = (try ok(try client.get(arena, get))).rows;
    if (rows.len == 0) return "none";
    const account = try std.json.parseFromSliceLeaky(Account, arena, rows[0], .{});
    return std.fmt.allocPrint(arena, "{d}", .{account.balance});
}
