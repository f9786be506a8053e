"""Which rows train and which rows test, by time, for one instrument or many.

All gaps are counted in sessions (distinct decision times of the data), so that a panel's rows of one day stay
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.outcome import DataRefused

Ints = NDArray[np.int64]
Times = NDArray[np.datetime64]

MIN_TRAIN_DAYS = 100
MIN_TEST_DAYS = 20
INNER_TAIL = 0.15
"""Share of the training sessions, the latest, that early stopping watches."""


@dataclass(frozen=True)
class Calendar:
    """Decision times of the rows, and how far apart training and testing must be.

    Attributes:
        dates, label_end: of each row, ascending in ``dates``.
        days: distinct decision times, ascending.
        day: position of each row's time in ``days``.
        purge: sessions left out beyond those whose labels overlap what follows.
        embargo: sessions left out before what follows.
    """

    dates: Times
    label_end: Times
    days: Times
    day: Ints
    purge: int
    embargo: int

    @classmethod
    def of(cls, dates: Times, label_end: Times, purge: int, embargo: int) -> Calendar:
        days, day = np.unique(dates, return_inverse=True)
        return cls(dates, label_end, days, day.astype(np.int64), purge, embargo)

    def before(self, first: int, rows: Ints) -> Ints:
        """Those of ``rows`` that may train what is tested from session ``first`` on.

        Their labels end before that session's decision, ``purge`` more sessions are left out, and ``embargo`` sessions
        lie between in any case.
        """
        overlaps = self.label_end >= self.days[first]
        first_overlap = int(self.day[overlaps].min()) if bool(overlaps.any()) else first
        end = min(first_overlap - self.purge, first - self.embargo)
        return rows[self.day[rows] < end]


def stretch_bounds(days: Times, folds: int) -> Times:
    """``(folds + 1,)`` the first session of each test stretch, and a moment after the last session: ``folds`` equal
    stretches of the last two thirds of ``days``."""
    total = len(days)
    edges = np.linspace(total - 2 * total // 3, total, folds + 1).astype(int)
    return np.append(days[edges[:-1]], days[-1:] + np.timedelta64(1, "ns"))


def walk_forward(
    calendar: Calendar, folds: int, window: int | None = None, bounds: Times | None = None
) -> list[tuple[Ints, Ints]]:
    """Training rows and the test rows that follow.

    Args:
        calendar: of the rows.
        folds: how many test stretches.
        window: sessions that train at most, the latest (rolling); None: all before (expanding).
        bounds: where the test stretches begin and end; None: :func:`stretch_bounds` of the calendar's own sessions.

    Raises:
        DataRefused: a fold would have too few sessions to train or to test on.
    """
    total = len(calendar.days)
    if bounds is None:
        bounds = stretch_bounds(calendar.days, folds)
    edges = np.searchsorted(calendar.days, bounds)
    every = np.arange(len(calendar.dates))
    result: list[tuple[Ints, Ints]] = []
    for first, end in pairwise(edges):
        train = calendar.before(int(first), every)
        if window is not None and len(train):
            train = train[calendar.day[train] > calendar.day[train].max() - window]
        test = every[(calendar.day >= first) & (calendar.day < end)]
        train_days = len(np.unique(calendar.day[train]))
        if train_days < MIN_TRAIN_DAYS or end - first < MIN_TEST_DAYS:
            raise DataRefused(
                "TooFewRows",
                f"{total} sessions with features and labels leave {train_days} to train and {end - first} to test fold "
                f"{len(result) + 1} of {folds} (embargo {calendar.embargo}); at least {MIN_TRAIN_DAYS} and "
                f"{MIN_TEST_DAYS} are needed; use a longer history, fewer folds or features with a shorter lookback",
            )
        result.append((train, test))
    return result


def inner_tail(calendar: Calendar, train: Ints) -> tuple[Ints, Ints]:
    """Split training rows for early stopping: (fit on these, watch those).

    The tail is purged on both sides: here from what is fitted on, and from the test rows by the outer split.
    """
    days = np.unique(calendar.day[train])
    first = int(days[len(days) - max(int(INNER_TAIL * len(days)), 1)])
    return calendar.before(first, train), train[calendar.day[train] >= first]


def inner_walk_forward(calendar: Calendar, train: Ints, folds: int = 3) -> list[tuple[Ints, Ints]]:
    """Expanding splits inside the training rows, over their second half, to choose a penalty.

    Splits whose training part is empty after purging are left out; there may be none.
    """
    days = np.unique(calendar.day[train])
    edges = np.linspace(len(days) // 2, len(days), folds + 1).astype(int)
    result: list[tuple[Ints, Ints]] = []
    for begin, end in pairwise(edges):
        first, last = int(days[begin]), int(days[end - 1])
        inside = calendar.day[train]
        fit, watch = calendar.before(first, train), train[(inside >= first) & (inside <= last)]
        if len(fit) >= MIN_TRAIN_DAYS and len(watch):
            result.append((fit, watch))
    return result
