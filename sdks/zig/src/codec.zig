//! How values of a type are written and read; generated code puts codecs together from these.
//!
//! A codec is a type with `Type`, `is_optional`, `write` and `read`.

const std = @import("std");
const msgpack = @import("msgpack.zig");
const Reader = msgpack.Reader;
const ReadError = msgpack.ReadError;
const Writer = msgpack.Writer;

pub const Bool = struct {
    pub const Type = bool;
    pub const is_optional = false;

    pub fn write(writer: *Writer, value: bool) Writer.Error!void {
        try writer.boolean(value);
    }

    pub fn read(reader: *Reader) ReadError!bool {
        return reader.boolean();
    }
};

fn Integer(comptime T: type) type {
    return struct {
        pub const Type = T;
        pub const is_optional = false;

        pub fn write(writer: *Writer, value: T) Writer.Error!void {
            try writer.integer(value);
        }

        pub fn read(reader: *Reader) ReadError!T {
            return reader.integer(T);
        }
    };
}

pub const U8 = Integer(u8);
pub const U16 = Integer(u16);
pub const U32 = Integer(u32);
pub const U64 = Integer(u64);

pub const F64 = struct {
    pub const Type = f64;
    pub const is_optional = false;

    pub fn write(writer: *Writer, value: f64) Writer.Error!void {
        try writer.real(value);
    }

    pub fn read(reader: *Reader) ReadError!f64 {
        return reader.real();
    }
};

pub const String = struct {
    pub const Type = []const u8;
    pub const is_optional = false;

    pub fn write(writer: *Writer, value: []const u8) Writer.Error!void {
        try writer.string(value);
    }

    pub fn read(reader: *Reader) ReadError![]const u8 {
        return reader.string();
    }
};

pub const Bytes = struct {
    pub const Type = []const u8;
    pub const is_optional = false;

    pub fn write(writer: *Writer, value: []const u8) Writer.Error!void {
        try writer.binary(value);
    }

    pub fn read(reader: *Reader) ReadError![]const u8 {
        return reader.binary();
    }
};

/// Exactly so many bytes.
pub fn FixedBytes(comptime length: usize) type {
    return struct {
        pub const Type = [length]u8;
        pub const is_optional = false;

        pub fn write(writer: *Writer, value: Type) Writer.Error!void {
            try writer.binary(&value);
        }

        pub fn read(reader: *Reader) ReadError!Type {
            const bytes = try reader.binary();
            if (bytes.len != length) return error.WrongLength;
            return bytes[0..length].*;
        }
    };
}

/// Exactly so many bytes, in a structure of their own.
pub fn Nominal(comptime T: type, comptime length: usize) type {
    return struct {
        pub const Type = T;
        pub const is_optional = false;

        pub fn write(writer: *Writer, value: T) Writer.Error!void {
            try writer.binary(&value.bytes);
        }

        pub fn read(reader: *Reader) ReadError!T {
            return .{ .bytes = try FixedBytes(length).read(reader) };
        }
    };
}

/// A value, or null.
pub fn Optional(comptime Inner: type) type {
    return struct {
        pub const Type = ?Inner.Type;
        pub const is_optional = true;

        pub fn write(writer: *Writer, value: Type) Writer.Error!void {
            if (value) |some| try Inner.write(writer, some) else try writer.nil();
        }

        pub fn read(reader: *Reader) ReadError!Type {
            if (reader.takeNil()) return null;
            return try Inner.read(reader);
        }
    };
}

/// Any number of values.
pub fn List(comptime Inner: type) type {
    return struct {
        pub const Type = []const Inner.Type;
        pub const is_optional = false;

        pub fn write(writer: *Writer, values: Type) Writer.Error!void {
            try writer.array(values.len);
            for (values) |value| try Inner.write(writer, value);
        }

        pub fn read(reader: *Reader) ReadError!Type {
            const values = try reader.arena.alloc(Inner.Type, try reader.array(@sizeOf(Inner.Type)));
            for (values) |*value| value.* = try Inner.read(reader);
            return values;
        }
    };
}

/// Exactly so many values.
pub fn FixedList(comptime Inner: type, comptime length: usize) type {
    return struct {
        pub const Type = [length]Inner.Type;
        pub const is_optional = false;

        pub fn write(writer: *Writer, values: Type) Writer.Error!void {
            try writer.array(length);
            for (values) |value| try Inner.write(writer, value);
        }

        pub fn read(reader: *Reader) ReadError!Type {
            if (try reader.array(0) != length) return error.WrongLength;
            var values: Type = undefined;
            for (&values) |*value| value.* = try Inner.read(reader);
            return values;
        }
    };
}

/// Named fields: of each its name on the wire, its name in the structure, and its codec.
pub fn Structure(comptime T: type, comptime fields: anytype) type {
    return struct {
        pub const Type = T;
        pub const is_optional = false;

        pub fn write(writer: *Writer, value: T) Writer.Error!void {
            try writer.map(fields.len);
            inline for (fields) |field| {
                try writer.string(field[0]);
                try field[2].write(writer, @field(value, field[1]));
            }
        }

        pub fn read(reader: *Reader) ReadError!T {
            var value: T = undefined;
            var seen: [fields.len]bool = @splat(false);
            for (0..try reader.map()) |_| {
                const name = try reader.key();
                var is_known = false;
                inline for (fields, 0..) |field, index| {
                    if (std.mem.eql(u8, name, field[0])) {
                        if (seen[index]) return error.DuplicateField;
                        seen[index] = true;
                        is_known = true;
                        @field(value, field[1]) = try field[2].read(reader);
                    }
                }
                if (!is_known) try reader.skip();
            }
            inline for (fields, 0..) |field, index| {
                if (!seen[index]) {
                    if (!field[2].is_optional) return error.MissingField;
                    @field(value, field[1]) = if (field[2].is_optional) null else unreachable;
                }
            }
            return value;
        }
    };
}

/// A whole request, in memory of the allocator's.
pub fn encodeRequest(comptime Codec: type, gpa: std.mem.Allocator, name: []const u8, request: Codec.Type) Writer.Error!Writer {
    var writer: Writer = .init(gpa);
    errdefer writer.deinit();
    try writer.array(1);
    try writeNamed(Codec, &writer, name, request);
    return writer;
}

/// A whole response, in memory of the allocator's.
pub fn encodeResponse(comptime Codec: type, gpa: std.mem.Allocator, name: []const u8, response: Codec.Type) Writer.Error!Writer {
    var writer: Writer = .init(gpa);
    errdefer writer.deinit();
    try writeNamed(Codec, &writer, name, response);
    return writer;
}

fn writeNamed(comptime Codec: type, writer: *Writer, name: []const u8, value: Codec.Type) Writer.Error!void {
    try writer.array(2);
    try writer.string(name);
    try Codec.write(writer, value);
}

/// Reads a whole request of that name.
pub fn decodeRequest(comptime Codec: type, arena: std.mem.Allocator, name: []const u8, payload: []const u8) ReadError!Codec.Type {
    var reader: Reader = .init(arena, payload);
    if (!std.mem.eql(u8, try readRequestName(&reader), name)) return error.UnknownMessage;
    return readFields(Codec, &reader);
}

/// Reads a whole response of that name.
pub fn decodeResponse(comptime Codec: type, arena: std.mem.Allocator, name: []const u8, payload: []const u8) ReadError!Codec.Type {
    var reader: Reader = .init(arena, payload);
    if (!std.mem.eql(u8, try readResponseName(&reader), name)) return error.UnknownMessage;
    return readFields(Codec, &reader);
}

/// The name of a request, whose fields follow.
pub fn readRequestName(reader: *Reader) ReadError![]const u8 {
    if (try reader.array(0) != 1) return error.WrongLength;
    return readResponseName(reader);
}

/// The name of a response, whose fields follow.
pub fn readResponseName(reader: *Reader) ReadError![]const u8 {
    if (try reader.array(0) != 2) return error.WrongLength;
    return reader.string();
}

/// The fields of a message, the last thing in it.
pub fn readFields(comptime Codec: type, reader: *Reader) ReadError!Codec.Type {
    const value = try Codec.read(reader);
    try reader.finish();
    return value;
}
