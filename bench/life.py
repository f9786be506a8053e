"""Every write that one FinancialModel costs from apply to registered, counted in the audit log.

The operator, the API server, Kubernetes' Job controller and MLflow are real; the training itself is played (a control
plane has no node): a pod that ends with a result, and the run and manifest that a trainer leaves in MLflow.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.audit import Audit
from sandbox import controlplane, gobuild
from tests import mlflow_server
from tests.controlplane.engine import models
from tests.controlplane.engine.node import Node
from tests.controlplane.server import Api, until

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "bench-life"
USER = "bench-life"


def one_life(python: str, progress: Callable[[str], None]) -> Counter[str]:
    """Mutating requests of the operator by `verb resource`, Events too, Lease renewals apart."""
    with tempfile.TemporaryDirectory(prefix="fiduciary-life-") as folder:
        progress("one life: control plane and MLflow")
        plane = controlplane.start("bench-life", directory=Path(folder) / "plane", controller_manager=True)
        try:
            (Path(folder) / "mlflow").mkdir()
            with mlflow_server.running(Path(folder) / "mlflow") as address:
                return _live(plane, python, address, progress)
        finally:
            plane.stop()


def _live(plane: Any, python: str, mlflow: str, progress: Callable[[str], None]) -> Counter[str]:
    kubectl = [gobuild.build(gobuild.KUBE) / "kubectl", f"--kubeconfig={plane.kubeconfig}"]
    for words in (
        ("apply", "--server-side", "-k", ROOT / "crds"),
        ("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"),
        ("create", "namespace", "fiduciary-system"),
        ("create", "namespace", NAMESPACE),
    ):
        subprocess.run([*kubectl, *words], check=True, stdout=subprocess.DEVNULL)
    api = Api(plane.url, plane.ca, plane.admin.certificate, plane.admin.key)
    node = Node(api, NAMESPACE, mlflow)
    config = plane.directory / "config.yaml"
    config.write_text(json.dumps({"connections": {"mlflow": {"trackingUri": mlflow}}}))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "operator"),
        "KUBECONFIG": str(plane.user_kubeconfig(USER, ["system:masters"])),
        "FIDUCIARY_CONFIG": str(config),
        "FIDUCIARY_LISTEN": "127.0.0.1:0",
    }
    audit = Audit(plane.audit_log, USER)
    with (plane.directory / "operator.log").open("wb") as log:
        operator = subprocess.Popen([python, "-m", "fiduciary"], env=environment, stdout=log, stderr=log)
    try:
        progress("one life: applied")
        api.create(models.model(NAMESPACE))
        job = until("a Job", lambda: next(iter(node.unfinished()), None), 60)
        progress("one life: trained")
        node.run(job)
        until("registered", lambda: models.phase(api, NAMESPACE) == "Registered", 60)
        time.sleep(3.0)  # what follows the status: events, aliases
        return audit.since_last()
    finally:
        operator.terminate()
        operator.wait(60)
