"""Errors, each with the stable code that `tine explain` tells more about."""


class TineError(Exception):
    """Any failure of a call."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class DecodeError(TineError):
    """Bytes that are not a value of the wanted type."""


class EncodeError(ValueError):
    """A value that its type cannot hold: a mistake of the program."""


class ConnectError(TineError):
    """A connection that could not be made."""


class CallError(TineError):
    """A call that the transport failed, or answered in the service's place."""


class ServiceError(TineError):
    """What a service itself says went wrong."""

    def __init__(self, message: str):
        super().__init__("TN1063", message)
