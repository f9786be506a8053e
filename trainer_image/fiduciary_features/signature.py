"""What goes into a version and what comes out: ``signature.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary_features.labels import LabelKind
    from fiduciary_features.spec import FeatureSpec

_OUTPUTS: dict[LabelKind, tuple[str, str]] = {
    "Volatility": ("log of the Garman-Klass standard deviation of the sessions of the horizon", "log(1/sqrt(session))"),
    "Direction": ("probability that the price is higher at the end of the horizon", "probability"),
    "Return": ("expected log return over the horizon", "log return"),
}


def signature(
    features: FeatureSpec,
    label: LabelKind,
    column: str,
    horizon: int,
    window: int | None,
    quantiles: Sequence[float] = (),
) -> dict[str, Any]:
    """The document.

    Args:
        features: what the model reads.
        label, column, horizon: what it predicts.
        window: rows of an input, oldest first; None for a model that reads one row.
        quantiles: levels of the second output, ascending; none: there is no second one.

    Returns:
        ``inputs``: name, dtype and shape of the tensor (-1: batch); ``raw``: columns of the data and how many rows of
        them one prediction needs; ``output``: dtype, shape, meaning, unit; ``quantiles``: likewise, with levels.
    """
    meaning, unit = _OUTPUTS[label]
    shape = [-1, len(features.names)] if window is None else [-1, window, len(features.names)]
    document = {
        "inputs": [{"name": "features", "dtype": "float32", "shape": shape, "features": list(features.names)}],
        "raw": {"columns": list(features.columns), "rows": features.lookback + (window or 1) - 1, "dtype": "float64"},
        "output": {
            "name": "prediction",
            "dtype": "float32",
            "shape": [-1, 1],
            "label": label,
            "column": column,
            "horizon": horizon,
            "meaning": meaning,
            "unit": unit,
        },
    }
    if quantiles:
        document["quantiles"] = {
            "name": "quantiles",
            "dtype": "float32",
            "shape": [-1, len(quantiles)],
            "levels": list(quantiles),
            "meaning": "the outcome is at most this with the probability of the level",
            "unit": unit,
        }
    return document
