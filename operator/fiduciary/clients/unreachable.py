"""Why a server could not be reached, for people: what the socket or the resolver said, without the library's own words
(``Cannot connect to host 127.0.0.1:5000 ssl:default [Connect call failed ('127.0.0.1', 5000)]``)."""

from __future__ import annotations

import os
import socket

import aiohttp


def why(error: BaseException) -> str:
    """In a few words, for a message that names the address itself."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, socket.gaierror):
        return f"its name is not known: {cause.strerror}"
    # A refused certificate is an OSError, too, whose number is no errno.
    if type(cause) in _OF_SOCKETS and isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return str(error) or type(error).__name__


_OF_SOCKETS = (OSError, ConnectionRefusedError, ConnectionResetError, ConnectionAbortedError, TimeoutError)
