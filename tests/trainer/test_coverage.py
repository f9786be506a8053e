"""Coverage of quantiles: published critical values, sizes and power by simulation, summaries with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fiduciary_trainer.measure import coverage, measure
from fiduciary_trainer.measure.losses import pinball
from fiduciary_trainer.measure.rows import Quantiles, Rows
from fiduciary_trainer.validation import quantiles

CRITICAL = 3.841
"""Of chi-squared with one degree of freedom at 5 %."""


def hits(count: int, total: int) -> np.ndarray:
    made = np.zeros(total, dtype=bool)
    made[:count] = True
    return made


# Kupiec (1995): failures N with which p is not rejected at 5 %, for 255, 510 and 1,000 days. Of the first the table
# prints N < 7; that there are none is rejected too (LR 5.13).
REGIONS = [
    (0.01, 255, 1, 6),
    (0.01, 510, 2, 10),
    (0.01, 1000, 5, 16),
    (0.025, 255, 3, 11),
    (0.025, 510, 7, 20),
    (0.025, 1000, 16, 35),
    (0.05, 255, 7, 20),
    (0.05, 510, 17, 35),
    (0.05, 1000, 38, 64),
    (0.075, 255, 12, 27),
    (0.075, 510, 28, 50),
    (0.075, 1000, 60, 91),
    (0.1, 255, 17, 35),
    (0.1, 510, 39, 64),
    (0.1, 1000, 82, 119),
]


@pytest.mark.parametrize(("share", "days", "first", "last"), REGIONS)
def test_the_published_regions_of_the_proportion_of_failures(share: float, days: int, first: int, last: int) -> None:
    kept = [count for count in range(days) if coverage.kupiec(hits(count, days), share).statistic < CRITICAL]
    assert (kept[0], kept[-1]) == (first, last)


def test_a_share_that_is_met_exactly_says_nothing() -> None:
    exact = coverage.kupiec(hits(50, 1000), 0.05)
    assert (exact.statistic, exact.p) == (pytest.approx(0.0, abs=1e-9), pytest.approx(1.0))
    none, every = coverage.kupiec(hits(0, 250), 0.05), coverage.kupiec(hits(250, 250), 0.05)
    assert none.statistic == pytest.approx(-500 * np.log(0.95))
    assert every.statistic == pytest.approx(-500 * np.log(0.05))


def test_independence_by_hand() -> None:
    """11011 0 1: of the six steps two start at a miss (both then hit), four at a hit (two hit again)."""
    found = coverage.independence(np.array([1, 1, 0, 1, 1, 0, 1], dtype=bool))
    assert found is not None
    log = np.log
    apart = 4 * log(0.5)
    together = 4 * log(4 / 6) + 2 * log(2 / 6)
    assert found.statistic == pytest.approx(2 * (apart - together))
    assert coverage.independence(np.ones(50, dtype=bool)) is None
    assert coverage.conditional(np.zeros(50, dtype=bool), 0.05) is None


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_sizes_of_independent_hits(share: float) -> None:
    """2,000 times 1,000 days; three standard errors of a rate of .05 are .015. Where hits are rare, pairs of them are
    few: the docstring of the test of independence says what it then does."""
    rng = np.random.default_rng(4)
    rates = {"kupiec": 0.0, "independence": 0.0, "conditional": 0.0}
    for _ in range(2000):
        drawn = rng.random(1000) < share
        rates["kupiec"] += coverage.kupiec(drawn, share).p < 0.05
        for name, found in (
            ("independence", coverage.independence(drawn)),
            ("conditional", coverage.conditional(drawn, share)),
        ):
            rates[name] += found is not None and found.p < 0.05
    for name, count in rates.items():
        assert 0.03 < count / 2000 < (0.105 if share == 0.05 and name == "independence" else 0.08), name


def test_clusters_are_found_where_the_share_is_right() -> None:
    """Hits that repeat themselves half of the time, at the right share on average."""
    rng = np.random.default_rng(5)
    found = {"kupiec": 0, "independence": 0, "conditional": 0}
    for _ in range(200):
        state, drawn = False, np.zeros(1000, dtype=bool)
        for day, uniform in enumerate(rng.random(1000)):
            state = bool(uniform < (0.3 if state else 0.0368))  # stationary share .05
            drawn[day] = state
        independence, both = coverage.independence(drawn), coverage.conditional(drawn, 0.05)
        assert independence is not None
        assert both is not None
        found["independence"] += independence.p < 0.05
        found["conditional"] += both.p < 0.05
    assert found["independence"] > 180
    assert found["conditional"] > 170


def made(count: int = 2000, entities: int = 1, **more: Any) -> Rows:
    """Standard normal outcomes with their true quantiles, a baseline whose are half as wide, and one twice as wide."""
    rng = np.random.default_rng(6)
    days = np.repeat(np.datetime64("2001-01-01", "ns") + np.arange(count) * np.timedelta64(1, "D"), entities)
    y = rng.normal(size=count * entities)
    levels = (0.05, 0.25, 0.75, 0.95)
    true = np.array([-1.6449, -0.6745, 0.6745, 1.6449])
    return Rows(
        dates=days,
        label_end=days + np.timedelta64(1, "D"),
        entity=np.tile(np.array([f"E{each}" for each in range(entities)]), count),
        fold=np.repeat(np.arange(count) * 4 // count, entities),
        y=y,
        prediction=np.zeros(len(y)),
        baselines={name: np.full(len(y), 0.1) for name in ("ewma", "har", "ols", "persistence")},
        returns=np.zeros(len(y)),
        quantiles=Quantiles(
            levels,
            np.tile(true, (len(y), 1)),
            {"residual": np.tile(true / 2, (len(y), 1)), "filtered": np.tile(true * 2, (len(y), 1))},
        ),
        **more,
    )


def test_the_summary_of_true_quantiles() -> None:
    rows = made()
    assert rows.quantiles is not None
    found = quantiles.summary(rows, rows.quantiles, horizon=1)
    assert [each["level"] for each in found["levels"]] == [0.05, 0.25, 0.75, 0.95]
    for each in found["levels"]:
        assert each["low"] <= each["level"] <= each["high"]
        assert each["kupiec"]["p"] > 0.01
        assert each["christoffersen"]["p"] > 0.01
        assert each["skill"]["residual"]["e"] > 3 * each["skill"]["residual"]["se"] > 0
    wide, narrow = found["intervals"]
    assert (wide["from"], wide["to"], narrow["from"], narrow["to"]) == (0.05, 0.95, 0.25, 0.75)
    assert wide["nominal"] == pytest.approx(0.9)
    assert wide["width"] == pytest.approx(3.2898)
    assert wide["baselines"]["residual"]["observed"] == pytest.approx(0.589, abs=0.03), "half as wide holds .589"
    assert wide["baselines"]["filtered"]["observed"] == pytest.approx(0.999, abs=0.003)
    assert found["crossed"] == 0
    assert found["pointOutside"] == 0.0


@pytest.mark.parametrize(("entities", "horizon", "words"), [(5, 1, "5 instruments"), (1, 5, "labels of 5 sessions")])
def test_tests_of_single_hits_are_left_out_where_they_do_not_hold(entities: int, horizon: int, words: str) -> None:
    rows = made(entities=entities)
    assert rows.quantiles is not None
    found = quantiles.summary(rows, rows.quantiles, horizon)
    assert words in found["untested"]
    assert all("kupiec" not in each and "low" in each for each in (*found["levels"], *found["intervals"]))


def test_pinball_loss_is_smallest_at_the_quantile() -> None:
    y = np.random.default_rng(7).normal(size=20_000)
    at = np.linspace(-3, 3, 121)
    for level in (0.05, 0.5, 0.9):
        mean = [float(pinball(y, np.full((len(y), 1), each), np.array([level])).mean()) for each in at]
        assert at[int(np.argmin(mean))] == pytest.approx(np.quantile(y, level), abs=0.06)
    by_hand = pinball(np.array([1.0, -1.0]), np.zeros((2, 1)), np.array([0.9]))[:, 0]
    assert by_hand == pytest.approx([0.9, 0.1])


def test_metrics_of_quantiles_have_folds_and_errors() -> None:
    result = measure(made(), "Volatility", horizon=1, cost_bps=2)
    for name in ("pinball", "residual_pinball_skill", "filtered_pinball_skill"):
        metric = result.metrics[name]
        assert metric.se is not None
        assert metric.folds is not None
        assert len(metric.folds) == 4
    assert result.metrics["residual_pinball_skill"].estimate > 0.05
