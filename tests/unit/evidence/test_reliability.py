"""Calibration of probability forecasts."""

from __future__ import annotations

import numpy as np
import pytest

from fiduciary.evidence.reliability import added, miscalibration, reliability


def bins(likely: np.ndarray, events: np.ndarray) -> tuple[float, ...]:
    made = np.zeros((10, 3))
    for p, y in zip(likely, events, strict=True):
        made[min(int(p * 10), 9)] += (1.0, p, y)
    return tuple(made.ravel().tolist())


def test_the_example_of_the_calibration_error() -> None:
    """p = .1, .1, .9, .9 and y = 0, 1, 1, 1: both bins are off, by .4 and .1, a calibration error of .25."""
    found = bins(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert reliability(found) == pytest.approx(2 * 0.4**2 + 2 * 0.1**2)


def test_honest_forecasts_show_what_chance_shows() -> None:
    rng = np.random.default_rng(3)
    scores, sizes = [], []
    for size in (21, 210):
        likely = rng.uniform(0.3, 0.7, size=(2000, size))
        events = rng.random((2000, size)) < likely
        scores.append(np.mean([reliability(bins(p, y)) for p, y in zip(likely[:400], events[:400], strict=True)]))
        sizes.append(np.mean([miscalibration(bins(p, y)) for p, y in zip(likely[:400], events[:400], strict=True)]))
    assert scores == pytest.approx([0.92, 0.92], rel=0.15), "Σ p̄(1-p̄) of four bins, at any size"
    assert sizes[1] < sizes[0] / 2, "what chance leaves shrinks with the root of the size"


def test_forecasts_that_are_ten_points_too_high_are_found_to_be() -> None:
    rng = np.random.default_rng(4)
    likely = rng.uniform(0.4, 0.7, size=50_000)
    found = bins(likely, rng.random(len(likely)) < likely - 0.1)
    assert miscalibration(found) == pytest.approx(0.1, abs=0.005)


def test_what_is_added_is_the_whole() -> None:
    rng = np.random.default_rng(5)
    likely, events = rng.random(60), rng.random(60) < 0.5
    together = added(bins(likely[:20], events[:20]), bins(likely[20:], events[20:]))
    assert together == pytest.approx(bins(likely, events))
    assert added((), together) == added(together, ()) == together
    assert (reliability(()), miscalibration(())) == (0.0, 0.0)
