"""What is kept between two blocks: the raw values at the last edge, serialised bit for bit by ``evidence.codec``.

It lies in the experiment's status and is written in the same write as the evidence that was folded from it; samples up
to the edge are never asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass

FIELDS = ("started", "good", "client", "failed", "timed", "timed_ended", "probes", "probes_failed")
STARTED, GOOD, CLIENT, FAILED, TIMED, TIMED_ENDED, PROBES, PROBES_FAILED = range(len(FIELDS))
"""Places in a unit's values; behind them one place for each latency threshold: requests that took no longer.

started: requests that began. good: answered below 400. client: 400-499. failed: 500 and above. timed: requests whose
duration is measured or known to be above every threshold, timed_ended: those of them that have ended. probes: signed
probes that came through the route. All of them only ever grow, and start at 0 with the process that counts them.
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """What resets together: the series of one pod, or of one cluster in one proxy.

    ``at``: time of the sample, ms. ``start``: when the process began, ms; None where nothing says so. ``copy``: hash of
    the labels of the copy that is read. ``missed``: block edges at which it was not seen; it is forgotten after
    :data:`FORGET`.
    """

    key: str
    at: int
    start: int | None
    values: tuple[int, ...]
    copy: str = ""
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """One arm's units of one source: live requests at the gateway, mirrored ones there, or the pods themselves."""

    name: str
    units: tuple[Unit, ...] = ()


@dataclass(frozen=True, slots=True)
class Carry:
    """What a test still owes (positive: bad requests beyond the trials of their block) or has counted too early.

    ``excused``: requests in flight at the edge that were not counted as bad yet.
    """

    test: str
    stream: str
    owed: int = 0
    excused: int = 0


@dataclass(frozen=True, slots=True)
class Arm:
    """Raw values and carries of one version."""

    streams: tuple[Stream, ...] = ()
    carries: tuple[Carry, ...] = ()


@dataclass(frozen=True, slots=True)
class Counters:
    """Both arms at the last edge of block ``last``; -1: at the origin."""

    last: int
    champion: Arm
    challenger: Arm


FORGET = 10
"""Block edges after which a unit that is not seen is forgotten: it is gone, and so are its requests in flight."""
MOST_UNITS = 64
"""Units of one stream of one arm that are kept; more than that is a Hold with a reason."""
