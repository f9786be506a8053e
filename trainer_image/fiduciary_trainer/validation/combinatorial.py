"""Combinatorial purged cross-validation: every choice of k of N folds is tested once (López de Prado 2018, ch. 12).

N folds of equal length in time give C(N, k) splits and C(N, k) k/N paths: each path predicts every fold once, by models
that never trained next to it. Paths share training rows, so they show how far results scatter, and prove nothing;
gates read the walk-forward. skfolio's ``CombinatorialPurgedCV`` purges a fixed number of rows; here a training row goes
when its label's interval touches that of a test row, whatever the calendar, and entities of one day stay together.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.outcome import BadContract, DataRefused
from fiduciary_trainer.splits import MIN_TEST_DAYS, MIN_TRAIN_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fiduciary_trainer.splits import Calendar

Ints = NDArray[np.int64]
MOST_SPLITS = 1_000


@dataclass(frozen=True)
class Split:
    """One choice of test folds.

    Attributes:
        tested: numbers of the test folds, ascending.
        train, test: rows; ``test`` in order of time.
        fold: of each test row.
    """

    tested: tuple[int, ...]
    train: Ints
    test: Ints
    fold: Ints


def count(folds: int, test_folds: int) -> tuple[int, int]:
    """Splits and paths: (15, 5) for 6 folds of which 2 are tested.

    Raises:
        BadContract: more than :data:`MOST_SPLITS`.
    """
    splits = comb(folds, test_folds)
    if splits > MOST_SPLITS:
        raise BadContract(
            "TooManySplits",
            f"training.validation asks for {splits:,} splits ({test_folds} of {folds} folds); each is a training, "
            f"and at most {MOST_SPLITS:,} are allowed: use fewer folds, or testFolds 2",
        )
    return splits, splits * test_folds // folds


def splits(calendar: Calendar, folds: int, test_folds: int) -> list[Split]:
    """Every split, in the order of ``itertools.combinations``.

    Training rows before a test stretch end as those of the walk-forward do: labels known, ``purge`` more left out, at
    least ``embargo`` sessions between. Training rows after it begin when the last test label is known and ``embargo``
    sessions are over, since their features look back.

    Raises:
        DataRefused: a split has too few sessions to train or to test on.
    """
    total = len(calendar.days)
    edges = np.linspace(0, total, folds + 1).astype(int)
    fold_of_day = np.searchsorted(edges[1:], np.arange(total), side="right")
    allowed = [_allowed(calendar, int(edges[fold]), int(edges[fold + 1])) for fold in range(folds)]
    result: list[Split] = []
    every = np.arange(len(calendar.dates))
    for tested in combinations(range(folds), test_folds):
        free = np.ones(total, dtype=bool)
        for fold in tested:
            free &= allowed[fold]
        if int(free.sum()) < MIN_TRAIN_DAYS or total // folds < MIN_TEST_DAYS:
            raise DataRefused(
                "TooFewRows",
                f"{total} sessions in {folds} folds of which {test_folds} are tested leave {int(free.sum())} to train "
                f"and {total // folds} a fold to test (embargo {calendar.embargo}); at least {MIN_TRAIN_DAYS} and "
                f"{MIN_TEST_DAYS} are needed; use a longer history or fewer folds",
            )
        fold = fold_of_day[calendar.day]
        test = every[np.isin(fold, tested)]
        result.append(Split(tested, every[free[calendar.day]], test, fold[test]))
    return result


def _allowed(calendar: Calendar, first: int, end: int) -> NDArray[np.bool_]:
    """Sessions that may train while sessions ``first`` to ``end`` (excluded) are tested."""
    free = np.zeros(len(calendar.days), dtype=bool)
    every = np.arange(len(calendar.dates))
    free[calendar.day[calendar.before(first, every)]] = True
    inside = (calendar.day >= first) & (calendar.day < end)
    known = calendar.label_end[inside].max()
    after = np.searchsorted(calendar.days, known, side="left") + calendar.purge
    free[max(int(after), end + calendar.embargo) :] = True
    return free


def paths(made: list[Split], folds: int, test_folds: int) -> Iterator[list[tuple[int, int]]]:
    """Each path as (split, fold) pairs in order of the folds: the j-th path takes each fold from the j-th split that
    tests it."""
    testing = [[number for number, split in enumerate(made) if fold in split.tested] for fold in range(folds)]
    for path in range(count(folds, test_folds)[1]):
        yield [(testing[fold][path], fold) for fold in range(folds)]
