"""Comparison Jobs as Kubernetes shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fiduciary.engine import kinds
from fiduciary.engine.comparisons import comparison_job
from fiduciary.manifests import comparison
from tests.golden.comparison import replay

CREATED = "2026-11-24T12:00:00Z"


def stored(**status: Any) -> dict[str, Any]:
    body = comparison.comparison_job(replay(attempt=3))
    body["metadata"] |= {"uid": "job", "resourceVersion": "1", "creationTimestamp": CREATED}
    return {**body, "status": status}


def ended(kind: str, **parts: Any) -> dict[str, Any]:
    return {"type": kind, "status": "True", "lastTransitionTime": "2026-11-24T12:05:00Z", **parts}


def test_what_is_made_is_known_again() -> None:
    wanted, found = replay(attempt=3), comparison_job(stored())
    assert found is not None
    assert (found.name, found.attempt, found.ledger) == (comparison.job_name(wanted), 3, wanted.ledger)
    assert found.owner_uid == wanted.experiment_uid
    assert found.created_at == datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert not (found.finished)
    assert not (found.suspended)
    assert not (found.deleting)


def test_how_it_ended() -> None:
    found = comparison_job(stored(conditions=[ended("Failed", reason="PodFailurePolicy", message="exit code 42")]))
    assert found is not None
    assert (found.failed, found.reason, found.message) == (True, "PodFailurePolicy", "exit code 42")
    assert found.finished_at == datetime(2026, 11, 24, 12, 5, tzinfo=UTC)
    done = comparison_job(stored(conditions=[ended("SuccessCriteriaMet"), ended("Complete")]))
    assert done is not None
    assert done.succeeded


def test_it_is_no_training_and_a_training_is_none_of_these() -> None:
    body = stored()
    assert kinds.job(body) is None
    assert comparison_job({**body, "metadata": {**body["metadata"], "annotations": {}}}) is None
    labels = {**body["metadata"]["labels"], "fiduciary.dev/component": "training"}
    assert comparison_job({**body, "metadata": {**body["metadata"], "labels": labels}}) is None
