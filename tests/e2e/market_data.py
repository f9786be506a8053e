"""Daily bars with volatility that can be predicted a little, and one file for each way in which data can be bad.

Runs inside the cluster (``python market_data.py FOLDER THROUGH``) on the trainer image, so it needs numpy only. The
process: log volatility follows daily, weekly and monthly means of itself, as in HAR; prices are a driftless walk of 32
steps a day with that volatility, so that high, low, open and close belong together. Everything is drawn from a seed:
the same arguments write the same bytes.
"""

from __future__ import annotations

import csv
import sys
from datetime import date
from pathlib import Path

import numpy as np

COLUMNS = ("date", "open", "high", "low", "close", "volume")
STEPS = 32  # prices within a day
Row = list[object]


def bars(rows: int, through: date, seed: int = 20171229) -> list[Row]:
    """``rows`` weekdays that end at or before ``through``, oldest first: date, open, high, low, close, volume."""
    draw = np.random.default_rng(seed)
    last = np.busday_offset(through, 0, roll="backward")
    days = np.busday_offset(last, np.arange(1 - rows, 1), roll="backward")
    level = np.log(0.01)
    log_sigma = np.full(rows + 22, level)
    for day in range(22, rows + 22):
        past = log_sigma[:day]
        mean = 0.35 * past[-1] + 0.35 * past[-5:].mean() + 0.25 * past[-22:].mean() + 0.05 * level
        log_sigma[day] = mean + 0.15 * draw.standard_normal()
    sigma = np.exp(log_sigma[22:])
    steps = draw.standard_normal((rows, STEPS)) * (sigma / np.sqrt(STEPS))[:, None]
    gaps = draw.standard_normal(rows) * sigma * 0.2
    written: list[Row] = []
    price = 100.0
    for day in range(rows):
        opened = price * np.exp(gaps[day])
        path = opened * np.exp(np.cumsum(steps[day]))
        price = float(path[-1])
        high, low = max(opened, path.max()), min(opened, path.min())
        volume = int(1e6 * np.exp(0.5 * (log_sigma[22 + day] - level) + 0.2 * draw.standard_normal()))
        written.append([str(days[day]), *(f"{x:.6f}" for x in (opened, high, low, price)), volume])
    return written


def garman_klass(rows: list[Row]) -> np.ndarray:
    """Log variance of each day, from its range and its body (Garman and Klass 1980)."""
    opened, high, low, close = (np.array([float(str(row[at])) for row in rows]) for at in (1, 2, 3, 4))
    return np.log(0.5 * np.log(high / low) ** 2 - (2 * np.log(2) - 1) * np.log(close / opened) ** 2)


def write(path: Path, rows: list[Row], columns: tuple[str, ...] = COLUMNS) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(rows)


def main(folder: Path, through: date) -> None:
    """Write ``good.csv`` and a file for each defect. All but ``stale`` reach ``through``."""
    folder.mkdir(parents=True, exist_ok=True)
    good = bars(1500, through)
    middle = len(good) // 2
    write(folder / "good.csv", good)
    write(folder / "missing.csv", [[*row[:4], "" if at % 5 == 0 else row[4], row[5]] for at, row in enumerate(good)])
    write(folder / "duplicates.csv", [*good[:middle], good[middle], *good[middle:]])
    write(folder / "unordered.csv", [*good[:middle], good[middle + 1], good[middle], *good[middle + 2 :]])
    write(folder / "stale.csv", good[:-60])
    write(folder / "few.csv", good[-300:])
    write(folder / "no-close.csv", [[*row[:4], row[5]] for row in good], ("date", "open", "high", "low", "volume"))
    write(folder / "negative.csv", [[*row[:3], f"-{row[3]}", *row[4:]] for row in good[:9]] + good[9:])
    write(folder / "constant.csv", [[row[0], *["100.000000"] * 4, 1000000] for row in good])
    # The trap: a column that looks like volume and is computed from tomorrow's outcome.
    tomorrow = np.append(garman_klass(good)[1:], garman_klass(good)[-1])
    write(
        folder / "leaked.csv", [[*row[:5], int(1e9 * np.exp(ahead))] for row, ahead in zip(good, tomorrow, strict=True)]
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), date.fromisoformat(sys.argv[2]))
