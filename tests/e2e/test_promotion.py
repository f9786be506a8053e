"""The champion changes under load, and no client notices: by approval, by a pin and its revert, by a person's rollback.

All under an open-loop load of more than 200 requests a second. The disturbances are those of an ordinary day on which
somebody promotes: a node is drained, a Deployment restarted, replicas are taken away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox import load
from tests.e2e.inference import GRPC_RATE, RATE
from tests.e2e.offline import predictions
from tests.e2e.place import ANA
from tests.e2e.serving import is_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.e2e.node import Node
    from tests.e2e.registry import Registry
    from tests.e2e.serving import Service, TwoVersions


@pytest.fixture(scope="module")
def two(two_versions: TwoVersions) -> Iterator[TwoVersions]:
    """With two replicas: one can be drained."""
    two_versions.service.patch({"serving": {"replicas": 2}})
    two_versions.service.until("Reconciling", "False")
    yield two_versions
    two_versions.service.patch({"serving": {"replicas": 1}})


def moved(
    two: TwoVersions,
    act: Callable[[], float],
    version: Mapping[str, str],
    disturb: Callable[[], None] = lambda: None,
    replicas: int = 2,
) -> None:
    """Move all traffic to a version under load, disturb at that moment, and look at every request.

    The load goes on until so many pods of the version are ready, and no pod of either is on its way in or out.
    """
    service = two.service
    with (
        load.running(service.model.target(*two.requests), rate=RATE) as rest,
        load.running(service.model.grpc_target(*two.requests), rate=GRPC_RATE) as grpc,
    ):
        for client in (rest, grpc):
            client.until_answered(20)
        disturb()
        begun = act()
        service.until_serves(version)
        service.until_pods(version, replicas)
        service.until_settled()
        rest.until_answered(200, version["version"])
        grpc.until_answered(20, version["version"])
        reports = {"REST": rest.stop(), "gRPC": grpc.stop()}
    for protocol, report in reports.items():
        seconds = report.last_from(other(two, version)) - begun
        print(f"{protocol}: to version {version['version']} in {seconds:.1f} s; {report.summary()}")
        assert not report.failed, f"{protocol}: {report.summary()}: {report.failed[:3]}"
        assert set(report.versions) <= {two.first["version"], two.second["version"]}
    assert reports["REST"].rate > 200, reports["REST"].summary()


def other(two: TwoVersions, version: Mapping[str, str]) -> str:
    return next(one["version"] for one in (two.first, two.second) if one["version"] != version["version"])


def test_an_approved_challenger_becomes_champion(two: TwoVersions, node: Node, registry: Registry) -> None:
    service = two.service
    assert service.found["status"]["champion"]["digest"] == two.first["digest"], "nobody approved yet"
    moved(two, lambda: service.approve(ANA, "its losses are lower"), two.second)
    record = service.records()[-1]
    assert (record["action"], record["actor"]["user"]) == ("Promote", ANA.name)
    assert record["to"]["digest"] == two.second["digest"]
    registry.until_aliases(f"{service.namespace}.{service.name}", {"champion": two.second["version"]})
    offline = predictions(node, registry, two.second["runId"], two.requests)
    served = [service.model.predict(bars) for bars in two.requests]
    assert [one.value for one in served] == pytest.approx(offline, rel=1e-6)
    assert {one.digest for one in served} == {two.second["digest"]}


def test_a_person_rolls_back(two: TwoVersions) -> None:
    moved(two, lambda: two.service.decide("RollBack", ANA, "the desk saw odd numbers"), two.first)
    assert two.service.records()[-1]["action"] == "RollBack"


def drain(service: Service) -> None:
    """Evict a pod of each version, as `kubectl drain` does; a disruption budget may refuse one, and does so rightly."""
    for pod in service.cluster.list("pod", service.namespace, service.selector):
        mine = [one for one in service.cluster.list("pod", service.namespace, service.selector) if is_ready(one)]
        version = pod["metadata"]["labels"]["fiduciary.dev/version"]
        if sum(one["metadata"]["labels"]["fiduciary.dev/version"] == version for one in mine) == 2:
            service.cluster.evict(pod["metadata"]["name"], service.namespace)


def restart(service: Service) -> None:
    """A rolling restart of every version at once."""
    words = ("rollout", "restart", "deployment", "-l", service.selector)
    service.cluster.kubectl(*words, namespace=service.namespace)


def scale_down(service: Service) -> None:
    service.patch({"serving": {"replicas": 1}})


@pytest.mark.parametrize("to", ["second", "first"], ids=["promotion", "rollback"])
@pytest.mark.parametrize("disturb", [drain, restart, scale_down])
def test_a_pin_moves_traffic_while_the_cluster_is_disturbed(
    two: TwoVersions, disturb: Callable[[Service], None], to: str
) -> None:
    """The rollback is what `git revert` does: the version that was named before is named again."""
    service = two.service
    version = two.second if to == "second" else two.first
    service.patch({"serving": {"replicas": 2}})
    for each in (two.first, two.second):
        service.until_pods(each, 2)
    replicas = 1 if disturb is scale_down else 2
    moved(two, lambda: service.pin(version), version, lambda: disturb(service), replicas)
    assert service.records()[-1]["to"]["digest"] == version["digest"]
