"""Seldon Core v2 and KServe on the real API server with their real CRDs and scripted controllers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.controlplane.engine import models
from tests.controlplane.engine.conftest import ROOT
from tests.controlplane.engine.scripted import OtherNode, seldon, services
from tests.controlplane.engine.scripted import server as seldon_server
from tests.controlplane.engine.serving import GATEWAY, apps, routes
from tests.controlplane.engine.test_serving import condition, is_ready, trained
from tests.controlplane.server import Refused, path_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.server import Api, Server

CRDS = ROOT.parent / "shared" / "crds"
SELDON, KSERVE = CRDS / "seldon-v2.6.0", CRDS / "kserve-v0.20.0" / "serving.kserve.io_inferenceservices.v0.20.0.yaml"
LINEAR: dict[str, Any] = {"spec": {"training": {"architecture": "Linear"}}}
ARTIFACTS = {"artifacts": "s3://mlflow"}


def served_by(backend: str) -> dict[str, Any]:
    return {"serving": {"backend": backend, "gateway": {"parentRefs": [{"name": GATEWAY}]}}}


def install(server: Server, path: object, served: str) -> None:
    """CRDs, until the API server answers for one of their kinds."""
    server.kubectl()("apply", "--server-side", "-f", str(path))
    until(f"{served} is served", lambda: _answers(server, served), 60)


def _answers(server: Server, path: str) -> bool:
    try:
        return server.admin.exists(path)
    except Refused as refused:
        if refused.code == 429:  # its storage is not there yet
            return False
        raise


def remove(server: Server, path: object) -> None:
    server.kubectl()("delete", "--ignore-not-found", "--wait=true", "-f", str(path))


@pytest.fixture
def node(server: Server, namespace: str) -> Iterator[OtherNode]:
    found = OtherNode(server.admin, namespace).start()
    found.install()
    yield found
    found.stop()


def pin(server: Server, namespace: str, version: str, digest: str) -> None:
    pinned = {"mode": "Pinned", "pinned": {"version": version, "digest": digest}}
    server.admin.merge(path_of("FinancialModel", namespace, "spx"), {"spec": {"promotion": pinned}})


def serves(server: Server, namespace: str, seconds: float, node: OtherNode | None = None) -> None:
    """Until it does; a failure shows what the status says instead."""
    try:
        until("it serves", lambda: is_ready(server.admin, namespace), seconds)
    except AssertionError as error:
        conditions = models.status(server.admin, namespace)["conditions"]
        told = [f"{entry['type']}={entry['status']} {entry['reason']}: {entry['message']}" for entry in conditions]
        raise AssertionError("\n".join([*told, repr(node.passing if node else None)])) from error


def backends_said(server: Server, namespace: str) -> list[str]:
    return [record["backend"] for record in models.records(server.admin, namespace) if "backend" in record]


def test_a_model_on_seldon_from_missing_kinds_to_its_deletion(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess], node: OtherNode
) -> None:
    api = server.admin
    remove(server, SELDON)
    connections = {"mlflow": {"trackingUri": mlflow, **ARTIFACTS}}
    operator(**node.settings(), connections=connections).start(network=node.network).ready()
    api.create(models.model(namespace, change=served_by("Seldon")))
    first = trained(api, namespace, mlflow)
    until("it says what is missing", lambda: condition(api, namespace, "Stalled") == ("True", "BackendMissing"), 60)
    install(server, SELDON, seldon(namespace, "servers"))
    until("there is no Server", lambda: condition(api, namespace, "Stalled") == ("True", "ServerNotReady"), 60)
    assert api.get(seldon(namespace, "models"))["items"] == []

    api.create(seldon_server(namespace, ("mlserver", "sklearn")), namespace=namespace)
    until("it does not fit", lambda: condition(api, namespace, "Stalled") == ("True", "CapabilityMismatch"), 60)
    assert api.get(seldon(namespace, "models"))["items"] == [], "nothing is created that has no place"
    api.merge(seldon(namespace, "servers", "fiduciary"), {"spec": {"capabilities": ["fiduciary-onnx"]}})
    node.serve_with("Seldon")
    serves(server, namespace, 90, node)
    assert node.mesh_clients(namespace) == {first}
    model = api.get(seldon(namespace, "models", f"spx-{first[7:19]}"))
    assert model["spec"]["requirements"] == ["fiduciary-onnx"]
    assert model["spec"]["storageUri"].startswith("s3://mlflow/")
    assert api.get(seldon(namespace, "experiments"))["items"] == []
    assert backends_said(server, namespace) == ["Seldon"]
    assert node.signed > 0
    assert node.unsigned == 0

    # A promotion: weights are edited, the name follows when the mesh has answered.
    api.merge(path_of("FinancialModel", namespace, "spx"), LINEAR)
    second = trained(api, namespace, mlflow)
    until("it waits", lambda: models.status(api, namespace).get("challenger"), 60)
    pin(server, namespace, "2", second)
    until("the second answers", lambda: node.mesh_clients(namespace) == {second}, 60)
    serves(server, namespace, 60, node)
    until("requests carry its name", lambda: node.leads[f"{namespace}.spx"] == f"spx-{second[7:19]}", 60)
    assert node.edits == [{f"spx-{first[7:19]}": 0, f"spx-{second[7:19]}": 100}]
    generations = [one["metadata"]["generation"] for one in api.get(seldon(namespace, "models"))["items"]]
    assert generations == [1, 1], "a Model is never edited"

    # The kill switch: Models stay, the route lets nobody in.
    api.merge(path_of("FinancialModel", namespace, "spx"), {"spec": {"kill": {"engaged": True}}})
    until("nobody answers", lambda: node.mesh_clients(namespace) == set(), 30)
    until("it is told", lambda: models.status(api, namespace)["phase"] == "Killed", 30)
    assert len(api.get(seldon(namespace, "models"))["items"]) == 2

    api.delete(path_of("FinancialModel", namespace, "spx"))
    until("the model is gone", lambda: not api.exists(path_of("FinancialModel", namespace, "spx")), 60)
    until("nothing is left", lambda: not api.get(seldon(namespace, "models"))["items"], 60)
    assert api.get(seldon(namespace, "experiments"))["items"] == []
    assert api.get(routes(namespace))["items"] == []
    kinds = list(dict.fromkeys(node.deleted))
    assert kinds in (["Experiment", "Model"], ["Model"]), "what leads requests goes first"


def test_seldon_that_is_away_is_told_and_nothing_goes_unproven(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess], node: OtherNode
) -> None:
    api = server.admin
    install(server, SELDON, seldon(namespace, "servers"))
    api.create(seldon_server(namespace), namespace=namespace)
    node.serve_with("Seldon")
    connections = {"mlflow": {"trackingUri": mlflow, **ARTIFACTS}}
    process = operator(**node.settings(), connections=connections).start(network=node.network).ready()
    api.create(models.model(namespace, change=served_by("Seldon")))
    first = trained(api, namespace, mlflow)
    serves(server, namespace, 90, node)
    api.merge(path_of("FinancialModel", namespace, "spx"), LINEAR)
    second = trained(api, namespace, mlflow)
    until("it waits", lambda: models.status(api, namespace).get("challenger"), 60)
    until("it is loaded", lambda: len(node.models) == 2, 60)
    until("it was probed", lambda: "PromotionPending" in str(models.status(api, namespace)), 60)
    node.seldon_away = True
    pin(server, namespace, "2", second)
    until("it is decided", lambda: models.records(api, namespace)[-1]["action"] == "Promote", 60)
    until("it is told", lambda: condition(api, namespace)[1] == "ControlPlaneDisconnected", 60)
    assert node.mesh_clients(namespace) == {first}
    process.stop()
    node.seldon_away = False
    process.start(network=node.network).ready()
    until("the second answers", lambda: node.mesh_clients(namespace) == {second}, 60)
    serves(server, namespace, 60, node)


def asked(api: Api, namespace: str) -> set[str]:
    """Services that get requests by the route."""
    refs = api.get(routes(namespace, "spx"))["spec"]["rules"][0]["backendRefs"]
    return {ref["name"] for ref in refs if ref["weight"] > 0}


def test_a_live_model_moves_to_kserve_and_back(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess], node: OtherNode
) -> None:
    api, fm = server.admin, path_of("FinancialModel", namespace, "spx")
    remove(server, KSERVE)
    operator(**node.settings()).start(network=node.network).ready()
    api.create(models.model(namespace, change=served_by("Gateway")))
    digest = trained(api, namespace, mlflow)
    serves(server, namespace, 90, node)
    version = f"spx-{digest[7:19]}"

    api.merge(fm, {"spec": {"serving": {"backend": "KServe"}}})
    until("KServe is missing", lambda: condition(api, namespace, "Stalled") == ("True", "BackendMissing"), 60)
    assert is_ready(api, namespace), "the old one serves on"
    install(server, KSERVE, services(namespace))
    until("an InferenceService is asked for", lambda: api.exists(services(namespace, version)), 60)
    assert backends_said(server, namespace) == []
    node.serve_with("KServe")
    until("it took over", lambda: backends_said(server, namespace) == ["KServe"], 90)
    serves(server, namespace, 60, node)
    # The record is the write before the route's: whoever reads both at once may see the one without the other.
    until("the route sends all to it", lambda: asked(api, namespace) == {f"{version}-ks"}, 60)
    assert node.clients(namespace) == {digest}
    until("what served before is gone", lambda: not api.exists(apps(namespace, version)), 120)
    assert api.exists(apps(namespace, f"{version}-predictor")), "KServe's own Deployment is left alone"
    assert is_ready(api, namespace)

    api.merge(fm, {"spec": {"serving": {"backend": "Gateway"}}})
    until("it is back", lambda: backends_said(server, namespace) == ["KServe", "Gateway"], 90)
    serves(server, namespace, 60, node)
    until("KServe is left", lambda: not api.exists(services(namespace, version)), 120)
    assert node.clients(namespace) == {digest}
