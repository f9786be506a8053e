"""Requests of the Open Inference Protocol v2 for a model that reads bars, and what its answer says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.market import Market

HEADERS = {"Content-Type": "application/json"}


def document(bars: Market) -> dict[str, Any]:
    """A request for the forecast at the last of these bars, as a document that a test may spoil."""
    rows = len(bars.time)
    inputs: list[dict[str, Any]] = [{"name": "time", "datatype": "BYTES", "shape": [rows], "data": [*bars.time]}]
    inputs += [
        {"name": name, "datatype": "FP64", "shape": [rows], "data": [*values]} for name, values in bars.columns.items()
    ]
    return {"inputs": inputs}


def body(bars: Market) -> bytes:
    return json.dumps(document(bars)).encode()


def endpoint(model: Mapping[str, Any], gateway: str) -> str:
    """The address in a FinancialModel's status, at the Gateway as this machine reaches it."""
    return gateway + re.sub(r"^https?://[^/]+", "", model["status"]["endpoint"]["url"])


@dataclass(frozen=True)
class Prediction:
    """The newest forecast of an answer, and who gave it."""

    value: float
    version: str
    digest: str
    id: str

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Prediction:
        """Raises KeyError for an answer that is none."""
        output = next(output for output in answer["outputs"] if output["name"] == "prediction")
        told = answer["parameters"]
        return cls(float(output["data"][-1]), told["version"], told["digest"], told["predictionId"])
