"""What the walk-forward says of quantiles: loss by level, coverage with its interval, and the tests of coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.measure import coverage
from fiduciary_trainer.measure.hac import TooShort, mean_se, skill, skill_se
from fiduciary_trainer.measure.losses import pinball

if TYPE_CHECKING:
    from fiduciary_trainer.measure.rows import Quantiles, Rows

Floats = NDArray[np.float64]


def summary(rows: Rows, forecast: Quantiles, horizon: int) -> dict[str, Any]:
    """Of each level, and of each central interval whose both ends were asked for.

    Args:
        rows: out-of-sample rows.
        forecast: their quantiles.
        horizon: sessions that a label covers.
    """
    apart = _not_one_by_one(rows, horizon)
    levels = [_level(rows, forecast, place, apart) for place in range(len(forecast.levels))]
    intervals = [_interval(rows, forecast, low, high, apart) for low, high in central(forecast.levels)]
    outside = (rows.prediction < forecast.values[:, 0]) | (rows.prediction > forecast.values[:, -1])
    found = {
        "levels": levels,
        "intervals": intervals,
        "crossed": int(np.sum(np.diff(forecast.values, axis=1) < 0.0)),
        "pointOutside": float(outside.mean()),
    }
    return found if apart is None else {**found, "untested": apart}


def central(levels: tuple[float, ...]) -> list[tuple[int, int]]:
    """Places of τ and 1 - τ, the widest interval first."""
    found: list[tuple[int, int]] = []
    for low, level in enumerate(levels):
        for high in range(low + 1, len(levels)):
            if abs(level + levels[high] - 1.0) < 1e-9:
                found.append((low, high))
    return found


def _not_one_by_one(rows: Rows, horizon: int) -> str | None:
    """Why tests of single hits do not apply; None: they do."""
    if rows.entities > 1:
        return f"{rows.entities} instruments share each session, so their hits are not independent"
    if horizon > 1:
        return f"labels of {horizon} sessions overlap, so neighbouring hits are dependent by construction"
    return None


def _level(rows: Rows, forecast: Quantiles, place: int, apart: str | None) -> dict[str, Any]:
    level = forecast.levels[place]
    taus = np.array([level])

    def loss(values: Floats) -> Floats:
        return rows.daily(pinball(rows.y, values[:, place : place + 1], taus)[:, 0])

    own = loss(forecast.values)
    rivals = {name: loss(values) for name, values in forecast.baselines.items()}
    return {
        "level": level,
        **_share(rows, rows.y <= forecast.values[:, place], level, apart),
        "baselines": {
            name: {"observed": float(rows.daily((rows.y <= values[:, place]).astype(float)).mean())}
            for name, values in forecast.baselines.items()
        },
        "pinball": float(own.mean()),
        "skill": {name: _skill(own, against) for name, against in rivals.items() if against.mean() > 0.0},
    }


def _interval(rows: Rows, forecast: Quantiles, low: int, high: int, apart: str | None) -> dict[str, Any]:
    def inside(values: Floats) -> NDArray[np.bool_]:
        return (rows.y > values[:, low]) & (rows.y <= values[:, high])

    def width(values: Floats) -> float:
        return float(rows.daily(values[:, high] - values[:, low]).mean())

    nominal = forecast.levels[high] - forecast.levels[low]
    return {
        "from": forecast.levels[low],
        "to": forecast.levels[high],
        "nominal": nominal,
        "width": width(forecast.values),
        **_share(rows, inside(forecast.values), nominal, apart),
        "baselines": {
            name: {"observed": float(rows.daily(inside(values).astype(float)).mean()), "width": width(values)}
            for name, values in forecast.baselines.items()
        },
    }


def _share(rows: Rows, hits: NDArray[np.bool_], nominal: float, apart: str | None) -> dict[str, Any]:
    """Share of hits with a 95 % interval that allows for dependence, and the tests where they apply."""
    daily = rows.daily(hits.astype(float))
    found: dict[str, Any] = {"observed": float(daily.mean())}
    try:
        half = 1.96 * mean_se(daily)
        found |= {"low": max(found["observed"] - half, 0.0), "high": min(found["observed"] + half, 1.0)}
    except TooShort as short:
        found["unavailable"] = str(short)
    if apart is None:
        tests = {
            "kupiec": coverage.kupiec(hits, nominal),
            "independence": coverage.independence(hits),
            "christoffersen": coverage.conditional(hits, nominal),
        }
        found |= {name: {"lr": each.statistic, "p": each.p} for name, each in tests.items() if each is not None}
    return found


def _skill(own: Floats, against: Floats) -> dict[str, float | None]:
    try:
        return {"e": skill(own, against), "se": skill_se(own, against)}
    except TooShort:
        return {"e": skill(own, against), "se": None}
