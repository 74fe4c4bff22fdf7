"""How values of a type are written and read; generated code puts codecs together from these.

A codec has `write(writer, value)`, `read(reader)`, `memory_bytes` (about what a value takes beside
text and bytes) and `is_optional` (whether a field of this type may be missing).
"""

from .errors import DecodeError, EncodeError
from .msgpack import Reader, Writer

_NUMBER_BYTES = 32
_REFERENCE_BYTES = 64


class _Boolean:
    memory_bytes = 8
    is_optional = False

    def write(self, writer, value):
        writer.boolean(value)

    def read(self, reader):
        return reader.boolean()


class _Integer:
    memory_bytes = _NUMBER_BYTES
    is_optional = False

    def __init__(self, bits):
        self._maximum = (1 << bits) - 1

    def write(self, writer, value):
        writer.integer(value, self._maximum)

    def read(self, reader):
        return reader.integer(self._maximum)


class _Real:
    memory_bytes = _NUMBER_BYTES
    is_optional = False

    def write(self, writer, value):
        writer.real(value)

    def read(self, reader):
        return reader.real()


class _String:
    memory_bytes = _REFERENCE_BYTES
    is_optional = False

    def write(self, writer, value):
        writer.string(value)

    def read(self, reader):
        return reader.string()


class _Bytes:
    memory_bytes = _REFERENCE_BYTES
    is_optional = False

    def write(self, writer, value):
        writer.binary(value)

    def read(self, reader):
        return reader.binary()


BOOL = _Boolean()
U8 = _Integer(8)
U16 = _Integer(16)
U32 = _Integer(32)
U64 = _Integer(64)
F64 = _Real()
STRING = _String()
BYTES = _Bytes()


class FixedBytes:
    """Exactly so many bytes."""

    memory_bytes = _REFERENCE_BYTES
    is_optional = False

    def __init__(self, length):
        self._length = length

    def write(self, writer, value):
        _check_length(len(value), self._length)
        writer.binary(value)

    def read(self, reader):
        value = reader.binary()
        if len(value) != self._length:
            raise _wrong_length(self._length, len(value))
        return value


class Nominal:
    """Exactly so many bytes, in a class of their own."""

    memory_bytes = 2 * _REFERENCE_BYTES
    is_optional = False

    def __init__(self, kind, length):
        self._kind = kind
        self._inner = FixedBytes(length)

    def write(self, writer, value):
        self._inner.write(writer, value.value)

    def read(self, reader):
        return self._kind(self._inner.read(reader))


class Optional:
    """A value, or `None`."""

    is_optional = True

    def __init__(self, inner):
        self._inner = inner
        self.memory_bytes = inner.memory_bytes

    def write(self, writer, value):
        if value is None:
            writer.nil()
        else:
            self._inner.write(writer, value)

    def read(self, reader):
        return None if reader.take_nil() else self._inner.read(reader)


class List:
    """Any number of values."""

    memory_bytes = _REFERENCE_BYTES
    is_optional = False

    def __init__(self, inner):
        self._inner = inner

    def write(self, writer, values):
        writer.array(len(values))
        for value in values:
            self._inner.write(writer, value)

    def read(self, reader):
        return [self._inner.read(reader) for _ in range(reader.array(self._inner.memory_bytes))]


class FixedList:
    """Exactly so many values."""

    is_optional = False

    def __init__(self, inner, length):
        self._inner = inner
        self._length = length
        self.memory_bytes = _REFERENCE_BYTES + inner.memory_bytes * length

    def write(self, writer, values):
        _check_length(len(values), self._length)
        List(self._inner).write(writer, values)

    def read(self, reader):
        count = reader.array(self._inner.memory_bytes)
        if count != self._length:
            raise _wrong_length(self._length, count)
        return [self._inner.read(reader) for _ in range(count)]


class Structure:
    """Named fields: of each its name on the wire, its attribute, and its codec."""

    is_optional = False

    def __init__(self, kind, fields):
        self._kind = kind
        self._fields = fields
        self._by_name = {name: (attribute, codec) for name, attribute, codec in fields}
        self.memory_bytes = _REFERENCE_BYTES + sum(codec.memory_bytes for _, _, codec in fields)

    def write(self, writer, value):
        writer.map(len(self._fields))
        for name, attribute, codec in self._fields:
            writer.string(name)
            codec.write(writer, getattr(value, attribute))

    def read(self, reader):
        values = {}
        for _ in range(reader.map()):
            name = reader.string()
            known = self._by_name.get(name)
            if known is None:
                reader.skip()
                continue
            attribute, codec = known
            if attribute in values:
                raise DecodeError("TN1049", f"field `{name}` appears twice")
            values[attribute] = codec.read(reader)
        for name, attribute, codec in self._fields:
            if attribute not in values and not codec.is_optional:
                raise DecodeError("TN1048", f"field `{name}` is missing")
        return self._kind(**values)


def encode_request(name, codec, request) -> bytes:
    """A whole request."""
    writer = Writer()
    writer.array(1)
    _write_named(writer, name, codec, request)
    return writer.bytes_written()


def encode_response(name, codec, response) -> bytes:
    """A whole response."""
    writer = Writer()
    _write_named(writer, name, codec, response)
    return writer.bytes_written()


def decode_request(name, codec, payload):
    """Reads a whole request of that name."""
    reader = Reader(payload)
    expect_length(reader, 1)
    return _read_named(reader, name, codec)


def decode_response(name, codec, payload):
    """Reads a whole response of that name."""
    return _read_named(Reader(payload), name, codec)


def read_fields(reader, codec):
    """Reads the fields of a message, the last thing in it."""
    value = codec.read(reader)
    reader.finish()
    return value


def unknown_message(name) -> DecodeError:
    """The error of a message of another name than the service has."""
    return DecodeError("TN1050", f"unknown message `{name[:100]}`")


def expect_length(reader, expected):
    found = reader.array(0)
    if found != expected:
        raise _wrong_length(expected, found)


def _read_named(reader, name, codec):
    expect_length(reader, 2)
    found = reader.string()
    if found != name:
        raise unknown_message(found)
    return read_fields(reader, codec)


def _write_named(writer, name, codec, value):
    writer.array(2)
    writer.string(name)
    codec.write(writer, value)


def _wrong_length(expected, found) -> DecodeError:
    return DecodeError("TN1045", f"expected {expected} elements, found {found}")


def _check_length(found, expected):
    if found != expected:
        raise EncodeError(f"{found} elements where exactly {expected} are needed")
