"""Fixtures: the running sandbox, namespaces made as a platform team makes them, and a dump when a test fails."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from sandbox import node as sandbox_node
from sandbox.market import Market
from tests.e2e.cluster import Cluster, Object, Refused, observed
from tests.e2e.node import Node
from tests.e2e.place import ANA, Namespaces, Sandbox, allow_approvals
from tests.e2e.registry import Registry
from tests.e2e.serving import Service, TwoVersions

OPERATOR_NAMESPACE, OPERATOR = "fiduciary-system", "fiduciary-operator"
OPERATOR_PODS = f"app.kubernetes.io/name={OPERATOR}"

MakeNamespace = Callable[[str], str]
_namespaces_of_module: dict[str, list[str]] = {}
SESSION = "session"  # key of those that every module may use


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    try:
        return Sandbox.running()
    except LookupError as error:
        pytest.exit(f"no sandbox to test on: {error}", returncode=3)


@pytest.fixture(scope="session")
def cluster(sandbox: Sandbox) -> Cluster:
    """The sandbox's API server, with the operator Ready."""
    found = Cluster(sandbox.kubeconfig, sandbox.kubectl)
    wait_for_operator(found)
    return found


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> Node:
    deployed = cluster.read("deployment", OPERATOR, OPERATOR_NAMESPACE)
    environment = deployed["spec"]["template"]["spec"]["containers"][0]["env"]
    image = next(entry["value"] for entry in environment if entry["name"] == "FIDUCIARY_TRAINER_IMAGE")
    hand = Node(cluster, image)
    hand.start()
    return hand


@pytest.fixture(scope="session")
def registry(cluster: Cluster) -> Registry:
    return Registry(cluster)


@pytest.fixture(scope="session")
def market(node: Node) -> Market:
    """The days that no version of the tests saw."""
    return Market.parse(node.run(*Market.command()))


@pytest.fixture(scope="session")
def gateway(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """A client of the Gateway, as programs on this machine reach it."""
    with httpx.Client(base_url=sandbox.gateway, timeout=30) as client:
        yield client


@contextmanager
def namespaces(cluster: Cluster, key: str) -> Iterator[MakeNamespace]:
    """Makes namespaces that go at the end; a failure's dump finds them under the key."""
    made = Namespaces(cluster, _namespaces_of_module.setdefault(key, []))
    yield made.make
    if not os.environ.get("FIDUCIARY_E2E_KEEP"):
        made.remove()


@pytest.fixture(scope="module")
def make_namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[MakeNamespace]:
    with namespaces(cluster, request.node.nodeid) as make:
        yield make


@pytest.fixture(scope="session")
def two_versions(cluster: Cluster, gateway: httpx.Client, market: Market) -> Iterator[TwoVersions]:
    """A HAR model that serves, and its Linear challenger: trained once for all modules that serve and promote."""
    with namespaces(cluster, SESSION) as make:
        namespace = make("serving")
        allow_approvals(cluster, namespace, ANA)
        yield TwoVersions.train(Service(cluster, gateway, namespace, "spx"), market)


def operator_pods(cluster: Cluster) -> list[Object]:
    return cluster.list("pod", OPERATOR_NAMESPACE, OPERATOR_PODS)


def wait_for_operator(cluster: Cluster, within: float = 120) -> None:
    """Until every replica is of the Deployment's present generation, and available."""
    status = ("rollout", "status", f"deployment/{OPERATOR}", f"--timeout={within:.0f}s")
    cluster.kubectl(*status, namespace=OPERATOR_NAMESPACE, within=within + 10)


def restarts(pod: Object) -> int:
    """Of all containers of a pod."""
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))


def kill_operator(cluster: Cluster, hand: Node) -> None:
    """SIGKILL the operator in the middle of whatever it does, and wait until it was started again and is available."""
    before = {pod["metadata"]["name"]: restarts(pod) for pod in operator_pods(cluster)}
    assert hand.signal("SIGKILL", "python", "-m", "fiduciary") >= 1, "no process of the operator was found"
    cluster.until_all(
        "pod",
        OPERATOR_NAMESPACE,
        lambda pods: any(restarts(pod) > before.get(pod["metadata"]["name"], 99) for pod in pods),
        60,
        "the container was started again",
        selector=OPERATOR_PODS,
    )
    wait_for_operator(cluster)


def nudge(cluster: Cluster, name: str, namespace: str, within: float = 60) -> Object:
    """Change a word of the spec that means nothing for training, and wait for the operator's answer to it.

    After this the operator has looked at the model's whole world at least once, in its present process: the way to
    show that something does *not* happen without waiting for luck.
    """
    cluster.patch("fm", name, {"spec": {"governance": {"purpose": f"nudged {secrets.token_hex(4)}"}}}, namespace)
    return cluster.until("fm", name, namespace, observed, within, "the operator answered the change")


def restart_api_server(cluster: Cluster, hand: Node) -> None:
    """SIGKILL the API server in the middle of whatever it does, and wait until it is ready again."""
    plane = sandbox_node.Node(Sandbox.running().name).plane
    if plane.api_server.alive:
        plane.restart_api_server()
    else:  # a static pod of kind: its kubelet starts it again
        hand.signal("SIGKILL", "kube-apiserver", "--advertise-address")
    cluster.until_all("namespace", None, bool, 90, "the API server answers again")


# --- what a failure leaves to read -------------------------------------------------------------------------------


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if not report.failed or call.when == "teardown" or not isinstance(cluster, Cluster):
        return
    module = item.getparent(pytest.Module)
    used = _namespaces_of_module.get(module.nodeid, []) if module else []
    if "two_versions" in getattr(item, "fixturenames", []):
        used = [*used, *_namespaces_of_module.get(SESSION, [])]
    for title, text in _dump(cluster, used, time.time() - call.start):
        report.sections.append((title, text))


def _dump(cluster: Cluster, namespaces: list[str], seconds: float) -> Iterator[tuple[str, str]]:
    def ask(*args: str) -> str:
        try:
            return cluster.kubectl(*args)
        except (Refused, subprocess.TimeoutExpired) as error:
            return str(error)

    for name in namespaces:
        for kinds in ("financialmodels,modeldecisions,modelapprovals", "jobs,deployments,pods", "httproutes"):
            yield f"describe {kinds} in {name}", ask("describe", kinds, "-n", name)[-12000:]
        yield f"events in {name}", ask("get", "events", "-n", name, "--sort-by=.lastTimestamp")[-6000:]
        for pod in ask("get", "pods", "-n", name, "-o", "name").split():
            yield f"log of {pod}", ask("logs", pod, "-n", name, "--tail=60")[-6000:]
    yield "operator pods", ask("get", "pods", "-n", OPERATOR_NAMESPACE, "-o", "wide")
    since = f"--since={int(seconds) + 30}s"
    yield "operator log", ask("logs", "-n", OPERATOR_NAMESPACE, "-l", OPERATOR_PODS, since, "--tail=300")[-20000:]
