//! The MessagePack of services: every value in its smallest form, and a reader that trusts no length.
//!
//! Nothing here recurses along data, and what elements of lists will take in memory is charged
//! against a multiple of the data's size before it is allocated.

const std = @import("std");
const Allocator = std.mem.Allocator;

/// Bytes that are not a value of the wanted type, or no memory for it.
pub const ReadError = error{
    UnexpectedEnd,
    WrongType,
    OutOfRange,
    InvalidUtf8,
    WrongLength,
    TooManyElements,
    TooMuchMemory,
    MissingField,
    DuplicateField,
    UnknownMessage,
    TrailingBytes,
    OutOfMemory,
};

/// The stable code of an error, which `tine explain` tells more about.
pub fn errorCode(err: ReadError) [:0]const u8 {
    return switch (err) {
        error.UnexpectedEnd => "TN1041",
        error.WrongType => "TN1042",
        error.OutOfRange => "TN1043",
        error.InvalidUtf8 => "TN1044",
        error.WrongLength => "TN1045",
        error.TooManyElements => "TN1046",
        error.TooMuchMemory, error.OutOfMemory => "TN1047",
        error.MissingField => "TN1048",
        error.DuplicateField => "TN1049",
        error.UnknownMessage => "TN1050",
        error.TrailingBytes => "TN1051",
    };
}

/// Appends values in their smallest form.
pub const Writer = struct {
    gpa: Allocator,
    buffer: std.ArrayList(u8) = .empty,

    pub const Error = Allocator.Error;

    pub fn init(gpa: Allocator) Writer {
        return .{ .gpa = gpa };
    }

    pub fn deinit(writer: *Writer) void {
        writer.buffer.deinit(writer.gpa);
    }

    /// The bytes written; they stay the writer's.
    pub fn written(writer: *const Writer) []const u8 {
        return writer.buffer.items;
    }

    pub fn nil(writer: *Writer) Error!void {
        try writer.byte(0xc0);
    }

    pub fn boolean(writer: *Writer, value: bool) Error!void {
        try writer.byte(if (value) 0xc3 else 0xc2);
    }

    pub fn integer(writer: *Writer, value: u64) Error!void {
        if (value <= 0x7f) {
            try writer.byte(@intCast(value));
        } else if (value <= 0xff) {
            try writer.marked(0xcc, u8, @intCast(value));
        } else if (value <= 0xffff) {
            try writer.marked(0xcd, u16, @intCast(value));
        } else if (value <= 0xffff_ffff) {
            try writer.marked(0xce, u32, @intCast(value));
        } else {
            try writer.marked(0xcf, u64, value);
        }
    }

    pub fn real(writer: *Writer, value: f64) Error!void {
        try writer.marked(0xcb, u64, @bitCast(value));
    }

    pub fn string(writer: *Writer, value: []const u8) Error!void {
        if (value.len <= 0x1f) {
            try writer.byte(0xa0 | @as(u8, @intCast(value.len)));
        } else if (value.len <= 0xff) {
            try writer.marked(0xd9, u8, @intCast(value.len));
        } else {
            try writer.long(0xda, value.len);
        }
        try writer.buffer.appendSlice(writer.gpa, value);
    }

    pub fn binary(writer: *Writer, value: []const u8) Error!void {
        if (value.len <= 0xff) {
            try writer.marked(0xc4, u8, @intCast(value.len));
        } else {
            try writer.long(0xc5, value.len);
        }
        try writer.buffer.appendSlice(writer.gpa, value);
    }

    /// The head of an array; its elements follow.
    pub fn array(writer: *Writer, length: usize) Error!void {
        try writer.head(0x90, 0xdc, length);
    }

    /// The head of a map; its keys and values follow by turns.
    pub fn map(writer: *Writer, length: usize) Error!void {
        try writer.head(0x80, 0xde, length);
    }

    fn head(writer: *Writer, fix: u8, marker: u8, length: usize) Error!void {
        if (length <= 0xf) {
            try writer.byte(fix | @as(u8, @intCast(length)));
        } else {
            try writer.long(marker, length);
        }
    }

    /// A length of 16 or 32 bits; the marker of the latter is the next one.
    fn long(writer: *Writer, marker: u8, length: usize) Error!void {
        if (length <= 0xffff) {
            try writer.marked(marker, u16, @intCast(length));
        } else {
            // Values are below 4 GiB, as frames are.
            try writer.marked(marker + 1, u32, @intCast(length));
        }
    }

    fn marked(writer: *Writer, marker: u8, comptime T: type, value: T) Error!void {
        var bytes: [1 + @sizeOf(T)]u8 = undefined;
        bytes[0] = marker;
        std.mem.writeInt(T, bytes[1..], value, .big);
        try writer.buffer.appendSlice(writer.gpa, &bytes);
    }

    fn byte(writer: *Writer, value: u8) Error!void {
        try writer.buffer.append(writer.gpa, value);
    }
};

/// Reads values one after the other. Texts and bytes are slices of the data; lists are allocated.
pub const Reader = struct {
    data: []const u8,
    /// An arena: what a failed read allocated is not freed one by one.
    arena: Allocator,
    position: usize = 0,
    memory_left: usize,

    /// Memory that elements may take per byte of data, and beside it.
    const memory_per_byte = 64;
    const memory_free = 64 << 10;

    pub fn init(arena: Allocator, data: []const u8) Reader {
        return .{ .data = data, .arena = arena, .memory_left = data.len *| memory_per_byte +| memory_free };
    }

    /// Checks that nothing is left.
    pub fn finish(reader: *const Reader) ReadError!void {
        if (reader.position != reader.data.len) return error.TrailingBytes;
    }

    /// Whether the next value is the absent one, which is then taken.
    pub fn takeNil(reader: *Reader) bool {
        const is_nil = reader.position < reader.data.len and reader.data[reader.position] == 0xc0;
        if (is_nil) reader.position += 1;
        return is_nil;
    }

    pub fn boolean(reader: *Reader) ReadError!bool {
        return switch (try reader.takeMarker()) {
            0xc2 => false,
            0xc3 => true,
            else => error.WrongType,
        };
    }

    /// An integer of any width that fits the type.
    pub fn integer(reader: *Reader, comptime T: type) ReadError!T {
        return std.math.cast(T, try reader.takeInteger()) orelse error.OutOfRange;
    }

    /// A float, or a whole number in its place.
    pub fn real(reader: *Reader) ReadError!f64 {
        switch (try reader.takeMarker()) {
            0xcb => return @bitCast(try reader.bigEndian(u64)),
            0xca => return @as(f32, @bitCast(try reader.bigEndian(u32))),
            else => {
                reader.position -= 1;
                return @floatFromInt(try reader.takeInteger());
            },
        }
    }

    pub fn string(reader: *Reader) ReadError![]const u8 {
        const text = try reader.key();
        return if (std.unicode.utf8ValidateSlice(text)) text else error.InvalidUtf8;
    }

    /// The bytes of a string: enough to compare a map's key with the names of fields.
    pub fn key(reader: *Reader) ReadError![]const u8 {
        const marker = try reader.takeMarker();
        return reader.take(switch (marker) {
            0xa0...0xbf => marker & 0x1f,
            0xd9 => try reader.bigEndian(u8),
            0xda => try reader.bigEndian(u16),
            0xdb => try reader.bigEndian(u32),
            else => return error.WrongType,
        });
    }

    pub fn binary(reader: *Reader) ReadError![]const u8 {
        return reader.take(switch (try reader.takeMarker()) {
            0xc4 => try reader.bigEndian(u8),
            0xc5 => try reader.bigEndian(u16),
            0xc6 => try reader.bigEndian(u32),
            else => return error.WrongType,
        });
    }

    /// The head of an array whose elements take so many bytes each in memory.
    pub fn array(reader: *Reader, element_bytes: usize) ReadError!usize {
        const count = try reader.head(0x90, 0xdc, 1);
        const needed = count *| element_bytes;
        if (needed > reader.memory_left) return error.TooMuchMemory;
        reader.memory_left -= needed;
        return count;
    }

    /// The head of a map: how many keys and values follow.
    pub fn map(reader: *Reader) ReadError!usize {
        return reader.head(0x80, 0xde, 2);
    }

    fn head(reader: *Reader, fix: u8, marker16: u8, values: usize) ReadError!usize {
        const marker = try reader.takeMarker();
        const count: usize = if (marker & 0xf0 == fix)
            marker & 0xf
        else if (marker == marker16)
            try reader.bigEndian(u16)
        else if (marker == marker16 + 1)
            try reader.bigEndian(u32)
        else
            return error.WrongType;
        if (count > (reader.data.len - reader.position) / values) return error.TooManyElements;
        return count;
    }

    /// Passes over one value of any kind, however deeply it nests.
    pub fn skip(reader: *Reader) ReadError!void {
        // Each turn takes at least one byte, so the data bounds the loop whatever lengths it claims.
        var values_left: u64 = 1;
        while (values_left > 0) values_left = values_left - 1 + try reader.skipHead();
    }

    /// Passes over a value but not what is inside it; how many values that are.
    fn skipHead(reader: *Reader) ReadError!u64 {
        const marker = try reader.takeMarker();
        const length: usize = switch (marker) {
            0x00...0x7f, 0xc0, 0xc2, 0xc3, 0xe0...0xff => 0,
            0x80...0x8f => return @as(u64, marker & 0xf) * 2,
            0x90...0x9f => return marker & 0xf,
            0xa0...0xbf => marker & 0x1f,
            0xc1 => return error.WrongType,
            0xc4, 0xd9 => try reader.bigEndian(u8),
            0xc5, 0xda => try reader.bigEndian(u16),
            0xc6, 0xdb => try reader.bigEndian(u32),
            // Extension values have one more byte, their type.
            0xc7 => @as(usize, try reader.bigEndian(u8)) + 1,
            0xc8 => @as(usize, try reader.bigEndian(u16)) + 1,
            0xc9 => @as(usize, try reader.bigEndian(u32)) + 1,
            0xcc, 0xd0 => 1,
            0xcd, 0xd1, 0xd4 => 2,
            0xd5 => 3,
            0xca, 0xce, 0xd2 => 4,
            0xd6 => 5,
            0xcb, 0xcf, 0xd3 => 8,
            0xd7 => 9,
            0xd8 => 17,
            0xdc => return try reader.bigEndian(u16),
            0xdd => return try reader.bigEndian(u32),
            0xde => return @as(u64, try reader.bigEndian(u16)) * 2,
            0xdf => return @as(u64, try reader.bigEndian(u32)) * 2,
        };
        _ = try reader.take(length);
        return 0;
    }

    fn takeInteger(reader: *Reader) ReadError!i128 {
        const marker = try reader.takeMarker();
        return switch (marker) {
            0x00...0x7f => marker,
            0xe0...0xff => @as(i8, @bitCast(marker)),
            0xcc => try reader.bigEndian(u8),
            0xcd => try reader.bigEndian(u16),
            0xce => try reader.bigEndian(u32),
            0xcf => try reader.bigEndian(u64),
            0xd0 => try reader.bigEndian(i8),
            0xd1 => try reader.bigEndian(i16),
            0xd2 => try reader.bigEndian(i32),
            0xd3 => try reader.bigEndian(i64),
            else => error.WrongType,
        };
    }

    fn takeMarker(reader: *Reader) ReadError!u8 {
        return reader.bigEndian(u8);
    }

    fn bigEndian(reader: *Reader, comptime T: type) ReadError!T {
        const bytes = try reader.take(@sizeOf(T));
        return std.mem.readInt(T, bytes[0..@sizeOf(T)], .big);
    }

    fn take(reader: *Reader, count: usize) ReadError![]const u8 {
        if (count > reader.data.len - reader.position) return error.UnexpectedEnd;
        defer reader.position += count;
        return reader.data[reader.position..][0..count];
    }
};
