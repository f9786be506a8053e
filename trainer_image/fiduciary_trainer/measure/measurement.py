"""All metrics of one walk-forward, by label kind."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.measure import losses, pnl
from fiduciary_trainer.measure.effective import effective_rows
from fiduciary_trainer.measure.hac import TooShort, mean_se, skill, skill_se
from fiduciary_trainer.measure.ranks import daily_rank_ic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fiduciary_trainer.measure.rows import Quantiles, Rows

Floats = NDArray[np.float64]
LabelKind = Literal["Volatility", "Direction", "Return"]

SKILLS: Mapping[LabelKind, tuple[str, ...]] = {
    "Volatility": ("ewma", "har", "ols", "persistence"),
    "Direction": ("base_rate", "persistence", "ols"),
    "Return": ("mean", "ols", "persistence"),
}
"""Baselines of each label kind; the first is the one that ``worst_fold_skill`` reads."""


PINBALL_SKILLS = ("residual", "filtered")
"""Baselines of quantiles, :mod:`fiduciary_trainer.quantile_baselines`."""


@dataclass(frozen=True)
class Metric:
    """One measured number: estimate, standard error where it has one, a value for each fold, and the days behind it."""

    estimate: float | None
    se: float | None = None
    folds: tuple[float | None, ...] | None = None
    n: int | None = None
    more: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """``{"e", "se"?, "f"?, "n"?, ...}``; ``e`` is always there, null when it could not be computed."""
        result: dict[str, Any] = {"e": self.estimate}
        if self.se is not None:
            result["se"] = self.se
        if self.folds is not None:
            result["f"] = list(self.folds)
        if self.n is not None:
            result["n"] = self.n
        return result | dict(self.more)


@dataclass
class Measurement:
    """Metrics by name, and for each one that is missing (or whose ``NAME.se`` is) the reason."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    def miss(self, name: str, reason: str) -> None:
        self.metrics[name] = Metric(None)
        self.unavailable[name] = reason


def measure(rows: Rows, label_kind: LabelKind, *, horizon: int, cost_bps: float) -> Measurement:
    """Measure a walk-forward.

    Args:
        rows: out-of-sample rows.
        label_kind: what ``y`` is.
        horizon: sessions that a label covers.
        cost_bps: cost of trading one unit of notional, in basis points.

    Returns:
        A :class:`Measurement` with every metric of ``label_kind``; what could not be computed is in ``unavailable``.
    """
    result = Measurement()
    names = metric_names(label_kind, quantiles=rows.quantiles is not None)
    bad = int(np.sum(~np.isfinite(rows.prediction)))
    if bad:
        reason = f"{bad} of {len(rows.prediction)} out-of-sample predictions are not finite; all must be"
        for name in names:
            result.miss(name, reason)
        return result
    if len(rows.days) < 2:
        for name in names:
            result.miss(name, f"{len(rows.days)} out-of-sample days; at least 2 are needed")
        return result

    loss = rows.daily(losses.squared_error(rows.y, rows.prediction))
    _skills(result, rows, label_kind, loss)
    if label_kind == "Volatility":
        _mean(result, rows, "mse", loss)
        _mean(result, rows, "qlike", rows.daily(losses.qlike(rows.y, rows.prediction)))
    elif label_kind == "Direction":
        _mean(result, rows, "brier", loss)
        _mean(result, rows, "log_loss", rows.daily(losses.log_loss(rows.y, rows.prediction)))
        _mean(result, rows, "accuracy", rows.daily(losses.is_hit(rows.y, rows.prediction)))
        _balanced_accuracy(result, rows)
        _calibration(result, rows)
    else:
        _rank_ic(result, rows)
    if label_kind != "Volatility":
        _profit(result, rows, is_up(rows, label_kind), cost_bps, horizon)
    if rows.quantiles is not None:
        _quantiles(result, rows, rows.quantiles)
    result.metrics["effective_rows"] = Metric(effective_rows(rows), n=len(rows.days))
    return result


def metric_names(label_kind: LabelKind, *, quantiles: bool = False) -> tuple[str, ...]:
    """Every metric that :func:`measure` reports for a label kind, and where there are quantiles."""
    skills = tuple(f"{name}_skill" for name in SKILLS[label_kind])
    own: dict[LabelKind, tuple[str, ...]] = {
        "Volatility": ("mse", "qlike"),
        "Direction": ("accuracy", "balanced_accuracy", "brier", "log_loss", "ece"),
        "Return": ("rank_ic",),
    }
    money = () if label_kind == "Volatility" else ("sharpe", "max_drawdown", "turnover", "pnl", "buy_and_hold_excess")
    of_quantiles = ("pinball", *(f"{name}_pinball_skill" for name in PINBALL_SKILLS)) if quantiles else ()
    return (*skills, *own[label_kind], *money, *of_quantiles, "worst_fold_skill", "effective_rows")


def is_up(rows: Rows, label_kind: LabelKind) -> NDArray[np.bool_]:
    """Whether each forecast says up: probability above ½, or a positive return."""
    return rows.prediction > (0.5 if label_kind == "Direction" else 0.0)


def fold_values(rows: Rows, statistic: Callable[[NDArray[np.bool_]], float]) -> tuple[float | None, ...]:
    """One statistic on the days of each fold; null where it is not a number."""
    values = (statistic(rows.fold_of_day == number) for number in rows.folds)
    return tuple(value if math.isfinite(value) else None for value in values)


def _standard_error(result: Measurement, name: str, compute: Callable[[], float]) -> float | None:
    try:
        return compute()
    except TooShort as short:
        result.unavailable[f"{name}.se"] = str(short)
        return None


def _mean(result: Measurement, rows: Rows, name: str, daily: Floats) -> None:
    if not np.all(np.isfinite(daily)):
        result.miss(name, f"{int(np.sum(~np.isfinite(daily)))} of {len(daily)} daily values are not finite")
        return
    result.metrics[name] = Metric(
        float(daily.mean()),
        _standard_error(result, name, lambda: mean_se(daily)),
        fold_values(rows, lambda days: float(daily[days].mean())),
        len(daily),
    )


def _skills(result: Measurement, rows: Rows, label_kind: LabelKind, loss: Floats) -> None:
    for baseline in SKILLS[label_kind]:
        name = f"{baseline}_skill"
        against = _baseline_loss(rows, baseline)
        if isinstance(against, str):
            result.miss(name, against)
            continue
        result.metrics[name] = _skill(result, rows, name, loss, against)
    first = f"{SKILLS[label_kind][0]}_skill"
    known = [value for value in result.metrics[first].folds or () if value is not None]
    if known:
        result.metrics["worst_fold_skill"] = Metric(min(known), n=len(known))
    else:
        result.miss("worst_fold_skill", result.unavailable.get(first, f"{first} could be computed in no fold"))


def _baseline_loss(rows: Rows, baseline: str) -> Floats | str:
    """Daily squared error of a baseline, or the reason why skill against it cannot be measured."""
    if baseline not in rows.baselines:
        return f"the walk-forward has no baseline {baseline!r}"
    bad = int(np.sum(~np.isfinite(rows.baselines[baseline])))
    if bad:
        return f"baseline {baseline!r} has no prediction for {bad} of {len(rows.y)} rows"
    against = rows.daily(losses.squared_error(rows.y, rows.baselines[baseline]))
    if against.mean() == 0.0:
        return f"baseline {baseline!r} makes no error at all, so skill against it has no meaning"
    return against


def _skill(result: Measurement, rows: Rows, name: str, loss: Floats, against: Floats) -> Metric:
    def within(days: NDArray[np.bool_]) -> float:
        return skill(loss[days], against[days]) if against[days].mean() > 0.0 else math.nan

    error = _standard_error(result, name, lambda: skill_se(loss, against))
    return Metric(skill(loss, against), error, fold_values(rows, within), len(loss))


def _quantiles(result: Measurement, rows: Rows, forecast: Quantiles) -> None:
    """Pinball loss, mean over the levels, and skill against each baseline of quantiles."""
    taus = np.array(forecast.levels)

    def daily(values: Floats) -> Floats:
        return rows.daily(losses.pinball(rows.y, values, taus).mean(axis=1))

    loss = daily(forecast.values)
    _mean(result, rows, "pinball", loss)
    for baseline in PINBALL_SKILLS:
        name, against = f"{baseline}_pinball_skill", daily(forecast.baselines[baseline])
        if not against.mean() > 0.0:
            result.miss(name, f"baseline {baseline!r} makes no error at all, so skill against it has no meaning")
            continue
        result.metrics[name] = _skill(result, rows, name, loss, against)


def _balanced_accuracy(result: Measurement, rows: Rows) -> None:
    """Mean recall of both classes, with a delta-method error: each recall is a ratio of two daily means."""
    hit = losses.is_hit(rows.y, rows.prediction)
    up, down = rows.daily(rows.y), rows.daily(1.0 - rows.y)
    hit_up, hit_down = rows.daily(hit * rows.y), rows.daily(hit * (1.0 - rows.y))

    def recall(days: NDArray[np.bool_]) -> float:
        if up[days].sum() == 0.0 or down[days].sum() == 0.0:
            return math.nan
        return 0.5 * float(hit_up[days].sum() / up[days].sum() + hit_down[days].sum() / down[days].sum())

    everything = np.ones(len(up), dtype=bool)
    estimate = recall(everything)
    if math.isnan(estimate):
        result.miss("balanced_accuracy", "only one class occurs in the out-of-sample rows")
        return
    recall_up, recall_down = hit_up.sum() / up.sum(), hit_down.sum() / down.sum()
    influence = 0.5 * ((hit_up - recall_up * up) / up.mean() + (hit_down - recall_down * down) / down.mean())
    error = _standard_error(result, "balanced_accuracy", lambda: mean_se(influence))
    result.metrics["balanced_accuracy"] = Metric(estimate, error, fold_values(rows, recall), len(up))


def _calibration(result: Measurement, rows: Rows) -> None:
    def within(days: NDArray[np.bool_]) -> float:
        chosen = days[rows.day_index]
        return losses.expected_calibration_error(rows.y[chosen], rows.prediction[chosen])

    everything = np.ones(len(rows.days), dtype=bool)
    result.metrics["ece"] = Metric(within(everything), folds=fold_values(rows, within), n=len(rows.days))


def _rank_ic(result: Measurement, rows: Rows) -> None:
    daily, reason = daily_rank_ic(rows)
    if daily is None:
        result.miss("rank_ic", reason)
        return
    chosen = np.isfinite(daily)
    kept = daily[chosen]

    def within(days: NDArray[np.bool_]) -> float:
        return float(np.mean(daily[days & chosen])) if np.any(days & chosen) else math.nan

    error = _standard_error(result, "rank_ic", lambda: mean_se(kept))
    result.metrics["rank_ic"] = Metric(float(kept.mean()), error, fold_values(rows, within), len(kept))


def _profit(result: Measurement, rows: Rows, up: NDArray[np.bool_], cost_bps: float, horizon: int) -> None:
    names = ("sharpe", "max_drawdown", "turnover", "pnl", "buy_and_hold_excess")
    bad = int(np.sum(~np.isfinite(rows.returns)))
    if bad:
        for name in names:
            result.miss(name, f"the return of the session after the decision is missing for {bad} of {len(up)} rows")
        return
    book = pnl.profit_and_loss(rows, up, cost_bps, horizon)
    _mean(result, rows, "pnl", book.net)
    _mean(result, rows, "turnover", book.turnover)
    _mean(result, rows, "buy_and_hold_excess", book.net - book.hold)
    result.metrics["max_drawdown"] = Metric(float(pnl.drawdown(book.net).max()), n=len(book.net))
    ratio = pnl.sharpe(book.net)
    if math.isnan(ratio):
        result.miss("sharpe", "the net return is the same on every day, so it has no Sharpe ratio")
        return
    skew, kurtosis = pnl.moments(book.net)
    result.metrics["sharpe"] = Metric(
        ratio,
        _standard_error(result, "sharpe", lambda: mean_se(pnl.sharpe_influence(book.net))),
        fold_values(rows, lambda days: pnl.sharpe(book.net[days]) if np.sum(days) > 1 else math.nan),
        len(book.net),
        {"skew": skew, "kurtosis": kurtosis},
    )
