"""Why a server could not be reached: the words that end in a condition."""

from __future__ import annotations

import asyncio
import socket
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from fiduciary.clients.mlflow import Registry, RegistryError
from fiduciary.clients.unreachable import why

HERE = ConnectionKey("mlflow.mlflow.svc", 5000, False, True, None, None, None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            aiohttp.ClientConnectorDNSError(HERE, socket.gaierror(-2, "Name or service not known")),
            "its name is not known: Name or service not known",
        ),
        (
            aiohttp.ClientConnectorError(HERE, ConnectionRefusedError(111, "Connect call failed ('10.0.0.1', 5000)")),
            "Connection refused",
        ),
        (
            aiohttp.ClientConnectorError(HERE, OSError(113, "Connect call failed ('10.0.0.1', 5000)")),
            "No route to host",
        ),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_what_the_socket_or_the_resolver_said(error: Exception, words: str) -> None:
    assert why(error) == words


def test_a_refused_certificate_keeps_its_words() -> None:
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")
    told = why(aiohttp.ClientConnectorCertificateError(HERE, refused))
    assert "self-signed certificate" in told


def test_a_closed_port_is_told_without_the_library_s_words() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"

        async def asked() -> str:
            registry = Registry(address, timeout=5)
            with pytest.raises(RegistryError) as refused:
                await registry.aliases("quant.m")
            await registry.close()
            return refused.value.message

        told = asyncio.run(asked())
    assert told == f"no answer from {address} (Connection refused); what is decided does not change, it is tried again"
