"""The rivals do what their documentation says: hand-worked cases, and their own published numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from bench.decisions.outcome import PROMOTED, ROLLED_BACK, Outcomes, play
from bench.decisions.rivals.argo import Argo
from bench.decisions.rivals.flagger import Flagger
from bench.decisions.rivals.growthbook import GrowthBook, halfwidth
from bench.decisions.rivals.kayenta import Kayenta, interval
from bench.decisions.rivals.ztest import Peeked, Welch
from bench.decisions.traffic import CHALLENGER, Dark, World

PERFECT = World(errors=(0.0, 0.0), slow=(0.0, 0.0))
BROKEN = replace(PERFECT, errors=(0.0, 1.0))


def run(rule: Any, world: World, budget: int = 1440, size: int = 20) -> Outcomes:
    return play(rule, world, budget, size, np.random.default_rng(1))


def all_are(outcome: Outcomes, verdict: int, minutes: float) -> None:
    assert set(outcome.verdict.tolist()) == {verdict}
    assert set(outcome.minutes.tolist()) == {minutes}


def test_flagger_climbs_five_steps_and_promotes() -> None:
    all_are(run(Flagger(), PERFECT), PROMOTED, 5.0)


def test_flagger_rolls_back_one_tick_after_the_fifth_failed_check() -> None:
    """docs/gitbook/usage: rollback takes interval × threshold; the tick after it does the work."""
    all_are(run(Flagger(), BROKEN), ROLLED_BACK, 6.0)


def test_flagger_takes_no_values_for_failure() -> None:
    all_are(run(Flagger(), replace(PERFECT, per_minute=0.0)), ROLLED_BACK, 6.0)
    all_are(run(Flagger(), replace(PERFECT, dark=(Dark(0, 50, (CHALLENGER,)),))), ROLLED_BACK, 6.0)


def test_argo_finishes_its_steps_and_promotes() -> None:
    all_are(run(Argo(), PERFECT), PROMOTED, 40.0)


def test_argo_fails_after_more_than_three_failures_from_step_two_on() -> None:
    all_are(run(Argo(), BROKEN), ROLLED_BACK, 10.0 + 4 * 5)


def test_argo_without_traffic_success_only_fails_and_failure_only_promotes() -> None:
    nothing = replace(PERFECT, per_minute=0.0)
    all_are(run(Argo(), nothing), ROLLED_BACK, 30.0)
    all_are(run(Argo(condition="failure"), nothing), PROMOTED, 40.0)


def test_argo_aborts_on_errors_when_prometheus_is_away() -> None:
    away = replace(PERFECT, dark=(Dark(14, 20),))
    all_are(run(Argo(condition="failure"), away), ROLLED_BACK, 15.0)


def test_kayenta_passes_equal_data_and_fails_a_broken_canary() -> None:
    all_are(run(Kayenta(), PERFECT), PROMOTED, 60.0)
    all_are(run(Kayenta(), BROKEN), ROLLED_BACK, 60.0)


def test_kayenta_without_data_scores_zero() -> None:
    all_are(run(Kayenta(), replace(PERFECT, per_minute=0.0)), ROLLED_BACK, 60.0)


@pytest.mark.parametrize("seed", range(20))
def test_kayentas_interval_inverts_the_test_it_is_made_of(seed: int) -> None:
    """Against a scalar implementation of MannWhitney.scala's wilcoxonDiff with a root finder."""
    rng = np.random.default_rng(seed)
    x, y = rng.lognormal(0.0, 1.0, 25), rng.lognormal(0.3 * (seed % 4), 1.0, 30)
    if seed % 2:
        y[:10] = y[0]  # ties within a sample

    def difference(shift: float, quantile: float) -> float:
        ranks = rankdata(np.concatenate([x - shift, y]))
        _, ties = np.unique(ranks, return_counts=True)
        m, n = len(x), len(y)
        dz = ranks[:m].sum() - m * (m + 1) / 2 - m * n / 2
        sigma = math.sqrt(m * n / 12 * (m + n + 1 - (ties**3.0 - ties).sum() / ((m + n) * (m + n - 1))))
        return (dz - 0.5 * np.sign(dz)) / sigma - quantile

    ends = x.min() - y.max(), x.max() - y.min()
    expected = [brentq(lambda s, z=z: difference(s, z), *ends, xtol=1e-12) for z in (norm.isf(0.01), 0.0)]
    lower, estimate = interval(y[None, :], x[None, :])
    assert lower[0] == pytest.approx(expected[0], abs=1e-9)
    spacing = np.diff(np.sort((x[:, None] - y[None, :]).ravel())).max()
    assert estimate[0] == pytest.approx(expected[1], abs=spacing)


def test_growthbooks_own_constant() -> None:
    """packages/stats/tests: one-sided lower bound of the absolute difference, N* 5,000."""
    a, b = (1396.87, 52377.9767, 3000), (2422.7, 134698.29, 3461)
    means = [total / n for total, _, n in (a, b)]
    variances = [(squares - total**2 / n) / (n - 1) for total, squares, n in (a, b)]
    n = float(a[2] + b[2])
    squared = variances[0] / a[2] + variances[1] / b[2]
    half = halfwidth(np.array([squared * n]), np.array([n]), 0.05, 5000.0)[0]
    assert means[1] - means[0] - half == pytest.approx(-0.12656844172804982, abs=1e-12)


def test_growthbook_ships_when_the_duration_ends_and_reverts_harm() -> None:
    all_are(run(GrowthBook(duration=100), PERFECT), PROMOTED, 100.0)
    outcome = run(GrowthBook(), replace(PERFECT, errors=(0.01, 0.5)))
    assert set(outcome.verdict.tolist()) == {ROLLED_BACK}


def test_growthbook_holds_a_mismatched_split() -> None:
    outcome = run(GrowthBook(duration=100), replace(PERFECT, routed=1.5))
    assert set(outcome.verdict.tolist()) == {0}


def test_the_z_test_has_its_level_at_one_look_and_not_at_many() -> None:
    equal = World(errors=(0.05, 0.05), slow=(0.0, 0.0))
    looked_once = play(Welch(horizon=240, alpha=0.05), equal, 240, 2000, np.random.default_rng(3))
    peeked = play(Peeked(), equal, 240, 2000, np.random.default_rng(3))
    once = float((looked_once.verdict == ROLLED_BACK).mean())
    assert once == pytest.approx(0.05, abs=0.025)
    assert float((peeked.verdict == ROLLED_BACK).mean()) > 3 * once
