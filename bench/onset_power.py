"""How much the parts of the harm mixture that look for a late beginning must be blunted in a service with bursts.

``PYTHONPATH=operator:. python -m bench.onset_power``: size in a day of equal arms, and minutes to find 5 % errors that
begin after a day, for φ̂ from one and from seven days of the champion and for three powers of φ. About two minutes.
docs/statistics.md publishes the table; the power is ``fiduciary.evidence.harm.ONSET_POWER``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np

from bench.decisions import proportions
from bench.decisions.proportions import Block, Counts, Harm
from bench.decisions.scatter import Dispersion

if TYPE_CHECKING:
    from bench.decisions.proportions import Floats

DAY = 1440
RATE = 0.005
EACH = 150  # requests a minute and arm
POWERS = (1.0, 1.25, 1.5)
THRESHOLD = math.log(20.0)


def bursts(rng: np.random.Generator, blocks: int, runs: int, memory: float, cv: float) -> Floats:
    """Factors of the rate: a lognormal AR(1) with mean one. Shape (blocks, runs)."""
    variance = math.log(1.0 + cv * cv)
    log, out = rng.normal(size=runs), np.empty((blocks, runs))
    for k in range(blocks):
        log = memory * log + math.sqrt(1.0 - memory * memory) * rng.normal(size=runs)
        out[k] = np.exp(math.sqrt(variance) * log - 0.5 * variance)
    return out


def requests(rng: np.random.Generator, factor: Floats) -> Counts:
    """One minute of one arm in all runs."""
    trials = rng.poisson(EACH, factor.size)
    bad = rng.binomial(trials, np.minimum(1.0, RATE * factor))
    return Counts(trials.astype(float), bad.astype(float))


def crossings(
    seed: int, runs: int, memory: float, cv: float, days: int, *, times: float = 1.0, quiet: int = 0, blocks: int = DAY
) -> tuple[float, list[Floats]]:
    """(median φ̂, minutes to a false or true alarm per power; inf: none).

    Args:
        days: of the champion's history, for φ̂.
        times: factor of the challenger's rate after ``quiet`` minutes.
    """
    rng = np.random.default_rng(seed)
    history = days * DAY
    champion = bursts(rng, history + quiet + blocks, runs, memory, cv)
    challenger = bursts(rng, quiet + blocks, runs, memory, cv)
    scatter, seen = Dispersion.start(runs), Counts(np.zeros(runs), np.zeros(runs))
    for k in range(history):
        counts = requests(rng, champion[k])
        scatter, seen = scatter.fold(k, k, counts), seen + counts
    phi = scatter.estimate(1000)
    states = [Harm.start(seen, 30 * DAY) for _ in POWERS]
    found = [np.full(runs, np.inf) for _ in POWERS]
    for k in range(quiet + blocks):
        factor = challenger[k] * (times if k >= quiet else 1.0)
        block = Block(k, k, requests(rng, champion[history + k]), requests(rng, factor))
        for i, power in enumerate(POWERS):
            with mock.patch.object(proportions, "ONSET_POWER", power):
                states[i] = states[i].fold(block, phi)
            crossed = (states[i].log_e() >= THRESHOLD) & np.isinf(found[i])
            found[i] = np.where(crossed, k + 1.0 - quiet, found[i])
    return float(np.median(phi)), found


def main() -> None:
    print("| Bursts | φ̂ from | median φ̂ | " + " | ".join(f"φ^{power}" for power in POWERS) + " |")
    print("|---|---|---|" + "---|" * len(POWERS))
    for seed, (memory, cv) in enumerate([(0.9, 0.5), (0.9, 1.0), (0.97, 1.0), (0.9, 2.0)]):
        for days in (1, 7):
            phi, found = crossings(seed, 400, memory, cv, days)
            sizes = (float(np.isfinite(one).mean()) for one in found)
            cells = " | ".join(f"{size:.3f} ± {math.sqrt(max(size, 0.0025) * (1 - size) / 400):.3f}" for size in sizes)
            print(f"| size, cv {cv:g}, AR {memory:g} | {days} d | {phi:.1f} | {cells} |", flush=True)
    for days in (1, 7):
        phi, found = crossings(10, 200, 0.9, 1.0, days, times=10.0, quiet=DAY, blocks=300)
        cells = " | ".join(f"{np.median(one):.0f}" for one in found)
        print(f"| minutes to 5 % after a day, cv 1, AR 0.9 | {days} d | {phi:.1f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
