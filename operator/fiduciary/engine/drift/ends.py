"""Where the windows of a policy end: on the wall clock, or where its rows say so.

Rows never fall, so that the newest sample alone tells whether a window has ended since the last look; only then its
moment is looked for in the raw samples. Ends are the same whoever looks when.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fiduciary.decide.drift.series import on_grid, rows_of
from fiduciary.decide.drift.windows import due, edges_between

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fiduciary.decide.counters.samples import Series
    from fiduciary.engine.drift.counted import Aim, Scrapes

#: Windows of one policy that are read at a time.
MOST_WINDOWS = 24


@dataclass
class Ends:
    """Moments at which windows end, and whose. ``searched``: who has to look for his in the samples."""

    moments: dict[int, list[Aim]] = field(default_factory=dict[int, "list[Aim]"])
    searched: list[Aim] = field(default_factory=list["Aim"])

    def look(self, aim: Aim, at: int) -> None:
        """Everything that is known without another question, up to ``at``."""
        if len(aim.counted.closings) >= MOST_WINDOWS:
            return  # first they are folded, unless they are over other edges, or what was folded cannot be read
        aim.counted = replace(aim.counted, behind=False)
        if aim.want.grid.length:
            self._take(aim, _wall_clock(aim, at))
        elif not _passed(aim):
            aim.looked = at
        elif not aim.since:  # nobody has looked before: it begins here
            aim.looked = at
            self._take(aim, (at,))
        else:
            self.searched.append(aim)

    def found(self, aim: Aim, series: Iterable[Series], since: int, until: int, at: int, scrapes: Scrapes) -> None:
        """The moments in the samples of (``since``, ``until``]."""
        samples = on_grid(rows_of(series, scrapes.reach), scrapes.step)
        times = due(aim.want.grid, aim.edge(), [one for one in samples if one[0] > since])
        aim.looked, aim.stretch = until, 1 if times else 2 * aim.stretch
        aim.counted = replace(aim.counted, behind=until < at)
        self._take(aim, times)

    def _take(self, aim: Aim, times: Sequence[int]) -> None:
        if len(times) > MOST_WINDOWS:
            times = times[:MOST_WINDOWS]
            aim.looked = times[-1]
            aim.counted = replace(aim.counted, behind=True)
        for moment in times:
            self.moments.setdefault(moment, []).append(aim)


def _wall_clock(aim: Aim, at: int) -> Sequence[int]:
    length = aim.want.grid.length
    since, last = aim.since, at // length * length
    aim.looked = max(last, aim.looked)
    return edges_between(aim.want.grid, since, at) if since else (last,)


def _passed(aim: Aim) -> bool:
    latest = aim.counted.latest
    return latest is not None and bool(due(aim.want.grid, aim.edge(), ((latest.at, latest.rows),)))
