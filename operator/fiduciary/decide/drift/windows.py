"""Closing windows: from the raw counts at the last edge and the readings since, one window after the other.

Windows of rows end where the version's counter of rows passes a multiple of the window's: each (entity, time) is
counted once, so that rows per entity are the exchange's sessions, holidays and half days included, and a market that is
replayed in minutes has the same windows. Windows of a length end on the wall clock. Either way their edges do not
depend on when somebody looks, and a gap is one merged window that is not judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import sub
from typing import TYPE_CHECKING

from fiduciary.decide.drift.state import FeatureCounts, Reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fiduciary.decide.drift.calibrate import Grid

NOTHING = Reading(at=-1, rows=0)
"""Counters begin at 0 and outlive every restart, so that a version's first window begins with its first row."""


@dataclass(frozen=True, slots=True)
class Window:
    """What was counted between two edges. ``why``: it cannot be judged; empty: it can.

    ``first`` … ``last``: more than one where a gap was merged. ``end``: the reading that closed it.
    """

    first: int
    last: int
    rows: int
    end: Reading
    features: tuple[FeatureCounts, ...] = ()
    prediction: tuple[int, ...] = ()
    joint: tuple[int, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """Where the next window begins. ``reading`` None: nowhere yet; ``window``: number of the one that ends there."""

    reading: Reading | None
    window: int


def windows(grid: Grid, edge: Edge, readings: Sequence[Reading]) -> Iterator[Window | Edge]:
    """Every window that ``readings`` close, oldest first. An edge alone moves the beginning and closes nothing."""
    for reading in readings:
        if edge.reading is not None and reading.at <= edge.reading.at:
            continue  # folded before
        step = _of_length(grid, edge, reading) if grid.length else _of_rows(grid, edge, reading)
        if step is None:
            continue
        yield step
        edge = step if isinstance(step, Edge) else Edge(reading, step.last)


def due(grid: Grid, edge: Edge, rows: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Times (ms) whose readings close windows, from samples (time, value) of the counter of rows alone.

    For windows of rows: whoever gathers asks for all counters at these times, and at no other.
    """
    found: list[int] = []
    for at, value in rows:
        bare = Reading(at, value)
        for step in windows(grid, edge, (bare,)):
            edge = step if isinstance(step, Edge) else Edge(bare, step.last)
            found.append(at)
    return tuple(found)


def edges_between(grid: Grid, after: int, until: int) -> tuple[int, ...]:
    """Wall-clock edges (ms) of windows of a length in (``after``, ``until``], at most 1,000, oldest first."""
    first = after // grid.length + 1
    return tuple(number * grid.length for number in range(first, min(until // grid.length, first + 999) + 1))


def _of_rows(grid: Grid, edge: Edge, reading: Reading) -> Window | Edge | None:
    if edge.reading is None:
        return _first(grid, edge, reading)
    begin = edge.reading
    if reading.rows < begin.rows:
        return Edge(Reading(reading.at, 0), -1)  # the scorer's store was lost: its counters began at 0 again
    if reading.rows < (edge.window + 2) * grid.rows:
        return None
    return _window(grid, edge.window, begin, reading, reading.rows // grid.rows - 1)


def _first(grid: Grid, edge: Edge, reading: Reading) -> Window | Edge | None:
    """A version whose rows were read from the first one on has its first window then. One that was seen later begins
    with the next whole window: ``edge.window`` is the one in which it was seen."""
    number = reading.rows // grid.rows - 1
    if edge.window >= 0:
        return Edge(reading, number) if number > edge.window else None
    if number >= 1:
        return Edge(None, number)
    return _window(grid, -1, NOTHING, reading, number) if number >= 0 else None


def _of_length(grid: Grid, edge: Edge, reading: Reading) -> Window | Edge | None:
    if reading.at % grid.length:
        return None
    number = reading.at // grid.length - 1
    if edge.reading is None or reading.rows < edge.reading.rows:
        return Edge(reading, number)
    return _window(grid, edge.window, edge.reading, reading, number)


def _window(grid: Grid, before: int, begin: Reading, end: Reading, number: int) -> Window:
    rows = end.rows - begin.rows
    before_it = {its.name: its for its in begin.features}
    features = tuple([_difference(its, before_it.get(its.name)) for its in end.features])
    prediction, joint = _bins(end.prediction, begin.prediction), _bins(end.joint, begin.joint)
    fell = any(min((*its.bins, its.missing), default=0) < 0 for its in features)
    most = max([sum(its.bins) + its.missing for its in features], default=0)
    why = (
        "a counter fell: the counts of this window are not whole"
        if fell or min((*prediction, *joint), default=0) < 0
        else f"a feature counts {most} of {rows} rows: the counts of this window are not whole"
        if max(most, sum(prediction), sum(joint)) > rows
        else f"no counts at the ends of {number - before} windows in a row: they are one, and it is not judged"
        if number > before + 1
        else f"{rows} rows, at least {grid.least} are needed"
        if rows < grid.least
        else f"{rows} rows, at most {grid.most} can be compared with a reference block of {grid.rows}"
        if rows > grid.most
        else ""
    )
    return Window(before + 1, number, rows, end, features, prediction, joint, why)


def _difference(its: FeatureCounts, before: FeatureCounts | None) -> FeatureCounts:
    if before is None:
        return its
    return FeatureCounts(its.name, _bins(its.bins, before.bins), its.missing - before.missing)


def _bins(now: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    if not before or len(before) != len(now):
        return now
    return tuple(map(sub, now, before))
