"""One closed session of a ledger: pairing, and the loss by label kind (statistics.md rules 11 to 14). Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiduciary_outcomes.definition import ARMS, Arm
from fiduciary_outcomes.document import shortest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fiduciary_outcomes.definition import LabelKind

Unit = tuple[str, str, str]
"""What is predicted: (entity, label end, "") or ("", "", request id)."""

LARGEST_LOSS = 1e18
"""A wild forecast counts as this: sums and sums of squares of any session stay finite."""

FEWEST_RANKED = 5
"""Entities that a rank correlation needs; the trainer asks for as many."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The first one of an arm for a unit.

    Attributes:
        arrived: number of the commit that brought it; smaller is earlier.
    """

    value: float
    arrived: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The first value that an authenticated writer sent.

    Attributes:
        value: in the unit of the label.
        next_return: simple return over the one session after the decision; None where it was not sent.
    """

    value: float
    next_return: float | None
    arrived: int


@dataclass(frozen=True, slots=True)
class Paired:
    """A unit that both arms predicted before its outcome was there."""

    champion: float
    challenger: float
    outcome: float

    def of(self, arm: Arm) -> float:
        return self.champion if arm == "champion" else self.challenger


def settle(
    label: LabelKind,
    predictions: Mapping[Arm, Mapping[Unit, Prediction]],
    outcomes: Mapping[Unit, Outcome],
    dropped: Mapping[Arm, int],
    *,
    alone: bool = False,
) -> dict[str, Any]:
    """The content of a session's row, without its names and its place in the chain. The order of units does not show.

    Args:
        predictions: per arm, first prediction of each unit of the session.
        outcomes: of the session's units; those that nobody predicted may be among them.
        dropped: records of the session that were lost in transport, per arm.
        alone: there is no challenger, so that none of its predictions is missing.
    """
    pairs: list[Paired] = []
    missing, late = dict.fromkeys(ARMS, 0), dict.fromkeys(ARMS, 0)
    unpredicted = 0
    for unit, outcome in outcomes.items():
        in_time: dict[Arm, float] = {}
        for arm in ARMS:
            prediction = predictions[arm].get(unit)
            if prediction is None:
                continue
            if prediction.arrived < outcome.arrived:
                in_time[arm] = prediction.value
            else:
                late[arm] += 1
        if len(in_time) == 2:
            pairs.append(Paired(in_time["champion"], in_time["challenger"], outcome.value))
        elif in_time:
            missing["challenger" if "champion" in in_time else "champion"] += 1
        else:
            unpredicted += 1
    predicted = predictions["champion"].keys() | predictions["challenger"].keys()
    return {
        **_losses(label, pairs),
        "missing": dict.fromkeys(ARMS, 0) if alone else missing,
        "late": late,
        "dropped": {arm: dropped.get(arm, 0) for arm in ARMS},
        "unpredicted": unpredicted,
        "withoutOutcome": len(predicted - outcomes.keys()),
    }


def _losses(label: LabelKind, pairs: Sequence[Paired]) -> dict[str, Any]:
    losses = _rank_losses(pairs) if label == "Return" else _row_losses(pairs, squared_error)
    differences = [a - b for a, b in zip(losses["champion"], losses["challenger"], strict=True)]
    found: dict[str, Any] = {
        "entities": len(differences),
        "paired": len(pairs),
        "sum": shortest(math.fsum(differences)),
        "sumSquares": shortest(math.fsum(d * d for d in differences)),
        "loss": _sums(losses),
    }
    if label == "Volatility":
        found["qlike"] = _sums(_row_losses(pairs, qlike))
    return found


def _row_losses(pairs: Sequence[Paired], loss: Callable[[float, float], float]) -> dict[Arm, list[float]]:
    return {arm: [loss(pair.outcome, pair.of(arm)) for pair in pairs] for arm in ARMS}


def _sums(losses: Mapping[Arm, Sequence[float]]) -> dict[str, str]:
    return {arm: shortest(math.fsum(losses[arm])) for arm in ARMS}


def squared_error(outcome: float, prediction: float) -> float:
    """Of log volatility; of a 0/1 outcome it is the Brier score (Brier 1950, Monthly Weather Review 78)."""
    return min((outcome - prediction) ** 2, LARGEST_LOSS)


def qlike(outcome: float, prediction: float) -> float:
    """``r - ln r - 1``, ``ln r = 2(y - p)``, both arguments log volatilities; capped as all losses are.

    Source: Patton (2011), J. Econometrics 160(1).
    """
    log_ratio = 2.0 * (outcome - prediction)
    return min(math.exp(min(log_ratio, 700.0)) - log_ratio - 1.0, LARGEST_LOSS)


def _rank_losses(pairs: Sequence[Paired]) -> dict[Arm, list[float]]:
    realised = [pair.outcome for pair in pairs]
    return {arm: rank_losses([pair.of(arm) for pair in pairs], realised) for arm in ARMS}


def rank_losses(forecasts: Sequence[float], outcomes: Sequence[float]) -> list[float]:
    """Minus each entity's share in the rank correlation: the mean is -IC, so differences add up as losses do.

    Nothing where there are fewer than five entities or their outcomes do not differ: no order was realised.
    """
    realised = standardised_ranks(outcomes)
    if len(realised) < FEWEST_RANKED or not any(realised):
        return []
    return [-a * b for a, b in zip(standardised_ranks(forecasts), realised, strict=True)]


def standardised_ranks(values: Sequence[float]) -> list[float]:
    """Ranks with ties averaged, mean 0 and mean square 1, so that a mean product is Spearman's (1904) correlation.

    All zero where the values do not differ: what orders nothing has a correlation of 0.
    """
    n = len(values)
    order = sorted(range(n), key=values.__getitem__)
    ranks = [0.0] * n
    start = 0
    while start < n:
        stop = start
        while stop < n and values[order[stop]] == values[order[start]]:
            stop += 1
        for index in order[start:stop]:
            ranks[index] = 0.5 * (start + stop - 1) - 0.5 * (n - 1)
        start = stop
    scale = math.sqrt(math.fsum(rank * rank for rank in ranks) / n) if n else 0.0
    return [rank / scale for rank in ranks] if scale > 0.0 else ranks
