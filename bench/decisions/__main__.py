"""Play the cells, print the tables, write bench/results/decisions.json, and draw the pictures of docs/benchmarks.md.

make bench-decisions                                   # everything, 10,000 replications a cell
make bench-decisions REPLICATIONS=500 CELLS=errors,cv  # cells whose names begin so, quickly
make bench-decisions PUBLISH=1                         # also the tables and pictures of the documentation
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench import results
from bench.decisions import plots, report, runner
from bench.decisions.cells import ALL, FAMILIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.decisions.score import Row

PAGE = Path(__file__).resolve().parents[2] / "docs/benchmarks.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=10_000, help="experiments a cell and rule")
    parser.add_argument("--cells", default="", help="comma-separated beginnings of names; default: all")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--sweep", type=int, default=2000, help="experiments a setting of the fronts; 0: none")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing new after these")
    parser.add_argument("--publish", action="store_true", help="renew tables and pictures of docs/benchmarks.md")
    options = parser.parse_args()
    beginnings = tuple(part for part in options.cells.split(",") if part)
    cells = [cell for cell in ALL if not beginnings or cell.name.startswith(beginnings)]
    if not cells:
        parser.error(f"no cell begins with {options.cells}; there are: {', '.join(cell.name for cell in ALL)}")
    started = time.monotonic()
    points = []
    if options.sweep and not beginnings:
        points = runner.fronts(options.sweep, options.processes, options.seconds)
    left = options.seconds - (time.monotonic() - started)
    rows = runner.run(cells, options.replications, options.processes, left)
    numbers = report.figures(rows, time.monotonic() - started)
    show(rows)
    results.table("Figures", [{"figure": name, "value": value} for name, value in numbers.items()])
    for row in report.over_level(rows):
        print(f"ABOVE ITS LEVEL: {row.title}: {report.share(row.wrong or 0.0, row.replications)}")
    used = results.versions("numpy", "scipy")
    numbers = {name: value for name, value in numbers.items() if not math.isnan(value)}
    path = results.write("decisions", numbers, [*(row.known() for row in rows), *map(asdict, points)], used)
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
