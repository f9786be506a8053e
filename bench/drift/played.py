"""One cell: many references, each with a stream after it, judged by the operator's detector and by the usual rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.drift import rivals
from bench.drift.detectors import Calibrated, calibrated, cusum_alarms, normal_scores, scored

if TYPE_CHECKING:
    from collections.abc import Callable

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
BINS = 10


@dataclass(frozen=True)
class Played:
    """Alarms of each rule, ``(paths, windows)``; of the operator's only those paths that it judges."""

    alarms: dict[str, Flags]
    judged: float  # share of references on which the detector is not descriptive
    correlation: float  # mean ρ̂ of all references
    extra: dict[str, float] = field(default_factory=dict[str, float])


def counts_of(rows: Floats, edges: Floats) -> NDArray[np.int64]:
    """Counts per window of ``(windows, rows)`` over ``edges``."""
    places = np.searchsorted(edges, rows, side="left") + len(edges) * np.arange(len(rows))[:, None]
    places += np.arange(len(rows))[:, None]
    return np.bincount(places.ravel(), minlength=len(rows) * (len(edges) + 1)).reshape(len(rows), -1)


def played(
    before: Callable[[np.random.Generator, int], Floats],
    after: Callable[[np.random.Generator, int], Floats],
    *,
    seed: int,
    paths: int,
    blocks: int,
    windows: int,
    rows: int,
    run_time: float,
    adwin_paths: int = 0,
    mean: bool = False,
) -> Played:
    """``blocks`` windows of ``rows`` rows are the reference, ``windows`` more follow; one stream where both are equal.

    ``mean``: the operator ranks the mean of a window (a loss), not PSI. Rules on rows and ADWIN see the same rows.
    """
    reference, stream = np.empty((paths, blocks)), np.empty((paths, windows))
    alarms: dict[str, list[Flags]] = {}
    for path in range(paths):
        rng = np.random.default_rng([seed, path])
        if before is after:
            values = before(rng, (blocks + windows) * rows).reshape(-1, rows)
        else:
            values = np.concatenate([before(rng, blocks * rows), after(rng, windows * rows)]).reshape(-1, rows)
        known, new = values[:blocks], values[blocks:]
        edges = np.unique(np.quantile(known, np.linspace(0.0, 1.0, BINS + 1)[1:-1]))
        old_counts, new_counts = counts_of(known, edges), counts_of(new, edges)
        if mean:
            reference[path], stream[path] = known.mean(axis=1), new.mean(axis=1)
        else:
            one, other = scored(old_counts[None], new_counts[None])
            reference[path], stream[path] = one[0], other[0]
        found = rivals.by_counts(old_counts.sum(axis=0), new_counts) | rivals.by_rows(known.ravel(), new)
        if path < adwin_paths and (seen := rivals.adwin(known.ravel(), new)) is not None:
            found["adwin"] = seen
        for name, flags in found.items():
            alarms.setdefault(name, []).append(flags)
    its, own = detected(reference, stream, run_time, seed)
    return Played(
        {"fiduciary": own} | {name: np.array(flags) for name, flags in alarms.items()},
        float(its.judged.mean()),
        float(its.correlation.mean()),
    )


def detected(reference: Floats, stream: Floats, run_time: float, seed: int) -> tuple[Calibrated, Flags]:
    """The operator's detector on scores, and its alarms on the paths that it judges."""
    rng = np.random.default_rng([seed, 10**6])
    its = calibrated(reference, run_time)
    chosen = its.judged
    part = Calibrated(its.reference[chosen], its.correlation[chosen], its.height[chosen])
    z = normal_scores(part, stream[chosen], rng.random(stream[chosen].shape))
    return its, cusum_alarms(z, part.height)


@dataclass(frozen=True)
class RunTimes:
    """Windows between false alarms over the configured number.

    ``first``: mean over references of the windows to the first one, those without any counted as the whole stream.
    ``between``: windows of all references over their alarms, the detectors beginning anew after each.
    ``spread``: 10 %, 50 % and 90 % of references have fewer than that, windows over alarms of each by itself.
    """

    first: float
    between: float
    spread: tuple[float, float, float]


def run_times(alarms: Flags, run_time: float) -> RunTimes:
    """Of alarms ``(paths, windows)``."""
    windows = alarms.shape[1]
    any_ = alarms.any(axis=1)
    first = np.where(any_, alarms.argmax(axis=1) + 1, windows)
    each = windows / np.maximum(0.5, alarms.sum(axis=1))
    low, middle, high = (float(value) for value in np.quantile(each, (0.1, 0.5, 0.9)) / run_time)
    total = max(1, int(alarms.sum()))
    return RunTimes(float(first.mean()) / run_time, alarms.size / total / run_time, (low, middle, high))


def delays(alarms: Flags) -> tuple[float, float]:
    """(median windows to the first alarm, share of paths without any); the median is infinite if most have none."""
    first = np.where(alarms.any(axis=1), alarms.argmax(axis=1) + 1.0, np.inf)
    return float(np.median(first)), float(np.isinf(first).mean())
