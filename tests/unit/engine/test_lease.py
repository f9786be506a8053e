"""The Lease between two replicas, with clocks that do not agree."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from fiduciary.app import Operator
from fiduciary.clients.access import Access
from fiduciary.clients.kube import Unavailable
from fiduciary.engine.kinds import LEASE
from fiduciary.engine.lease import Lease, LeaseLost
from fiduciary.settings import LeaseSettings, load
from tests.unit.engine.memory import MemoryCluster

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body, Resource

SETTINGS = LeaseSettings(duration=15.0, renew_deadline=10.0, retry=2.0)


class Time:
    """A clock that turns when somebody sleeps."""

    def __init__(self, start: float = 0.0) -> None:
        self.seconds = start

    def __call__(self) -> float:
        return self.seconds


class LeaseCluster(MemoryCluster):
    """The memory cluster applies specs by merging; a Lease's is replaced. ``away``: nobody answers."""

    away = False

    async def get(self, resource: Resource, namespace: str | None, name: str, *, metadata_only: bool = False) -> Body:
        if self.away:
            raise Unavailable(0, "Unreachable", "no answer")
        return await super().get(resource, namespace, name)


@pytest.fixture
def cluster() -> LeaseCluster:
    return LeaseCluster()


def holder(cluster: LeaseCluster) -> str:
    return cluster.objects["Lease", "ns", "fiduciary-operator"]["spec"]["holderIdentity"]


def take(lease: Lease) -> bool:
    return asyncio.run(lease._try())


def test_the_first_takes_it_and_the_second_waits_a_whole_duration_by_its_own_clock(cluster: LeaseCluster) -> None:
    first = Lease(cluster, "ns", "a", SETTINGS, clock=Time(1_000_000.0))
    clock = Time()
    second = Lease(cluster, "ns", "b", SETTINGS, clock=clock)
    assert take(first)
    assert not take(second)
    clock.seconds = 14.9
    assert not take(second)
    clock.seconds = 15.0
    assert take(second)
    assert holder(cluster) == "b"
    assert cluster.objects["Lease", "ns", "fiduciary-operator"]["spec"]["leaseTransitions"] == 1


def test_each_renewal_starts_the_wait_of_the_others_anew(cluster: LeaseCluster) -> None:
    first = Lease(cluster, "ns", "a", SETTINGS, clock=Time())
    clock = Time()
    second = Lease(cluster, "ns", "b", SETTINGS, clock=clock)
    for moment in (0.0, 10.0, 20.0, 30.0):
        clock.seconds = moment
        assert take(first)
        assert not take(second)


def test_a_released_lease_is_taken_at_once(cluster: LeaseCluster) -> None:
    first, second = (Lease(cluster, "ns", name, SETTINGS, clock=Time()) for name in "ab")
    assert take(first)
    first.held = True
    asyncio.run(first.release())
    assert take(second)


def test_a_holder_that_nobody_answers_gives_up_before_anyone_else_may_start(
    cluster: LeaseCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Time()
    lease = Lease(cluster, "ns", "a", SETTINGS, clock=clock)
    assert take(lease)
    cluster.away = True

    async def sleep(seconds: float) -> None:
        clock.seconds += seconds

    monkeypatch.setattr("fiduciary.engine.lease.asyncio.sleep", sleep)
    with pytest.raises(LeaseLost, match="could not be renewed for 10 s"):
        asyncio.run(lease.keep())
    assert clock.seconds < SETTINGS.duration
    assert not lease.held


def test_a_holder_that_sees_another_name_gives_up_at_once(
    cluster: LeaseCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Time()
    lease = Lease(cluster, "ns", "a", SETTINGS, clock=clock)
    assert take(lease)
    stolen = cluster.objects["Lease", "ns", "fiduciary-operator"]
    cluster.touch(LEASE, "ns", "fiduciary-operator", spec={**stolen["spec"], "holderIdentity": "b"})

    async def sleep(seconds: float) -> None:
        clock.seconds += seconds

    monkeypatch.setattr("fiduciary.engine.lease.asyncio.sleep", sleep)
    with pytest.raises(LeaseLost, match="held by b now"):
        asyncio.run(lease.keep())
    assert clock.seconds == SETTINGS.retry


def test_a_keeper_that_fails_is_a_lease_that_is_lost(cluster: LeaseCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody renews it any more, and another replica takes it: two would work."""
    ended: list[int] = []

    def end(status: int) -> None:
        ended.append(status)

    monkeypatch.setattr(os, "_exit", end)

    class Broken(Lease):
        async def keep(self) -> None:
            raise ValueError("an answer that nobody expected")

    lease = Broken(cluster, "ns", "a", SETTINGS)
    operator = Operator(load({"FIDUCIARY_SERVER_IMAGE": ""}), Access("http://127.0.0.1:1", None))
    asyncio.run(operator._keep(lease))
    assert ended == [3]
