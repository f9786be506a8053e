"""The more cautious of two intervals."""

from __future__ import annotations

import math

import pytest

from fiduciary.evidence.bounds import Bounds, Folds
from fiduciary.evidence.bounds import bounds as of_folds


def bounds(estimate: float, error: float | None, folds: list[float | None] | None, alpha: float) -> Bounds | None:
    return of_folds(estimate, error, None if folds is None else Folds.of(folds), alpha)


def test_six_folds_use_the_published_constant() -> None:
    folds = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    result = bounds(0.035, None, folds, 0.05)
    assert result is not None
    spread = math.sqrt(sum((value - 0.035) ** 2 for value in folds) / 5)
    assert result.lower == pytest.approx(0.035 - 2.015 * spread / math.sqrt(6), abs=1e-5)
    assert result.method == "t over 6 folds"


def test_the_wider_side_counts() -> None:
    quiet_folds = [0.05, 0.05, 0.05, 0.05]
    result = bounds(0.05, 0.02, quiet_folds, 0.05)
    assert result is not None
    assert result.lower == pytest.approx(0.05 - 1.6448536 * 0.02, abs=1e-7)
    assert result.upper == pytest.approx(0.05 + 1.6448536 * 0.02, abs=1e-7)
    assert result.method.startswith("Newey")


def test_a_missing_fold_leaves_the_other_method_or_none() -> None:
    assert bounds(0.1, None, [0.1, None, 0.2], 0.05) is None
    assert bounds(0.1, 0.01, [0.1, None, 0.2], 0.05) is not None
    assert bounds(0.1, None, None, 0.05) is None


def test_smaller_alpha_is_stricter() -> None:
    loose, strict = (bounds(0.05, 0.01, [0.04, 0.05, 0.06], alpha) for alpha in (0.05, 0.005))
    assert loose is not None
    assert strict is not None
    assert strict.lower < loose.lower
