"""Fixtures: the running sandbox, namespaces made as a platform team makes them, and a dump when a test fails."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from sandbox import node as sandbox_node
from sandbox import state as sandbox_state
from tests.e2e.cluster import Cluster, Object, Refused, observed
from tests.e2e.node import VOLUME_OF, Node
from tests.e2e.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE_BASE = ROOT / "deploy" / "kustomize" / "namespace"
OPERATOR_NAMESPACE, OPERATOR = "fiduciary-system", "fiduciary-operator"
OPERATOR_PODS = f"app.kubernetes.io/name={OPERATOR}"

MakeNamespace = Callable[[str], str]
_namespaces_of_module: dict[str, list[str]] = {}


def _sandbox() -> tuple[Path, str]:
    """kubeconfig and kubectl of the sandbox that FIDUCIARY_SANDBOX names, as its users get them."""
    name = os.environ.get("FIDUCIARY_SANDBOX", sandbox_state.DEFAULT_NAME)
    told = subprocess.run(
        [sys.executable, "-m", "sandbox", "env", "--name", name], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if told.returncode:
        pytest.exit(f"no sandbox to test on: {told.stderr.strip()}", returncode=3)
    shell = ["bash", "-euc", 'eval "$1"; echo "$KUBECONFIG"; command -v kubectl', "bash", told.stdout]
    kubeconfig, kubectl = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split()
    return Path(kubeconfig), kubectl


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The sandbox's API server, with the operator Ready."""
    found = Cluster(*_sandbox())
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


@pytest.fixture(scope="module")
def make_namespace(
    cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeNamespace]:
    """Makes namespaces from deploy/kustomize/namespace; they go when the module ends, records and all."""
    made = _namespaces_of_module.setdefault(request.node.nodeid, [])

    def make(word: str) -> str:
        name = f"e2e-{word}-{secrets.token_hex(2)}"
        folder = tmp_path_factory.mktemp(name)
        base = os.path.relpath(NAMESPACE_BASE, folder.resolve())  # kustomize takes no absolute path
        (folder / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": name, "resources": [base]}))
        made.append(name)
        cluster.kubectl("apply", "-k", str(folder))
        return name

    yield make
    if not os.environ.get("FIDUCIARY_E2E_KEEP"):
        for name in made:
            cluster.delete("namespace", name)
            cluster.kubectl("delete", "pv", "--wait=false", "-l", f"{VOLUME_OF}={name}")


def operator_pods(cluster: Cluster) -> list[Object]:
    return cluster.list("pod", OPERATOR_NAMESPACE, OPERATOR_PODS)


def wait_for_operator(cluster: Cluster, within: float = 120) -> None:
    """Until every replica is of the Deployment's present generation, and available."""
    status = ("rollout", "status", f"deployment/{OPERATOR}", f"--timeout={within:.0f}s")
    cluster.kubectl(*status, namespace=OPERATOR_NAMESPACE, within=within + 10)


def nudge(cluster: Cluster, name: str, namespace: str, within: float = 60) -> Object:
    """Change a word of the spec that means nothing for training, and wait for the operator's answer to it.

    After this the operator has looked at the model's whole world at least once, in its present process: the way to
    show that something does *not* happen without waiting for luck.
    """
    cluster.patch("fm", name, {"spec": {"governance": {"purpose": f"nudged {secrets.token_hex(4)}"}}}, namespace)
    return cluster.until("fm", name, namespace, observed, within, "the operator answered the change")


def restart_api_server(cluster: Cluster, hand: Node) -> None:
    """SIGKILL the API server in the middle of whatever it does, and wait until it is ready again."""
    plane = sandbox_node.Node(os.environ.get("FIDUCIARY_SANDBOX", sandbox_state.DEFAULT_NAME)).plane
    if plane.api_server.alive:
        plane.restart_api_server()
    else:  # a static pod of kind: its kubelet starts it again
        hand.sigkill("kube-apiserver", "--advertise-address")
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
    namespaces = _namespaces_of_module.get(module.nodeid, []) if module else []
    for title, text in _dump(cluster, namespaces, time.time() - call.start):
        report.sections.append((title, text))


def _dump(cluster: Cluster, namespaces: list[str], seconds: float) -> Iterator[tuple[str, str]]:
    def ask(*args: str) -> str:
        try:
            return cluster.kubectl(*args)
        except (Refused, subprocess.TimeoutExpired) as error:
            return str(error)

    for name in namespaces:
        for kinds in ("financialmodels,modeldecisions,modelapprovals", "jobs,pods"):
            yield f"describe {kinds} in {name}", ask("describe", kinds, "-n", name)[-12000:]
        yield f"events in {name}", ask("get", "events", "-n", name, "--sort-by=.lastTimestamp")[-6000:]
        for pod in ask("get", "pods", "-n", name, "-o", "name").split():
            yield f"log of {pod}", ask("logs", pod, "-n", name, "--tail=60")[-6000:]
    yield "operator pods", ask("get", "pods", "-n", OPERATOR_NAMESPACE, "-o", "wide")
    since = f"--since={int(seconds) + 30}s"
    yield "operator log", ask("logs", "-n", OPERATOR_NAMESPACE, "-l", OPERATOR_PODS, since, "--tail=300")[-20000:]
