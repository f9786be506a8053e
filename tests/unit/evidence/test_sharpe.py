"""Published constants: Bailey & López de Prado (2012, 2014)."""

from __future__ import annotations

import itertools
import math

import pytest

from fiduciary.evidence import sharpe


def test_probabilistic_sharpe_of_the_hedge_fund_example() -> None:
    ratio = 1.585 / math.sqrt(12)
    assert sharpe.probabilistic_sharpe(ratio, 0.0, 24, -2.448, 10.164) == pytest.approx(0.91323430688486018, rel=1e-12)
    assert sharpe.probabilistic_sharpe(ratio, 0.0, 24, 0.0, 3.0) == pytest.approx(0.98159, abs=1e-5)


@pytest.mark.parametrize(("trials", "expected"), [(10, 1.57460), (45, 2.23564), (100, 2.5306028932016846), (1, 0.0)])
def test_expected_maximum_of_normals(trials: int, expected: float) -> None:
    assert sharpe.expected_maximum(trials) == pytest.approx(expected, abs=5e-6)


def test_min_track_record_of_the_paper() -> None:
    """Facts C, oracle 5: Sharpe 2 against 1 a year, daily returns of 250 sessions: 2.7311878 years."""
    root = 250**0.5
    found = sharpe.min_track_record(2 / root, 1 / root, 0.0, 3.0, 0.05)
    assert found is not None
    assert abs(found / 250 - 2.7311878) < 1e-6
    assert sharpe.min_track_record(0.01, 0.02, 0.0, 3.0, 0.05) is None


def test_deflated_sharpe_of_the_paper() -> None:
    daily, variance = 2.5 / math.sqrt(250), 0.5 / 250
    value = sharpe.deflated_sharpe(daily, 1250, -3.0, 10.0, 100, variance)
    assert value == pytest.approx(0.90039683444939034, rel=1e-12)


def test_more_trials_never_help() -> None:
    values = [sharpe.deflated_sharpe(0.05, 2500, -0.5, 6.0, trials) for trials in (1, 2, 5, 20, 100)]
    assert all(a is not None and b is not None and a > b for a, b in itertools.pairwise(values))


def test_impossible_moments_are_unavailable() -> None:
    assert sharpe.probabilistic_sharpe(2.0, 0.0, 100, 3.0, 1.0) is None
    assert sharpe.deflated_sharpe(0.1, 1, 0.0, 3.0, 5) is None
