"""One real API server for the whole session, with CRDs and policies; each test gets a namespace of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox import controlplane, gobuild
from tests.controlplane.server import GROUP, Api, Kubectl, Refused, Server, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """etcd, API server and controller manager with CRDs, policies and the operator's RBAC; stopped at the end."""
    plane = controlplane.start("tests", controller_manager=True, directory=tmp_path_factory.mktemp("controlplane"))
    try:
        admin = plane.admin
        api = Api(plane.url, plane.ca, admin.certificate, admin.key)
        found = Server(plane, gobuild.build(gobuild.KUBE) / "kubectl", api)
        _install(found)
        yield found
    finally:
        plane.stop()


def _install(server: Server) -> None:
    """What ``deploy/kustomize/default`` installs, but for the operator's Deployment; returns when it is enforced."""
    kubectl = server.kubectl("fiduciary-system")
    operator = ROOT / "deploy" / "kustomize" / "operator"
    for words in (
        ("-k", str(ROOT / "crds")),
        ("-f", str(operator / "namespace.yaml")),
        ("-f", str(operator / "serviceaccount.yaml")),
        ("-f", str(operator / "clusterrole.yaml")),
        ("-f", str(operator / "role.yaml")),
        ("-k", str(ROOT / "deploy" / "kustomize" / "policies")),
    ):
        kubectl("apply", "--server-side", *words)
    kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", "app.kubernetes.io/part-of=fiduciary")
    until("the admission policies are enforced", lambda: _enforced(server.admin))


def _enforced(api: Api) -> bool:
    """Whether each of the policies answers: a policy works a moment after its binding and parameters were stored."""
    of = {"name": "probe"}
    model = {
        "apiVersion": GROUP,
        "kind": "FinancialModel",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {
            "data": {
                "source": {"dataset": {"name": "arch/sp500"}},
                "time": "date",
                "asOf": "Rolling",
                "features": {"set": "ohlcv-v1"},
                "label": {"kind": "Volatility"},
            },
            "training": {"architecture": "HAR"},
        },
    }
    approval = {
        "apiVersion": GROUP,
        "kind": "ModelApproval",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {"modelRef": of, "decision": "Kill", "approver": "somebody else", "reason": "probe"},
    }
    decision = {
        "apiVersion": GROUP,
        "kind": "ModelDecision",
        "metadata": {"name": "probe-1", "namespace": "default"},
        "spec": {
            "modelRef": {**of, "uid": "0"},
            "sequence": 1,
            "action": "Kill",
            "cause": {"kind": "Kill"},
            "decidedAt": "2026-01-01T00:00:00Z",
        },
    }
    try:
        if "annotations" not in api.create(model, dry_run=True)["metadata"]:
            return False
    except Refused as refused:
        if refused.code not in (404, 503):  # a CRD is Established a moment before it is served
            raise
        return False
    for body in (approval, decision):
        try:
            api.create(body, dry_run=True)
        except Refused as refused:
            if "denied request" not in refused.message:
                return False
        else:
            return False
    return True


@pytest.fixture
def namespace(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace, deleted afterwards without waiting."""
    stem = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40].strip("-")
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": f"{stem}-"}}
    name = server.admin.create(body)["metadata"]["name"]
    yield name
    if server.admin.exists(f"/api/v1/namespaces/{name}"):
        server.admin.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def kubectl(server: Server, namespace: str) -> Kubectl:
    """kubectl as administrator in the test's namespace."""
    return server.kubectl(namespace)
