"""From increments to trials and bad requests.

Trials are counted when a request begins. What is bad is known later: an answer of 500 and above, an answer that came
too late, or no answer. So the bad ones of a block are

    started − answered well − change of what is excused,

where the excused are requests in flight at the edge, at most as many as can be in flight without being late
(``2 · patience / block`` of the block's requests): more than that hang, and so do those of a process that ended. Where
this falls below 0 or above the trials, the rest is carried: the sum over blocks is exact, and no block has more bad
requests than trials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fiduciary.decide.counters.state import CLIENT, FIELDS, GOOD, PROBES, PROBES_FAILED, STARTED, TIMED, Carry
from fiduciary.evidence.blocks import Counts

if TYPE_CHECKING:
    from fiduciary.decide.counters.deltas import Delta

Metric = Literal["ErrorRate", "ClientErrorRate", "LatencyAbove"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One test on requests. ``threshold``: place of its latency threshold behind the fields; LatencyAbove only."""

    name: str
    metric: Metric
    threshold: int | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """How long a block is, and after how long a request is late for certain; milliseconds."""

    length: int
    patience: int


def counted(
    measure: Measure, delta: Delta, probes: tuple[int, int], carry: Carry, window: Window
) -> tuple[Counts, Carry]:
    """Trials and bad ones of one stream in one block. ``probes``: (signed probes, failed ones) among its requests."""
    counts = delta.counts
    asked, failed = probes
    if measure.metric == "LatencyAbove":
        trials, in_flight, adopted = counts[TIMED], delta.timed_in_flight, delta.timed_adopted
        answered = counts[len(FIELDS) + (measure.threshold or 0)]
        failed = 0  # nothing says how long a probe took: a slow one is bad, never a trial
    else:
        trials, in_flight, adopted = counts[STARTED], delta.in_flight, delta.adopted
        answered = counts[GOOD] + counts[CLIENT]
    if measure.metric == "ClientErrorRate":
        return settle(carry, trials - asked, counts[CLIENT], 0)
    excused = _excused(in_flight, trials, window)
    return settle(carry, trials - asked, trials - answered - failed + adopted, excused)


def settle(carry: Carry, trials: int, bad: int, excused: int) -> tuple[Counts, Carry]:
    """What fits into this block, and what is carried."""
    trials = max(0, trials)
    owed = carry.owed + bad - (excused - carry.excused)
    now = min(max(0, owed), trials)
    return Counts(trials, now), Carry(carry.test, carry.stream, owed - now, excused)


def _excused(in_flight: int, trials: int, window: Window) -> int:
    most = -(-trials * min(window.length, 2 * window.patience) // window.length)
    return min(in_flight, most)


def share_of_probes(
    pods: Delta, live: Delta, mirrored: Delta, copies: Delta
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(probes, failed ones) of live and of mirrored requests: a gateway draws and copies probes like any request."""
    asked, failed = pods.counts[PROBES], pods.counts[PROBES_FAILED]
    of_live, of_mirror, rest = (delta.counts[STARTED] for delta in (live, mirrored, copies))
    all_of_them = max(1, of_live + of_mirror + rest)
    return (
        (asked * of_live // all_of_them, failed * of_live // all_of_them),
        (asked * of_mirror // all_of_them, failed * of_mirror // all_of_them),
    )
