"""Against mpmath (50 digits) and scipy, into tails that no float holds."""

from __future__ import annotations

import math

import mpmath
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import special, stats

from fiduciary.evidence import logspace, tails

FLOATS = st.floats(0.05, 1e15)


def mp_log_gamma_p(a: float, x: float) -> float:
    with mpmath.workdps(60):
        return float(mpmath.log(mpmath.gammainc(a, 0, x, regularized=True)))


def mp_log_gamma_q(a: float, x: float) -> float:
    with mpmath.workdps(60):
        return float(mpmath.log(mpmath.gammainc(a, x, mpmath.inf, regularized=True)))


@pytest.mark.parametrize("a", [0.05, 0.5, 1.0, 3.7, 11.9, 12.1, 80.0, 900.0])
@pytest.mark.parametrize("ratio", [1e-6, 0.01, 0.5, 0.97, 1.0, 1.03, 1.7, 8.0, 60.0])
def test_incomplete_gamma_against_mpmath(a: float, ratio: float) -> None:
    x = a * ratio
    lower = (tails.log_gamma_p(a, x), mp_log_gamma_p(a, x))
    upper = (tails.log_gamma_q(a, x), mp_log_gamma_q(a, x))
    for ours, theirs in (lower, upper):
        # an absolute error of a logarithm is a relative error of the probability
        assert abs(ours - theirs) <= 2e-12 * max(1.0, abs(theirs)), (a, x)


@pytest.mark.parametrize("a", [1e4, 1e6, 1e9, 1e15])
@pytest.mark.parametrize("sigmas", [-30.0, -6.0, -1.0, 0.0, 1.0, 6.0, 30.0])
def test_incomplete_gamma_for_large_arguments(a: float, sigmas: float) -> None:
    x = a + sigmas * math.sqrt(a)
    # Temme's uniform expansion to first order (DLMF 8.12.3-8.12.4), an independent formula: error about 1/a^1.5
    with mpmath.workdps(60):
        lam = mpmath.mpf(x) / a
        eta = mpmath.sign(lam - 1) * mpmath.sqrt(2 * (lam - 1 - mpmath.log(lam)))
        c0 = 1 / (lam - 1) - 1 / eta if eta else mpmath.mpf(-1) / 3
        m = lam - 1
        c1 = 1 / eta**3 - 1 / m**3 - 1 / m**2 - 1 / (12 * m) if eta else mpmath.mpf(-1) / 540
        rest = mpmath.exp(-a * eta**2 / 2) / mpmath.sqrt(2 * mpmath.pi * a) * (c0 + c1 / a)
        q = mpmath.erfc(eta * mpmath.sqrt(mpmath.mpf(a) / 2)) / 2 + rest
        p = mpmath.erfc(-eta * mpmath.sqrt(mpmath.mpf(a) / 2)) / 2 - rest
        log_q, log_p = float(mpmath.log(q)), float(mpmath.log(p))
    assert tails.log_gamma_q(a, x) == pytest.approx(log_q, abs=3e-8 if a == 1e4 else 3e-10)
    assert tails.log_gamma_p(a, x) == pytest.approx(log_p, abs=3e-8 if a == 1e4 else 3e-10)


@pytest.mark.parametrize("a", [0.5, 1.0, 7.0, 20.0, 300.0])
@pytest.mark.parametrize("b", [0.5, 2.5, 20.0, 1000.0])
@pytest.mark.parametrize("x", [1e-9, 0.003, 0.2, 0.5, 0.8, 0.997])
def test_incomplete_beta_against_mpmath(a: float, b: float, x: float) -> None:
    with mpmath.workdps(40):
        expected = float(mpmath.log(mpmath.betainc(a, b, 0, x, regularized=True)))
    assert abs(tails.log_beta_i(a, b, x) - expected) <= 3e-12 * max(1.0, abs(expected))


@pytest.mark.parametrize("n", [10**6, 10**9, 10**12])
@pytest.mark.parametrize("p", [1e-6, 0.005, 0.5])
@pytest.mark.parametrize("sigmas", [-5.0, 0.0, 3.0, 8.0])
def test_binomial_tail_for_large_counts(n: int, p: float, sigmas: float) -> None:
    y = max(1, round(n * p + sigmas * math.sqrt(n * p * (1 - p))))
    expected = stats.binom.logsf(y - 1, n, p) if n <= 10**9 else math.log(special.betainc(y, n - y + 1, p))
    assert tails.log_binomial_tail(n, y, p) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_a_tail_that_underflows_keeps_its_logarithm() -> None:
    # P(Bin(1000, 1e-6) >= 200): the first term dominates
    with mpmath.workdps(40):
        expected = float(mpmath.log(mpmath.betainc(200, 801, 0, mpmath.mpf(1e-6), regularized=True)))
    assert expected < -2000
    assert tails.log_binomial_tail(1000, 200, 1e-6) == pytest.approx(expected, rel=1e-13)


@given(FLOATS, FLOATS)
@settings(max_examples=150, deadline=None)
def test_gamma_never_fails_and_both_sides_add_up(a: float, x: float) -> None:
    p, q = tails.log_gamma_p(a, x), tails.log_gamma_q(a, x)
    assert p <= 0.0
    assert q <= 0.0
    assert math.exp(p) + math.exp(q) == pytest.approx(1.0, abs=1e-7)


@given(FLOATS, FLOATS, st.floats(5e-324, 1 - 2**-53))
@example(a=1.0, b=1e6, x=5e-324)
@example(a=20.0, b=4e15, x=1e-17)
@settings(max_examples=150, deadline=None)
def test_beta_never_fails_and_both_sides_add_up(a: float, b: float, x: float) -> None:
    p, q = tails.log_beta_i(a, b, x), tails.log_upper_beta_ratio(a, b, x) - tails.log_beta_whole(a, b, x)
    assert not math.isnan(p + q)
    assert math.exp(p) + math.exp(q) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("degrees", [1, 2, 9, 24, 167, 1439, 10_000])
@pytest.mark.parametrize("probability", [0.01, 0.1, 0.5, 0.99])
def test_chi_square_quantile_against_scipy(degrees: int, probability: float) -> None:
    expected = stats.chi2.ppf(probability, degrees)
    assert tails.chi_square_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("x", [-0.9, -0.5, -0.2, -1e-3, -1e-9, 0.0, 1e-12, 1e-4, 0.3, 0.49, 0.6, 1e3])
def test_differences_keep_their_digits(x: float) -> None:
    with mpmath.workdps(60):
        logs = float(mpmath.log1p(mpmath.mpf(x)) - mpmath.mpf(x))
        exps = float(mpmath.expm1(mpmath.mpf(min(x, 600.0))) - mpmath.mpf(min(x, 600.0)))
    assert logspace.log1p_minus(x) == pytest.approx(logs, rel=3e-15)
    assert logspace.expm1_minus(min(x, 600.0)) == pytest.approx(exps, rel=3e-15)


def test_log_sum_exp_of_nothing_and_of_huge_terms() -> None:
    assert logspace.log_sum_exp([]) == -math.inf
    assert logspace.log_sum_exp([-math.inf, -math.inf]) == -math.inf
    assert logspace.log_sum_exp([1e300, 1e300]) == 1e300
    assert logspace.log_sum_exp([1000.0, 1000.0]) == pytest.approx(1000.0 + math.log(2.0))
    assert math.isfinite(logspace.as_float(1e9))
