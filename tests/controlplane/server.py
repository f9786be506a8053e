"""A client for the tests that talk to a real API server: one HTTP session a user, and kubectl."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from sandbox import pki

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sandbox.controlplane import ControlPlane

Body = dict[str, Any]
T = TypeVar("T")

GROUP = "fiduciary.dev/v1alpha1"
OPERATOR = ("fiduciary-system", "fiduciary-operator")


class Refused(AssertionError):
    """The API server said no: `code` is the HTTP status, `message` what a person reads, `causes` one each."""

    def __init__(self, code: int, status: Mapping[str, Any]) -> None:
        self.code = code
        self.status = dict(status)
        self.message = str(status.get("message", ""))
        self.reason = str(status.get("reason", ""))
        details = status.get("details") or {}
        self.causes: list[str] = [f"{c.get('field')}: {c.get('message')}" for c in details.get("causes", [])]
        super().__init__(f"{code} {self.reason}: {self.message}")


class Api:
    """One user's HTTP session with the API server. Paths are those of the API, e.g. ``/api/v1/namespaces``."""

    def __init__(self, url: str, ca: Path, certificate: Path, key: Path) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(certificate, key)
        self.http = httpx.Client(base_url=url, verify=context, timeout=30)

    def request(
        self, method: str, path: str, body: Any = None, params: Mapping[str, str] | None = None, content: str = "json"
    ) -> Body:
        kinds = {
            "json": "application/json",
            "merge": "application/merge-patch+json",
            "apply": "application/apply-patch+yaml",
            "patch": "application/json-patch+json",
        }
        data = None if body is None else json.dumps(body)
        answer = self.http.request(
            method, path, content=data, params=dict(params or {}), headers={"Content-Type": kinds[content]}
        )
        if "json" in answer.headers.get("Content-Type", ""):
            decoded: Body = answer.json()
        else:  # "404 page not found" of a kind that is not served
            decoded = {"message": answer.text}
        if answer.status_code >= 400:
            raise Refused(answer.status_code, decoded)
        return decoded

    def get(self, path: str) -> Body:
        return self.request("GET", path)

    def find(self, path: str) -> Body | None:
        """The object, or None: in one look, for between two of them it may go."""
        try:
            return self.get(path)
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    def exists(self, path: str) -> bool:
        return self.find(path) is not None

    def create(self, body: Body, *, namespace: str | None = None, dry_run: bool = False) -> Body:
        """POST with strict field validation, as ``kubectl create --validate=strict`` does."""
        params = {"fieldValidation": "Strict", "fieldManager": "test"}
        if dry_run:
            params["dryRun"] = "All"
        return self.request("POST", collection(body, namespace), body, params)

    def merge(self, path: str, patch: Body) -> Body:
        return self.request("PATCH", path, patch, {"fieldManager": "test", "fieldValidation": "Strict"}, "merge")

    def apply(self, path: str, body: Body, manager: str = "test", force: bool = True) -> Body:
        params = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        return self.request("PATCH", path, body, params, "apply")

    def delete(self, path: str) -> Body:
        return self.request("DELETE", path)


# Plurals of what tests create; the API server would tell, at the price of a request each.
_PLURALS = {
    "FinancialModel": "financialmodels",
    "ModelExperiment": "modelexperiments",
    "DriftPolicy": "driftpolicies",
    "ModelApproval": "modelapprovals",
    "ModelDecision": "modeldecisions",
    "ConfigMap": "configmaps",
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Namespace": "namespaces",
    "Job": "jobs",
    "JobSet": "jobsets",
    "TrainJob": "trainjobs",
    "TrainingRuntime": "trainingruntimes",
    "Gateway": "gateways",
    "Server": "servers",
}
_CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding"}


def collection(body: Mapping[str, Any], namespace: str | None = None) -> str:
    """Path of the collection that ``body`` belongs to."""
    version, kind = str(body["apiVersion"]), str(body["kind"])
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if kind in _CLUSTER_WIDE:
        return f"{root}/{_PLURALS[kind]}"
    place = namespace or body["metadata"]["namespace"]
    return f"{root}/namespaces/{place}/{_PLURALS[kind]}"


def path_of(kind: str, namespace: str, name: str, version: str = GROUP) -> str:
    """Path of one object."""
    return f"{collection({'apiVersion': version, 'kind': kind}, namespace)}/{name}"


@dataclass(frozen=True)
class Kubectl:
    """kubectl as one user."""

    binary: Path
    kubeconfig: Path
    namespace: str = "default"

    def run(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self.binary), f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *words]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)

    def __call__(self, *words: str, stdin: str | None = None) -> str:
        """Standard output. Raises AssertionError with what kubectl said when it fails."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr.strip()}"
        return done.stdout


@dataclass(frozen=True)
class Server:
    """The API server of the test session, with our CRDs and the admission policies of deploy/ installed."""

    plane: ControlPlane
    binary: Path
    admin: Api

    def user(self, name: str, groups: Sequence[str] = ()) -> Api:
        """An HTTP session as a user with a client certificate."""
        identity = self.plane.authority.issue(pki.file_name(name, groups), name, list(groups))
        return Api(self.plane.url, self.plane.ca, identity.certificate, identity.key)

    def service_account(self, namespace: str, name: str) -> Api:
        """An HTTP session as a ServiceAccount, with its user name and groups in a client certificate."""
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        return self.user(f"system:serviceaccount:{namespace}:{name}", groups)

    def operator(self) -> Api:
        """An HTTP session as the operator: its ServiceAccount's name, with the rights of deploy/kustomize/operator."""
        return self.service_account(*OPERATOR)

    def operator_kubeconfig(self) -> Path:
        """A kubeconfig of the operator, for a process that runs outside of the cluster."""
        namespace, name = OPERATOR
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        return self.plane.user_kubeconfig(f"system:serviceaccount:{namespace}:{name}", groups)

    def kubectl(self, namespace: str = "default") -> Kubectl:
        return Kubectl(self.binary, self.plane.kubeconfig, namespace)


def until(what: str, check: Callable[[], T | None], seconds: float = 30.0) -> T:
    """Waits until ``check`` yields something true and gives it back; fails with ``what`` it was waiting for."""
    deadline = time.monotonic() + seconds
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)
