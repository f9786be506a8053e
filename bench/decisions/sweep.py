"""Each rule with many settings, in one good and three bad worlds: the front that it can reach at all.

Equal budget: all have two days and half the traffic at most (Argo's documented steps go to 80 %; so do its variants).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from bench.decisions.cells import BASE, BUDGET
from bench.decisions.experiments import CHUNK, SEED
from bench.decisions.operator_rules import Fiduciary
from bench.decisions.outcome import PROMOTED, Outcomes, play
from bench.decisions.rivals.argo import Argo
from bench.decisions.rivals.flagger import Flagger
from bench.decisions.rivals.growthbook import GrowthBook
from bench.decisions.rivals.kayenta import Kayenta
from bench.decisions.rivals.ztest import Peeked, Welch

if TYPE_CHECKING:
    from bench.decisions.outcome import Rule
    from bench.decisions.traffic import World

WORLDS: dict[str, World] = {
    "equal": BASE,
    "margin": replace(BASE, errors=(0.005, 0.00625)),
    "1 %": replace(BASE, errors=(0.005, 0.01)),
    "2 %": replace(BASE, errors=(0.005, 0.02)),
}


def settings() -> list[tuple[str, Rule]]:
    """(what was set, rule) of every variant."""
    variants: list[tuple[str, Rule]] = [
        (f"α {alpha:g}", Fiduciary(alpha_promote=alpha, alpha_rollback=alpha, evaluations=4 * BUDGET))
        for alpha in (0.2, 0.1, 0.05, 0.01, 0.001)
    ]
    for interval in (1, 5, 30):
        for threshold in (1, 5, 10):
            for slo in (0.99, 0.992, 0.994):
                rule = Flagger(interval=interval, threshold=threshold, slo=slo)
                variants.append((f"every {interval} min, threshold {threshold}, min {100 * slo:g} %", rule))
    for interval, limit, slo, pause in (
        *product((5,), (0, 3), (0.99, 0.992, 0.994), (10, 120)),
        *product((30,), (0, 3), (0.99, 0.992, 0.994), (120, 720)),
    ):
        rule = Argo(interval=interval, failure_limit=limit, slo=slo, pause=pause, starting_step=1)
        variants.append((f"every {interval} min, limit {limit}, {100 * slo:g} %, pauses {pause} min", rule))
    variants += [(f"{life} min", Kayenta(lifetime=life, interval=life)) for life in (15, 30, 60, 120)]
    for alpha in (0.2, 0.05, 0.01, 0.001):
        variants += [(f"α {alpha:g}, from {least} min", Peeked(alpha=alpha, least=least)) for least in (60, 1440)]
        variants += [(f"α {alpha:g}, {hours} h", Welch(60 * hours, alpha)) for hours in (1, 6, 24, 48)]
        variants += [(f"α {alpha:g}, {hours} h", GrowthBook(60 * hours, alpha)) for hours in (1, 6, 24, 48)]
    return variants


@dataclass(frozen=True, slots=True)
class Point:
    """One setting: shares of experiments in which each world's challenger was promoted, and how long that took."""

    rule: str
    setting: str
    default: bool
    promoted: dict[str, float]
    minutes: float
    replications: int


DEFAULTS = frozenset(
    {
        "α 0.05", "every 1 min, threshold 5, min 99 %", "every 5 min, limit 3, 99 %, pauses 10 min", "60 min",
        "α 0.05, from 60 min", "α 0.05, 24 h",
    }
)  # fmt: skip


def point(index: int, replications: int) -> Point:
    """Play one setting in all worlds."""
    text, rule = settings()[index]
    promoted, median = {}, float("inf")
    for name, world in WORLDS.items():
        parts = []
        for chunk, start in enumerate(range(0, replications, CHUNK)):
            rng = np.random.default_rng([SEED, 1, index, crc32(name.encode()), chunk])
            parts.append(play(rule, world, BUDGET, min(CHUNK, replications - start), rng, 1000 + chunk))
        outcome = Outcomes.joined(parts)
        promoted[name] = float((outcome.verdict == PROMOTED).mean())
        if name == "equal" and promoted[name]:
            median = float(np.median(outcome.minutes[outcome.verdict == PROMOTED]))
    return Point(rule.name, text, text in DEFAULTS, promoted, median, replications)


def front(points: list[Point], bad: str) -> list[Point]:
    """Those that no other setting of the same rule beats in both errors, best for good challengers first."""
    ordered = sorted(points, key=lambda p: (-p.promoted["equal"], p.promoted[bad]))
    kept: list[Point] = []
    for one in ordered:
        if not kept or one.promoted[bad] < kept[-1].promoted[bad]:
            kept.append(one)
    return kept
