"""Plays pieces of cells in several processes, and tells how far it is."""

from __future__ import annotations

import multiprocessing
import time
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench import results
from bench.decisions import shelf, sweep
from bench.decisions.cells import ALL, FAMILIES, Cell
from bench.decisions.experiments import RULES, Piece, pieces
from bench.decisions.outcome import Outcomes
from bench.decisions.score import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.decisions.sweep import Point

Told = tuple[str, tuple[str, ...], int, int, Path]
"""A piece by names, since worlds hold functions, which do not travel to another process."""
SILENT = 15.0
"""Seconds after which progress is told although no cell has ended."""
W = TypeVar("W")
A = TypeVar("A")


def run(cells: Sequence[Cell], replications: int, processes: int, seconds: float) -> list[Row]:
    """All rules in all cells; rows in the order of the cells, whatever the order in which pieces end.

    Where ``seconds`` are over before everything is played, cells have fewer replications, as their rows say.
    """
    work = [piece for cell in cells for piece in pieces(cell, replications)]
    kept = shelf.folder()
    # what is known, everything a little, all of ours, whose levels are claimed, and then the rest of the others
    work.sort(
        key=lambda piece: (
            not shelf.holds(kept, _label(piece.cell.name, piece.rules, piece.chunk, piece.size)),
            min(piece.chunk, 2),
            RULES[0] not in piece.rules,
            piece.chunk,
            -piece.cost,
        )
    )
    missing: dict[str, int] = defaultdict(int)
    for piece in work:
        missing[piece.cell.name] += 1
    parts: dict[tuple[str, str], dict[int, Outcomes]] = defaultdict(dict)
    started, told_at, done, whole = time.monotonic(), 0.0, 0.0, sum(piece.cost for piece in work)
    told = [(piece.cell.name, piece.rules, piece.chunk, piece.size, kept) for piece in work]
    for index, outcomes in _parallel(_piece, told, processes, seconds):
        piece = work[index]
        for rule, outcome in outcomes.items():
            parts[piece.cell.name, rule][piece.chunk] = outcome
        missing[piece.cell.name] -= 1
        done += piece.cost
        left, spent = sum(count > 0 for count in missing.values()), time.monotonic() - started
        if not missing[piece.cell.name] or spent > told_at + SILENT:
            told_at = spent
            ended = "" if missing[piece.cell.name] else f"  {piece.cell.title}"
            results.progress(f"{spent:5.0f} s  {100 * done / whole:3.0f} %  cells left: {left}{ended}")
    family = {cell.name: name for name, members in FAMILIES.items() for cell in members}
    return [
        Row.of(cell, family[cell.name], rule, Outcomes.joined([part for _, part in sorted(mine.items())]))
        for cell in cells
        for rule in RULES
        if (mine := parts[cell.name, rule])
    ]


def fronts(replications: int, processes: int, seconds: float) -> list[Point]:
    """All settings of all rules."""
    kept = shelf.folder()
    work = [(index, replications, kept) for index in range(len(sweep.settings()))]
    found: dict[int, Point] = {}
    started = time.monotonic()
    for index, point in _parallel(_point, work, processes, seconds):
        found[index] = point
        if len(found) % 20 == 0 or len(found) == len(work):
            results.progress(f"{time.monotonic() - started:5.0f} s  {len(found)} of {len(work)} settings")
    return [point for _, point in sorted(found.items())]


def _piece(arguments: tuple[int, Told]) -> tuple[int, dict[str, Outcomes]]:
    index, (name, rules, chunk, size, kept) = arguments
    piece = Piece(next(cell for cell in ALL if cell.name == name), rules, chunk, size)
    return index, shelf.outcomes(kept, _label(name, rules, chunk, size), piece.run)


def _label(name: str, rules: tuple[str, ...], chunk: int, size: int) -> str:
    return f"{name}-{rules[0] if len(rules) == 1 else 'all'}-{chunk}-{size}"


def _point(arguments: tuple[int, tuple[int, int, Path]]) -> tuple[int, Point]:
    index, (setting, replications, kept) = arguments
    return index, shelf.point(kept, f"setting-{setting}-{replications}", lambda: sweep.point(setting, replications))


def _parallel(task: Callable[[tuple[int, W]], A], work: Sequence[W], processes: int, seconds: float) -> Iterator[A]:
    """Answers as they come; after ``seconds`` nothing new is begun. One process: in this one."""
    started, numbered = time.monotonic(), iter(list(enumerate(work)))
    if processes <= 1:
        for one in numbered:
            if time.monotonic() - started > seconds:
                return
            yield task(one)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(task, one) for one in islice(numbered, processes)}
        while waiting:
            ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            if time.monotonic() - started <= seconds:
                waiting |= {pool.submit(task, one) for one in islice(numbered, len(ended))}
            yield from (future.result() for future in ended)
