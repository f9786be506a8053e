"""Quantiles, confidence sequences and feasibility."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from fiduciary.evidence import feasibility
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.quantiles import AboveEdge, QuantileBounds, quantile_bounds
from fiduciary.evidence.refusal import Refusal
from fiduciary.evidence.sequences import Interval, difference_interval, rate_interval

COUNT = st.integers(-2, 2**54) | st.sampled_from([0, 1, 10**15, 2**53])


def ok(value: Any) -> Any:
    assert not isinstance(value, Refusal), value
    return value


def test_above_edge_has_mean_at_most_one() -> None:
    start = ok(AboveEdge.start(0.3))
    for phi in (1.0, 2.0):
        total = 0.0
        for y, z in itertools.product(range(7), range(5)):
            state = ok(ok(start.fold(0, 0, Counts(6, y), phi)).fold(1, 1, Counts(4, z), phi))
            total += float(stats.binom.pmf(y, 6, 0.3) * stats.binom.pmf(z, 4, 0.2)) * math.exp(state.log_e)
        assert total <= 1.0 + 1e-12


def test_above_edge_is_invariant_to_splitting_without_dispersion() -> None:
    start = ok(AboveEdge.start(0.01))
    whole = ok(start.fold(0, 2, Counts(3000, 60), 1.0))
    parts = ok(ok(start.fold(0, 0, Counts(1000, 50), 1.0)).fold(1, 2, Counts(2000, 10), 1.0))
    assert whole.log_e == pytest.approx(parts.log_e, abs=1e-10)
    assert decode(AboveEdge, json.loads(json.dumps(encode(parts)))) == parts


@given(COUNT, COUNT, st.floats(), st.floats())
@settings(deadline=None)
def test_above_edge_is_total(n: int, y: int, allowed: float, phi: float) -> None:
    for start in (AboveEdge.start(allowed), AboveEdge.start(0.01)):
        if isinstance(start, AboveEdge):
            for dispersion in (phi, 1.0):
                answer = start.fold(0, 0, Counts(n, y), dispersion)
                if isinstance(answer, AboveEdge):
                    assert math.isfinite(answer.log_e)


def test_quantile_bounds_hold_at_all_times_on_lognormal_latency() -> None:
    rng = np.random.default_rng(21)
    edges = [float(x) for x in np.geomspace(0.01, 100.0, 60)]
    truth = math.exp(stats.norm.ppf(0.9))
    missed = 0
    for _ in range(60):
        values = rng.lognormal(0, 1, 4000)
        for n in (200, 500, 1000, 2000, 4000):
            cumulative = [int((values[:n] <= edge).sum()) for edge in edges]
            found = ok(quantile_bounds(edges, cumulative, n, 0.9, 0.05, 1000))
            if (found.lower is not None and found.lower > truth) or (found.upper is not None and found.upper < truth):
                missed += 1
                break
        assert found.lower is not None
        assert found.upper is not None
        assert found.upper / found.lower < 2.5
    # P(Bin(60, .05) >= 16) < 1e-6
    assert missed < 16


def test_quantile_bounds_refuse_what_is_no_histogram() -> None:
    for edges, counts, n in (([1.0, 2.0], [5, 4], 9), ([2.0, 1.0], [1, 2], 9), ([1.0], [10], 9), ([1.0], [1, 2], 9)):
        assert isinstance(quantile_bounds(edges, counts, n, 0.5, 0.05, 100), Refusal)
    assert isinstance(quantile_bounds([math.nan, 1.0], [1, 2], 3, 0.5, 0.05, 100), Refusal)


@given(st.lists(COUNT, max_size=4), COUNT, st.floats(), st.floats(), st.integers(-1, 10**9))
@settings(deadline=None)
def test_quantile_bounds_are_total(counts: list[int], n: int, p: float, alpha: float, planned: int) -> None:
    edges = [float(i) for i in range(len(counts))]
    for quantile, level in ((p, alpha), (0.99, 0.05)):
        answer = quantile_bounds(edges, sorted(counts), n, quantile, level, planned)
        assert isinstance(answer, QuantileBounds | Refusal)


@pytest.mark.parametrize(("n", "y"), [(1, 0), (10, 10), (50, 3), (4000, 40), (10**9, 7)])
def test_rate_interval_is_where_the_prior_posterior_ratio_crosses(n: int, y: int) -> None:
    found = ok(rate_interval(Counts(n, y), 0.05))

    def excess(p: float) -> float:
        return (
            special.betaln(0.5 + y, 0.5 + n - y)
            - special.betaln(0.5, 0.5)
            - special.xlogy(y, p)
            - special.xlog1py(n - y, -p)
            - math.log(20.0)
        )

    if y:
        assert found.lower == pytest.approx(optimize.brentq(excess, 1e-12, y / n, xtol=1e-18), rel=1e-5)
    else:
        assert found.lower == 0.0
    if y < n:
        assert found.upper == pytest.approx(optimize.brentq(excess, max(y / n, 1e-12), 1 - 1e-12), rel=1e-5)
    else:
        assert found.upper == 1.0


def test_a_difference_contains_the_truth_at_all_times() -> None:
    rng = np.random.default_rng(22)
    missed = 0
    for _ in range(40):
        a, b = rng.random(2000) < 0.02, rng.random(2000) < 0.05
        for n in (50, 200, 1000, 2000):
            found = ok(difference_interval(Counts(n, int(a[:n].sum())), Counts(n, int(b[:n].sum())), 0.05))
            if not found.lower <= 0.03 <= found.upper:
                missed += 1
                break
    assert missed < 13


@given(COUNT, COUNT, COUNT, COUNT, st.floats())
@settings(max_examples=60, deadline=None)
def test_intervals_are_total_and_contain_their_estimate(n: int, y: int, m: int, z: int, alpha: float) -> None:
    for level in (alpha, 0.05):
        for answer in (rate_interval(Counts(n, y), level), difference_interval(Counts(n, y), Counts(m, z), level)):
            if isinstance(answer, Interval):
                assert answer.lower is not None
                assert answer.upper is not None
                assert answer.lower <= answer.estimate + 1e-12
                assert answer.upper >= answer.estimate - 1e-12


def test_forecast_of_superiority_is_near_the_sessions_of_rule_14() -> None:
    fifth = ok(feasibility.superiority(0.2, 1.0, 1.0, math.log(20.0))).blocks
    assert 200 <= fifth <= 420
    tenth = ok(feasibility.superiority(0.1, 1.0, 1.0, math.log(20.0)))
    assert 900 <= tenth.blocks <= 1400
    assert tenth.underpowered(600)
    assert not tenth.underpowered(3100)
    assert ok(feasibility.superiority(-0.1, 1.0, 1.0, 3.0)).underpowered(10**12)


def test_forecast_of_noninferiority_is_near_the_requests_of_rule_6() -> None:
    # without errors a margin of .005 needs about 900 requests an arm, .001 about 4,350
    for margin, requests in ((0.005, 900), (0.001, 4350)):
        blocks = ok(feasibility.noninferiority((10, 10), 1e-6, margin, 1.0, 0.05)).blocks
        assert 0.5 * requests <= 10 * blocks <= 1.5 * requests
    assert ok(feasibility.noninferiority((0, 10), 0.01, 0.005, 1.0, 0.05)).blocks is None


@given(st.floats(), st.floats(), st.floats(), st.floats(), st.integers(-1, 2**54))
def test_forecasts_are_total(a: float, b: float, c: float, d: float, n: int) -> None:
    assert isinstance(feasibility.superiority(a, b, c, d), feasibility.Forecast | Refusal)
    assert isinstance(feasibility.superiority(a, 1.0, 1.0, 3.0), feasibility.Forecast | Refusal)
    assert isinstance(feasibility.noninferiority((n, 10), a, b, c, d), feasibility.Forecast | Refusal)
    assert isinstance(feasibility.noninferiority((n, 10), 0.01, 0.005, 1.0, 0.05), feasibility.Forecast | Refusal)
