"""The MessagePack of services: every value in its smallest form, and a reader that trusts no length.

Nothing here recurses along data, and what elements of lists will take in memory is charged against
a multiple of the data's size before they are read.
"""

import struct

from .errors import DecodeError, EncodeError

# Memory that elements may take per byte of data, and beside it.
_MEMORY_PER_BYTE = 64
_MEMORY_FREE_BYTES = 64 << 10

_FORMS = {1: ">B", 2: ">H", 4: ">I", 8: ">Q"}


class Writer:
    """Appends values in their smallest form."""

    def __init__(self):
        self._buffer = bytearray()

    def bytes_written(self) -> bytes:
        return bytes(self._buffer)

    def nil(self):
        self._buffer.append(0xC0)

    def boolean(self, value: bool):
        if not isinstance(value, bool):
            raise EncodeError(f"{value!r} is no boolean")
        self._buffer.append(0xC3 if value else 0xC2)

    def integer(self, value: int, maximum: int):
        """Writes an integer from 0 to `maximum`."""
        if not isinstance(value, int) or not 0 <= value <= maximum:
            raise EncodeError(f"{value!r} is no integer from 0 to {maximum}")
        if value <= 0x7F:
            self._buffer.append(value)
        elif value <= 0xFF:
            self._marked(0xCC, value, 1)
        elif value <= 0xFFFF:
            self._marked(0xCD, value, 2)
        elif value <= 0xFFFFFFFF:
            self._marked(0xCE, value, 4)
        else:
            self._marked(0xCF, value, 8)

    def real(self, value: float):
        self._buffer.append(0xCB)
        self._buffer += struct.pack(">d", value)

    def string(self, value: str):
        text = value.encode("utf-8")
        if len(text) <= 0x1F:
            self._buffer.append(0xA0 | len(text))
        elif len(text) <= 0xFF:
            self._marked(0xD9, len(text), 1)
        else:
            self._long(0xDA, len(text))
        self._buffer += text

    def binary(self, value: bytes):
        if len(value) <= 0xFF:
            self._marked(0xC4, len(value), 1)
        else:
            self._long(0xC5, len(value))
        self._buffer += value

    def array(self, length: int):
        """The head of an array; its elements follow."""
        self._head(0x90, 0xDC, length)

    def map(self, length: int):
        """The head of a map; its keys and values follow by turns."""
        self._head(0x80, 0xDE, length)

    def _head(self, fix: int, marker: int, length: int):
        if length <= 0xF:
            self._buffer.append(fix | length)
        else:
            self._long(marker, length)

    def _long(self, marker: int, length: int):
        # The marker of lengths of 32 bits is the next one.
        if length <= 0xFFFF:
            self._marked(marker, length, 2)
        else:
            self._marked(marker + 1, length, 4)

    def _marked(self, marker: int, value: int, size: int):
        self._buffer.append(marker)
        self._buffer += struct.pack(_FORMS[size], value)


class Reader:
    """Reads values one after the other."""

    def __init__(self, data: bytes):
        self._data = data
        self._position = 0
        self._memory_left = len(data) * _MEMORY_PER_BYTE + _MEMORY_FREE_BYTES

    def finish(self):
        """Checks that nothing is left."""
        if self._position != len(self._data):
            self._fail("TN1051", "bytes left after the value, which ends")

    def take_nil(self) -> bool:
        """Whether the next value is the absent one, which is then taken."""
        is_nil = self._data[self._position : self._position + 1] == b"\xc0"
        self._position += is_nil
        return is_nil

    def boolean(self) -> bool:
        marker = self._marker()
        if marker not in (0xC2, 0xC3):
            self._wrong("a boolean")
        return marker == 0xC3

    def integer(self, maximum: int) -> int:
        """An integer of any width from 0 to `maximum`."""
        value = self._integer()
        if not 0 <= value <= maximum:
            self._fail("TN1043", f"{value} is out of range: at most {maximum} fits,")
        return value

    def _integer(self) -> int:
        marker = self._marker()
        if marker <= 0x7F:
            return marker
        if marker >= 0xE0:
            return marker - 0x100
        if 0xCC <= marker <= 0xCF:
            return self._unsigned(1 << (marker - 0xCC))
        if 0xD0 <= marker <= 0xD3:
            return int.from_bytes(self._take(1 << (marker - 0xD0)), "big", signed=True)
        self._wrong("an integer")

    def real(self) -> float:
        """A float, or a whole number in its place."""
        marker = self._marker()
        if marker == 0xCB:
            return struct.unpack(">d", self._take(8))[0]
        if marker == 0xCA:
            return struct.unpack(">f", self._take(4))[0]
        self._position -= 1
        return float(self._integer())

    def string(self) -> str:
        text = self._text()
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            self._fail("TN1044", "string that is not UTF-8 before the one")

    def _text(self) -> bytes:
        marker = self._marker()
        if 0xA0 <= marker <= 0xBF:
            return self._take(marker & 0x1F)
        if 0xD9 <= marker <= 0xDB:
            return self._take(self._unsigned(1 << (marker - 0xD9)))
        self._wrong("a string")

    def binary(self) -> bytes:
        marker = self._marker()
        if not 0xC4 <= marker <= 0xC6:
            self._wrong("a byte string")
        return self._take(self._unsigned(1 << (marker - 0xC4)))

    def array(self, element_bytes: int) -> int:
        """The head of an array whose elements take about so many bytes each in memory."""
        count = self._head(0x90, 0xDC, "an array", 1)
        self._memory_left -= count * element_bytes
        if self._memory_left < 0:
            self._fail("TN1047", "elements that would take too much memory")
        return count

    def map(self) -> int:
        """The head of a map: how many keys and values follow."""
        return self._head(0x80, 0xDE, "a map", 2)

    def _head(self, fix: int, marker16: int, expected: str, values: int) -> int:
        marker = self._marker()
        if marker & 0xF0 == fix:
            count = marker & 0xF
        elif marker == marker16:
            count = self._unsigned(2)
        elif marker == marker16 + 1:
            count = self._unsigned(4)
        else:
            self._wrong(expected)
        if count * values > len(self._data) - self._position:
            self._fail("TN1046", f"{count} elements are more than the data can hold")
        return count

    def skip(self):
        """Passes over one value of any kind, however deeply it nests."""
        # Each turn takes at least one byte, so the data bounds the loop whatever lengths it claims.
        values_left = 1
        while values_left > 0:
            values_left += self._skip_head() - 1

    def _skip_head(self) -> int:
        """Passes over a value but not what is inside it; how many values that are."""
        marker = self._marker()
        if marker <= 0x7F or marker >= 0xE0 or marker in (0xC0, 0xC2, 0xC3):
            return 0
        if marker <= 0x8F:
            return 2 * (marker & 0xF)
        if marker <= 0x9F:
            return marker & 0xF
        if marker >= 0xDC:
            count = self._unsigned(4 if marker & 1 else 2)
            return count * 2 if marker >= 0xDE else count
        self._take(self._scalar_length(marker))
        return 0

    def _scalar_length(self, marker: int) -> int:
        if marker <= 0xBF:
            return marker & 0x1F
        if marker == 0xC1:
            self._wrong("a value")
        if marker <= 0xC6:
            return self._unsigned(1 << (marker - 0xC4))
        if marker <= 0xC9:
            return self._unsigned(1 << (marker - 0xC7)) + 1
        if marker <= 0xCB:
            return 4 if marker == 0xCA else 8
        if marker <= 0xCF:
            return 1 << (marker - 0xCC)
        if marker <= 0xD3:
            return 1 << (marker - 0xD0)
        if marker <= 0xD8:
            return (1 << (marker - 0xD4)) + 1
        return self._unsigned(1 << (marker - 0xD9))

    def _unsigned(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _marker(self) -> int:
        if self._position == len(self._data):
            self._fail("TN1041", "unexpected end of data")
        marker = self._data[self._position]
        self._position += 1
        return marker

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self._position:
            self._fail("TN1041", "unexpected end of data")
        taken = self._data[self._position : self._position + count]
        self._position += count
        return taken

    def _fail(self, code: str, what: str):
        raise DecodeError(code, f"{what} at byte {self._position}")

    def _wrong(self, expected: str):
        self._fail("TN1042", f"expected {expected} before the one")
