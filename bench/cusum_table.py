"""Writes operator/fiduciary/evidence/cusum_table.py: thresholds of a one-sided CUSUM of correlated normal scores.

Simulates AR(1) standard normal scores, follows the CUSUM with reference value k = .5 and no reset, and records when it
first exceeds each level; the expected run time at a level is total exposure over crossings (run times are nearly
exponential, so runs that end without a crossing count by their exposure). Progress goes to stderr.

    PYTHONPATH=operator:. python -m bench.cusum_table     # half a minute on one core, needs numpy
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

K = 0.5
CORRELATIONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
RUN_TIMES = (50, 100, 200, 500, 1000, 2160, 5000, 8640)
PATHS, STEPS, SEED = 20_000, 9000, 20260724
LEVELS = np.arange(1.0, 16.0, 0.05)
TARGET = Path(__file__).resolve().parents[1] / "operator/fiduciary/evidence/cusum_table.py"


def run_times(rho: float) -> np.ndarray:
    """Expected run time at each of LEVELS."""
    rng = np.random.default_rng([SEED, round(1000 * rho)])
    score = rng.standard_normal(PATHS, dtype=np.float32)
    cusum, top = np.zeros(PATHS, np.float32), np.zeros(PATHS, np.float32)
    passed = np.zeros(PATHS, np.int64)  # levels crossed so far, per path
    exposure, crossings = np.zeros(len(LEVELS)), np.zeros(len(LEVELS))
    innovation = np.float32(math.sqrt(1.0 - rho * rho))
    levels = LEVELS.astype(np.float32)
    for step in range(1, STEPS + 1):
        np.maximum(cusum + score - np.float32(K), 0.0, out=cusum)
        higher = np.flatnonzero(cusum > top)
        top[higher] = cusum[higher]
        now = np.searchsorted(levels, top[higher], side="left")
        for path, upto in zip(higher[now > passed[higher]], now[now > passed[higher]], strict=True):
            exposure[passed[path] : upto] += step
            crossings[passed[path] : upto] += 1
            passed[path] = upto
        score = np.float32(rho) * score + innovation * rng.standard_normal(PATHS, dtype=np.float32)
    exposure += STEPS * (PATHS - crossings)
    return exposure / np.maximum(crossings, 1.0)


def thresholds(rho: float) -> list[float]:
    """Level at each of RUN_TIMES: a straight line in ln(run time) between the two levels around it."""
    times = np.log(run_times(rho))
    return [round(float(np.interp(math.log(ert), times, LEVELS)), 3) for ert in RUN_TIMES]


def main() -> None:
    rows: list[str] = []
    for rho in CORRELATIONS:
        row = thresholds(rho)
        print(f"rho {rho:.2f}: {row}", file=sys.stderr, flush=True)
        rows.append(f"    ({', '.join(map(str, row))}),")
    TARGET.write_text(
        '"""Written by bench/cusum_table.py: thresholds of a CUSUM (k = .5) of AR(1) normal scores.\n\n'
        f"{PATHS} paths of {STEPS} windows per correlation, seed {SEED}; standard error of a threshold about .01.\n"
        'Not edited by hand.\n"""\n\nfrom __future__ import annotations\n\n'
        f"CORRELATIONS = {CORRELATIONS}\nRUN_TIMES = {tuple(map(float, RUN_TIMES))}\n"
        "THRESHOLDS = (\n" + "\n".join(rows) + "\n)\n"
        '"""One row per correlation, one column per expected run time in windows."""\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
