"""The C interface, as in `tine_ipc.h`."""

import ctypes
import os
import threading

OK, WAIT, END, ERROR = range(4)


class Bytes(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(ctypes.c_uint8)), ("length", ctypes.c_size_t)]


_FUNCTIONS = {
    "tine_error_code": (ctypes.c_char_p, []),
    "tine_error_message": (ctypes.c_char_p, []),
    "tine_bytes_free": (None, [Bytes]),
    "tine_client_connect": (
        ctypes.c_int,
        [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_void_p)],
    ),
    "tine_client_call": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.POINTER(Bytes)],
    ),
    "tine_client_submit": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_size_t],
    ),
    "tine_client_poll": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(Bytes)],
    ),
    "tine_client_descriptor": (ctypes.c_int, [ctypes.c_void_p]),
    "tine_client_close": (None, [ctypes.c_void_p]),
    "tine_client_stream": (
        ctypes.c_int,
        [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint32,
            ctypes.c_uint32,
            ctypes.POINTER(ctypes.c_void_p),
        ],
    ),
    "tine_stream_next": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(Bytes)],
    ),
    "tine_stream_close": (None, [ctypes.c_void_p]),
}

_loaded = None
_lock = threading.Lock()


def library():
    """The library, loaded when it is first needed."""
    global _loaded
    with _lock:
        if _loaded is None:
            loaded = ctypes.CDLL(_path())
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(loaded, name)
                function.restype, function.argtypes = result, arguments
            _loaded = loaded
        return _loaded


def _path() -> str:
    named = os.environ.get("TINE_IPC_LIBRARY")
    if named:
        return named
    beside = os.path.join(os.path.dirname(__file__), "libtine_ipc.so")
    return beside if os.path.exists(beside) else "libtine_ipc.so"


def last_error(kind):
    """Why the last call of this thread failed, as an error of that class."""
    loaded = library()
    code = loaded.tine_error_code().decode("utf-8", "replace")
    return kind(code, loaded.tine_error_message().decode("utf-8", "replace"))


def take(given: Bytes) -> bytes:
    """Copies bytes of the library and frees them."""
    copy = ctypes.string_at(given.data, given.length) if given.length else b""
    library().tine_bytes_free(given)
    return copy


def milliseconds(seconds: float) -> int:
    return max(0, min(int(seconds * 1000), 0xFFFFFFFF))
