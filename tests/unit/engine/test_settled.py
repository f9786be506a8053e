"""What may wait after a restart, and what may not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fiduciary.engine.settled import NEVER, serves, settled_until
from fiduciary.engine.stores import Stores
from fiduciary.manifests.content import sealed
from tests.unit.engine import toy_judge

NAME = ("quant", "m")


def stores(status: dict[str, Any] | None = None, **metadata: Any) -> Stores:
    found = Stores()
    body = toy_judge.body()
    body["metadata"] |= {"uid": "u", "resourceVersion": "1", "generation": 2, **metadata}
    body["status"] = {
        "observedGeneration": 2,
        "conditions": [
            {"type": "Reconciling", "status": "False"},
            {"type": "Stalled", "status": "False"},
            {"type": "Suspended", "status": "True"},
        ],
        **(status or {}),
    }
    found.models.put(body)
    return found


def test_a_model_that_owes_nothing_waits() -> None:
    assert settled_until(stores(), NAME) is NEVER


def test_a_schedule_says_until_when() -> None:
    found = stores({"nextTraining": "2026-11-24T22:00:00Z"})
    assert settled_until(found, NAME) == datetime(2026, 11, 24, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    "status",
    [
        {"observedGeneration": 1},
        {"observedGeneration": -1},
        {"training": {"key": "sha256:00"}},
        {"conditions": [{"type": "Reconciling", "status": "True"}]},
        {"conditions": [{"type": "Stalled", "status": "Unknown"}]},
        {"lastDecision": {"sequence": 3}},
    ],
    ids=["spec-changed", "lost-status", "training", "under-way", "stalled", "record-is-missing"],
)
def test_doubt_means_now(status: dict[str, Any]) -> None:
    assert settled_until(stores(status), NAME) is None


def test_a_deletion_is_worked_on_now() -> None:
    assert settled_until(stores(deletionTimestamp="2026-11-24T00:00:00Z"), NAME) is None


def test_a_person_s_act_is_worked_on_now() -> None:
    found = stores()
    metadata = {"namespace": "quant", "name": "kill", "uid": "k", "resourceVersion": "2"}
    spec = {"modelRef": {"name": "m"}, "decision": "Kill", "approver": "ana", "reason": "test"}
    found.approvals.put({"apiVersion": "v1", "kind": "ModelApproval", "metadata": metadata, "spec": spec})
    assert settled_until(found, NAME) is None


@pytest.mark.parametrize("kind", ["jobs", "jobsets", "trainjobs", "runtimes"])
def test_what_trains_or_did_is_looked_at_now(kind: str) -> None:
    """A verdict may be due, and what is left has to be tidied up."""
    found = stores()
    labels = {"app.kubernetes.io/managed-by": "fiduciary", "fiduciary.dev/model": "m"}
    metadata = {"namespace": "quant", "name": "m-0-1", "uid": "j", "resourceVersion": "3", "labels": labels}
    store = getattr(found, kind)
    store.put({"apiVersion": store.resource.api_version, "kind": store.resource.kind, "metadata": metadata, "spec": {}})
    assert settled_until(found, NAME) is None


SERVES = {"app.kubernetes.io/managed-by": "fiduciary", "fiduciary.dev/component": "serving", "fiduciary.dev/model": "m"}
SERVED = {"conditions": [{"type": "Served", "status": "True"}]}


def asked(kind: str, spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    """An object of ours that holds what was asked for."""
    metadata: dict[str, Any] = {"namespace": "quant", "name": "m", "labels": SERVES}
    body = sealed({"kind": kind, "apiVersion": "v1", "metadata": metadata, "spec": spec})
    body["metadata"] |= {
        "uid": kind,
        "resourceVersion": "3",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {**body, "status": status}


def serving(served: dict[str, Any] | None = None, **ready: int) -> Stores:
    found = stores(SERVED)
    numbers = {"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "observedGeneration": 1, **ready}
    found.deployments.put(asked("Deployment", {"replicas": 1}, **numbers))
    found.routes.put(served or asked("HTTPRoute", {"rules": []}))
    return found


def test_a_model_that_serves_as_it_was_left_waits_but_not_long() -> None:
    found = serving()
    assert settled_until(found, NAME) is NEVER
    assert serves(found, NAME)
    assert not serves(stores(), NAME)


@pytest.mark.parametrize("change", [{"readyReplicas": 0}, {"observedGeneration": 0}, {"updatedReplicas": 0}])
def test_pods_that_are_not_there_are_looked_at_now(change: dict[str, int]) -> None:
    assert settled_until(serving(**change), NAME) is None


def test_an_edited_route_and_a_missing_one_are_looked_at_now() -> None:
    edited = asked("HTTPRoute", {"rules": []})
    edited["spec"] = {"rules": [{}]}
    assert settled_until(serving(edited), NAME) is None
    found = serving()
    found.routes.remove(NAME, "HTTPRoute")
    assert settled_until(found, NAME) is None


def test_an_unknown_model_is_not_settled() -> None:
    assert settled_until(Stores(), NAME) is None


def test_a_request_of_a_policy_is_looked_at_now() -> None:
    """It was written, and the process ended before the model was told: nobody else would tell it."""
    found = stores()
    metadata = {"namespace": "quant", "name": "p", "uid": "p", "resourceVersion": "4"}
    body = {"apiVersion": "v1", "kind": "DriftPolicy", "metadata": metadata, "spec": {"modelRef": {"name": "m"}}}
    found.policies.put(body)
    assert settled_until(found, NAME) is NEVER
    asked = {"kind": "RollBack", "digest": "sha256:" + "0" * 64, "reason": "drift"}
    metadata["resourceVersion"] = "5"
    found.policies.put({**body, "status": {"requestedAction": asked}})
    assert settled_until(found, NAME) is None
