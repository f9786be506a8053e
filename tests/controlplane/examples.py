"""One good object of each kind, as small as it can be; tests change what they are about."""

from __future__ import annotations

from typing import Any

from tests.controlplane.server import GROUP, Body

DIGEST = "sha256:" + "0" * 64


def _object(kind: str, name: str, spec: Body) -> Body:
    return {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec}


def model(name: str = "spx-volatility", **spec: Any) -> Body:
    """A FinancialModel: HAR on the S&P 500. ``spec`` adds or replaces top-level fields."""
    data: Body = {
        "source": {"dataset": {"name": "arch/sp500"}},
        "time": "date",
        "asOf": "2017-12-29",
        "features": {"set": "ohlcv-v1"},
        "label": {"kind": "Volatility"},
    }
    return _object("FinancialModel", name, {"data": data, "training": {"architecture": "HAR"}, **spec})


def experiment(name: str = "spx-volatility-8", **spec: Any) -> Body:
    """A ModelExperiment of version 8."""
    return _object(
        "ModelExperiment", name, {"modelRef": {"name": "spx-volatility"}, "challenger": {"version": "8"}, **spec}
    )


def policy(name: str = "spx-volatility", **spec: Any) -> Body:
    """A DriftPolicy with one monitor."""
    monitor = {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["Alert"]}
    base: Body = {"modelRef": {"name": "spx-volatility"}, "window": {"rows": 21}, "monitors": [monitor]}
    return _object("DriftPolicy", name, {**base, **spec})


def approval(name: str = "kill-1", approver: str = "sandbox-admin", **spec: Any) -> Body:
    """A ModelApproval that engages the kill switch."""
    base: Body = {"modelRef": {"name": "spx-volatility"}, "decision": "Kill", "approver": approver, "reason": "a test"}
    return _object("ModelApproval", name, {**base, **spec})


def decision(of: str = "spx-volatility", sequence: int = 1, **spec: Any) -> Body:
    """Record ``sequence`` of a model's log."""
    base: Body = {
        "modelRef": {"name": of, "uid": "5f3c0c1e-0000-0000-0000-000000000000"},
        "sequence": sequence,
        "action": "Accept",
        "to": {"version": "1", "digest": DIGEST, "trainingKey": DIGEST, "role": "Champion"},
        "cause": {"kind": "Initial", "message": "all gates passed"},
        "evidence": {"summary": {"metrics": {"ewma_skill": {"e": 0.07, "se": 0.011, "n": 3100}}}},
        "actor": {"component": "fiduciary-operator", "version": "0.1.0"},
        "decidedAt": "2026-11-24T00:00:00Z",
    }
    if sequence > 1:
        base["previous"] = DIGEST
    return _object("ModelDecision", f"{of}-{sequence}", {**base, **spec})
