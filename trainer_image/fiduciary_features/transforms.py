"""The transform between raw features and a model's input: z-scores fitted on training rows, clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Floats = NDArray[np.float64]

CLIP = 4.0
"""Crisis days lie 10 and more standard deviations out; unclipped they decide what a network learns."""

_CONSTANT = 1e-12


@dataclass(frozen=True)
class Transform:
    """``clip((x - mean) * scale, ±clip)`` for each feature.

    Attributes:
        names: features, in order.
        mean: ``(F,)``.
        scale: ``(F,)``, one over the standard deviation; 0 for a feature that was constant in training, which then
            is 0 for ever: a model has not learned what its changes mean.
        clip: bound on both sides; None: not clipped.
    """

    names: tuple[str, ...]
    mean: Floats
    scale: Floats
    clip: float | None

    @classmethod
    def fit(cls, x: Floats, names: Sequence[str], clip: float | None = CLIP) -> Transform:
        """Fit on training rows.

        Args:
            x: ``(n, F)``, finite.
            names: F names.
            clip: bound in standard deviations.
        """
        mean = np.mean(x, axis=0)
        sd = np.std(x, axis=0)
        constant = sd <= _CONSTANT * np.maximum(np.abs(mean), 1.0)
        scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, sd))
        return cls(tuple(names), mean, scale, clip)

    @classmethod
    def identity(cls, names: Sequence[str]) -> Transform:
        """Raw features as they are, for models that read them in their own unit (EWMA, HAR)."""
        return cls(tuple(names), np.zeros(len(names)), np.ones(len(names)), None)

    def apply(self, x: Floats) -> Floats:
        """``(T, F)`` raw -> ``(T, F)`` transformed; NaN stays NaN. Works on ``(..., F)``."""
        z = (x - self.mean) * self.scale
        # Not np.clip: for the one row of a request its wrapper costs more than the rest of the transform.
        return z if self.clip is None else np.minimum(np.maximum(z, -self.clip), self.clip)

    def to_json(self) -> dict[str, Any]:
        """Exact: floats are written so that they read back to the same bits."""
        return {
            "names": list(self.names),
            "mean": [float(value) for value in self.mean],
            "scale": [float(value) for value in self.scale],
            "clip": self.clip,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Transform:
        """Inverse of :meth:`to_json`. Raises ``ValueError`` where lengths differ."""
        names = tuple(str(name) for name in document["names"])
        mean, scale = (np.asarray(document[key], dtype=np.float64) for key in ("mean", "scale"))
        if mean.shape != (len(names),) or scale.shape != (len(names),):
            raise ValueError(f"{len(names)} names, {mean.size} means and {scale.size} scales; all must be as many")
        clip = document["clip"]
        return cls(names, mean, scale, None if clip is None else float(clip))
