"""Which weights were in force in a block, and whether they stood still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


CLOCKS = 3_000
"""Milliseconds by which two clocks may differ: changes are told by the operator's, samples by Prometheus'. Beyond it
there is no answer (:func:`fiduciary.clients.prometheus_answers.agreeing`)."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the route. Times are milliseconds.

    ``begun``: before the route was written. ``settled``: after probes through it had confirmed the new weights; None
    while they have not. Between the two both weights may be in force.
    """

    begun: int
    settled: int | None
    weight: int
    mirror: int


@dataclass(frozen=True, slots=True)
class Exposure:
    """Percent of live requests and of copies that the challenger got. ``mixed``: not the same from edge to edge."""

    weight: int = 0
    mirror: int = 0
    mixed: bool = False

    @property
    def any(self) -> bool:
        return self.weight > 0 or self.mirror > 0


def exposure(changes: Sequence[Change], since: int, until: int, scrape: int) -> Exposure:
    """Of the block between two edges (ms): the newest weights that began in it, mixed if they were not the only ones.

    The value at an edge was scraped up to one interval before it, so weights count as standing still only if they were
    confirmed that long before the first edge, by either clock.
    """
    begun = sorted((change for change in changes if change.begun - CLOCKS < until), key=lambda change: change.begun)
    if not begun:
        return Exposure()
    newest = begun[-1]
    before = since - scrape - CLOCKS
    moved = newest.begun > before
    unsettled = newest.settled is None or newest.settled > before
    return Exposure(newest.weight, newest.mirror, moved or unsettled)
