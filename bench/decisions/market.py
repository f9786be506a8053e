"""Real sessions: next-day volatility of the S&P 500, HAR against a ridge regression, walk-forward.

Data: ``arch/data/sp500`` inside the wheel of ``arch`` (Kevin Sheppard, NCSA licence), whose hash is locked in
trainer_image/requirements-datasets.txt. Only the file is read; arch is not imported, so nothing of it is installed.
Loss: squared error of the logarithm of Garman–Klass volatility (Garman & Klass 1980, Journal of Business 53).
Procedure of facts/drift-and-validation.md F: six expanding folds over the last two thirds, embargo 66 days.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bench.decisions.proportions import Floats

FOLDS, EMBARGO, UNTIL = 6, 66, date(2017, 12, 29)
LOCK = Path(__file__).resolve().parents[2] / "trainer_image/requirements-datasets.txt"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fiduciary/datasets"


def sp500_csv() -> bytes:
    """The data file, from the cache or from the locked wheel (one download of 1 MB, hash checked by pip)."""
    kept = CACHE / "sp500.csv"
    if not kept.exists():
        entry = re.search(r"(?m)^arch==[^\n]*\n(?: +--hash[^\n]*\n?)*", LOCK.read_text())
        if entry is None:
            raise SystemExit(f"{LOCK} does not lock arch, whose data file the market cells need")
        with tempfile.TemporaryDirectory() as folder:
            lock = Path(folder) / "arch.txt"
            lock.write_text(entry.group())
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*command, "--require-hashes", "-r", str(lock), "-d", folder], check=True)
            with zipfile.ZipFile(next(Path(folder).glob("arch-*.whl"))) as wheel:
                content = gzip.decompress(wheel.read("arch/data/sp500/sp500.csv.gz"))
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(content)
        unfinished.rename(kept)
    return kept.read_bytes()


@dataclass(frozen=True, slots=True)
class Prices:
    """Days of one index, oldest first."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    @classmethod
    def of_csv(cls, content: bytes, until: date = UNTIL) -> Prices:
        """Rows up to and with ``until``; dates are written month/day/year."""
        rows = [row for row in csv.DictReader(io.StringIO(content.decode())) if _day(row["Date"]) <= until]
        columns = ("Open", "High", "Low", "Close", "Volume")
        return cls(*(np.array([float(row[column]) for row in rows]) for column in columns))


def _day(text: str) -> date:
    month, day, year = (int(part) for part in text.split("/"))
    return date(year, month, day)


def log_volatility(prices: Prices) -> Floats:
    """½ ln of the Garman–Klass variance of each day."""
    span, move = np.log(prices.high / prices.low), np.log(prices.close / prices.open)
    variance = 0.5 * span**2 - (2.0 * math.log(2.0) - 1.0) * move**2
    return 0.5 * np.log(np.maximum(variance, 1e-8))


def _trailing(values: Floats, days: int) -> Floats:
    """Mean of the last ``days`` values, NaN before there are so many."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means = np.full(values.size, np.nan)
    means[days - 1 :] = (sums[days:] - sums[:-days]) / days
    return means


def features(prices: Prices) -> tuple[Floats, Floats]:
    """HAR terms (day, week, month; Corsi 2009) and the wider set of facts F; shape (days, columns) each."""
    volatility = log_volatility(prices)
    har = np.column_stack([volatility, _trailing(volatility, 5), _trailing(volatility, 22)])
    returns = np.concatenate([[0.0], np.diff(np.log(prices.close))])
    gap = np.concatenate([[0.0], np.log(prices.open[1:] / prices.close[:-1])])
    scale = np.exp(volatility)
    wide = [har, _trailing(volatility, 66)[:, None]]
    for days in (1, 5, 22):
        mean = _trailing(returns, days) * days
        wide += [(mean / scale)[:, None], np.abs(mean)[:, None], np.minimum(mean, 0.0)[:, None]]
    volume = np.log(np.maximum(prices.volume, 1.0))
    rest = [gap, np.abs(gap), np.log(prices.high / prices.low), volume - _trailing(volume, 22)]
    return har, np.column_stack([*wide, *(column[:, None] for column in rest)])


@dataclass(frozen=True, slots=True)
class Sessions:
    """Walk-forward test days: outcome and both forecasts of log volatility."""

    outcome: Floats
    har: Floats
    linear: Floats


def walk_forward(prices: Prices, ridge: float = 1.0) -> Sessions:
    """Both procedures, refitted before each fold on all days that end ``EMBARGO`` days before it."""
    target = np.concatenate([log_volatility(prices)[1:], [np.nan]])
    har, wide = features(prices)
    known = ~np.isnan(wide).any(axis=1) & ~np.isnan(target)
    har, wide, target = har[known], wide[known], target[known]
    start = target.size // 3
    edges = np.linspace(start, target.size, FOLDS + 1).astype(int)
    forecasts: list[tuple[Floats, Floats]] = []
    for first, last in pairwise(edges.tolist()):
        train = slice(0, first - EMBARGO)
        pair = []
        for columns, penalty in ((har, 0.0), (wide, ridge)):
            centre, spread = columns[train].mean(axis=0), columns[train].std(axis=0)
            scores = np.clip((columns - centre) / spread, -4.0, 4.0) if penalty else (columns - centre) / spread
            level = target[train].mean()
            gram = scores[train].T @ scores[train] + penalty * np.eye(scores.shape[1])
            weights = np.linalg.solve(gram, scores[train].T @ (target[train] - level))
            pair.append(level + scores[first:last] @ weights)
        forecasts.append((pair[0], pair[1]))
    return Sessions(
        target[start:], np.concatenate([a for a, _ in forecasts]), np.concatenate([b for _, b in forecasts])
    )


def differences(sessions: Sessions, champion: Floats, challenger: Floats) -> Floats:
    """Champion's loss less challenger's, a session each: positive is better for the challenger."""
    return (sessions.outcome - champion) ** 2 - (sessions.outcome - challenger) ** 2


def resampled(values: Floats, replications: int, rng: np.random.Generator, mean_block: float = 63.0) -> Floats:
    """Stationary bootstrap (Politis & Romano 1994, JASA 89): other histories with the same local dependence.

    Returns shape (replications, sessions).
    """
    n = values.size
    jumps = rng.random((replications, n)) < 1.0 / mean_block
    jumps[:, 0] = True
    origin = np.where(jumps, rng.integers(0, n, (replications, n)), 0)
    position = np.arange(n)
    last_jump = np.maximum.accumulate(np.where(jumps, position, 0), axis=1)
    begun = np.take_along_axis(origin, last_jump, axis=1)
    return values[(begun + position - last_jump) % n]


@lru_cache(maxsize=1)
def _walked() -> Sessions:
    return walk_forward(Prices.of_csv(sp500_csv()))


def _advantage() -> Floats:
    """Of linear over HAR, in sd."""
    walked = _walked()
    values = differences(walked, walked.har, walked.linear)
    return values / values.std()


def as_it_happened(rng: np.random.Generator, replications: int, sessions: int) -> Floats:
    """The one history there is."""
    return np.broadcast_to(_advantage(), (replications, _advantage().size)).copy()


def har_to_linear(rng: np.random.Generator, replications: int, sessions: int) -> Floats:
    """Histories put together from its blocks."""
    return resampled(_advantage(), replications, rng)


def centred(rng: np.random.Generator, replications: int, sessions: int) -> Floats:
    """The same with mean 0: what the data's own tails, regimes and dependence do to a challenger that is no better."""
    return resampled(_advantage() - _advantage().mean(), replications, rng)


def noisy_copy(rng: np.random.Generator, replications: int, sessions: int) -> Floats:
    """Linear against itself plus noise of a tenth of its error's size: worse by a hundredth of the loss."""
    walked = _walked()
    error = walked.outcome - walked.linear
    noise = 0.1 * error.std() * rng.standard_normal((replications, error.size))
    values = error**2 - (error - noise) ** 2
    return values / values.std()
