"""How soon probabilities that are no longer honest alarm, and how often honest ones do: the operator's statistic."""

from __future__ import annotations

import numpy as np

from bench.drift.played import Floats, delays, detected, run_times

BINS = 10
FORECASTS = (21, 63, 420)
"""A month or a quarter of one series, and a month of a panel of twenty."""
LIES = (0.05, 0.1, 0.2)


def scores(rng: np.random.Generator, windows: int, rows: int, lie: float = 0.0) -> Floats:
    """:func:`fiduciary.evidence.reliability.reliability` of windows of forecasts between .35 and .65, which say ``lie``
    more than what happens."""
    likely = rng.uniform(0.35, 0.65, size=(windows, rows))
    events = rng.random((windows, rows)) < likely - lie
    place = (np.minimum((likely * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(windows)[:, None]).ravel()
    size = windows * BINS
    count = np.bincount(place, minlength=size)
    gap = np.bincount(place, weights=(events - likely).ravel(), minlength=size)
    return np.divide(gap**2, count, out=np.zeros(size), where=count > 0).reshape(windows, BINS).sum(axis=1)


def table_of(paths: int, blocks: int, horizon: int, run_time: float, seed: int) -> list[dict[str, object]]:
    """Of each size of a window: windows to a false alarm over the configured number, and median windows to the alarm of
    each lie (share of references that never alarm within 60)."""
    rows: list[dict[str, object]] = []
    for size in FORECASTS:
        rng = np.random.default_rng([seed, size])
        reference = np.array([scores(rng, blocks, size) for _ in range(paths)])
        quiet = np.array([scores(rng, horizon, size) for _ in range(paths)])
        its, alarms = detected(reference, quiet, run_time, seed)
        found = run_times(alarms, run_time)
        row: dict[str, object] = {
            "forecasts of a window": size,
            "judged": float(its.judged.mean()),
            "to the first": found.first,
            "between": found.between,
        }
        for lie in LIES:
            lied = np.array([scores(rng, 60, size, lie) for _ in range(paths)])
            middle, never = delays(detected(reference, lied, run_time, seed)[1])
            row[f"{100 * lie:g} points"] = f"{middle:g}" + (f" ({100 * never:.0f} % never)" if never else "")
        rows.append(row)
    return rows
