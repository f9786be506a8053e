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
class Joint:
    """How far the model's inputs lie from their centre together: ``|whiten (z - center)|`` (Mahalanobis, 1936).

    Attributes:
        center: ``(F,)`` mean of the transformed features in training.
        whiten: ``(D, F)``; D directions that varied.
        edges: inner edges of the distance, ascending.
    """

    center: Floats
    whiten: Floats
    edges: Floats

    @classmethod
    def read(cls, document: Mapping[str, Any], features: int) -> Joint | None:
        """None where the trainer kept none, and says why. Raises as :meth:`Reference.read`."""
        if "unavailable" in document:
            return None
        if document["kind"] != "mahalanobis":
            raise ValueError(f"the joint distance is {document['kind']!r}; expected mahalanobis")
        center, whiten, edges = (np.asarray(document[name], dtype=np.float64) for name in ("center", "whiten", "edges"))
        if center.shape != (features,) or whiten.ndim != 2 or whiten.shape[1] != features:
            raise ValueError(f"the joint distance is of shapes {center.shape} and {whiten.shape}; expected {features}")
        return cls(center, whiten, edges)

    def bins(self, inputs: Floats) -> NDArray[np.int64]:
        """Number of the bin of each row, ``(n,)`` of ``(n, F)``; what a row with a NaN gets means nothing."""
        distance = np.linalg.norm((inputs - self.center) @ self.whiten.T, axis=1)
        return np.searchsorted(self.edges, distance, side="left")


@dataclass(frozen=True)
class Reference:
    """Of ``drift_reference.json``, what serving needs.

    Attributes:
        sha256: hash of all edges (hexadecimal); bins over other edges are never compared.
        low, high: ``(F,)`` bounds of each feature; infinite where the reference has none.
        edges: inner edges of each feature, ascending; bin i holds ``edges[i-1] < x <= edges[i]``.
        prediction_edges: the same of the prediction.
        typical: ``(F,)`` median of each feature in training, NaN where it has none.
        joint: of all features together; None where the trainer kept none.
    """

    sha256: str
    low: Floats
    high: Floats
    edges: tuple[Floats, ...]
    prediction_edges: Floats
    typical: Floats
    joint: Joint | None

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
        joint = Joint.read(document["joint"], len(names))
        return cls(str(document["edgesSha256"]), low, high, edges, prediction, typical, joint)

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
