"""Pairing and losses of one session."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fiduciary_outcomes.session import Outcome, Prediction, qlike, settle, standardised_ranks
from tests.outcomes.worlds import PATIENT

NONE_DROPPED = {"champion": 0, "challenger": 0}
Side = dict[str, tuple[float, int]]


def settled(label: Any, champion: Side, challenger: Side, outcomes: Side) -> dict[str, Any]:
    """Units by entity; values with their place in the order of arrival."""
    return settle(
        label,
        {
            "champion": {(entity, "e", ""): Prediction(*found) for entity, found in champion.items()},
            "challenger": {(entity, "e", ""): Prediction(*found) for entity, found in challenger.items()},
        },
        {(entity, "e", ""): Outcome(value, None, arrived) for entity, (value, arrived) in outcomes.items()},
        NONE_DROPPED,
    )


def test_squared_error_is_positive_where_the_challenger_is_better() -> None:
    row = settled("Volatility", {"": (-4.0, 1)}, {"": (-4.4, 2)}, {"": (-4.5, 3)})
    assert row["entities"] == 1
    assert float(row["sum"]) == pytest.approx(0.25 - 0.01)
    assert float(row["sumSquares"]) == pytest.approx(0.24**2)
    assert row["loss"] == {"champion": "0.25", "challenger": repr((-4.5 + 4.4) ** 2)}


def test_qlike_of_a_perfect_forecast_is_zero_and_bounded_far_away() -> None:
    assert qlike(-4.5, -4.5) == 0.0
    assert qlike(0.1, 0.0) == pytest.approx(math.exp(0.2) - 0.2 - 1.0)
    assert math.isfinite(qlike(1e3, -1e3))


def test_a_wild_forecast_leaves_finite_sums() -> None:
    for label in ("Volatility", "Direction"):
        row = settled(label, {"a": (1e100, 1), "b": (0.0, 1)}, {"a": (-1e100, 1), "b": (1e38, 1)},
                      {"a": (0.0, 2), "b": (0.0, 2)})  # fmt: skip
        assert (row["sum"], row["sumSquares"]) == ("-1e+18", "1e+36")


@pytest.mark.parametrize(
    ("champion", "challenger", "outcomes", "expected"),
    [
        ({"a": (0.0, 1)}, {}, {"a": (0.0, 3)}, {"missing": {"champion": 0, "challenger": 1}}),
        ({}, {"a": (0.0, 1)}, {"a": (0.0, 3)}, {"missing": {"champion": 1, "challenger": 0}}),
        (
            {"a": (0.0, 1)},
            {"a": (0.0, 4)},
            {"a": (0.0, 3)},
            {"missing": {"champion": 0, "challenger": 1}, "late": {"champion": 0, "challenger": 1}},
        ),
        (
            {"a": (0.0, 3)},
            {"a": (0.0, 3)},
            {"a": (0.0, 3)},
            {"late": {"champion": 1, "challenger": 1}, "unpredicted": 1},
        ),
        ({}, {}, {"a": (0.0, 3)}, {"unpredicted": 1, "withoutOutcome": 0}),
        ({"a": (0.0, 1)}, {"a": (0.0, 2)}, {}, {"withoutOutcome": 1, "unpredicted": 0}),
        ({"a": (0.0, 1), "b": (0.0, 1)}, {"a": (0.0, 2)}, {"a": (1.0, 3)}, {"withoutOutcome": 1, "paired": 1}),
    ],
)
def test_what_is_not_paired_is_counted(champion: Side, challenger: Side, outcomes: Side, expected: Any) -> None:
    row = settled("Volatility", champion, challenger, outcomes)
    blank = {"missing": NONE_DROPPED, "late": NONE_DROPPED, "unpredicted": 0, "withoutOutcome": 0}
    expected = {**blank, **expected}
    assert {name: row[name] for name in expected} == expected


values = st.floats(-10, 10).map(lambda value: round(value, 3))
panels = st.lists(st.tuples(values, values, values), min_size=5, max_size=40)


@PATIENT
@given(panels)
def test_the_mean_difference_is_the_difference_of_the_rank_correlations(
    panel: list[tuple[float, float, float]],
) -> None:
    first, second, realised = (np.array(column) for column in zip(*panel, strict=True))
    row = settled(
        "Return",
        {str(i): (float(value), 1) for i, value in enumerate(first)},
        {str(i): (float(value), 1) for i, value in enumerate(second)},
        {str(i): (float(value), 2) for i, value in enumerate(realised)},
    )
    if np.ptp(realised) == 0.0:
        assert row["entities"] == 0
        return

    def correlation(forecast: np.ndarray) -> float:
        return 0.0 if np.ptp(forecast) == 0.0 else float(stats.spearmanr(forecast, realised).statistic)

    assert row["entities"] == len(panel)
    assert float(row["sum"]) / len(panel) == pytest.approx(correlation(second) - correlation(first), abs=1e-9)
    assert -float(row["loss"]["champion"]) / len(panel) == pytest.approx(correlation(first), abs=1e-9)


def test_four_entities_are_no_panel() -> None:
    side: Side = {str(i): (float(i), 1) for i in range(4)}
    row = settled("Return", side, side, {str(i): (float(i), 2) for i in range(4)})
    assert (row["entities"], row["paired"], row["sum"]) == (0, 4, "0.0")


@PATIENT
@given(panels, st.sampled_from(["Volatility", "Direction", "Return"]), st.randoms())
def test_the_order_of_arrival_does_not_show_in_the_bits(panel: list[Any], label: str, random: Any) -> None:
    def row(order: list[int]) -> dict[str, Any]:
        columns = [{str(i): (panel[i][k], 1 if k < 2 else 2) for i in order} for k in range(3)]
        return settled(label, *columns)

    order = list(range(len(panel)))
    shuffled = random.sample(order, len(order))
    assert row(order) == row(shuffled)


@PATIENT
@given(st.lists(values, min_size=1, max_size=60))
def test_standardised_ranks_agree_with_scipy(found: list[float]) -> None:
    ranks = np.array(standardised_ranks(found))
    assert ranks.mean() == pytest.approx(0.0, abs=1e-9)
    if len(set(found)) > 1:
        expected = stats.rankdata(found)
        assert np.std(ranks) == pytest.approx(1.0)
        assert np.corrcoef(ranks, expected)[0, 1] == pytest.approx(1.0)
    else:
        assert not ranks.any()
