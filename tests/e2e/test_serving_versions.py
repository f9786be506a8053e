"""Versions that cannot serve: a condition says which and why, and the champion goes on answering.

The second version is broken in one way after the other while the first is champion and asked all the time.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from sandbox import load
from tests.e2e.cluster import condition, has, names
from tests.e2e.conftest import OPERATOR, OPERATOR_NAMESPACE, wait_for_operator
from tests.e2e.registry import NAMESPACE as MLFLOW_NAMESPACE
from tests.e2e.serving import TRAINED, Service, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cluster import Cluster, Object
    from tests.e2e.node import Node
    from tests.e2e.serving import TwoVersions

TOLD = 90  # seconds until a condition says what is wrong


@pytest.fixture(scope="module")
def frozen(two_versions: TwoVersions, node: Node) -> Service:
    """Another model, whose server hangs while it starts. That it will not be ready takes minutes to be sure of, which
    the tests before the last one use."""
    here = two_versions.service
    hangs = Service(here.cluster, here.http, here.namespace, "hangs")
    here.cluster.apply(served(hangs.name), namespace=here.namespace)

    pods = here.cluster.until_all("pod", here.namespace, bool, TRAINED, "a pod for it", selector=hangs.selector)
    uid = pods[0]["metadata"]["uid"]
    assert node.signal("SIGSTOP", "fiduciary_server", "serve", uid, within=60) > 0, "its server was not seen to start"
    return hangs


@pytest.fixture
def two(two_versions: TwoVersions, frozen: Service) -> Iterator[TwoVersions]:
    """The first version serves, asked twenty times a second until the test ends; the second is loaded beside it."""
    service = two_versions.service
    service.pin(two_versions.first)
    service.until_serves(two_versions.first)
    service.until_pods(two_versions.second, 1)
    with load.running(service.model.target(*two_versions.requests), rate=20) as client:
        client.until_answered(5)
        yield two_versions
        client.until_answered(5)
        report = client.stop()
    assert not report.failed, f"the champion did not go on serving: {report.summary()}"


def told(service: Service, reason: str, *words: str, within: float = TOLD) -> Object:
    """Wait until a condition gives the reason; its message holds the words."""

    def says(found: Object) -> bool:
        return any(each["reason"] == reason for each in found["status"]["conditions"])

    found = service.cluster.until("fm", service.name, service.namespace, says, within, f"a condition says {reason}")
    message = next(each["message"] for each in found["status"]["conditions"] if each["reason"] == reason)
    for word in words:
        assert word in message, f"the message does not say {word!r}: {message}"
    return found


def restart_pods(service: Service, two: TwoVersions) -> None:
    """The second version starts anew, as after a drain. Returns when its old pods answer nobody."""
    old = {pod["metadata"]["name"] for pod in service.pods(two.second)}
    for name in old:
        service.cluster.delete("pod", name, service.namespace)
    service.cluster.until_all(
        "pod", service.namespace, lambda pods: not old & set(names(pods)), 60, "gone", selector=service.selector
    )


@contextmanager
def in_the_store(cluster: Cluster, run_id: str, damage: str, repair: str) -> Iterator[None]:
    """Damage a version's folder on MLflow's disk; $f is its folder."""
    find = f'f=$(find /mlflow/artifacts -type d -path "*{run_id}*/version" | head -1); test -n "$f"; '

    def run(script: str) -> None:
        cluster.kubectl(
            "exec", "deployment/mlflow", "--", "sh", "-euc", find + script, namespace=MLFLOW_NAMESPACE, within=60
        )

    run(damage)
    try:
        yield
    finally:
        run(repair)


@pytest.mark.parametrize(
    ("damage", "repair", "reason"),
    [
        ('cp $f/model.onnx /tmp/kept; printf x >> "$f/model.onnx"', 'cp /tmp/kept "$f/model.onnx"', "DigestMismatch"),
        ('mv "$f/model.onnx" /tmp/kept', 'mv /tmp/kept "$f/model.onnx"', "ArtifactNotFound"),
    ],
    ids=["other bytes", "missing"],
)
def test_an_artifact_that_is_not_what_was_judged_never_serves(
    cluster: Cluster, two: TwoVersions, damage: str, repair: str, reason: str
) -> None:
    service = two.service
    with in_the_store(cluster, two.second["runId"], damage, repair):
        restart_pods(service, two)
        service.pin(two.second)
        found = told(service, reason, f"version {two.second['version']}", "model.onnx")
        assert found["status"]["champion"]["digest"] == two.first["digest"]
        assert not any(container_ready(pod) for pod in service.pods(two.second)), "bytes that nobody judged serve"
    restart_pods(service, two)  # and not after a back-off of minutes
    service.until_serves(two.second)


def container_ready(pod: Object) -> bool:
    return any(status["ready"] for status in pod["status"].get("containerStatuses", []))


def test_the_store_is_away_when_a_version_starts(cluster: Cluster, two: TwoVersions) -> None:
    service = two.service
    cluster.kubectl("scale", "deployment/mlflow", "--replicas=0", namespace=MLFLOW_NAMESPACE)
    try:
        cluster.until_all("pod", MLFLOW_NAMESPACE, lambda pods: not pods, 60, "MLflow is gone")
        restart_pods(service, two)
        service.pin(two.second)
        told(service, "ArtifactStoreUnreachable", f"version {two.second['version']}", "mlflow")
    finally:
        cluster.kubectl("scale", "deployment/mlflow", "--replicas=1", namespace=MLFLOW_NAMESPACE)
        cluster.kubectl("rollout", "status", "deployment/mlflow", "--timeout=120s", namespace=MLFLOW_NAMESPACE)
    service.until_serves(two.second)  # by itself: nobody has to act


def test_too_little_memory_is_named_and_the_old_pods_stay(two: TwoVersions) -> None:
    service = two.service
    service.patch({"serving": {"resources": {"limits": {"memory": "40Mi"}, "requests": {"memory": "32Mi"}}}})
    try:
        told(service, "OutOfMemory", "spec.serving.resources.limits.memory", "go on serving")
    finally:
        service.patch({"serving": {"resources": {"limits": None, "requests": {"memory": "192Mi"}}}})
    service.until("Reconciling", "False", within=120)


def test_a_version_that_crashes_again_and_again_is_named(two: TwoVersions, node: Node) -> None:
    service = two.service
    uid = service.pods(two.second)[0]["metadata"]["uid"]

    def backed_off(pods: list[Object]) -> bool:
        """SIGKILL it once more, until the kubelet holds it back."""
        mine = [one for one in pods if one["metadata"]["uid"] == uid]
        states = [status for one in mine for status in one["status"].get("containerStatuses", [])]
        if any(state["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff" for state in states):
            return True
        if any(state["state"].get("running") for state in states):
            node.signal("SIGKILL", "fiduciary_server", uid)
        return False

    service.cluster.until_all("pod", service.namespace, backed_off, 120, "it is held back", selector=service.selector)
    service.pin(two.second)
    told(service, "Crashing", f"version {two.second['version']}")
    restart_pods(service, two)
    service.until_serves(two.second)


def test_an_image_that_cannot_be_pulled_is_named(cluster: Cluster, two: TwoVersions) -> None:
    """A release of the operator with a wrong image for the server: new pods do not come up, old ones stay."""
    image = "127.0.0.1:1/nobody/server:1"  # refused at once; a name that nothing resolves takes a minute
    deployment = cluster.read("deployment", OPERATOR, OPERATOR_NAMESPACE)
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    right = next(entry["value"] for entry in environment if entry["name"] == "FIDUCIARY_SERVER_IMAGE")

    def set_image(name: str) -> None:
        words = ("set", "env", f"deployment/{OPERATOR}", f"FIDUCIARY_SERVER_IMAGE={name}")
        cluster.kubectl(*words, namespace=OPERATOR_NAMESPACE)
        wait_for_operator(cluster)

    set_image(image)
    try:
        told(two.service, "ImageNotPulled", image)
    finally:
        set_image(right)
    two.service.until("Reconciling", "False", within=120)
    assert condition(two.service.found, "Ready")["status"] == "True"


def test_a_server_that_hangs_at_its_start_is_named(frozen: Service) -> None:
    found = told(frozen, "NeverReady", "kubectl logs", within=240)
    assert found["status"]["champion"]["version"] == "1"
    assert not has(found, "Ready", "True")
    frozen.cluster.kubectl("delete", "fm", frozen.name, "--timeout=60s", namespace=frozen.namespace)
