"""Gates that compare one number with a limit: what passes them, by the size of what they are there to find.

They are no tests of a hypothesis, so at their limit itself about half passes. What matters is how far from it a trap
lies, and how far everything honest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.gates import nulls, sizes
from fiduciary.decide import gates
from fiduciary_trainer import leakage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

TOLD = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
"""Share of a column's variance that is the next return; the rest is noise."""
HIT = (0.5, 0.6, 0.7, 0.8, 0.9)
"""How often a column tells the next direction."""
HORIZONS = (1, 5, 10, 20, 40)
"""Sessions that a label covers; 1,500 days hold 1,500 / horizon labels that do not overlap."""


def rows(seeds: int) -> Iterator[dict[str, object]]:
    """One line for each screen and size: how often it is accepted, over ``seeds`` seeds."""
    for told in TOLD:
        yield _line("leakage", f"column with {told:.0%} of the next return", seeds, _told(told, seeds))
    for hit in HIT:
        yield _line("leakage", f"column that tells the next direction in {hit:.0%}", seeds, _hits(hit, seeds))
    for horizon in HORIZONS:
        yield _line("effective_rows", f"{nulls.DAYS} days, labels of {horizon}", seeds, _overlapping(horizon, seeds))
    yield _line("degenerate", "always up, by a lean that never crosses one half", seeds, _always_up(seeds))
    yield _line("degenerate", "a constant for each fold", seeds, _constant(seeds))


def _line(gate: str, what: str, seeds: int, accepted: float) -> dict[str, object]:
    return {"gate": gate, "what": what, "seeds": seeds, "accepted": accepted}


def _score(column: Floats, target: Floats) -> float:
    days = np.datetime64("2005-01-03", "ns") + np.arange(len(target) + 1) * np.timedelta64(1, "D")
    entity = np.full(len(target), "")
    found = leakage.scan(days[:-1], days[1:], entity, column[:, None], ("column",), target).worst
    assert found is not None
    return found[1]


def _told(share: float, seeds: int) -> float:
    passed = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        future = nulls.garch(rng)
        noise = rng.normal(0.0, float(future.std()), len(future))
        passed += _score(share**0.5 * future + (1.0 - share) ** 0.5 * noise, future) < gates.LEAKAGE_LIMIT
    return passed / seeds


def _hits(share: float, seeds: int) -> float:
    passed = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        up = (nulls.garch(rng) > 0).astype(np.float64)
        told = np.where(rng.random(len(up)) < share, up, 1.0 - up)
        passed += _score(told, up) < gates.LEAKAGE_LIMIT
    return passed / seeds


def _overlapping(horizon: int, seeds: int) -> float:
    passed = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        daily = rng.normal(size=nulls.DAYS + horizon)
        y = np.convolve(daily, np.ones(horizon), mode="valid")[: nulls.DAYS]
        made = nulls.rows(y, np.zeros(nulls.DAYS), {}, np.zeros(nulls.DAYS))
        ends = np.concatenate([made.days, made.days[-1] + np.arange(1, horizon + 1) * np.timedelta64(1, "D")])
        made.label_end[:] = ends[horizon : horizon + nulls.DAYS]
        given = sizes.subject(made, "Volatility", "MLP", 1)
        passed += all(result.passed for result in gates.effective_rows(given))
    return passed / seeds


def _always_up(seeds: int) -> float:
    passed = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        made = nulls.direction(rng)
        made.prediction[:] = 1.0 / (1.0 + np.exp(-made.prediction))  # the second sigmoid
        passed += all(result.passed for result in gates.degenerate(sizes.subject(made, "Direction", "MLP", 1)))
    return passed / seeds


def _constant(seeds: int) -> float:
    passed = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        made = nulls.volatility(rng)
        made.prediction[:] = rng.normal(size=nulls.FOLDS)[made.fold]
        passed += all(result.passed for result in gates.degenerate(sizes.subject(made, "Volatility", "MLP", 1)))
    return passed / seeds
