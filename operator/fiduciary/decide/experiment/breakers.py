"""Circuit breakers: absolute and immediate, on what is not settled yet (statistics.md rule 8)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.evidence.breaker import circuit_breaker
from fiduciary.evidence.refusal import Refusal

if TYPE_CHECKING:
    from fiduciary.decide.experiment.case import Case


@dataclass(frozen=True, slots=True)
class Trip:
    """Which breaker tripped, and the numbers."""

    test: str
    message: str


def refused(case: Case) -> str | None:
    """Which breaker of the spec can never trip: admission refuses it, and it must not look like one that watches."""
    for index, breaker in enumerate(case.spec.circuit_breakers):
        above, normal = float(breaker.above), float(breaker.normal or "0")
        if breaker.metric != "PaperDrawdown" and not 0.0 < normal < above < 1.0:
            return (
                f"circuitBreakers[{index}] ({breaker.metric}) has above {breaker.above} and normal {breaker.normal}; "
                "expected 0 < normal < above < 1, else it never trips"
            )
    return None


def tripped(case: Case) -> Trip | None:
    """The first breaker of the spec that trips now."""
    breakers, world = case.spec.circuit_breakers, case.world
    evaluations = max(1, math.ceil(case.max_duration / world.scrape_seconds))
    for counts in world.live.counts:
        breaker = breakers[counts.breaker]
        above, normal = float(breaker.above), float(breaker.normal or "0")
        seen = circuit_breaker(counts.challenger, counts.champion, above, normal, evaluations)
        if isinstance(seen, Refusal) or not seen.trips:
            continue  # impossible counts say nothing; the settled block will refuse them aloud
        of = f" over {breaker.threshold}" if breaker.threshold else ""
        return Trip(
            f"breaker-{breaker.metric}",
            f"{breaker.metric}{of} of the challenger is {seen.rate:.4g} ({counts.challenger.bad} of "
            f"{counts.challenger.trials} requests since the last block), above {breaker.above}; at a normal rate of "
            f"{seen.normal:.4g} that has log probability {seen.log_tail:.1f}, limit {seen.log_level:.1f}",
        )
    return _drawdown(case)


def _drawdown(case: Case) -> Trip | None:
    state = case.state
    if state is None:
        return None
    for breaker in case.spec.circuit_breakers:
        seen = state.evidence.sessions.drawdown
        if breaker.metric == "PaperDrawdown" and seen > float(breaker.above):
            return Trip(
                "breaker-PaperDrawdown",
                f"paper drawdown of the challenger is {seen:.6g} at session {state.evidence.sessions.session}, above "
                f"{breaker.above}",
            )
    return None
