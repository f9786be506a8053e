"""The resources that the tests apply: small ones, each with only the fields that its test is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.e2e.cluster import Object

API_VERSION = "fiduciary.dev/v1alpha1"
AS_OF = "2017-12-29"
CLAIM = "bars"  # the volume claim that holds the files of market_data.py
SP500: Object = {"dataset": {"name": "arch/sp500"}}


def merged(base: Object, change: Object) -> Object:
    """A copy of ``base`` with ``change`` laid over it, mapping by mapping; ``None`` takes a key away."""
    out = dict(base)
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = value
    return out


def model(name: str, spec: Object | None = None, source: Object | None = None) -> Object:
    """A HAR volatility model of the S&P 500: real data, seconds of training, passes the gates as a reference model."""
    base: Object = {
        "governance": {"owner": "e2e", "purpose": "a test of the operator", "tier": "Low"},
        "data": {
            "source": source or SP500,
            "time": "date",
            "asOf": AS_OF,
            "features": {"set": "ohlcv-v1"},
            "label": {"kind": "Volatility", "column": "close", "horizon": 1},
            "checks": {"minRows": 1000, "maxMissing": "0.02", "maxStaleness": "10d"},
        },
        "training": {
            "architecture": "HAR",
            "validation": {"scheme": "WalkForward", "folds": 4, "purge": 1, "embargo": 66, "costBps": "2"},
            "seed": 7,
            "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}},
            "retry": {"limit": 1},
            "activeDeadline": "10m",
        },
        "registry": {"connection": "mlflow"},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "FinancialModel",
        "metadata": {"name": name},
        "spec": merged(base, spec or {}),
    }


def on_claim(name: str, file: str, spec: Object | None = None, claim: str = CLAIM) -> Object:
    """The same on a CSV file of a volume claim."""
    return model(name, spec, {"files": {"uri": f"pvc://{claim}/{file}", "format": "CSV"}})


def long_running(name: str, spec: Object | None = None) -> Object:
    """A training that lasts for minutes in short epochs: a test acts while it runs, and does not wait for its end."""
    slow: Object = {
        "training": {
            "architecture": "LSTM",
            "hyperparameters": {"epochs": 10000, "patience": 10000, "window": 20, "hidden": 8},
            "validation": {"embargo": 90},  # 66 rows of features before each of the 20 rows of an input
        }
    }
    return model(name, merged(slow, spec or {}))


def approval(name: str, of: str, decision: str, approver: str, reason: str = "a test", **spec: Any) -> Object:
    """A person's act on a model. The API server compares ``approver`` with who makes the request."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelApproval",
        "metadata": {"name": name},
        "spec": {"modelRef": {"name": of}, "decision": decision, "approver": approver, "reason": reason, **spec},
    }
