"""The outcome scorer's objects on the real API server: accepted, held as they were asked for, and who may do what."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fiduciary_outcomes import settings
from fiduciary_outcomes.document import Refused
from fiduciary_outcomes.tokens import Keys, Role, Verifier
from tests.controlplane.engine import models
from tests.controlplane.engine.serving import GATEWAY, ServingNode, apps
from tests.controlplane.engine.test_serving import is_ready, trained
from tests.controlplane.server import path_of, until
from tests.controlplane.test_outcome_tokens import token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.server import Api, Server

ROOT = Path(__file__).resolve().parents[3]
SERVED: dict[str, Any] = {"serving": {"replicas": 1, "gateway": {"parentRefs": [{"name": GATEWAY}]}}}
NAME = "fiduciary-outcomes"
OPERATOR = "system:serviceaccount:fiduciary-system:fiduciary-operator"
ISSUER = "https://kubernetes.default.svc"
SETTINGS = {
    "prometheus": {"url": "http://127.0.0.1:9"},
    "outcomes": {"issuer": ISSUER, "operator": OPERATOR},
}


@pytest.fixture
def serving(server: Server, namespace: str) -> Iterator[ServingNode]:
    """A namespace whose owner applied deploy/kustomize/namespace."""
    for body in yaml.safe_load_all((ROOT / "deploy" / "kustomize" / "namespace" / "role.yaml").read_text()):
        server.admin.create({**body, "metadata": {**body["metadata"], "namespace": namespace}})
    node = ServingNode(server.admin, namespace).start().install()
    yield node
    node.stop()


def paths(namespace: str) -> dict[str, str]:
    core = f"/api/v1/namespaces/{namespace}"
    return {
        "Deployment": apps(namespace, NAME),
        "Service": f"{core}/services/{NAME}",
        "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{NAME}",
        "PersistentVolumeClaim": f"{core}/persistentvolumeclaims/{NAME}",
        **{
            f"ServiceAccount/{account}": f"{core}/serviceaccounts/{account}"
            for account in (NAME, "outcome-writer", "fiduciary-comparison")
        },
    }


def versions(api: Api, namespace: str) -> dict[str, tuple[str, int]]:
    """UID and generation of each part: what an apply of other content would change."""
    found = {what: api.get(path)["metadata"] for what, path in paths(namespace).items()}
    return {what: (metadata["uid"], metadata.get("generation", 0)) for what, metadata in found.items()}


def written(process: OperatorProcess) -> list[str]:
    """Writes of this process to kinds that the model's own objects and the scorer's are of."""
    kinds = ("ServiceAccount", "NetworkPolicy", "Service", "PersistentVolumeClaim", "Deployment")
    lines = [line for line in process.get("/metrics")[1].splitlines() if line.startswith("fiduciary_writes_total")]
    return [line for line in lines if any(f'kind="{kind}"' in line for kind in kinds)]


def test_a_scorer_is_made_held_and_left_behind(
    server: Server,
    namespace: str,
    mlflow: str,
    operator: Callable[..., OperatorProcess],
    serving: ServingNode,
    tmp_path: Path,
) -> None:
    api = server.admin
    process = operator(**serving.settings(), **SETTINGS).start(network=serving.network).ready()
    api.create(models.model(namespace, change=SERVED))
    trained(api, namespace, mlflow)
    until("it serves", lambda: is_ready(api, namespace), 90)
    there = paths(namespace)
    until("the scorer is there", lambda: all(api.exists(path) for path in there.values()), 60)
    made = versions(api, namespace)
    assert all("ownerReferences" not in api.get(path)["metadata"] for path in there.values())
    # A fresh process sees what it wants: nothing that the API server added looks like an edit.
    process.kill()
    process = operator(identity="operator-b", **serving.settings(), **SETTINGS).start(network=serving.network).ready()
    model = path_of("FinancialModel", namespace, "spx")
    api.merge(model, {"metadata": {"labels": {"a": "b"}}})
    until("it was looked at", lambda: is_ready(api, namespace) and "reconcile_total" in process.get("/metrics")[1], 60)
    assert versions(api, namespace) == made
    assert written(process) == []
    # A hand in between.
    api.merge(there["Service"], {"spec": {"selector": {"app": "other"}}})
    api.merge(there["NetworkPolicy"], {"spec": {"ingress": [{}]}})
    api.delete(there["ServiceAccount/outcome-writer"])
    until("the selector is put back", lambda: "app" not in api.get(there["Service"])["spec"]["selector"], 60)
    until("the policy is put back", lambda: len(api.get(there["NetworkPolicy"])["spec"]["ingress"]) == 2, 60)
    until("the account is there again", lambda: api.exists(there["ServiceAccount/outcome-writer"]), 60)
    # The model goes, the evidence stays.
    api.delete(model)
    until("the model is gone", lambda: not api.exists(model), 60)
    assert all(api.exists(path) for path in there.values())
    believes(server, namespace, api.get(there["Deployment"]), tmp_path)


def believes(server: Server, namespace: str, deployment: dict[str, Any], folder: Path) -> None:
    """What the process is told, and the API server's own tokens of those that it names."""
    (variable,) = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    found = settings.read({settings.VARIABLE: variable["value"]})
    assert json.loads(variable["value"])["auth"]["keys"]["url"].startswith("https://kubernetes.default.svc/")
    own = folder / "token"  # as the pod mounts it
    own.write_text(token(server, namespace, NAME, ISSUER))
    asked = Keys(url=f"{server.plane.url}/openid/v1/jwks", ca_file=server.plane.ca, token_file=own)

    async def check(role: Role, place: str, account: str, audience: str = f"{NAME}.{namespace}") -> str:
        verifier = Verifier(found.verifier.issuer, found.verifier.audience, asked, found.verifier.subjects)
        return await verifier.check(role, f"Bearer {token(server, place, account, audience)}")

    allowed: list[tuple[Role, str, str]] = [
        ("define", "fiduciary-system", "fiduciary-operator"),
        ("outcomes", namespace, "outcome-writer"),
        ("ledgers", namespace, "fiduciary-comparison"),
    ]
    for role, place, account in allowed:
        with pytest.raises(Refused, match="Audience doesn't match"):  # shown to the scorer of another namespace
            asyncio.run(check(role, place, account, f"{NAME}.another"))
        assert asyncio.run(check(role, place, account)) == f"system:serviceaccount:{place}:{account}"
        for other, *_ in allowed:
            if other != role:
                with pytest.raises(Refused) as refused:
                    asyncio.run(check(other, place, account))
                assert refused.value.status == 403


def test_without_the_namespace_owner_s_consent_the_claim_is_refused_by_name_and_all_else_goes_on(
    server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]
) -> None:
    api = server.admin
    node = ServingNode(api, namespace).start().install()
    try:
        operator(**node.settings(), **SETTINGS).start(network=node.network).ready()
        api.create(models.model(namespace, change=SERVED))
        trained(api, namespace, mlflow)
        until("it serves", lambda: len(node.clients(namespace)) == 1, 90)
        stalled = until(
            "it says so",
            lambda: next(
                (
                    entry["message"]
                    for entry in models.status(api, namespace).get("conditions", [])
                    if entry["type"] == "Stalled" and entry["status"] == "True"
                ),
                None,
            ),
            60,
        )
        assert "persistentvolumeclaims" in stalled
        assert api.exists(paths(namespace)["Deployment"])
        assert not api.exists(paths(namespace)["PersistentVolumeClaim"])
    finally:
        node.stop()
