"""Play the cells, print the tables, write bench/results/decisions.json, and draw the pictures of docs/benchmarks.md.

make bench-decisions                                   # everything, 10,000 replications a cell
make bench-decisions REPLICATIONS=500 CELLS=errors,cv  # cells whose names begin so, quickly
make bench-decisions PUBLISH=1                         # also the tables and pictures of the documentation
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench import results
from bench.decisions import plots, report, sweep
from bench.decisions.cells import ALL, LIVES, OUTCOMES, REQUESTS, Cell
from bench.decisions.experiments import RULES, Piece, pieces
from bench.decisions.outcome import Outcomes
from bench.decisions.score import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAGE = Path(__file__).resolve().parents[2] / "docs/benchmarks.md"
FAMILIES = {"requests": REQUESTS, "outcomes": OUTCOMES, "lives": LIVES}


def run(cells: Sequence[Cell], replications: int, processes: int) -> list[Row]:
    """All rules in all cells; rows in the order of the cells."""
    work = [piece for cell in cells for piece in pieces(cell, replications)]
    work.sort(key=lambda piece: -piece.cost)
    missing = defaultdict(int)
    for piece in work:
        missing[piece.cell.name] += 1
    parts: dict[tuple[str, str], dict[int, Outcomes]] = defaultdict(dict)
    started, done = time.monotonic(), 0.0
    whole = sum(piece.cost for piece in work)
    told = [(piece.cell.name, piece.rule, piece.chunk, piece.size) for piece in work]
    for index, outcome in _parallel(_piece, told, processes):
        piece = work[index]
        parts[piece.cell.name, piece.rule][piece.chunk] = outcome
        missing[piece.cell.name] -= 1
        done += piece.cost
        if not missing[piece.cell.name]:
            left = sum(count > 0 for count in missing.values())
            spent = time.monotonic() - started
            results.progress(
                f"{spent:5.0f} s  {100 * done / whole:3.0f} %  {piece.cell.title} "
                f"({left} cell{'' if left == 1 else 's'} left)"
            )
    family = {cell.name: name for name, members in FAMILIES.items() for cell in members}
    return [
        Row.of(cell, family[cell.name], rule, Outcomes.joined([part for _, part in sorted(mine.items())]))
        for cell in cells
        for rule in RULES
        if (mine := parts[cell.name, rule])
    ]


def _piece(arguments: tuple[int, tuple[str, str, int, int]]) -> tuple[int, Outcomes]:
    """In another process: worlds hold functions, which do not travel, so that cells go by name."""
    index, (name, *rest) = arguments
    return index, Piece(next(cell for cell in ALL if cell.name == name), *rest).run()


def _point(arguments: tuple[int, tuple[int, int]]) -> tuple[int, sweep.Point]:
    index, (setting, replications) = arguments
    return index, sweep.point(setting, replications)


def _parallel(task, work: Sequence, processes: int) -> Iterable:  # type: ignore[no-untyped-def]
    """(index, answer) as they come. One process: in this one."""
    numbered = list(enumerate(work))
    if processes <= 1:
        yield from map(task, numbered)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(task, numbered)


def fronts(replications: int, processes: int) -> list[sweep.Point]:
    """All settings of all rules."""
    work = [(index, replications) for index in range(len(sweep.settings()))]
    found: list[sweep.Point | None] = [None] * len(work)
    started = time.monotonic()
    for count, (index, point) in enumerate(_parallel(_point, work, processes), start=1):
        found[index] = point
        if count % 20 == 0 or count == len(work):
            results.progress(f"{time.monotonic() - started:5.0f} s  {count} of {len(work)} settings")
    return [point for point in found if point is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=10_000, help="experiments a cell and rule")
    parser.add_argument("--cells", default="", help="comma-separated beginnings of names; default: all")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--sweep", type=int, default=2000, help="experiments a setting of the fronts; 0: none")
    parser.add_argument("--publish", action="store_true", help="renew tables and pictures of docs/benchmarks.md")
    options = parser.parse_args()
    beginnings = tuple(part for part in options.cells.split(",") if part)
    cells = [cell for cell in ALL if not beginnings or cell.name.startswith(beginnings)]
    if not cells:
        parser.error(f"no cell begins with {options.cells}; there are: {', '.join(cell.name for cell in ALL)}")
    started = time.monotonic()
    rows = run(cells, options.replications, options.processes)
    points = fronts(options.sweep, options.processes) if options.sweep and not beginnings else []
    numbers = report.figures(rows, time.monotonic() - started)
    show(rows)
    results.table("Figures", [{"figure": name, "value": value} for name, value in numbers.items()])
    for row in report.over_level(rows):
        print(f"ABOVE ITS LEVEL: {row.title}: {report.share(row.wrong or 0.0, row.replications)}")
    used = results.versions("numpy", "scipy")
    path = results.write("decisions", numbers, [*map(asdict, rows), *map(asdict, points)], used)
    print(f"\nwritten: {path}")
    if options.publish:
        PAGE.write_text(report.document(PAGE.read_text(encoding="utf-8"), rows, points), encoding="utf-8")
        plots.draw(rows, points)


def show(rows: Sequence[Row]) -> None:
    """P(wrong) of all rules, then our own numbers."""
    for family in FAMILIES:
        mine = [row for row in rows if row.family == family]
        lines = []
        for cell in dict.fromkeys(row.cell for row in mine):
            known = {row.rule: row for row in mine if row.cell == cell}
            one = next(iter(known.values()))
            wrong = {"good": "roll back", "bad": "promote", "neither": "–"}[one.truth]
            lines.append(
                {"cell": one.title, "wrong": wrong, "n": one.replications}
                | {report.TITLES[rule]: "" if (w := row.wrong) is None else f"{w:.4f}" for rule, row in known.items()}
            )
        results.table(f"P(wrong decision), {family}", lines)
        results.table(
            f"Fiduciary, {family}",
            [
                {
                    "cell": row.title,
                    "promoted": row.promoted,
                    "rolled back": row.rolled_back,
                    "kept": max(0.0, row.undecided),
                    "median": row.median,
                    "95 %": row.p95,
                    "excess bad": row.excess_bad,
                }
                for row in mine
                if row.rule == report.OURS
            ],
        )


if __name__ == "__main__":
    main()
