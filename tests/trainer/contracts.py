"""Job documents for tests."""

from __future__ import annotations

from typing import Any


def document(architecture: str = "HAR", label: str = "Volatility", **changes: Any) -> dict[str, Any]:
    """A whole document; ``changes`` replace fields by path, dots as ``__`` (``training__seed=3``); ``...`` removes."""
    result: dict[str, Any] = {
        "contractVersion": 1,
        "model": {"cluster": "test", "namespace": "quant", "name": "spx", "uid": "0"},
        "trainingKey": "sha256:" + "0123456789abcdef" * 4,
        "specKey": "sha256:1",
        "configKey": "sha256:2",
        "attempt": 1,
        "trigger": {},
        "asOf": "2017-12-29",
        "data": {
            "source": {"dataset": {"name": "arch/sp500"}},
            "time": "date",
            "entity": None,
            "calendar": None,
            "features": {"set": "ohlcv-v1"},
            "label": {"kind": label, "column": "close", "horizon": 1},
            "checks": {"minRows": 1000, "maxMissing": "0.02", "maxStaleness": "5d"},
        },
        "training": {
            "architecture": architecture,
            "hyperparameters": {},
            "seed": 7,
            "search": None,
            "validation": {"scheme": "WalkForward", "folds": 6, "purge": 1, "embargo": 90, "costBps": "2"},
        },
        "checkpoint": None,
        "mlflow": {"trackingUri": "http://127.0.0.1:1", "experiment": "quant.spx"},
        "provenance": {"image": "test", "operatorVersion": "0"},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = result
        for name in parents:
            node = node[name]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    return result
