"""What a real Alertmanager makes of our alerts: it notifies, it resolves, and it knows whom it talks to."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from fiduciary.clients.alertmanager import PATH, Alertmanager
from fiduciary.clients.delivery import Credentials, DeliveryError, Receiver
from fiduciary.decide.drift.decision import Alert
from fiduciary.engine.alerting import Alerting
from fiduciary.engine.stores import Key
from tests.prometheus.alertmanager import Person, Server
from tests.prometheus.server import wait
from tests.unit.clients.receiver import certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = Key("DriftPolicy", "quant", "inputs")


def alarm(monitor: str) -> Alert:
    """As :func:`fiduciary.decide.drift.report.alerts` makes them."""
    labels = {"alertname": "FiduciaryDrift", "namespace": "quant", "model": "spx", "policy": "inputs"}
    about = {"summary": f"spx: {monitor} drifted", "description": "PSI 0.4", "evidence": "sha256:" + "a" * 64}
    return Alert({**labels, "monitor": monitor, "severity": "warning"}, about, datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def person() -> Iterator[Person]:
    found = Person()
    yield found
    found.close()


@contextmanager
def operator(url: str, seconds: float) -> Iterator[Callable[[Callable[[Alerting], None]], None]]:
    """The operator's part at work beside the test; it dies at the end without a word."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    its: list[Alerting] = []

    async def work() -> None:
        manager = Alertmanager([Receiver(url + PATH)])
        its.append(Alerting({"alertmanager": manager}, {}, seconds=seconds))
        started.set()
        await its[0].run()
        await manager.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(work(),), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield lambda act: loop.call_soon_threadsafe(act, its[0])
    finally:
        loop.call_soon_threadsafe(its[0].close)
        thread.join(30)
        loop.close()


def test_an_alarm_is_notified_lasts_and_is_resolved(tmp_path: Path, person: Person) -> None:
    server = Server(tmp_path, person)
    try:
        inputs, score = alarm("inputs"), alarm("score")
        with operator(server.url, seconds=1.0) as tell:
            tell(lambda its: its.put(KEY, "alertmanager", (inputs,)))
            wait(lambda: person.heard("firing", "inputs"), 60, "a notification")
            (first,) = server.active()
            assert first["labels"] == dict(inputs.labels)
            assert first["annotations"] == dict(inputs.annotations)
            assert datetime.fromisoformat(first["startsAt"]) == inputs.starts_at
            # Told again and again: its end moves on, beyond what was said first.
            wait(
                lambda: [one["startsAt"] for one in server.active() if one["updatedAt"] > first["endsAt"]],
                60,
                "it lasts",
            )
            assert not person.heard("resolved", "inputs")
            ended = replace(inputs, ends_at=datetime.now(UTC))
            tell(lambda its: its.put(KEY, "alertmanager", (ended, score)))
            wait(lambda: person.heard("resolved", "inputs"), 60, "its end")
            wait(lambda: person.heard("firing", "score"), 60, "the other alarm")
            assert not person.heard("resolved", "score")
        wait(lambda: person.heard("resolved", "score"), 60, "the end of what nobody tells of any more")
    finally:
        server.close()


def test_credentials_and_a_private_certificate(tmp_path: Path, person: Person) -> None:
    cert, key = certificate(tmp_path, "alertmanager")
    # The password is "test": bcrypt, as https://prometheus.io/docs/guides/basic-auth/ has it.
    users = {"admin": "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"}
    web = {"tls_server_config": {"cert_file": str(cert), "key_file": str(key)}, "basic_auth_users": users}
    server = Server(tmp_path, person, web, ca=cert)
    password = tmp_path / "password"

    async def post(credentials: Credentials) -> None:
        manager = Alertmanager([Receiver(server.url + PATH, credentials, timeout=60.0)])
        body = {"labels": dict(alarm("inputs").labels), "annotations": {}}
        try:
            await manager.post([body])
        finally:
            await manager.close()

    try:
        password.write_text("wrong\n")
        known = Credentials(username="admin", password_file=password, ca_file=cert)
        with pytest.raises(DeliveryError) as refused:
            asyncio.run(post(known))
        assert refused.value.reason == "ReceiverUnauthorized"
        with pytest.raises(DeliveryError) as distrusted:
            asyncio.run(post(replace(known, ca_file=None)))
        assert distrusted.value.reason == "ReceiverUnreachable"
        assert person.notified == []
        password.write_text("test\n")
        asyncio.run(post(known))
        wait(lambda: person.heard("firing", "inputs"), 60, "a notification")
    finally:
        server.close()
