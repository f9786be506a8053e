"""S&P 500, 2007–2018, on a model trained to the end of 2006: which rule alarms in which quarter.

Real days (``arch.data.sp500``): nobody knows where drift begins, so nothing is right or wrong here. What can be seen is
who cries in every quarter, and who says what a desk remembers.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.decisions.market import sp500_csv
from bench.drift import rivals
from bench.drift.detectors import scored
from bench.drift.played import counts_of, detected

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = NDArray[np.float64]
TRAINED_UNTIL, UNTIL = date(2006, 12, 31), date(2018, 12, 31)
OURS, QUARTER = 21, 63
ERT_WINDOWS = 200
RIVALS = ("psi_10", "psi_25", "chi2_p05", "ks_p05", "wasserstein_10")


@dataclass(frozen=True)
class Days:
    """Features of one row's memory, by day, oldest first."""

    day: Sequence[date]
    features: dict[str, Floats]


def days() -> Days:
    """The index's days with the built-in features that average over one row."""
    rows = list(csv.DictReader(io.StringIO(sp500_csv().decode())))
    open_, high, low, close = (
        np.array([float(row[name]) for row in rows]) for name in ("Open", "High", "Low", "Close")
    )
    step = np.diff(np.log(close), prepend=np.nan)
    span, move = np.log(high / low), np.log(close / open_)
    variance = np.maximum(0.5 * span**2 - (2.0 * np.log(2.0) - 1.0) * move**2, 1e-12)
    gap = np.concatenate([[np.nan], np.log(open_[1:] / close[:-1])])
    features = {
        "ret_1": step,
        "abs_ret_1": np.abs(step),
        "range": span,
        "rv_1": 0.5 * np.log(variance),
        "gap": gap,
    }
    known = np.isfinite(step)
    parts = [[int(part) for part in row["Date"].split("/")] for row in rows]
    day = [date(year, month, day) for month, day, year in parts]
    return Days(
        [one for one, keep in zip(day, known, strict=True) if keep],
        {name: values[known] for name, values in features.items()},
    )


@dataclass(frozen=True)
class Alarms:
    """Of one feature: rule -> quarters ("2008-4") with an alarm, and days of the operator's own alarms."""

    feature: str
    quarters: dict[str, list[str]]
    ours: list[date]
    blocks: int
    correlation: float


def alarms(found: Days) -> tuple[list[str], list[Alarms]]:
    """(all quarters, alarms by feature). The operator judges windows of 21 rows, the usual rules whole quarters."""
    day = np.array(found.day)
    old = day <= TRAINED_UNTIL
    new_days = [one for one in found.day if TRAINED_UNTIL < one <= UNTIL]
    quarters = sorted({quarter(one) for one in new_days})
    made: list[Alarms] = []
    for feature, values in found.features.items():
        known, new = values[old], values[~old]
        whole = known[len(known) % OURS :].reshape(-1, OURS)
        windows = new[: len(new) // OURS * OURS].reshape(-1, OURS)
        edges = np.unique(np.quantile(whole, np.linspace(0.0, 1.0, 11)[1:-1]))
        one, other = scored(counts_of(whole, edges)[None], counts_of(windows, edges)[None])
        its, own = detected(one, other, float(ERT_WINDOWS * len(found.features)), 1)
        when = [new_days[(k + 1) * OURS - 1] for k in np.flatnonzero(own[0])] if its.judged[0] else []
        by_rule = {"fiduciary": sorted({quarter(one) for one in when})}
        for name in RIVALS:
            by_rule[name] = []
        for label in quarters:
            inside = np.array([quarter(one) == label for one in new_days])
            rows = new[inside][None]
            flags = rivals.by_counts(counts_of(whole, edges).sum(axis=0), counts_of(rows, edges))
            flags |= rivals.by_rows(whole.ravel(), rows)
            for name in RIVALS:
                if flags[name][0]:
                    by_rule[name].append(label)
        made.append(Alarms(feature, by_rule, when, len(whole), float(its.correlation[0])))
    return quarters, made


def quarter(day: date) -> str:
    return f"{day.year}-{(day.month + 2) // 3}"
