"""Train on the past only: gaps, purging by label end, panels, the inner tail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiduciary_trainer import splits
from fiduciary_trainer.outcome import DataRefused


def calendar(days: int, *, horizon: int = 1, purge: int = 0, embargo: int = 0, entities: int = 1) -> splits.Calendar:
    """``entities`` rows on each of ``days`` days, labels ending ``horizon`` days later."""
    dates = np.repeat(np.datetime64("2000-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D"), entities)
    return splits.Calendar.of(dates, dates + np.timedelta64(horizon, "D"), purge, embargo)


def test_six_folds_of_the_last_two_thirds() -> None:
    folds = splits.walk_forward(calendar(3000, embargo=66), 6)
    tested = np.concatenate([test for _, test in folds])
    assert tested.tolist() == list(range(1000, 3000)), "each of the last 2,000 days once, in order"
    assert {len(test) for _, test in folds} <= {333, 334}
    sizes = [len(train) for train, _ in folds]
    assert sizes == sorted(sizes), "expanding"
    assert sizes[0] == 1000 - 66


@settings(max_examples=80, deadline=None)
@given(
    days=st.integers(900, 2000),
    horizon=st.integers(1, 20),
    purge=st.integers(0, 30),
    embargo=st.integers(0, 90),
    folds=st.integers(2, 8),
    entities=st.integers(1, 3),
)
def test_no_training_label_is_known_only_after_testing_began(
    days: int, horizon: int, purge: int, embargo: int, folds: int, entities: int
) -> None:
    made = calendar(days, horizon=horizon, purge=purge, embargo=embargo, entities=entities)
    for train, test in splits.walk_forward(made, folds):
        first = made.day[test].min()
        assert (made.label_end[train] < made.dates[test].min()).all()
        between = first - made.day[train].max() - 1
        assert between >= embargo
        assert between >= horizon + purge, "the purge is on top of labels that overlap"
        assert len(np.intersect1d(made.day[train], made.day[test])) == 0, "no day is on both sides"
        assert len(test) % entities == 0, "a day's rows stay together"


@settings(max_examples=60, deadline=None)
@given(days=st.integers(300, 1500), horizon=st.integers(1, 10), embargo=st.integers(0, 66))
def test_the_inner_tail_is_the_end_of_training_and_purged(days: int, horizon: int, embargo: int) -> None:
    made = calendar(days, horizon=horizon, purge=1, embargo=embargo)
    train = np.arange(days - 50)
    fit, watch = splits.inner_tail(made, train)
    assert watch[-1] == train[-1]
    assert len(watch) == pytest.approx(splits.INNER_TAIL * len(train), abs=1)
    assert (made.label_end[fit] < made.dates[watch].min()).all()
    assert watch.min() - fit.max() - 1 >= max(embargo, horizon + 1)


def test_inner_splits_stay_inside_the_training_rows() -> None:
    made = calendar(1200, embargo=66)
    train = np.arange(900)
    found = splits.inner_walk_forward(made, train)
    assert len(found) == 3
    watched = np.concatenate([watch for _, watch in found])
    assert watched.tolist() == list(range(450, 900))
    for fit, watch in found:
        assert fit.max() < watch.min() - 66


def test_too_few_sessions_are_refused_with_the_arithmetic() -> None:
    with pytest.raises(DataRefused) as caught:
        splits.walk_forward(calendar(400, embargo=66), 6)
    assert caught.value.reason == "TooFewRows"
    for word in ("400 sessions", "68 to train", "fold 1 of 6", "embargo 66", "100"):
        assert word in caught.value.message
    with pytest.raises(DataRefused, match=r"12 to test|13 to test"):
        splits.walk_forward(calendar(900), 50)
