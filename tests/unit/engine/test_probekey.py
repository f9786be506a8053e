"""The Secret of the probes' key: made once, read by whoever comes later, and no reason to stop serving."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import pytest

from fiduciary.clients.kube import Body, Forbidden, NotFound, Resource, Unavailable
from fiduciary.clients.probekey import ProbeKey
from fiduciary.engine import kinds, probekey
from tests.unit.engine.memory import MemoryCluster

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = ("Secret", "fiduciary-system", "fiduciary-probe-key")


def read(cluster: MemoryCluster) -> ProbeKey | None:
    return asyncio.run(probekey.probe_key(cluster, "fiduciary-system"))


def test_the_first_operator_makes_it_and_the_others_read_it() -> None:
    cluster = MemoryCluster()
    first = read(cluster)
    assert first is not None
    secret = cluster.objects[PLACE]
    assert secret["immutable"] is True
    assert list(secret["data"]) == ["privateKey"]
    second = read(cluster)
    assert second is not None
    assert second.public == first.public
    assert [write[0] for write in cluster.writes] == ["create"]


def test_of_two_that_start_together_one_key_wins() -> None:
    class Late(MemoryCluster):
        """The other replica's Secret appears between the look and the creation."""

        async def get(
            self, resource: Resource, namespace: str | None, name: str, *, metadata_only: bool = False
        ) -> Body:
            if PLACE not in self.objects:
                made = ProbeKey.generate()
                self.keys.append(made.public)
                metadata = {"namespace": namespace, "name": name}
                data = {"privateKey": base64.b64encode(made.private()).decode()}
                self.put(kinds.SECRET, {"metadata": metadata, "spec": {}, "data": data})
                raise NotFound(404, "NotFound", name)
            return await super().get(resource, namespace, name, metadata_only=metadata_only)

        def __init__(self) -> None:
            super().__init__()
            self.keys: list[str] = []

    cluster = Late()
    key = read(cluster)
    assert key is not None
    assert [key.public] == cluster.keys


def test_without_the_right_to_it_probes_go_on_unsigned() -> None:
    class Refusing(MemoryCluster):
        async def get(
            self, resource: Resource, namespace: str | None, name: str, *, metadata_only: bool = False
        ) -> Body:
            raise Forbidden(403, "Forbidden", "the Role is missing")

    assert read(Refusing()) is None


@pytest.mark.parametrize("data", [{}, {"privateKey": "???"}, {"privateKey": base64.b64encode(b"short").decode()}])
def test_a_secret_that_holds_no_key_is_not_written_over(data: dict[str, str]) -> None:
    cluster = MemoryCluster()
    metadata = {"namespace": "fiduciary-system", "name": "fiduciary-probe-key"}
    cluster.put(kinds.SECRET, {"metadata": metadata, "spec": {}, "data": data})
    assert read(cluster) is None
    assert cluster.writes == []


def test_an_api_server_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probekey, "RETRY_SECONDS", 0.0)

    class Away(MemoryCluster):
        def __init__(self) -> None:
            super().__init__()
            self.answers: Iterator[bool] = iter((False, False, True, True))

        async def get(
            self, resource: Resource, namespace: str | None, name: str, *, metadata_only: bool = False
        ) -> Body:
            if not next(self.answers):
                raise Unavailable(0, "Unreachable", "connection refused")
            return await super().get(resource, namespace, name, metadata_only=metadata_only)

    assert read(Away()) is not None
