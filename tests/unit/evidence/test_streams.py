"""Tests on continuous block statistics: moments, asymptotic sequences, mixtures, Bernstein, betting."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from fiduciary.evidence import asympcs, mixtures
from fiduciary.evidence.bernstein import Bernstein
from fiduciary.evidence.betting import BETS, Betting, scale_of
from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.moments import Moments
from fiduciary.evidence.refusal import Refusal, Why


def ok(value: Any) -> Any:
    assert not isinstance(value, Refusal), value
    return value


def moments(values: Any) -> Moments:
    state = Moments()
    for value in values:
        state = ok(state.add(float(value)))
    return state


RHO_2, RHO_1 = ok(mixtures.best_rho(100.0, 0.05)), ok(mixtures.best_rho(100.0, 0.1))
CONFSEQ = {
    "normal two-sided": (lambda s: mixtures.log_e_normal(s, 100.0, RHO_2), -0.6510052, 30.35209),
    "normal one-sided": (lambda s: mixtures.log_e_normal_one_sided(s, 100.0, RHO_1), -0.06502391, 27.66071),
    "gamma-exponential": (lambda s: mixtures.log_e_gamma_exponential(s, 100.0, RHO_1, 2.0), -0.2490165, 33.02017),
    "gamma-Poisson": (lambda s: mixtures.log_e_gamma_poisson(s, 100.0, RHO_1, 2.0), -0.06991219, 30.1949),
    "beta-binomial two-sided": (
        lambda s: mixtures.log_e_beta_binomial(s, 100.0, RHO_2, 0.2, 0.8, one_sided=False),
        -0.6941012,
        31.4308,
    ),
    "beta-binomial one-sided": (
        lambda s: mixtures.log_e_beta_binomial(s, 100.0, RHO_1, 0.2, 0.8, one_sided=True),
        -0.07134019,
        28.41238,
    ),
}


@pytest.mark.parametrize("name", CONFSEQ)
def test_confseq_uniform_boundaries_unittest(name: str) -> None:
    log_e, value, bound = CONFSEQ[name]
    assert log_e(10.0) == pytest.approx(value, abs=5e-6)
    assert ok(mixtures.boundary(log_e, math.log(20.0), 125.0)) == pytest.approx(bound, abs=5e-5)


def test_confseq_best_rho() -> None:
    assert pytest.approx(12.60056, abs=5e-6) == RHO_2


def test_confseq_bernoulli_confidence_interval() -> None:
    # test of confseq's bernoulli_confidence_interval: 700 of 1,000, alpha .05, t_opt 100: (.651629, .745949)
    def excess(p: float) -> float:
        v_opt = 100.0 * p * (1.0 - p)
        rho = ok(mixtures.best_rho(v_opt, 0.05))
        s, v = 700.0 - 1000.0 * p, 1000.0 * p * (1.0 - p)
        return mixtures.log_e_beta_binomial(s, v, rho, p, 1.0 - p, one_sided=False) - math.log(20.0)

    assert optimize.brentq(excess, 0.5, 0.699) == pytest.approx(0.651629, abs=2e-6)
    assert optimize.brentq(excess, 0.701, 0.9) == pytest.approx(0.745949, abs=2e-6)


@pytest.mark.parametrize(("s", "v"), [(0.0, 0.0), (3.0, 40.0), (-2.0, 5.0), (60.0, 100.0)])
def test_gamma_exponential_is_the_published_formula(s: float, v: float) -> None:
    c, rho = 2.0, 13.0
    k, a, cc = rho / c**2, (v + rho) / c**2, (c * s + v) / c**2
    with mpmath.workdps(50):
        expected = k * mpmath.log(k) - mpmath.loggamma(k) - mpmath.log(mpmath.gammainc(k, 0, k, regularized=True))
        expected += mpmath.loggamma(a) + mpmath.log(mpmath.gammainc(a, 0, cc + k, regularized=True))
        expected += cc - a * mpmath.log(cc + k)
    assert mixtures.log_e_gamma_exponential(s, v, rho, c) == pytest.approx(float(expected), abs=1e-11)


def test_gamma_exponential_goes_on_below_zero_smoothly() -> None:
    values = [mixtures.log_e_gamma_exponential(s, 5.0, 3.0, 2.0) for s in (-3.0, -3.9, -3.99, -4.0, -4.01, -4.1, -50.0)]
    assert values == sorted(values, reverse=True)
    assert values[2] - values[4] < 0.01


def test_growthbook_test_tests_sequential_intervals() -> None:
    # back-end/stats/tests/test_tests.py: SampleMean a (1396.87, 52377.9767, 3000), b (2422.7, 134698.29, 3461)
    def variance(total: float, squares: float, n: int) -> float:
        return (squares - total**2 / n) / (n - 1)

    na, nb = 3000, 3461
    difference = 2422.7 / nb - 1396.87 / na
    se = math.sqrt(variance(1396.87, 52377.9767, na) / na + variance(2422.7, 134698.29, nb) / nb)
    n = na + nb
    r = ok(asympcs.tuning(0.05, 1000))
    relative = difference / (1396.87 / na)
    # GrowthBook reports relative effects; the delta method, as its source has it
    va, vb = variance(1396.87, 52377.9767, na), variance(2422.7, 134698.29, nb)
    ma, mb = 1396.87 / na, 2422.7 / nb
    se_relative = math.sqrt(vb / (nb * ma**2) + va * mb**2 / (na * ma**4))
    half = asympcs.radius(se_relative * math.sqrt(n), n, r, 0.05)
    assert relative - half == pytest.approx(-0.55844, abs=5e-6)
    assert relative + half == pytest.approx(1.56516, abs=5e-6)
    # one-sided, absolute, N* = 5000; its lower bound is that of alpha = .05 on one side
    r1 = ok(asympcs.tuning(0.1, 5000))
    together = Moments(n, difference, se * se * n * (n - 1))
    lower = ok(asympcs.one_sided_lower(together, 0.05, 5000)).lower
    assert r1 > 0
    assert lower == pytest.approx(-0.12656844172804982, abs=1e-12)


def test_asymptotic_interval_and_e_value_agree() -> None:
    rng = np.random.default_rng(5)
    sample = moments(rng.normal(0.4, 1.0, 200))
    r = ok(asympcs.tuning(0.05, 200))
    at = ok(asympcs.two_sided(sample, 0.05, 200))
    shifted = Moments(sample.count, sample.mean - at.lower, sample.squares)
    assert ok(asympcs.log_e(shifted, r)) == pytest.approx(math.log(20.0), abs=1e-9)
    assert isinstance(asympcs.two_sided(moments([1.0] * 5), 0.05, 10), Refusal)
    refused = asympcs.log_e(moments([1.0] * 50), r)
    assert isinstance(refused, Refusal)
    assert refused.why is Why.NO_VARIANCE


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_moments_from_sums_from_parts_and_one_by_one_agree(values: list[float]) -> None:
    one = moments(values)
    parts = ok(moments(values[:1]).merge(moments(values[1:])))
    assert one.mean == pytest.approx(parts.mean, rel=1e-9, abs=1e-6)
    assert one.squares == pytest.approx(parts.squares, rel=1e-9, abs=1e-3)
    sums = Moments.of_sums(len(values), math.fsum(values), math.fsum(v * v for v in values))
    assert ok(sums).squares == pytest.approx(one.squares, rel=1e-6, abs=1e-2)


@given(st.integers(-1, 2**54), st.floats(), st.floats(), st.floats(), st.integers(-2, 10**6))
def test_moments_and_asymptotic_sequences_are_total(n: int, a: float, b: float, alpha: float, planned: int) -> None:
    answer = Moments.of_sums(n, a, b)
    if isinstance(answer, Moments):
        for level in (alpha, 0.05):
            for interval in (
                asympcs.two_sided(answer, level, planned),
                asympcs.one_sided_lower(answer, level, planned),
            ):
                if isinstance(interval, asympcs.Interval):
                    assert not math.isnan(interval.lower or 0.0)
        assert isinstance(asympcs.log_e(answer, alpha), float | Refusal)
    assert isinstance(Moments().add(a), Moments | Refusal)


# --- empirical Bernstein -------------------------------------------------------------------------------------------


def test_bernstein_has_mean_at_most_one_on_all_paths_of_a_lottery() -> None:
    # x is -1 with probability 2/3 and 2 with 1/3: mean 0; three steps, one observation a block
    def walk(state: Any, step: int) -> float:
        if step == 5:
            return math.exp(state.log_e)
        return sum(
            p * walk(ok(state.fold(step, step, 1, x, x * x)), step + 1) for p, x in ((2 / 3, -1.0), (1 / 3, 2.0))
        )

    assert walk(ok(Bernstein.start(0.0, -1.0, 2.0, 10.0)), 0) <= 1.0 + 1e-12


def test_bernstein_blocks_are_sums_of_observations() -> None:
    rng = np.random.default_rng(8)
    x = rng.uniform(-1, 2, 40)
    start = ok(Bernstein.start(0.0, -1.0, 2.0, 30.0))
    state = ok(start.fold(0, 0, 20, float(x[:20].sum()), float((x[:20] ** 2).sum())))
    state = ok(state.fold(1, 1, 20, float(x[20:].sum()), float((x[20:] ** 2).sum())))
    guess = x[:20].mean()
    assert state.v == pytest.approx((x[:20] ** 2).sum() + ((x[20:] - guess) ** 2).sum())
    assert state.s == pytest.approx(x.sum())
    assert state.log_e == mixtures.log_e_gamma_exponential(state.s, state.v, state.rho, 2.0)
    assert decode(Bernstein, json.loads(json.dumps(encode(state)))) == state


ANY = st.floats() | st.floats(-1e3, 1e3)


@given(ANY, ANY, ANY, ANY, st.integers(-1, 2**54), ANY, ANY)
@settings(max_examples=200, deadline=None)
def test_bernstein_is_total(
    null: float, floor: float, c: float, v: float, n: int, total: float, squares: float
) -> None:
    for start in (Bernstein.start(null, floor, c, v), Bernstein.start(0.0, -1.0, 2.0, 30.0)):
        if isinstance(start, Refusal):
            continue
        answer = start.fold(0, 0, n, total, squares)
        if isinstance(answer, Bernstein):
            assert math.isfinite(answer.log_e)


# --- betting -------------------------------------------------------------------------------------------------------


def test_bets_are_log_spaced() -> None:
    assert BETS[0] == 0.004
    assert BETS[-1] == pytest.approx(0.2)
    assert BETS[3] / BETS[2] == pytest.approx(BETS[8] / BETS[7])


@pytest.mark.parametrize("null", [0.0, -0.1])
def test_betting_has_mean_at_most_one_on_all_paths(null: float) -> None:
    def walk(state: Any, step: int) -> float:
        if step == 6:
            return math.exp(state.log_e)
        return sum(p * walk(ok(state.fold(step, null + x)), step + 1) for p, x in ((0.75, -1.0), (0.25, 3.0)))

    assert walk(ok(Betting.start(1.0, null)), 0) <= 1.0 + 1e-12


def test_dispersion_is_the_formula_of_rule_14() -> None:
    rng = np.random.default_rng(9)
    z = np.clip(rng.standard_t(3, 63 * 5 + 20), -4, 4)
    state = ok(Betting.start(1.0))
    assert state.dispersion == 2.0
    for k, value in enumerate(z):
        state = ok(state.fold(k, float(value)))
    complete = z[: 63 * 5]
    sums = complete.reshape(5, 63).sum(axis=1)
    b2 = ((sums - sums.mean()) ** 2).sum()
    expected = max(1.0, (16 + b2 / (63 * complete.var(ddof=1))) / (8 + 5 - 1))
    assert state.dispersion == pytest.approx(expected, rel=1e-9)
    assert state.regimes() == pytest.approx(b2 / 4 / (63 * complete.var(ddof=1)), rel=1e-9)


def crossing(values: Any) -> int | None:
    state = ok(Betting.start(1.0))
    for k, value in enumerate(values):
        state = ok(state.fold(k, float(value)))
        if state.log_e >= math.log(20.0):
            return k + 1
    return None


def test_betting_finds_a_fifth_of_a_standard_deviation_within_the_sessions_that_rule_14_names() -> None:
    rng = np.random.default_rng(10)
    times = [crossing(rng.normal(0.2, 1.0, 1200)) for _ in range(15)]
    found = [t for t in times if t is not None]
    assert len(found) == 15
    assert 200 <= np.median(found) <= 520


def test_size_of_betting_in_a_small_simulation() -> None:
    # 40 runs of 500 sessions, t3, mean 0 before clipping: P(Bin(40, .05) >= 13) < 1e-6
    rng = np.random.default_rng(11)
    crossed = sum(crossing(rng.standard_t(3, 500) / math.sqrt(3.0)) is not None for _ in range(40))
    assert crossed < 13


def test_the_scale_is_frozen_from_enough_sessions() -> None:
    rng = np.random.default_rng(12)
    values = rng.normal(0, 2.0, 250)
    assert ok(scale_of(moments(values))) == pytest.approx(values.std(ddof=1))
    assert isinstance(scale_of(moments(values[:249])), Refusal)
    assert isinstance(scale_of(moments([1.0] * 250)), Refusal)


@given(st.lists(ANY, min_size=1, max_size=70), ANY, ANY)
@settings(max_examples=40, deadline=None)
def test_betting_is_total_and_replays_bit_for_bit(values: list[float], scale: float, null: float) -> None:
    for start in (Betting.start(scale, null), Betting.start(0.7)):
        if isinstance(start, Refusal):
            continue
        stream, index = start, itertools.count()
        replay: Any = start
        for value in values:
            answer = stream.fold(stream.last + 1, value)
            if isinstance(answer, Refusal):
                continue
            next(index)
            replay = ok(ok(decode(Betting, json.loads(json.dumps(encode(replay))))).fold(replay.last + 1, value))
            stream = answer
            assert math.isfinite(stream.log_e)
        assert stream == replay
