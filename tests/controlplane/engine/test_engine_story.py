"""From apply to registered and back to nothing, by the real process on the real API server and a real MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from tests.controlplane.engine import models
from tests.controlplane.engine.node import Node
from tests.controlplane.server import path_of, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.server import Server


def test_a_model_is_trained_judged_registered_and_retired(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]
) -> None:
    api, node = server.admin, Node(server.admin, namespace, mlflow)
    process = operator().start().ready()
    api.create(models.model(namespace))
    job = until("a Job", lambda: next(iter(node.unfinished()), None))
    assert models.phase(api, namespace) == "Training"
    document = node.run(job)
    until("registered", lambda: models.phase(api, namespace) == "Registered")
    champion = models.status(api, namespace)["champion"]
    assert (champion["version"], champion["digest"]) == ("1", document["digest"])
    until("the Job is gone, its verdict is stored", lambda: not node.jobs())
    assert [record["action"] for record in models.records(api, namespace)] == ["Accept"]
    registry = httpx.Client(base_url=mlflow)

    def aliases() -> dict[str, str]:
        found = registry.get("/api/2.0/mlflow/registered-models/get", params={"name": f"{namespace}.spx"}).json()
        return {item["alias"]: item["version"] for item in found["registered_model"].get("aliases", [])}

    until("the alias follows", lambda: aliases() == {"champion": "1"})
    api.delete(path_of("FinancialModel", namespace, "spx"))
    until("the model is gone", lambda: not api.exists(path_of("FinancialModel", namespace, "spx")))
    assert aliases() == {}
    assert [record["action"] for record in models.records(api, namespace)] == ["Accept", "Retire"]
    assert process.stop() == 0
