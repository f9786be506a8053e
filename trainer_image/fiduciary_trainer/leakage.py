"""Does the future hide in the features? Two independent looks: what a feature knows, and how it is computed.

**Single-feature scan.** A column made from the outcome predicts far better than anything honest. But an honest
feature may predict well too: yesterday's volatility correlates .7 with tomorrow's, so a plain correlation cannot
tell a leak from persistence. The scan therefore asks what one feature knows *beyond the label's own known past*:
the label is first explained by its last known value and the means of its last 5 and 22 known values (Corsi 2009's
HAR on labels; "known" means that the label's end is not after the decision). The score of a feature is the square
root of the share of the remaining out-of-sample squared error that a piecewise linear function of that feature takes
away when it joins the regression: 0 says nothing new, 1 says that the feature is the label. Not a straight line,
because volatility leaks through both tails of a return. Nothing is taken from the model or its baselines, so a leak
that has infected those too, or a label that is one row early, is still seen.

The same is asked about the next session's return, whatever the label is: nothing honest explains much of it, while a
column made from it hardly shows in a volatility (it explains 10 % there, as much as the leverage effect). A feature's
score is the larger of the two.

Measured on S&P 500 to 2017-12-29: the best honest feature of ``ohlcv-v1`` scores .26 for volatility (the last five
days' return: leverage), .10 for the return, 0 for direction; the next day's return scores .98, a column that tells its
sign with 90 % accuracy .80 for direction and .52 otherwise, features one row late or a label one row early .99.
:data:`LIMIT` lies between. The operator owns the gate; the number here is what it was measured to mean.

**Cut-off.** Features are computed again from data that end at some date. Rows up to that date must be equal bit for
bit: nothing after a row may have touched it (centred windows, back-filling, scaling over the whole history).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Floats = NDArray[np.float64]
Dates = NDArray[np.datetime64]

LIMIT = 0.4
"""Score from which a feature is taken for a leak: 16 % of what the label's past leaves open, from one column."""

BLOCKS = 5
KNOTS = 15
FEWEST_ROWS = 250
HISTORY = 22


@dataclass(frozen=True)
class Scan:
    """Score of each feature, in the order of the names; None with a reason where there are too few rows."""

    names: tuple[str, ...]
    scores: Floats | None
    reason: str = ""

    def joined(self, other: Scan) -> Scan:
        """The larger score of each feature; one of the two where the other has none."""
        if self.scores is None or other.scores is None:
            return self if other.scores is None else other
        return Scan(self.names, np.maximum(self.scores, other.scores))

    @property
    def worst(self) -> tuple[str, float] | None:
        """The feature with the highest score."""
        if self.scores is None or not len(self.scores):
            return None
        index = int(np.argmax(self.scores))
        return self.names[index], float(self.scores[index])


def scan(
    dates: Dates, label_end: Dates, entity: NDArray[np.str_], features: Floats, names: Sequence[str], y: Floats
) -> Scan:
    """Score every feature alone; see the module's text.

    Args:
        dates, label_end, entity: of each row, shape ``(n,)``, in any order.
        features: raw values, shape ``(n, k)``; that a value is missing counts as knowledge too.
        names: of the features.
        y: labels, NaN where unknown (such rows are left out).
    """
    past = known_past(dates, label_end, entity, y)
    chosen = np.flatnonzero(np.isfinite(y) & np.all(np.isfinite(past), axis=1))
    if len(chosen) < FEWEST_ROWS:
        reason = f"{len(chosen)} rows with a known past of {HISTORY} labels; {FEWEST_ROWS} needed"
        return Scan(tuple(names), None, reason)
    chosen = chosen[np.argsort(dates[chosen], kind="stable")]
    day, end = dates[chosen], label_end[chosen]
    target, columns = y[chosen], features[chosen]

    edges = np.linspace(0, len(chosen), BLOCKS + 1).astype(np.int64)
    left, remaining = 0.0, np.zeros(columns.shape[1])
    for start, stop in itertools.pairwise(edges):
        test = np.arange(start, stop)
        # Purged on both sides: no training label may overlap a test label.
        train = np.flatnonzero((end <= day[start]) | (day >= end[test].max()))
        mean, scale = past[chosen][train].mean(axis=0), past[chosen][train].std(axis=0) + 1e-12
        terms = (past[chosen] - mean) / scale
        control = np.column_stack([np.ones(len(chosen)), terms])
        left += float(np.sum((target[test] - control[test] @ _fit(control[train], target[train])) ** 2))
        for column in range(columns.shape[1]):
            basis = _hats(columns[train, column])
            weights = _fit(np.column_stack([terms[train], basis(columns[train, column])]), target[train])
            fitted = np.column_stack([terms[test], basis(columns[test, column])]) @ weights
            remaining[column] += float(np.sum((target[test] - fitted) ** 2))
    if left == 0.0:
        return Scan(tuple(names), None, "the label is a function of its own known past, so nothing is left to explain")
    return Scan(tuple(names), np.sqrt(np.clip(1.0 - remaining / left, 0.0, 1.0)))


def known_past(dates: Dates, label_end: Dates, entity: NDArray[np.str_], y: Floats) -> Floats:
    """For each row the last label known at its date and the means of the last 5 and 22, shape ``(n, 3)``.

    NaN where fewer than 22 labels of the same entity are known.
    """
    result = np.full((len(y), 3), np.nan)
    for name in np.unique(entity):
        own = np.flatnonzero((entity == name) & np.isfinite(y))
        own = own[np.argsort(label_end[own], kind="stable")]
        total = np.concatenate([[0.0], np.cumsum(y[own])])
        rows = np.flatnonzero(entity == name)
        known = np.searchsorted(label_end[own], dates[rows], side="right")
        enough = known >= HISTORY
        rows, known = rows[enough], known[enough]
        for column, length in enumerate((1, 5, HISTORY)):
            result[rows, column] = (total[known] - total[known - length]) / length
    return result


def _hats(x: Floats) -> Callable[[Floats], Floats]:
    """Basis of piecewise linear functions of one feature: hats on quantiles of ``x``, a column for missing values.

    Constant beyond the outermost knots (the .5 % quantiles), so that one wild value cannot rule a fit.
    """
    finite = x[np.isfinite(x)]
    knots = (
        np.unique(np.quantile(finite, [0.005, *np.linspace(0.0, 1.0, KNOTS)[1:-1], 0.995])) if len(finite) else x[:0]
    )

    def basis(column: Floats) -> Floats:
        result = np.zeros((len(column), len(knots) + 1))
        missing = ~np.isfinite(column)
        result[missing, -1] = 1.0
        if len(knots) == 1:
            result[~missing, 0] = 1.0
        elif len(knots) > 1:
            inside = np.flatnonzero(~missing)
            at = np.clip(column[inside], knots[0], knots[-1])
            left = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
            weight = (at - knots[left]) / (knots[left + 1] - knots[left])
            result[inside, left] = 1.0 - weight
            result[inside, left + 1] = weight
        return result

    return basis


def _fit(design: Floats, target: Floats) -> Floats:
    """Least squares by normal equations with a trace of ridge, since hats of rare values may be collinear."""
    gram = design.T @ design
    return np.linalg.solve(gram + 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram)), design.T @ target)


def future_cut_max_diff(
    dates: Dates,
    entity: NDArray[np.str_],
    features: Floats,
    recompute: Callable[[np.datetime64], tuple[Dates, NDArray[np.str_], Floats]],
    cuts: Sequence[np.datetime64],
) -> float:
    """Largest difference between features computed from all data and from data that end at a cut; 0.0 if none.

    A row that appears or vanishes, or a value that is missing on one side only, counts as its size, at least 1.

    Args:
        dates, entity, features: rows computed from all data.
        recompute: the same computation on data up to and including a date.
        cuts: at which dates to cut.
    """
    worst = 0.0
    for cut in cuts:
        full = _by_row(dates[dates <= cut], entity[dates <= cut], features[dates <= cut])
        cut_dates, cut_entity, cut_features = recompute(cut)
        known = cut_dates <= cut
        again = _by_row(cut_dates[known], cut_entity[known], cut_features[known])
        if full[0].shape != again[0].shape or np.any(full[0] != again[0]):
            return max(worst, 1.0)
        a, b = full[1], again[1]
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if np.all(same):
            continue
        one_sided = np.isnan(a) != np.isnan(b)
        size = np.where(one_sided, np.maximum(np.nan_to_num(np.abs(np.where(np.isnan(a), b, a))), 1.0), np.abs(a - b))
        worst = max(worst, float(np.max(size[~same])))
    return worst


GAP_CUTS = 5
"""Cuts inside gaps of the data: a gap that was filled backwards shows only there."""


def cut_dates(
    dates: Dates,
    shares: Sequence[float] = (0.35, 0.5, 0.65, 0.8, 0.95),
    *,
    lookback: int = 1,
    gaps: NDArray[np.bool_] | None = None,
) -> list[np.datetime64]:
    """Dates at the given shares of the sample; several, because a leak may be visible only near a cut.

    Args:
        dates: of each row.
        shares: of the distinct dates.
        lookback: rows of the slowest feature. One cut lies inside it, before any row can have all features: what is
            filled backwards there is known only by later rows.
        gaps: rows that miss a value. Up to :data:`GAP_CUTS` cuts lie on such rows, spread evenly.
    """
    distinct = np.unique(dates)
    places = {min(int(share * len(distinct)), len(distinct) - 1) for share in shares}
    if lookback > 2:
        places.add(min(lookback // 2, len(distinct) - 1))
    cuts = {distinct[place] for place in places}
    if gaps is not None and bool(gaps.any()):
        holes = np.unique(dates[gaps])
        cuts |= {holes[place] for place in np.linspace(0, len(holes) - 1, min(GAP_CUTS, len(holes))).astype(int)}
    return sorted(cuts)


def _by_row(dates: Dates, entity: NDArray[np.str_], features: Floats) -> tuple[NDArray[np.str_], Floats]:
    keys = np.char.add(np.char.add(dates.astype("datetime64[ns]").astype(str), "|"), entity.astype(str))
    order = np.argsort(keys, kind="stable")
    return keys[order], features[order]
