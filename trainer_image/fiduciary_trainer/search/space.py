"""``training.search`` of the job document: which values may be tried, checked before any data is read."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from fiduciary_trainer.models.hyperparameters import check, settings
from fiduciary_trainer.outcome import BadContract

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary_trainer.models.hyperparameters import Settings

Configuration = dict[str, int | str]
"""Values by name, as a person would write them in ``training.hyperparameters``."""

SAMPLERS = ("TPE", "Random", "Grid")
PRUNERS = ("Median", "None")
DIGITS = 4
"""Significant digits of a decimal that is tried: what a person can repeat."""
LARGEST = ("window", "epochs", "members")
"""Where these are searched, rows are prepared and progress is counted for the largest value."""


@dataclass(frozen=True)
class Dimension:
    """Values of one hyperparameter: integers or decimals from ``low`` to ``high``, or ``words``."""

    name: str
    integer: bool = False
    low: Decimal = Decimal(0)
    high: Decimal = Decimal(0)
    log: bool = False
    words: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[int | str, ...]:
        """What must be valid for everything between to be."""
        return self.words or (self.written(float(self.low)), self.written(float(self.high)))

    def written(self, value: float | str) -> int | str:
        """A drawn value as a person would write it, never outside the range."""
        if isinstance(value, str):
            return value
        if self.integer:
            return int(value)
        rounded = Decimal(f"{value:.{DIGITS}g}")
        return str(min(max(rounded, self.low), self.high))

    def levels(self, count: int) -> list[int | str]:
        """At most ``count`` values, evenly spaced, both ends among them; every word, however many."""
        if self.words:
            return list(self.words)
        low, high = float(self.low), float(self.high)
        spaced = np.geomspace(low, high, count) if self.log else np.linspace(low, high, count)
        values = [self.written(round(value) if self.integer else value) for value in spaced.tolist()]
        return list(dict.fromkeys([self.ends[0], *values[1:-1], self.ends[1]]))


@dataclass(frozen=True)
class Search:
    """The search of a job.

    Attributes:
        trials: how many configurations each search tries; of a grid, how many it has.
        parallelism: trials of one generation: each knows the results of the generations before, whoever carries it out.
        sampler, pruner: of :data:`SAMPLERS`, :data:`PRUNERS`.
        space: what is searched.
        architecture: of the model.
        fixed: hyperparameters that are not searched, as given.
    """

    trials: int
    parallelism: int
    sampler: str
    pruner: str
    space: tuple[Dimension, ...]
    architecture: str
    fixed: Mapping[str, Any]

    def settings(self, configuration: Configuration) -> Settings:
        """Of the architecture. Raises :class:`BadContract`: the values do not go together."""
        return settings(self.architecture, {**self.fixed, **configuration})

    @property
    def widest(self) -> Settings:
        """What the rows of all trials are prepared for: defaults, the largest values of :data:`LARGEST`, and the most
        architectures."""
        largest = {
            dimension.name: max(int(end) for end in dimension.ends)
            for dimension in self.space
            if dimension.name in LARGEST
        }
        made = settings(self.architecture, {**self.fixed, **largest}, together=False)
        for dimension in self.space:
            if dimension.name == "architectures":
                # The default has three parts, one of which reads windows, as one of every longer list does.
                words = (str(made["architectures"]), *dimension.words)
                made["architectures"] = max(words, key=lambda word: word.count("+"))
        return made

    @property
    def grid(self) -> list[Configuration]:
        """Every combination of levels, in the order of ``itertools.product``: as many levels of each range as
        :attr:`trials` has room for."""
        count = _levels(self.space, self.trials)
        return [
            dict(zip([dimension.name for dimension in self.space], values, strict=True))
            for values in product(*(dimension.levels(count) for dimension in self.space))
        ]


def parse(node: Any, architecture: str, fixed: Mapping[str, Any]) -> Search:
    """Check ``training.search``, a node of :mod:`fiduciary_trainer.contract`.

    Raises:
        BadContract: what was seen, what is expected.
    """
    space = node.child("space")
    if not space.value:
        raise node.wrong("space", "at least one hyperparameter")
    dimensions = tuple(_dimension(space.child(name), name) for name in sorted(space.value))
    for dimension in dimensions:
        if dimension.name in fixed:
            raise BadContract(
                "SearchedAndSet",
                f"training.hyperparameters sets {dimension.name} and training.search.space searches it; keep one",
            )
        for end in dimension.ends:
            check(architecture, dimension.name, end, where="training.search.space")
    trials = node.get("trials", int, default=20, low=1, high=1000)
    sampler = node.choice("sampler", SAMPLERS, default="TPE")
    search = Search(
        trials=trials,
        parallelism=node.get("parallelism", int, default=1, low=1, high=64),
        sampler=sampler,
        pruner=node.choice("pruner", PRUNERS, default="Median"),
        space=dimensions,
        architecture=architecture,
        fixed=dict(fixed),
    )
    if sampler != "Grid":
        return search
    smallest = int(np.prod([len(dimension.levels(2)) for dimension in dimensions]))
    if smallest > trials:
        raise BadContract(
            "GridTooLarge",
            f"training.search.trials is {trials}, and the smallest grid of the space (both ends of each range, every "
            f"word) has {smallest} combinations; raise trials, search fewer hyperparameters or use sampler TPE",
        )
    return Search(**{**vars(search), "trials": len(search.grid)})


def _levels(space: Sequence[Dimension], trials: int) -> int:
    """The most levels of a range with which the grid still fits into ``trials``."""
    count = 2
    while any(not dimension.words for dimension in space) and count < trials:
        more = [dimension.levels(count + 1) for dimension in space]
        if int(np.prod([len(values) for values in more])) > trials:
            break
        count += 1
    return count


def _dimension(node: Any, name: str) -> Dimension:
    kinds = [kind for kind in ("int", "decimal", "choice") if node.value.get(kind) is not None]
    if len(kinds) != 1:
        raise node.wrong("", "exactly one of int: [low, high], decimal: [low, high] and choice: [...]")
    kind = kinds[0]
    values = node.get(kind, list)
    log = node.value.get("log") is True
    if kind == "choice":
        if len(values) < 2 or not all(isinstance(value, str) and value for value in values) or log:
            raise node.wrong(kind, "at least two texts, without log")
        return Dimension(name, words=tuple(dict.fromkeys(values)))
    integer = kind == "int"
    expected = "[low, high] with low < high" + (", integers" if integer else ", decimals in quotes")
    if len(values) != 2 or not all(isinstance(value, int if integer else str) for value in values):
        raise node.wrong(kind, expected)
    try:
        low, high = (Decimal(value) for value in values)
    except InvalidOperation:
        raise node.wrong(kind, expected) from None
    if not (low.is_finite() and high.is_finite() and low < high) or (log and low <= 0):
        raise node.wrong(kind, expected + (" and, with log, low above 0" if log else ""))
    return Dimension(name, integer=integer, low=low, high=high, log=log)
