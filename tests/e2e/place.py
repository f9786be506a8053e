"""Where tests and benchmarks run: a sandbox that is up, and namespaces in it as a platform team makes them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sandbox import state as sandbox_state
from tests.e2e.cluster import User
from tests.e2e.node import VOLUME_OF

if TYPE_CHECKING:
    from tests.e2e.cluster import Cluster

ANA = User("ana@desk", ("fiduciary:approvers",))
ROOT = Path(__file__).resolve().parents[2]
NAMESPACE_BASE = ROOT / "deploy" / "kustomize" / "namespace"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What `python -m sandbox env` tells its users."""

    name: str
    kubeconfig: Path
    kubectl: str
    gateway: str

    @classmethod
    def running(cls) -> Sandbox:
        """The one that FIDUCIARY_SANDBOX names. Raises LookupError where it is not up."""
        name = os.environ.get("FIDUCIARY_SANDBOX", sandbox_state.DEFAULT_NAME)
        words = [sys.executable, "-m", "sandbox", "env", "--name", name]
        told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        if told.returncode:
            raise LookupError(told.stderr.strip())
        script = 'eval "$1"; echo "$KUBECONFIG"; command -v kubectl; echo "$GATEWAY_URL"'
        shell = ["bash", "-euc", script, "bash", told.stdout]
        said = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split()
        return cls(name, Path(said[0]), said[1], said[2])


@dataclass(slots=True)
class Namespaces:
    """Makes namespaces from deploy/kustomize/namespace, and removes them with their records and volumes."""

    cluster: Cluster
    made: list[str] = field(default_factory=list[str])

    def make(self, word: str) -> str:
        name = f"e2e-{word}-{secrets.token_hex(2)}"
        with tempfile.TemporaryDirectory() as folder:
            base = os.path.relpath(NAMESPACE_BASE, Path(folder).resolve())  # kustomize takes no absolute path
            content = yaml.safe_dump({"namespace": name, "resources": [base]})
            (Path(folder) / "kustomization.yaml").write_text(content)
            self.made.append(name)
            self.cluster.kubectl("apply", "-k", folder)
        return name

    def remove(self) -> None:
        for name in self.made:
            self.cluster.delete("namespace", name)
            self.cluster.kubectl("delete", "pv", "--wait=false", "-l", f"{VOLUME_OF}={name}")


def allow_approvals(cluster: Cluster, namespace: str, user: User) -> None:
    """RBAC for somebody who may create approvals in a namespace; which ones count is the admission policy's matter."""
    rules = ("--verb=get,list,create", "--resource=modelapprovals.fiduciary.dev")
    cluster.kubectl("create", "role", "approver", *rules, namespace=namespace)
    cluster.kubectl("create", "rolebinding", "approver", "--role=approver", f"--user={user.name}", namespace=namespace)
