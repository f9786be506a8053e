"""Fixtures: the running sandbox, namespaces made as a platform team makes them, and a dump when a test fails."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from sandbox import node as sandbox_node
from sandbox import state as sandbox_state
from sandbox.market import Market
from tests.e2e.cluster import Cluster, Object, Refused, User, observed
from tests.e2e.node import VOLUME_OF, Node
from tests.e2e.registry import Registry
from tests.e2e.serving import SERVED, TRAINED, Service, TwoVersions, served

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE_BASE = ROOT / "deploy" / "kustomize" / "namespace"
OPERATOR_NAMESPACE, OPERATOR = "fiduciary-system", "fiduciary-operator"
OPERATOR_PODS = f"app.kubernetes.io/name={OPERATOR}"

ANA = User("ana@desk", ("fiduciary:approvers",))

MakeNamespace = Callable[[str], str]
_namespaces_of_module: dict[str, list[str]] = {}
SESSION = "session"  # key of those that every module may use


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What `python -m sandbox env` tells its users."""

    kubeconfig: Path
    kubectl: str
    gateway: str


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """The sandbox that FIDUCIARY_SANDBOX names."""
    name = os.environ.get("FIDUCIARY_SANDBOX", sandbox_state.DEFAULT_NAME)
    told = subprocess.run(
        [sys.executable, "-m", "sandbox", "env", "--name", name], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if told.returncode:
        pytest.exit(f"no sandbox to test on: {told.stderr.strip()}", returncode=3)
    script = 'eval "$1"; echo "$KUBECONFIG"; command -v kubectl; echo "$GATEWAY_URL"'
    shell = ["bash", "-euc", script, "bash", told.stdout]
    kubeconfig, kubectl, gateway = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split()
    return Sandbox(Path(kubeconfig), kubectl, gateway)


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
def namespaces(cluster: Cluster, key: str, folders: pytest.TempPathFactory) -> Iterator[MakeNamespace]:
    """Makes namespaces from deploy/kustomize/namespace as a platform team does; they go at the end, records and all."""
    made = _namespaces_of_module.setdefault(key, [])

    def make(word: str) -> str:
        name = f"e2e-{word}-{secrets.token_hex(2)}"
        folder = folders.mktemp(name)
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


@pytest.fixture(scope="module")
def make_namespace(
    cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeNamespace]:
    with namespaces(cluster, request.node.nodeid, tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="session")
def two_versions(
    cluster: Cluster, gateway: httpx.Client, market: Market, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TwoVersions]:
    """A HAR model that serves, and its Linear challenger: trained once for all modules that serve and promote."""
    with namespaces(cluster, SESSION, tmp_path_factory) as make:
        namespace = make("serving")
        allow_approvals(cluster, namespace, ANA)
        cluster.apply(served("spx"), namespace=namespace)
        service = Service(cluster, gateway, namespace, "spx")
        first = service.until("Ready", "True", within=TRAINED + SERVED)["status"]["champion"]
        service.patch({"training": {"architecture": "Linear"}})
        found = cluster.until(
            "fm", "spx", namespace, lambda found: "challenger" in found.get("status", {}), TRAINED, "a challenger"
        )
        yield TwoVersions(service, first, found["status"]["challenger"], market)


def allow_approvals(cluster: Cluster, namespace: str, user: User) -> None:
    """RBAC for somebody who may create approvals in a namespace; which ones count is the admission policy's matter."""
    rules = ("--verb=get,list,create", "--resource=modelapprovals.fiduciary.dev")
    cluster.kubectl("create", "role", "approver", *rules, namespace=namespace)
    cluster.kubectl("create", "rolebinding", "approver", "--role=approver", f"--user={user.name}", namespace=namespace)


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
