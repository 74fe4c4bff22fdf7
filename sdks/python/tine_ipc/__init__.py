"""Typed calls between local processes: what generated Python rests on.

Calls go through `libtine_ipc.so`, by ctypes: nothing is compiled. The library is the file that
`TINE_IPC_LIBRARY` names, else `libtine_ipc.so` beside this package, else the system's.
"""

from .client import Client, ItemStream
from .codec import (
    BOOL,
    BYTES,
    F64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    FixedBytes,
    FixedList,
    List,
    Nominal,
    Optional,
    Structure,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from .errors import CallError, ConnectError, DecodeError, EncodeError, ServiceError, TineError
from .msgpack import Reader, Writer

__all__ = [
    "BOOL",
    "BYTES",
    "F64",
    "STRING",
    "U8",
    "U16",
    "U32",
    "U64",
    "CallError",
    "Client",
    "ConnectError",
    "DecodeError",
    "EncodeError",
    "FixedBytes",
    "FixedList",
    "ItemStream",
    "List",
    "Nominal",
    "Optional",
    "Reader",
    "ServiceError",
    "Structure",
    "TineError",
    "Writer",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
]
