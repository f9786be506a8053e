"""What the controllers of JobSet and Kubeflow Trainer would do, as far as the operator can see it.

Their CRDs are the real ones (Apache License 2.0), taken from their Go modules; the Job inside is run by Kubernetes' own
controller. Only the two in between are written here: they make the Job of a JobSet and the JobSet of a TrainJob, and
pass on how it ended.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.controlplane.server import collection

if TYPE_CHECKING:
    from tests.controlplane.server import Api, Body

JOBSET = ("sigs.k8s.io/jobset@v0.12.0", "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml")
TRAINJOB = ("github.com/kubeflow/trainer/v2@v2.3.0", "manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml")
RUNTIME = ("github.com/kubeflow/trainer/v2@v2.3.0", "manifests/base/crds/trainer.kubeflow.org_trainingruntimes.yaml")

GROUPS = {"JobSet": "jobset.x-k8s.io/v1alpha2", "TrainJob": "trainer.kubeflow.org/v1alpha1"}
GROUPS["TrainingRuntime"] = GROUPS["TrainJob"]


def crd(source: tuple[str, str]) -> Path:
    """A file of a Go module, by its module proxy."""
    module, path = source
    told = subprocess.run(["go", "mod", "download", "-json", module], capture_output=True, text=True, cwd="/")
    found = json.loads(told.stdout)
    assert "Dir" in found, found.get("Error", told.stderr)
    return Path(found["Dir"]) / path


def place(kind: str, namespace: str, name: str = "") -> str:
    """The path of an object, or of all of its kind."""
    whole = collection({"apiVersion": GROUPS[kind], "kind": kind}, namespace)
    return f"{whole}/{name}" if name else whole


def those(api: Api, kind: str, namespace: str) -> list[Body]:
    return api.get(place(kind, namespace))["items"]


def make_jobset(api: Api, trainjob: Body) -> Body:
    """The JobSet of a TrainJob, from the runtime that it names."""
    metadata, ref = trainjob["metadata"], trainjob["spec"]["runtimeRef"]
    runtime = api.get(place(ref["kind"], metadata["namespace"], ref["name"]))
    body = {
        "apiVersion": GROUPS["JobSet"],
        "kind": "JobSet",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "ownerReferences": [_owner(trainjob)],
        },
        "spec": runtime["spec"]["template"]["spec"],
    }
    return api.create(body, namespace=metadata["namespace"])


def make_job(api: Api, jobset: Body) -> Body:
    """The one Job of a JobSet, with the labels that JobSet puts on it and on its pods."""
    metadata = jobset["metadata"]
    [replicated] = jobset["spec"]["replicatedJobs"]
    spec: dict[str, Any] = json.loads(json.dumps(replicated["template"]["spec"]))
    labels = {"jobset.sigs.k8s.io/jobset-name": metadata["name"]}
    spec["template"]["metadata"]["labels"] |= labels
    spec["template"]["spec"]["subdomain"] = metadata["name"]
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{metadata['name']}-{replicated['name']}-0",
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {"fiduciary.dev/training-key": _key(spec)},
            "ownerReferences": [_owner(jobset)],
        },
        "spec": spec,
    }
    return api.create(body, namespace=metadata["namespace"])


def end(api: Api, body: Body, kind: str, reason: str) -> None:
    """The JobSet or TrainJob says that it ended."""
    metadata = body["metadata"]
    condition = {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": "as its Job did",
        "lastTransitionTime": "2026-01-01T00:01:00Z",
    }
    path = f"{place(body['kind'], metadata['namespace'], metadata['name'])}/status"
    api.merge(path, {"status": {"conditions": [condition]}})


def _key(spec: dict[str, Any]) -> str:
    return json.loads(spec["template"]["metadata"]["annotations"]["fiduciary.dev/job"])["trainingKey"]


def _owner(body: Body) -> Body:
    of = {name: body["metadata"][name] for name in ("name", "uid")}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], **of, "controller": True}
