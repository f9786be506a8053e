"""MLflow as a client in the cluster sees it: what the tests compare the operator's words with."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from tests.e2e.cluster import NotInTime

if TYPE_CHECKING:
    from tests.e2e.cluster import Cluster, Object

NAMESPACE, SERVICE, PORT = "mlflow", "mlflow", 5000


@dataclass(frozen=True, slots=True)
class Registry:
    """MLflow's REST API 2.0 behind the API server's service proxy."""

    cluster: Cluster

    def _get(self, path: str, /, **params: str) -> httpx.Response:
        return self.cluster.service(NAMESPACE, SERVICE, PORT, path, params=params, timeout=60)

    def _ask(self, path: str, /, **params: str) -> Object:
        answer = self._get(f"api/2.0/mlflow/{path}", **params)
        assert answer.is_success, f"MLflow {path} {params}: {answer.status_code} {answer.text[:300]}"
        return answer.json()

    def aliases(self, model: str) -> dict[str, str]:
        """alias -> version of a registered model."""
        found = self._ask("registered-models/get", name=model)["registered_model"].get("aliases", [])
        return {entry["alias"]: entry["version"] for entry in found}

    def until_aliases(self, model: str, expected: dict[str, str], within: float = 60) -> None:
        """Wait until the registered model has exactly these aliases. MLflow has no watch: it is polled."""
        deadline = time.monotonic() + within
        while (found := self.aliases(model)) != expected:
            if time.monotonic() > deadline:
                raise NotInTime(f"aliases of {model} after {within:.0f} s: {found}, expected {expected}")
            time.sleep(0.5)

    def versions(self, model: str) -> list[Object]:
        """All versions of a registered model, oldest first; none where the model is not registered."""
        found = self._ask("model-versions/search", filter=f"name='{model}'", max_results="100")
        return sorted(found.get("model_versions", []), key=lambda version: int(version["version"]))

    def version(self, model: str, number: str) -> Object:
        return self._ask("model-versions/get", name=model, version=number)["model_version"]

    def run(self, run_id: str) -> Object:
        return self._ask("runs/get", run_id=run_id)["run"]

    def runs(self, experiment: str) -> list[Object]:
        """All runs of an experiment, by the experiment's name."""
        found = self._get("api/2.0/mlflow/experiments/get-by-name", experiment_name=experiment)
        if found.status_code == httpx.codes.NOT_FOUND:
            return []
        body = {"experiment_ids": [found.json()["experiment"]["experiment_id"]], "max_results": 100}
        answer = self.cluster.service(
            NAMESPACE, SERVICE, PORT, "api/2.0/mlflow/runs/search", method="POST", json=body, timeout=60
        )
        return answer.raise_for_status().json().get("runs", [])

    def artifacts(self, run_id: str, path: str = "") -> list[str]:
        """Paths of the files of a run below ``path``, folders included."""
        found = self._ask("artifacts/list", run_id=run_id, **({"path": path} if path else {}))
        return [entry["path"] for entry in found.get("files", [])]

    def artifact(self, run_id: str, path: str) -> bytes:
        answer = self._get("get-artifact", run_uuid=run_id, path=path)
        assert answer.is_success, f"artifact {path}: {answer.status_code} {answer.text[:300]}"
        return answer.content

    def digest(self, run_id: str) -> str:
        """The version digest, computed again from every byte that MLflow serves of it."""
        manifest = self.artifact(run_id, "version/manifest.json")
        for name, expected in json.loads(manifest)["files"].items():
            content = self.artifact(run_id, f"version/{name}")
            assert hashlib.sha256(content).hexdigest() == expected.removeprefix("sha256:"), (
                f"{name} is not what was judged"
            )
        return f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    def up(self) -> bool:
        """Does it answer?"""
        try:
            return self._get("health").is_success
        except httpx.HTTPError:
            return False


def tags(item: dict[str, Any]) -> dict[str, str]:
    """Tags of a version or of a run, as a mapping."""
    found = item.get("tags") or item.get("data", {}).get("tags", [])
    return {entry["key"]: entry["value"] for entry in found}
