"""A control plane of its own for the engine: these tests end its API server, which others would mind. A failure leaves
the custom resources of its namespace and the end of each operator's log to read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox import controlplane, gobuild
from tests import mlflow_server
from tests.controlplane.engine.process import OperatorProcess
from tests.controlplane.server import Api, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[3]
GATEWAY_API = ROOT.parent / "shared" / "crds" / "gateway-api-v1.6.1"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """API server and controllers with our CRDs and the operator's own rights, nothing more."""
    plane = controlplane.start("engine", controller_manager=True, directory=tmp_path_factory.mktemp("engine"))
    try:
        found = Server(
            plane,
            gobuild.build(gobuild.KUBE) / "kubectl",
            Api(plane.url, plane.ca, plane.admin.certificate, plane.admin.key),
        )
        kubectl = found.kubectl("fiduciary-system")
        operator = ROOT / "deploy" / "kustomize" / "operator"
        for file in ("namespace", "serviceaccount", "clusterrole", "role"):
            kubectl("apply", "--server-side", "-f", str(operator / f"{file}.yaml"))
        kubectl("apply", "--server-side", "-k", str(ROOT / "crds"))
        kubectl("apply", "--server-side", "-f", str(GATEWAY_API))
        kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        yield found
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real MLflow server."""
    with mlflow_server.running(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture
def operator(server: Server, mlflow: str, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Makes operator processes with the rights of deploy/, and ends those that the test left."""
    made: list[OperatorProcess] = []

    def make(identity: str = "operator-a", **config: object) -> OperatorProcess:
        settings = {"connections": {"mlflow": {"trackingUri": mlflow}}, "jobTtlSeconds": 0, **config}
        made.append(OperatorProcess(server.operator_kubeconfig(), tmp_path, identity, settings))
        return made[-1]

    yield make
    for process in made:
        process.kill()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    used = getattr(item, "funcargs", {})
    if not report.failed or call.when != "call" or "server" not in used or "namespace" not in used:
        return
    kubectl = used["server"].kubectl(used["namespace"])
    for kind in ("financialmodels", "modelexperiments", "modeldecisions", "driftpolicies"):
        report.sections.append((kind, kubectl.run("get", kind, "-o", "yaml").stdout[-15000:]))
    for log in sorted(used.get("tmp_path", Path()).glob("operator-*.log")):
        report.sections.append((log.name, log.read_text()[-5000:]))
