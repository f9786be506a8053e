"""Gates: offline tests that a version has to pass before it may serve."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, get_args

from fiduciary.api.base import ApiModel, Rule
from fiduciary.api.data import LabelKind
from fiduciary.api.quantities import Decimal

GateMetric = Literal[
    "ewma_skill",
    "har_skill",
    "ols_skill",
    "persistence_skill",
    "mse",
    "qlike",
    "base_rate_skill",
    "accuracy",
    "balanced_accuracy",
    "brier",
    "log_loss",
    "ece",
    "mean_skill",
    "rank_ic",
    "sharpe",
    "probabilistic_sharpe",
    "deflated_sharpe",
    "min_track_record",
    "max_drawdown",
    "turnover",
    "pnl",
    "buy_and_hold_excess",
    "worst_fold_skill",
    "effective_rows",
    "pbo",
    "pinball",
    "residual_pinball_skill",
    "filtered_pinball_skill",
]

_TRADED: tuple[GateMetric, ...] = (
    "sharpe",
    "probabilistic_sharpe",
    "deflated_sharpe",
    "min_track_record",
    "max_drawdown",
    "turnover",
    "pnl",
    "buy_and_hold_excess",
)
_OF_QUANTILES: tuple[GateMetric, ...] = ("pinball", "residual_pinball_skill", "filtered_pinball_skill")
_ALWAYS: tuple[GateMetric, ...] = ("worst_fold_skill", "effective_rows", "pbo")

METRICS: Mapping[LabelKind, tuple[GateMetric, ...]] = MappingProxyType(
    {
        "Volatility": (
            "ewma_skill",
            "har_skill",
            "ols_skill",
            "persistence_skill",
            "mse",
            "qlike",
            *_OF_QUANTILES,
            *_ALWAYS,
        ),
        "Direction": (
            "base_rate_skill",
            "persistence_skill",
            "ols_skill",
            "accuracy",
            "balanced_accuracy",
            "brier",
            "log_loss",
            "ece",
            *_TRADED,
            *_ALWAYS,
        ),
        "Return": ("mean_skill", "ols_skill", "persistence_skill", "rank_ic", *_TRADED, *_OF_QUANTILES, *_ALWAYS),
    }
)
"""The metrics that the trainer measures for each kind of label."""


class Gate(ApiModel):
    """One test: a metric and the bound that it has to keep."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.above) != has(self.below)", "set exactly one of above and below"),
    )

    metric: GateMetric
    """What is tested, measured out of sample by the walk-forward. Skills are 1 - loss / loss of the baseline.
    Volatility: ewma_skill, har_skill, ols_skill, persistence_skill, mse, qlike. Direction: base_rate_skill,
    persistence_skill, ols_skill, accuracy, balanced_accuracy, brier, log_loss, ece. Return: mean_skill, ols_skill,
    persistence_skill, rank_ic. Direction and Return: sharpe, probabilistic_sharpe (that the ratio is above 0),
    deflated_sharpe, min_track_record (sessions that it takes to say so), max_drawdown, turnover, pnl,
    buy_and_hold_excess. With training.quantiles: pinball, residual_pinball_skill, filtered_pinball_skill (against the
    quantiles of a simple forecast's errors, and filtered historical simulation). All: worst_fold_skill, effective_rows,
    and with training.search pbo (the probability of backtest overfitting over its trials)."""
    above: Decimal | None = None
    """The lower confidence bound has to be above this number (the value itself, for a metric without an interval)."""
    below: Decimal | None = None
    """The upper confidence bound has to be below this number (the value itself, for a metric without an interval)."""


def _fits(kind: LabelKind) -> Rule:
    allowed = ", ".join(METRICS[kind])
    as_list = "[" + ", ".join(f"'{metric}'" for metric in METRICS[kind]) + "]"
    return Rule(
        f"self.data.label.kind != '{kind}' || !has(self.gates) || self.gates.all(g, g.metric in {as_list})",
        f"a gate names a metric that is not measured for label kind {kind}; use {allowed}",
        field_path=".gates",
    )


_GATES_OF_QUANTILES = Rule(
    "has(self.training.quantiles) || !has(self.gates) || !self.gates.exists(g, g.metric in ["
    + ", ".join(f"'{metric}'" for metric in _OF_QUANTILES)
    + "])",
    f"a gate names {', '.join(_OF_QUANTILES[:-1])} or {_OF_QUANTILES[-1]}, which are measured where training.quantiles "
    "is set",
    field_path=".gates",
)
GATES_FIT: tuple[Rule, ...] = (*(_fits(kind) for kind in get_args(LabelKind)), _GATES_OF_QUANTILES)
"""Rules of the FinancialModel's spec: each gate's metric is measured for its kind of label and training."""
