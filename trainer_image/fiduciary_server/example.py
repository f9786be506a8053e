"""A request that passes every check, made from the version alone: what the operator's probe sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_features.definitions import FEATURES as BUILT_IN
from fiduciary_server.inputs import FEATURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary_server.version import Version

Floats = NDArray[np.float64]

_DAILY_VOLATILITY = 0.01
_PRICE, _VOLUME = 100.0, 1e6


def bars(version: Version) -> dict[str, Any]:
    """As many bars as one prediction needs: of a market as volatile as in training, or each column's median."""
    columns = _columns(version)
    return {"inputs": [_tensor(name, columns[name]) for name in version.form.columns]}


def feature_row(version: Version) -> dict[str, Any]:
    """The median of each feature in training (0 where it had none)."""
    row = np.nan_to_num(version.reference.typical)
    return {"inputs": [_tensor(FEATURES, np.broadcast_to(row, (1, *version.row_shape)))]}


def _columns(version: Version) -> Mapping[str, Floats]:
    rows, features = version.form.rows, version.features
    if any(name not in BUILT_IN for name in features.names):
        typical = dict(zip(features.names, np.nan_to_num(version.reference.typical), strict=True))
        return {name: np.full(rows, typical.get(name, 0.0)) for name in version.form.columns}
    volatility = _volatility(version)
    # Up and down by turns, a range on each side: every feature has a value, and none is extreme.
    close = _PRICE * np.exp(volatility * 0.5 * np.cos(np.arange(rows) * 1.7))
    opened = np.concatenate((close[:1], close[:-1]))
    made = {
        "open": opened.round(6),
        "high": (np.maximum(opened, close) * np.exp(0.4 * volatility)).round(6),
        "low": (np.minimum(opened, close) * np.exp(-0.4 * volatility)).round(6),
        "close": close.round(6),
        "volume": (_VOLUME * (1.0 + 0.1 * np.sin(np.arange(rows) * 0.9))).round(),
    }
    return {name: made.get(name, np.zeros(rows)) for name in version.form.columns}


def _volatility(version: Version) -> float:
    """Standard deviation of a session, from what the reference says of it."""
    typical = dict(zip(version.features.names, version.reference.typical, strict=True))
    if np.isfinite(log_volatility := typical.get("rv_1", np.nan)):
        return float(np.exp(log_volatility))
    if np.isfinite(move := typical.get("abs_ret_1", np.nan)) and move > 0.0:
        return float(move)
    return _DAILY_VOLATILITY


def _tensor(name: str, values: Floats) -> dict[str, Any]:
    return {"name": name, "datatype": "FP64", "shape": list(values.shape), "data": values.ravel().tolist()}
