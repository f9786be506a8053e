"""Receivers of alerts: who is told what, with which credentials, and every way in which it fails."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.clients.alertmanager import PATH, Alertmanager
from fiduciary.clients.cloudevents import EventSink
from fiduciary.clients.delivery import Credentials, DeliveryError, Receiver
from tests.unit.clients.receiver import Place, certificate, receiving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "sha256:00/begun",
    "source": "/apis/fiduciary.dev/v1alpha1/namespaces/quant/driftpolicies/inputs",
    "type": "dev.fiduciary.drift.alarm.begun.v1",
    "subject": "Börse 100%",
    "time": "2026-11-24T12:00:00Z",
    "datacontenttype": "application/json",
    "data": {"monitor": "inputs", "summary": "größer"},
}


async def _post(place: Place, credentials: Credentials | None = None, **options: Any) -> None:
    receiver = Receiver(f"{place.address}/hook", credentials, **options)
    try:
        await receiver.post(b"[]", {"Content-Type": "application/json"})
    finally:
        await receiver.close()


def scenario(act: Callable[[Place], Awaitable[object]], tls: ssl.SSLContext | None = None) -> Place:
    """What a receiver got when ``act`` was done."""

    async def run() -> Place:
        async with receiving(tls) as place:
            await act(place)
            return place

    return asyncio.run(run())


def failure(**answer: Any) -> DeliveryError:
    """How a post fails at a receiver that behaves like this."""

    async def act(place: Place) -> None:
        for name, value in answer.items():
            setattr(place, name, value)
        await _post(place, timeout=0.3 if place.silent else 60.0)

    with pytest.raises(DeliveryError) as error:
        scenario(act)
    return error.value


def test_a_token_is_read_for_each_request(tmp_path: Path) -> None:
    token, seen = tmp_path / "token", list[int]()

    async def act(place: Place) -> None:
        receiver = Receiver(place.address, Credentials(token_file=token), observe=seen.append)
        for text in ("first\n", "rotated\n"):
            token.write_text(text)
            await receiver.post(b"{}", {})
        await receiver.close()

    got = scenario(act).got
    assert [one.headers["Authorization"] for one in got] == ["Bearer first", "Bearer rotated"]
    assert seen == [200, 200]


def test_a_name_and_its_password(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("geheim:ß\n")
    credentials = Credentials(username="fiduciary", password_file=password)
    (got,) = scenario(lambda place: _post(place, credentials)).got
    assert base64.b64decode(got.headers["Authorization"].removeprefix("Basic ")).decode() == "fiduciary:geheim:ß"
    assert got.path == "/hook"


def test_credentials_that_cannot_be_read_are_named_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError) as error:
        scenario(lambda place: _post(place, Credentials(token_file=tmp_path / "none")))
    assert error.value.reason == "ReceiverUnauthorized"
    assert "none" in error.value.message


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (301, "ReceiverRefused", "redirects are not followed"),
        (307, "ReceiverRefused", "redirects are not followed"),
        (400, "ReceiverRefused", "answered 400"),
        (401, "ReceiverUnauthorized", "correct its entry"),
        (403, "ReceiverUnauthorized", "correct its entry"),
        (429, "ReceiverUnreachable", "tried again"),
        (500, "ReceiverUnreachable", "tried again"),
        (503, "ReceiverUnreachable", "tried again"),
    ],
)
def test_an_answer_that_is_no_success(status: int, reason: str, words: str) -> None:
    error = failure(status=status, headers={"Location": "http://169.254.169.254/latest/meta-data"})
    assert error.reason == reason
    assert words in error.message
    assert "anybody's eyes" not in error.message, "what a receiver answers is shown to nobody"


def test_no_answer_in_time() -> None:
    error = failure(silent=True)
    assert (error.reason, "within 0.3 s" in error.message) == ("ReceiverTimeout", True)


def test_nobody_there() -> None:
    async def act(place: Place) -> None:
        await _post(Place(address="http://127.0.0.1:1"))

    with pytest.raises(DeliveryError) as error:
        scenario(act)
    assert error.value.reason == "ReceiverUnreachable"


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert len(scenario(_post).got) == 1


def test_a_private_certificate_and_ours(tmp_path: Path) -> None:
    (server, server_key), (client, client_key) = certificate(tmp_path, "server"), certificate(tmp_path, "client")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client))
    context.load_cert_chain(server, server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    ours = Credentials(ca_file=server, cert_file=client, key_file=client_key)
    assert len(scenario(lambda place: _post(place, ours), context).got) == 1
    for credentials in (None, Credentials(ca_file=server)):
        with pytest.raises(DeliveryError) as error:
            scenario(lambda place, its=credentials: _post(place, its), context)
        assert error.value.reason == "ReceiverUnreachable"


def test_every_member_of_an_alertmanager_is_told_and_one_is_enough() -> None:
    alert = {"labels": {"alertname": "FiduciaryDrift"}, "startsAt": "2026-11-24T12:00:00Z"}

    async def act(place: Place) -> None:
        def members(*addresses: str) -> Alertmanager:
            return Alertmanager([Receiver(address + PATH) for address in addresses])

        for manager in (members(place.address, place.address), members("http://127.0.0.1:1", place.address)):
            await manager.post([alert])
            await manager.close()
        dead = members("http://127.0.0.1:1")
        with pytest.raises(DeliveryError):
            await dead.post([alert])
        await dead.close()

    got = scenario(act).got
    assert [(one.path, json.loads(one.body)) for one in got] == [("/api/v2/alerts", [alert])] * 3


def test_a_structured_event() -> None:
    async def act(place: Place) -> None:
        sink = EventSink(Receiver(place.address))
        await sink.send(EVENT)
        await sink.close()

    (got,) = scenario(act).got
    assert got.headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert json.loads(got.body) == EVENT


def test_a_binary_event_has_its_attributes_in_headers_as_the_binding_encodes_them() -> None:
    async def act(place: Place) -> None:
        sink = EventSink(Receiver(place.address), "Binary")
        await sink.send(EVENT)
        await sink.close()

    (got,) = scenario(act).got
    named = {name.lower(): value for name, value in got.headers.items()}
    assert named["content-type"] == "application/json"
    assert json.loads(got.body) == EVENT["data"]
    assert named["ce-specversion"] == "1.0"
    assert named["ce-id"] == "sha256:00/begun"
    assert named["ce-subject"] == "B%C3%B6rse%20100%25"
    assert "ce-datacontenttype" not in named
