"""A DriftPolicy's status as the judgement writes it: stored without loss, and what `kubectl get dp` makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from fiduciary.api.driftpolicy import DriftPolicyStatus
from tests.controlplane.examples import policy
from tests.controlplane.server import GROUP, path_of
from tests.unit.decide.drift.watch import Watch

if TYPE_CHECKING:
    from tests.controlplane.server import Kubectl, Server


def test_an_alarm_is_stored_as_written_and_shown(server: Server, namespace: str, kubectl: Kubectl) -> None:
    watch = Watch(now=datetime.now(UTC) - timedelta(days=21 * 10))
    watch.until_alarm(np.random.default_rng(5), 1.5)
    written = watch.status.body()
    server.admin.create(policy("spx"), namespace=namespace)
    path = path_of("DriftPolicy", namespace, "spx")
    identity = {"apiVersion": GROUP, "kind": "DriftPolicy", "metadata": {"name": "spx"}}
    server.operator().apply(f"{path}/status", {**identity, "status": written}, manager="fiduciary")
    stored = server.admin.get(path)
    assert stored["status"] == written
    assert DriftPolicyStatus.model_validate(stored["status"]) == watch.status
    again = server.operator().apply(f"{path}/status", {**identity, "status": written}, manager="fiduciary")
    assert again["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"], "an equal apply is no write"
    shown = kubectl("get", "dp")
    print(shown)
    assert shown.splitlines()[0].split() == [
        "NAME",
        "MODEL",
        "STATE",
        "REASON",
        "WORST",
        "SCORE",
        "WINDOW",
        "NEXT",
        "AGE",
    ]
    row = shown.splitlines()[1]
    assert row.split()[:6] == ["spx", "spx-volatility", "Drifted", "Watching", "inputs", watch.status.score]
    assert "Retrain asked for" in row
    assert "<invalid>" not in row
