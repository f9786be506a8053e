"""A model that serves, by the real process on the real API server: objects, route, probes, and people in between."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.controlplane.engine import models
from tests.controlplane.engine.conftest import GATEWAY_API
from tests.controlplane.engine.node import Node
from tests.controlplane.engine.serving import GATEWAY, SERVES, ServingNode, apps, routes
from tests.controlplane.server import path_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.server import Api, Server

SERVED: dict[str, Any] = {"serving": {"replicas": 2, "gateway": {"parentRefs": [{"name": GATEWAY}]}}}


@pytest.fixture
def serving(server: Server, namespace: str) -> Iterator[ServingNode]:
    node = ServingNode(server.admin, namespace).start().install()
    yield node
    node.stop()


def condition(api: Api, namespace: str, kind: str = "Ready", name: str = "spx") -> tuple[str, str]:
    for entry in models.status(api, namespace, name).get("conditions", []):
        if entry["type"] == kind:
            return entry["status"], entry["reason"]
    return "", ""


def trained(api: Api, namespace: str, mlflow: str, name: str = "spx") -> str:
    """Let the Job of the model run; the digest of what it made."""
    node = Node(api, namespace, mlflow)
    job = until(
        "a Job", lambda: next((j for j in node.unfinished() if j["metadata"]["name"].startswith(name)), None), 60
    )
    return str(node.run(job)["digest"])


def is_ready(api: Api, namespace: str, name: str = "spx") -> bool:
    return condition(api, namespace, name=name) == ("True", "Serving")


def objects(api: Api, namespace: str) -> dict[str, str]:
    """kind/name -> resourceVersion of everything that serves."""
    paths = {
        "Deployment": apps(namespace),
        "Service": f"/api/v1/namespaces/{namespace}/services",
        "ServiceAccount": f"/api/v1/namespaces/{namespace}/serviceaccounts",
        "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
        "PodDisruptionBudget": f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets",
        "HTTPRoute": routes(namespace),
    }
    return {
        f"{kind}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for kind, path in paths.items()
        for item in api.request("GET", path, params=SERVES)["items"]
    }


def test_a_model_is_served_when_a_client_would_be_answered(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess], serving: ServingNode
) -> None:
    api = server.admin
    process = operator(**serving.settings()).start(network=serving.network).ready()
    api.create(models.model(namespace, change=SERVED))
    digest = trained(api, namespace, mlflow)
    until("it serves", lambda: is_ready(api, namespace), 90)
    assert serving.clients(namespace) == {digest}
    version = f"spx-{digest[7:19]}"
    assert set(objects(api, namespace)) == {
        f"Deployment/{version}", f"Service/{version}", f"Service/{version}-mirror", f"NetworkPolicy/{version}",
        f"PodDisruptionBudget/{version}", "ServiceAccount/spx-serving", "HTTPRoute/spx",
    }  # fmt: skip
    route = api.get(routes(namespace, "spx"))
    records = models.records(api, namespace)
    assert route["metadata"]["annotations"]["fiduciary.dev/decision"] == str(len(records))
    assert models.status(api, namespace)["endpoint"]["url"] == f"http://edge.test/v2/models/{namespace}.spx"
    assert serving.signed > 0
    assert serving.unsigned == 0
    metrics = process.get("/metrics")[1]
    for via, protocol in (("Version", "rest"), ("Route", "rest"), ("Route", "grpc")):
        labels = f'outcome="ok",protocol="{protocol}",via="{via}"'
        assert f"fiduciary_operator_probes_total{{{labels}}}" in metrics
    api.delete(path_of("FinancialModel", namespace, "spx"))
    until("the model is gone", lambda: not api.exists(path_of("FinancialModel", namespace, "spx")))
    until("nothing is left that served", lambda: not objects(api, namespace), 60)


def test_what_people_change_by_hand_is_put_back_and_clients_do_not_notice(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess], serving: ServingNode
) -> None:
    api = server.admin
    operator(**serving.settings()).start(network=serving.network).ready()
    api.create(models.model(namespace, change=SERVED))
    digest = trained(api, namespace, mlflow)
    until("it serves", lambda: is_ready(api, namespace), 90)
    version, path = f"spx-{digest[7:19]}", routes(namespace, "spx")

    def restored(what: str, there: Callable[[], bool]) -> None:
        until(what, there, 60)
        until("it serves again", lambda: is_ready(api, namespace) and serving.clients(namespace) == {digest}, 60)

    wanted = api.get(path)["spec"]
    api.merge(path, {"spec": {"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/mine"}}]}]}})
    restored("the route is as the record says", lambda: api.get(path)["spec"] == wanted)

    uid = api.get(path)["metadata"]["uid"]
    api.merge(path, {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}})
    labels = {"app.kubernetes.io/managed-by": "fiduciary"}
    restored("the label is back", lambda: labels.items() <= api.get(path)["metadata"]["labels"].items())
    assert api.get(path)["metadata"]["uid"] == uid

    service = f"/api/v1/namespaces/{namespace}/services/{version}"
    api.delete(service)
    restored("the Service is back", lambda: api.exists(service))

    api.delete(apps(namespace, version))
    restored("the Deployment is back", lambda: api.exists(apps(namespace, version)))


def test_another_route_that_takes_host_and_path_is_told(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess], serving: ServingNode
) -> None:
    api = server.admin
    operator(**serving.settings(), probes={"steadySeconds": 2}).start(network=serving.network).ready()
    api.create(models.model(namespace, change=SERVED))
    trained(api, namespace, mlflow)
    until("it serves", lambda: is_ready(api, namespace), 90)
    serving.hijacked = True
    until("it is told", lambda: condition(api, namespace, "RouteHijacked")[0] == "True", 60)
    assert condition(api, namespace)[0] == "False"
    serving.hijacked = False
    until("it serves again", lambda: is_ready(api, namespace), 60)


def test_gateway_api_may_be_installed_after_the_operator_and_removed_under_it(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]
) -> None:
    api, kubectl = server.admin, server.kubectl()
    kubectl("delete", "--wait=true", "-f", str(GATEWAY_API))
    node = ServingNode(api, namespace).start()
    try:
        process = operator(**node.settings()).start(network=node.network).ready()
        api.create(models.model(namespace, change=SERVED))
        trained(api, namespace, mlflow)
        until("it says what is missing", lambda: condition(api, namespace)[1] == "GatewayApiMissing", 60)
        _install(server)
        node.install()
        until("it serves", lambda: is_ready(api, namespace), 90)
        kubectl("delete", "--wait=true", "-f", str(GATEWAY_API))
        until("it says so", lambda: condition(api, namespace)[1] == "GatewayApiMissing", 60)
        assert process.alive
        process.ready()
    finally:
        node.stop()
        _install(server)


def _install(server: Server) -> None:
    kubectl = server.kubectl()
    kubectl("apply", "--server-side", "-f", str(GATEWAY_API))
    kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    until("Gateways are served", lambda: server.admin.exists(routes("default", kind="gateways")))


def test_two_models_of_one_name_in_two_namespaces_are_two(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]
) -> None:
    api = server.admin
    meta = {"generateName": f"{namespace[:40]}-b-"}
    other = api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})["metadata"]["name"]
    node = ServingNode(api, namespace, other).start().install()
    try:
        operator(**node.settings()).start(network=node.network).ready()
        digests: dict[str, str] = {}
        for seed, place in ((1, namespace), (2, other)):
            api.create(models.model(place, change={**SERVED, "training": {"seed": seed}}))
            digests[place] = trained(api, place, mlflow)
        assert digests[namespace] != digests[other]
        for place, digest in digests.items():
            until("it serves", lambda place=place: is_ready(api, place), 90)
            assert node.clients(place) == {digest}
        api.merge(path_of("FinancialModel", other, "spx"), {"spec": {"kill": {"engaged": True}}})
        until("one is killed", lambda: node.clients(other) == set(), 30)
        assert node.clients(namespace) == {digests[namespace]}
        api.delete(path_of("FinancialModel", other, "spx"))
        until("one is gone", lambda: not objects(api, other), 60)
        assert is_ready(api, namespace)
        assert node.clients(namespace) == {digests[namespace]}
    finally:
        node.stop()
        api.delete(f"/api/v1/namespaces/{other}")


def test_a_kill_needs_neither_mlflow_nor_pods_and_a_restart_changes_nothing(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess], serving: ServingNode
) -> None:
    api = server.admin
    process = operator(**serving.settings()).start(network=serving.network).ready()
    api.create(models.model(namespace, change=SERVED))
    digest = trained(api, namespace, mlflow)
    until("it serves", lambda: is_ready(api, namespace), 90)
    process.stop()

    # A restart: nothing is written, and probes go on.
    def everything() -> dict[str, str]:
        model = api.get(path_of("FinancialModel", namespace, "spx"))["metadata"]["resourceVersion"]
        events = api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
        ours = [
            event["metadata"]["name"] for event in events if event["reportingController"] == "fiduciary.dev/operator"
        ]
        return {**objects(api, namespace), "model": model, "events": " ".join(sorted(ours))}

    before = everything()
    process.start(network=serving.network).ready()
    served = 'fiduciary_operator_probes_total{outcome="ok",protocol="grpc",via="Route"}'
    until("it is probed again", lambda: served in process.get("/metrics")[1], 60)
    assert everything() == before
    process.stop()

    # MLflow takes connections and says nothing (nobody accepts them), and the pods are gone.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = {"mlflow": {"trackingUri": f"http://127.0.0.1:{mute.getsockname()[1]}"}}
        lost = operator("operator-b", **serving.settings(), connections=silent)
        for pod in api.request("GET", f"/api/v1/namespaces/{namespace}/pods", params=SERVES)["items"]:
            api.delete(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}")
        lost.start(network=serving.network).ready()
        api.merge(path_of("FinancialModel", namespace, "spx"), {"spec": {"kill": {"engaged": True}}})

        def weights() -> list[int]:
            return [ref["weight"] for ref in api.get(routes(namespace, "spx"))["spec"]["rules"][0]["backendRefs"]]

        until("the route lets nobody through", lambda: not any(weights()), 10)
        assert [record["action"] for record in models.records(api, namespace)][-1] == "Kill"
        assert digest
        until("it is told", lambda: models.status(api, namespace)["phase"] == "Killed", 10)
        lost.stop()
