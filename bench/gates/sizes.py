"""Each gate alone, at the boundary of its own null: what it accepts there is accepted falsely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.gates import nulls
from fiduciary.api.gates import Gate
from fiduciary.decide import gates, measurement
from fiduciary_trainer.measure import measure
from fiduciary_trainer.measure.checks import prediction_sd_ratio
from fiduciary_trainer.measure.measurement import is_up
from fiduciary_trainer.outcome import significant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fiduciary.decide.gates import Result, Subject
    from fiduciary_trainer.measure import Rows
    from fiduciary_trainer.measure.measurement import LabelKind

SEEDS = 2_000


def largest(seeds: int, alpha: float = gates.ALPHA) -> float:
    """Three standard errors above alpha: .0645 for 2,000 seeds."""
    return alpha + 3.0 * math.sqrt(alpha * (1.0 - alpha) / seeds)


@dataclass(frozen=True)
class Case:
    """A gate at the boundary of its null.

    Attributes:
        name: of the gate and what it is held against.
        market: of the data.
        kind: of the label.
        draw: rows of one seed; several where the best of several configurations is taken, as a search would.
        gate: the results that must all pass for the gate to accept.
        best: picks among the drawn configurations.
        architecture: of the model.
    """

    name: str
    market: str
    kind: LabelKind
    draw: Callable[[np.random.Generator], list[Rows]]
    gate: Callable[[Subject], Iterator[Result]]
    best: str = ""
    architecture: str = "MLP"


def subject(rows: Rows, kind: LabelKind, architecture: str, trials: int) -> Subject:
    """What the operator reads of these rows: the trainer's own numbers, through the contract's rounding."""
    measured = measure(rows, kind, horizon=1, cost_bps=0.0)
    checks: dict[str, float | None] = {"prediction_sd_ratio": prediction_sd_ratio(rows)}
    if kind != "Volatility":
        checks["predicted_up_share"] = float(np.mean(is_up(rows, kind)))
    checks["effective_rows"] = measured.metrics["effective_rows"].estimate
    document = {
        "labelKind": kind,
        "metrics": {name: metric.as_json() for name, metric in measured.metrics.items()},
        "checks": checks,
        "unavailable": measured.unavailable,
    }
    return gates.Subject(measurement.read(significant(document)), architecture, trials)


def accepted(case: Case, seed: int) -> bool:
    """Whether the gate accepts the (best) configuration of this seed."""
    drawn = case.draw(np.random.default_rng(seed))
    subjects = [subject(rows, case.kind, case.architecture, len(drawn)) for rows in drawn]
    chosen = subjects[0]
    if len(subjects) > 1:
        chosen = max(subjects, key=lambda each: each.measurement.metrics[case.best].estimate)
    return all(result.passed for result in case.gate(chosen))


def _one(draw: Callable[..., Rows], **more: float) -> Callable[[np.random.Generator], list[Rows]]:
    return lambda rng: [draw(rng, **more)]


def _many(draw: Callable[..., Rows], count: int) -> Callable[[np.random.Generator], list[Rows]]:
    return lambda rng: [draw(rng) for _ in range(count)]


def _user(metric: str, side: str, threshold: str) -> Callable[[Subject], Iterator[Result]]:
    written = Gate.model_validate({"metric": metric, side: threshold})
    return lambda given: iter(gates.judge(given, [written]).results[-1:])


def _skill(baseline: str) -> Callable[[Subject], Iterator[Result]]:
    """The part of the skill gate that reads one baseline: the others are not what is tested."""
    return lambda given: (each for each in gates.skill(given) if each.message.startswith(f"{baseline}_skill"))


MSE = nulls.VOLATILITY_ERROR**2 + nulls.FORECAST_ERROR**2
QLIKE = math.exp(2.0 * MSE) - 1.0
TEN = 10

CASES: tuple[Case, ...] = (
    Case("skill: beat tuned EWMA", "HAR", "Volatility", _one(nulls.volatility), _skill("ewma")),
    Case("skill: HAR at -.02", "HAR", "Volatility", _one(nulls.volatility, skill=-0.02), _skill("har")),
    Case("skill: OLS at -.02", "HAR", "Volatility", _one(nulls.volatility, skill=-0.02), _skill("ols")),
    Case("skill: beat base rate", "GARCH", "Direction", _one(nulls.direction), _skill("base_rate")),
    Case("skill: beat base rate", "drifting rate", "Direction", _one(nulls.drifting), _skill("base_rate")),
    Case("skill: OLS at -.02", "GARCH", "Direction", _one(nulls.direction, skill=-0.02), _skill("ols")),
    Case("skill: beat mean", "GARCH", "Return", _one(nulls.returns), _skill("mean")),
    Case("skill: OLS at -.02", "GARCH", "Return", _one(nulls.returns, skill=-0.02), _skill("ols")),
    Case("skill: reference at -.02 of the best", "HAR", "Volatility", _one(nulls.volatility, skill=-0.02), gates.skill,
         architecture="HAR"),
    Case("skill: best of 10 configurations", "HAR", "Volatility", _many(nulls.volatility, TEN), _skill("ewma"),
         best="ewma_skill"),
    Case("skill: best of 10 configurations", "GARCH", "Direction", _many(nulls.direction, TEN), _skill("base_rate"),
         best="base_rate_skill"),
    Case("worst fold: one good, five at -.10", "HAR", "Volatility",
         _one(nulls.volatility, skill=-0.10, better_in=2), gates.worst_fold),
    Case("mse below its mean", "HAR", "Volatility", _one(nulls.volatility), _user("mse", "below", f"{MSE:.6f}")),
    Case("qlike below its mean", "HAR", "Volatility", _one(nulls.volatility), _user("qlike", "below", f"{QLIKE:.6f}")),
    Case("persistence_skill above 0", "HAR", "Volatility", _one(nulls.volatility),
         _user("persistence_skill", "above", "0")),
    Case("accuracy above .5", "GARCH", "Direction", _one(nulls.direction), _user("accuracy", "above", "0.5")),
    Case("balanced_accuracy above .5", "GARCH", "Direction", _one(nulls.direction),
         _user("balanced_accuracy", "above", "0.5")),
    Case("brier below its mean", "GARCH", "Direction", _one(nulls.direction),
         _user("brier", "below", f"{0.25 + nulls.LEAN**2:.6f}")),
    Case("sharpe above 0", "GARCH", "Direction", _one(nulls.direction), _user("sharpe", "above", "0")),
    Case("pnl above 0", "GARCH", "Direction", _one(nulls.direction), _user("pnl", "above", "0")),
    Case("buy_and_hold_excess above 0", "GARCH", "Direction", _one(nulls.direction),
         _user("buy_and_hold_excess", "above", "0")),
    Case("deflated_sharpe above .95", "GARCH", "Direction", _one(nulls.direction),
         _user("deflated_sharpe", "above", "0.95")),
    Case("deflated_sharpe above .95, best of 10", "GARCH", "Direction", _many(nulls.direction, TEN),
         _user("deflated_sharpe", "above", "0.95"), best="sharpe"),
    Case("sharpe above 0", "GARCH", "Return", _one(nulls.returns), _user("sharpe", "above", "0")),
    Case("rank_ic above 0, 6 entities", "GARCH", "Return", _one(nulls.returns, entities=6),
         _user("rank_ic", "above", "0")),
)  # fmt: skip
"""Gates that test a hypothesis. The others (leakage, degenerate, effective rows, kept weights, export) compare one
number with a limit: :mod:`bench.gates.screens` says what passes them."""
