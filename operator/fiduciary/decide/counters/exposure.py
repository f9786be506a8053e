"""Which weights were in force in a block, and whether they stood still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    confirmed that long before the first edge.
    """
    begun = sorted((change for change in changes if change.begun < until), key=lambda change: change.begun)
    if not begun:
        return Exposure()
    newest = begun[-1]
    moved = newest.begun > since - scrape
    unsettled = newest.settled is None or newest.settled > since - scrape
    return Exposure(newest.weight, newest.mirror, moved or unsettled)
