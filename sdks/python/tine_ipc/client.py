"""Connections to services."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from typing import Generic, Iterator, TypeVar

from .codec import STRING, Structure, encode_request, expect_length, read_fields, unknown_message
from .errors import CallError, ConnectError, ServiceError
from .library import END, ERROR, OK, WAIT, Bytes, last_error, library, milliseconds, take
from .msgpack import Reader

R = TypeVar("R")


class _ErrorResponse:
    def __init__(self, message):
        self.message = message


_ERROR_CODEC = Structure(_ErrorResponse, [("message", "message", STRING)])


class Client:
    """A connection to a service, below the generated methods. Any thread may use it."""

    def __init__(self, path: str, schema: bytes | None, error_name: str, limit: float):
        self._error_name = error_name
        self._handle = ctypes.c_void_p()
        self._lock = threading.Lock()
        self._next_token = 1
        # Calls of event loops, by token. One loop at a time watches the descriptor.
        self._pending = {}
        self._loop = None
        status = library().tine_client_connect(
            path.encode(), schema, milliseconds(limit), ctypes.byref(self._handle)
        )
        if status != OK:
            raise last_error(ConnectError)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    def close(self):
        """Ends the connection; calls under way fail. No other thread may be in a call."""
        handle, self._handle = getattr(self, "_handle", None), None
        if self.__dict__.get("_loop") is not None and not self._loop.is_closed():
            self._loop.remove_reader(library().tine_client_descriptor(handle))
            self._loop = None
        if handle:
            library().tine_client_close(handle)

    def _open(self):
        if not self._handle:
            raise CallError("TN0920", "the connection was closed here")
        return self._handle

    def _call(self, request_name, request, response_name, codec, limit):
        payload = encode_request(request_name, type(request)._codec, request)
        reply = Bytes()
        status = library().tine_client_call(
            self._open(), payload, len(payload), milliseconds(limit), ctypes.byref(reply)
        )
        if status != OK:
            raise last_error(CallError)
        return self._decode(take(reply), response_name, codec)

    async def _call_async(self, request_name, request, response_name, codec, limit):
        payload = encode_request(request_name, type(request)._codec, request)
        loop = asyncio.get_running_loop()
        self._watch(loop)
        with self._lock:
            token = self._next_token
            self._next_token += 1
        future = self._pending[token] = loop.create_future()
        try:
            if library().tine_client_submit(self._open(), token, payload, len(payload)) != OK:
                raise last_error(CallError)
            reply = await asyncio.wait_for(future, limit)
        except asyncio.TimeoutError:
            raise CallError("TN0921", "no answer in time") from None
        finally:
            self._pending.pop(token, None)
        return self._decode(reply, response_name, codec)

    def _watch(self, loop):
        if self._loop is loop:
            return
        if self._loop is not None and not self._loop.is_closed() and self._pending:
            raise RuntimeError("another event loop has calls under way on this connection")
        descriptor = library().tine_client_descriptor(self._open())
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(descriptor)
        self._loop = loop
        loop.add_reader(descriptor, self._take_outcomes)

    def _take_outcomes(self):
        token = ctypes.c_uint64()
        while True:
            reply = Bytes()
            status = library().tine_client_poll(
                self._open(), 0, ctypes.byref(token), ctypes.byref(reply)
            )
            if status == WAIT:
                return
            error = last_error(CallError) if status == ERROR else None
            payload = take(reply)
            future = self._pending.get(token.value)
            if future is None or future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(payload)

    def _stream(self, request_name, request, response_name, codec, credit):
        payload = encode_request(request_name, type(request)._codec, request)
        stream = ctypes.c_void_p()
        status = library().tine_client_stream(
            self._open(), payload, len(payload), credit, milliseconds(30), ctypes.byref(stream)
        )
        if status != OK:
            raise last_error(CallError)
        return ItemStream(stream, lambda item: self._decode(item, response_name, codec))

    def _decode(self, payload, response_name, codec):
        reader = Reader(payload)
        expect_length(reader, 2)
        found = reader.string()
        if found == response_name:
            return read_fields(reader, codec)
        if found == self._error_name:
            raise ServiceError(read_fields(reader, _ERROR_CODEC).message)
        raise unknown_message(found)


class ItemStream(Generic[R]):
    """The responses of one request, in order. Closing it cancels what has not come."""

    def __init__(self, handle, decode):
        self._handle = handle
        self._decode = decode

    def next(self, limit: float = 30.0) -> R | None:
        """The next response; `None` is the end."""
        if not self._handle:
            return None
        item = Bytes()
        status = library().tine_stream_next(
            self._handle, milliseconds(limit), ctypes.byref(item)
        )
        if status == ERROR:
            raise last_error(CallError)
        payload = take(item)
        # The end is empty, or the service's error.
        if status == END and not payload:
            return None
        return self._decode(payload)

    def __iter__(self) -> Iterator[R]:
        while (item := self.next()) is not None:
            yield item

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    def close(self):
        """Asks for no further responses."""
        handle, self._handle = self._handle, None
        if handle:
            library().tine_stream_close(handle)
