"""Against scipy over wide grids, tails included."""

from __future__ import annotations

import pytest
from scipy import special, stats

from fiduciary.evidence import distributions


@pytest.mark.parametrize("z", [-37.0, -8.0, -1.6448536269514722, -1e-9, 0.0, 0.3, 5.0, 9.0])
def test_normal_cdf_is_right_in_both_tails(z: float) -> None:
    assert distributions.normal_cdf(z) == pytest.approx(stats.norm.cdf(z), rel=1e-13)


@pytest.mark.parametrize("a", [0.5, 1.0, 2.5, 40.0, 5e3, 1e5])
@pytest.mark.parametrize("b", [0.5, 1.0, 7.0, 300.0, 1e5])
@pytest.mark.parametrize("x", [1e-12, 0.01, 0.3, 0.5, 0.9, 1 - 1e-9])
def test_incomplete_beta_agrees_with_scipy(a: float, b: float, x: float) -> None:
    expected = special.betainc(a, b, x)
    assert distributions.incomplete_beta(a, b, x) == pytest.approx(expected, rel=2e-9, abs=1e-280)


@pytest.mark.parametrize("degrees", [1, 2, 5, 30, 1000])
@pytest.mark.parametrize("probability", [1e-8, 0.001, 0.05, 0.4, 0.5, 0.95, 0.975, 0.9999])
def test_student_t_quantile_agrees_with_scipy(degrees: int, probability: float) -> None:
    expected = stats.t.ppf(probability, degrees)
    assert distributions.student_t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_the_constant_of_six_folds() -> None:
    assert distributions.student_t_quantile(0.95, 5) == pytest.approx(2.015, abs=5e-4)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, float("nan")])
def test_a_quantile_of_no_probability_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="0"):
        distributions.normal_quantile(probability)
    with pytest.raises(ValueError, match="0"):
        distributions.student_t_quantile(probability, 5)
