"""Paper trading agrees with the trainer's rule, and its drawdown is an amount."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiduciary_outcomes.definition import Paper
from fiduciary_outcomes.paper import Book, says_up
from fiduciary_trainer.measure import pnl
from tests.outcomes.worlds import PATIENT

signals = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=12)


@PATIENT
@given(signals, st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_same_sessions_earn_what_they_earn_in_the_trainer(up: list[list[bool]], horizon: int, seed: int) -> None:
    days, names = len(up), ["A", "B", "C"]
    returns = np.random.default_rng(seed).normal(0.0, 0.02, (days, 3))
    rows: Any = SimpleNamespace(
        entity=np.tile(names, days),
        days=np.arange(days),
        day_index=np.repeat(np.arange(days), 3),
        returns=returns.ravel(),
    )
    expected = pnl.profit_and_loss(rows, np.array(up).ravel(), 5.0, horizon)
    book = Book()
    for day in range(days):
        rising = frozenset(name for name, yes in zip(names, up[day], strict=True) if yes)
        before = book.pnl
        book, profit = book.traded(
            Paper(1000.0, 5e-4), horizon, rising, dict(zip(names, returns[day].tolist(), strict=True))
        )
        assert profit == pytest.approx(1000.0 * expected.net[day], abs=1e-9)
        assert book.pnl == before + profit
        book = Book.decode(json.loads(json.dumps(book.encode())))
    assert book.turnover == pytest.approx(float(expected.turnover.sum()))
    value = np.concatenate([[0.0], np.cumsum(1000.0 * expected.net)])
    peaks = np.maximum.accumulate(value)
    assert book.drawdown == pytest.approx(float((peaks - value)[-1]), abs=1e-9)
    assert book.worst == pytest.approx(float((peaks - value).max()), abs=1e-9)


def test_a_session_that_was_not_observed_changes_nothing() -> None:
    book, _ = Book().traded(Paper(1000.0, 0.0), 1, frozenset({"A"}), {"A": 0.01})
    assert book.traded(Paper(1000.0, 0.0), 1, frozenset(), {}) == (book, 0.0)


@pytest.mark.parametrize(("label", "value", "up"), [("Direction", 0.5, False), ("Direction", 0.51, True),
                                                   ("Return", 0.0, False), ("Return", 1e-9, True)])  # fmt: skip
def test_what_says_up(label: Any, value: float, up: bool) -> None:
    assert says_up(label, value) is up
