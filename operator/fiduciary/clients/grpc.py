"""One unary gRPC call over HTTP/2.

A probe sends one small message now and then; gRPC's own library would bring threads and ten megabytes for that, so the
framing is h2's, and the messages are those of :mod:`fiduciary.clients.oip`.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

#: An answer to a probe is a prediction; whatever is larger than this is none.
MAX_MESSAGE = 1 << 20


class GrpcError(Exception):
    """No gRPC answer came; the message says what did."""


@dataclass(frozen=True, slots=True)
class Reply:
    """``status`` is gRPC's (0: well), ``http`` the status of the HTTP response around it."""

    http: int
    status: int
    message: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Stream:
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False


async def unary(
    host: str,
    port: int,
    path: str,
    message: bytes,
    *,
    authority: str,
    metadata: Mapping[str, str],
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> Reply:
    """One call on a connection of its own; the caller sets the timeout.

    Raises :class:`GrpcError` or :class:`OSError` where no answer came.
    """
    # Imported where a gRPC probe is sent: HTTP/2's tables are not needed to train a model.
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.exceptions import ProtocolError

    reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=server_name if tls else None)
    try:
        connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        connection.initiate_connection()
        headers = {
            ":method": "POST",
            ":scheme": "https" if tls else "http",
            ":path": path,
            ":authority": authority,
            "te": "trailers",
            "content-type": "application/grpc",
            **metadata,
        }
        stream = _Stream()
        number = connection.get_next_available_stream_id()
        connection.send_headers(number, list(headers.items()))
        left = memoryview(b"\x00" + struct.pack(">I", len(message)) + message)
        while not stream.ended:
            left = _send(connection, number, left)
            writer.write(connection.data_to_send())
            await writer.drain()
            received = await reader.read(65536)
            if not received:
                raise GrpcError("the connection was closed without an answer: is HTTP/2 (h2c) spoken here?")
            try:
                _take(connection, stream, cast("Sequence[Any]", connection.receive_data(received)))
            except ProtocolError as error:
                raise GrpcError(f"no HTTP/2 is spoken here: {type(error).__name__}") from error
        return _reply(stream)
    finally:
        writer.transport.abort()  # everything was said; a polite end of TLS would wait half a minute for the other side


def _send(connection: Any, number: int, left: memoryview) -> memoryview:
    """Send as much as the peer's windows allow; the rest waits for them to open."""
    while left:
        room = min(connection.local_flow_control_window(number), connection.max_outbound_frame_size, len(left))
        if room <= 0:
            return left
        connection.send_data(number, bytes(left[:room]), end_stream=room == len(left))
        left = left[room:]
    return left


def _take(connection: Any, stream: _Stream, events: Sequence[Any]) -> None:
    from h2 import events as h2

    for event in events:
        match event:
            case h2.ResponseReceived() | h2.TrailersReceived():
                stream.headers.update(cast("dict[str, str]", dict(event.headers or [])))
            case h2.DataReceived():
                stream.body += event.data or b""
                if len(stream.body) > MAX_MESSAGE:
                    raise GrpcError(f"the answer is larger than {MAX_MESSAGE} bytes")
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.StreamEnded():
                stream.ended = True
            case h2.StreamReset():
                raise GrpcError(f"the stream was reset (HTTP/2 error code {event.error_code})")
            case h2.ConnectionTerminated():
                raise GrpcError(f"the connection was ended (HTTP/2 error code {event.error_code})")
            case _:
                pass


def _reply(stream: _Stream) -> Reply:
    headers = stream.headers
    http, status = int(headers.get(":status", "0")), headers.get("grpc-status", "")
    body = bytes(stream.body)
    if not status.isdigit():
        return Reply(http, -1, f"no gRPC answer (HTTP {http})", b"", headers)
    message = unquote(headers.get("grpc-message", ""))
    # One byte says whether it is compressed (we ask for none), four its length.
    return Reply(http, int(status), message, body[5:], headers)
