"""What the version's inputs looked like in training: bounds for requests, and edges for the bins of records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Floats = NDArray[np.float64]

REACH = 10.0
"""A feature may lie this many times the width of its range in training outside of it. A crash is within one or two; a
price in cents instead of dollars, percent instead of fractions or a volume in lots is not."""


@dataclass(frozen=True)
class Reference:
    """Of ``drift_reference.json``, what serving needs.

    Attributes:
        sha256: hash of all edges (hexadecimal); bins over other edges are never compared.
        low, high: ``(F,)`` bounds of each feature; infinite where the reference has none.
        edges: inner edges of each feature, ascending; bin i holds ``edges[i-1] < x <= edges[i]``.
        prediction_edges: the same of the prediction.
        typical: ``(F,)`` median of each feature in training, NaN where it has none.
    """

    sha256: str
    low: Floats
    high: Floats
    edges: tuple[Floats, ...]
    prediction_edges: Floats
    typical: Floats

    @classmethod
    def read(cls, content: bytes, names: Sequence[str]) -> Reference:
        """Raises ``ValueError``, ``KeyError`` or ``TypeError`` for another document."""
        document = orjson.loads(content)
        if document["schemaVersion"] != 1:
            raise ValueError(f"drift_reference.json has schemaVersion {document['schemaVersion']!r}; expected 1")
        entries = [document["features"][name] for name in names]
        low, high = np.array([_bounds(entry) for entry in entries]).T
        edges = tuple(np.asarray(entry["edges"], dtype=np.float64) for entry in entries)
        typical = np.array([each[len(each) // 2] if len(each) else np.nan for each in edges])
        prediction = np.asarray(document["prediction"]["edges"], dtype=np.float64)
        return cls(str(document["edgesSha256"]), low, high, edges, prediction, typical)

    def bins(self, raw: Floats) -> NDArray[np.int64]:
        """Number of the bin of each value, ``(n, F)`` of ``(n, F)``; what a NaN gets means nothing."""
        return np.stack([np.searchsorted(edges, raw[:, i], side="left") for i, edges in enumerate(self.edges)], axis=1)


def _bounds(entry: Mapping[str, Any]) -> tuple[float, float]:
    low, high = entry["min"], entry["max"]
    if low is None or high is None:
        return -np.inf, np.inf
    # A feature that was constant has a width of its own size: what it may become cannot be read off the reference.
    width = (high - low) or abs(high) or 1.0
    return low - REACH * width, high + REACH * width
