"""What the node and the trainer would do: a pod that ends with a result, and the run and artifacts in MLflow behind it.

The Job, its pod and their conditions are Kubernetes' own (the real controllers run); only the kubelet's report is
written here, because a control plane has no node.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import httpx

from tests.controlplane.server import path_of, until
from tests.unit.decide.worlds import result

if TYPE_CHECKING:
    from tests.controlplane.server import Api, Body

KEY = "fiduciary.dev/training-key"


class Node:
    """Runs the Jobs of one namespace, when the test says so."""

    def __init__(self, api: Api, namespace: str, mlflow: str, files: dict[str, bytes] | None = None) -> None:
        """``files``: artifacts that every version holds beside its model."""
        self.files = files or {}
        self.api = api
        self.namespace = namespace
        self.mlflow = httpx.Client(base_url=mlflow, timeout=30)

    def jobs(self) -> list[Body]:
        return self.api.get(f"/apis/batch/v1/namespaces/{self.namespace}/jobs")["items"]

    def unfinished(self) -> list[Body]:
        return [job for job in self.jobs() if not _ended(job) and "deletionTimestamp" not in job["metadata"]]

    def run(self, job: Body, exit_code: int = 0) -> dict[str, Any]:
        """The pod of this Job ends; with exit code 0 it measured something that passes. Returns what it reported."""
        key = job["metadata"]["annotations"][KEY]
        document: dict[str, Any]
        if exit_code == 0:
            document = until(
                "MLflow takes the run", lambda: self._measured_if_answered(key, job["metadata"]["name"]), 300
            )
        else:
            document = {"contractVersion": 1, "outcome": "Failed", "trainingKey": key, "reason": "Bug", "message": "no"}
        pod = until(f"a pod of {job['metadata']['name']}", lambda: self._pod(job["metadata"]["name"]))
        self._report(pod, document, exit_code)
        until(f"{job['metadata']['name']} has ended", lambda: _ended(self._job(job["metadata"]["name"])))
        return document

    def _measured_if_answered(self, key: str, name: str) -> dict[str, Any] | None:
        """None where MLflow gave no answer, or was at the end of its wits (SQLite under many trainers): asked again.

        Whether what was asked for happened is not known then; everything here is looked for before it is made.
        """
        try:
            return self._measured(key, name)
        except httpx.TransportError:
            return None
        except httpx.HTTPStatusError as error:
            if not error.response.is_server_error:
                raise
            return None

    def _measured(self, key: str, name: str) -> dict[str, Any]:
        """A run with its tags and a version's manifest, as the trainer leaves it; the same key, the same run."""
        experiment = self._experiment(f"{self.namespace}.{name.rsplit('-', 2)[0]}")
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        manifest = json.dumps({"files": {"model.onnx": hashlib.sha256(key.encode()).hexdigest(), **hashes}}).encode()
        digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
        run = self._run(experiment, key)
        place = f"mlflow-artifacts:/{experiment}/{run}/artifacts"
        folder = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/version"
        for file, content in {**self.files, "manifest.json": manifest}.items():
            self.mlflow.put(f"{folder}/{file}", content=content).raise_for_status()
        change = {"runId": run, "experimentId": experiment, "source": f"{place}/version", "digest": digest}
        document = result(key, "Volatility", change)
        tag = {"run_id": run, "key": "fiduciary.dev/result", "value": json.dumps(document)}
        self._post("runs/set-tag", tag)
        return document

    def _experiment(self, name: str) -> str:
        found = self.mlflow.get("/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": name})
        if found.status_code == 200:
            return str(found.json()["experiment"]["experiment_id"])
        return str(self._post("experiments/create", {"name": name})["experiment_id"])

    def _run(self, experiment: str, key: str) -> str:
        query = {"experiment_ids": [experiment], "filter": f"tags.`{KEY}` = '{key}'"}
        found = self._post("runs/search", query).get("runs")
        if found:
            return str(found[0]["info"]["run_id"])
        tags = [{"key": KEY, "value": key}]
        return str(self._post("runs/create", {"experiment_id": experiment, "tags": tags})["run"]["info"]["run_id"])

    def _post(self, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.mlflow.post(f"/api/2.0/mlflow/{endpoint}", json=body)
        answer.raise_for_status()
        return answer.json()

    def _job(self, name: str) -> Body:
        return self.api.get(path_of("Job", self.namespace, name, "batch/v1"))

    def _pod(self, job: str) -> Body | None:
        pods = self.api.request(
            "GET", f"/api/v1/namespaces/{self.namespace}/pods", params={"labelSelector": f"job-name={job}"}
        )["items"]
        return pods[0] if pods else None

    def _report(self, pod: Body, document: dict[str, Any], exit_code: int) -> None:
        name = pod["metadata"]["name"]
        container = pod["spec"]["containers"][0]
        times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:01:00Z"}
        reason = "Error" if exit_code else "Completed"
        ended = {"exitCode": exit_code, "message": json.dumps(document), "reason": reason}
        status = {
            "phase": "Failed" if exit_code else "Succeeded",
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"terminated": {**ended, **times}},
                }
            ],
        }
        self.api.merge(f"/api/v1/namespaces/{self.namespace}/pods/{name}/status", {"status": status})


def _ended(job: Body) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)
